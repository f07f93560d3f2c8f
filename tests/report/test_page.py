"""The page of results: complete, deterministic, and honest about what its curves average."""

import numpy as np

from experiments import results
from tests.evaluation.fakes import DeflatingModel, pictures, points, with_signals
from vcinr.evaluation.measure import measure
from vcinr.evaluation.published import load
from vcinr.report import page as report
from vcinr.report.records import save_run


def save(folder, name, rows, **extra):
    return save_run(folder / f"{name}.json", rows, f"configs/{name}.py", "python -m experiments.evaluate", 12.34, **extra)


def of_signals(codec, gain=0.0, **extra):
    """Eight points of two Kodak pictures."""
    rates = 2.0 ** np.arange(-5, 3)[:, None] * [1.0, 3.0]
    curve = ((1.0, 30.0),) * len(rates)
    return with_signals(points(codec, curve=curve, dataset="kodak", **extra), rates, 30 + 5 * np.log2(rates) + gain)


def test_the_page_says_what_trained_the_model(tmp_path):
    began = {"commit": "begun", "device": "a device", "date": "2000-01-01", "versions": {"jax": "0"}}
    save(tmp_path, "klt", points("klt"), source=began, training_commit="trained")
    report.render_results(tmp_path, tmp_path / "page.md")
    assert "commit begun (trained at trained); jax 0." in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_the_page_is_deterministic_and_complete(tmp_path, capsys):
    folder, out = tmp_path / "docs" / "results", tmp_path / "docs" / "results.md"
    save(folder, "klt_small", points("klt"))
    save(folder, "jpeg", points("jpeg", overhead=5.0), notes="measured with Pillow")
    save(folder, "klt_large", points("klt", ((0.5, 25.0), (1.0, 28.0))))
    save(folder, "tiny", measure(DeflatingModel(), pictures(2), "tiny", "test"))
    arguments = ["--folder", str(folder), "--out", str(out)]
    assert results.main(arguments) == 0
    first = out.read_bytes(), (folder / "cifar10_small_test.png").read_bytes()
    assert results.main(arguments) == 0
    assert first == (out.read_bytes(), (folder / "cifar10_small_test.png").read_bytes())
    page = out.read_text(encoding="utf-8")
    assert "](results/cifar10_small_test.png)" in page
    assert "](results/tiny_test.png)" in page
    assert "KLT (linear floor) (klt_small)" in page
    assert "KLT (linear floor) (klt_large)" in page
    assert "RECOMBINER, published" in page
    assert "16-bit relative-entropy-coding blocks" in page
    assert "the part that this set holds" in page
    assert "measured with Pillow" in page
    assert "points are means: mean of the pictures' PSNRs, one latent size" in page
    assert "points are means: the source does not say of what" in page
    assert "~+0.0 %" in page, "without values per signal, BD-rates are of means, and marked"
    assert str(tmp_path) not in page
    capsys.readouterr()


def test_values_per_signal_are_what_pages_and_plots_compare(tmp_path):
    save(tmp_path, "contextual_inr_photo", of_signals("contextual_inr"))
    save(tmp_path, "classical", of_signals("jpeg2000", gain=np.array([0.5, 1.5]), quality=30) + of_signals("klt", gain=-2))
    written = report.render_results(tmp_path, tmp_path / "page.md")
    assert [path.name for path in written] == ["kodak_test.png", "kodak_summary.png", "page.md"]
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| contextual_inr | 0.062 | 8.96 | +2.00 | -1.00 |" in page
    assert "| 0.062 | 8.96 | -1.00 | -1.50 | -1.00 | -0.50 | 0 of 2 |" in page
    assert "~" not in page.split("### BD-rate")[1].split("Rate needed")[0]
    beside = report.beside_ours(of_signals("contextual_inr") + of_signals("jpeg2000", gain=np.array([0.5, 1.5])), "bpp_file")
    ours = [(row["bpp_file"], row["psnr_db"]) for row in of_signals("contextual_inr")]
    np.testing.assert_allclose(beside["jpeg2000"], np.add(ours, [0, 1.0]))


def test_every_published_curve_that_is_shown_says_what_it_averages():
    for published, names, _ in report.COMPARED.values():
        for name in names:
            curve = load(name, published)
            line = report.published_line(curve)
            assert curve.rate_kind in line and curve.source in line
            assert (curve.average or "the source does not say of what") in line


def test_what_needs_no_training_is_shown_once(tmp_path):
    jpeg = points("jpeg", overhead=5.0, quality=95)
    save(tmp_path, "one", points("klt") + jpeg)
    save(tmp_path, "two", points("vc_inr") + jpeg)
    report.render_results(tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page.count("| JPEG | 95 |") == len(jpeg) and "JPEG (" not in page
    save(tmp_path, "two", points("vc_inr") + [{**row, "psnr_db": row["psnr_db"] + 1} for row in jpeg])
    report.render_results(tmp_path, tmp_path / "page.md")
    assert "JPEG (two)" in (tmp_path / "page.md").read_text(encoding="utf-8"), "what differs is another curve"


def test_what_was_measured_alike_lends_its_values_per_signal_to_older_records(tmp_path):
    settings = of_signals("jpeg2000", quality=30)
    without = [{key: value for key, value in row.items() if key != "signals"} | {"point": row["point"] + 4} for row in settings]
    save(tmp_path, "contextual_inr_photo", of_signals("contextual_inr") + without)
    save(tmp_path, "klt", of_signals("klt", gain=-2) + settings)
    report.render_results(tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page.count("| JPEG 2000 | 30 |") == len(settings) and "JPEG 2000 (" not in page
    assert "~" not in page.split("### BD-rate")[1].split("Rate needed")[0]


def test_a_set_with_classical_codecs_alone_has_no_table_of_differences(tmp_path):
    save(tmp_path, "jpeg", points("jpeg", overhead=5.0, quality=95))
    report.render_results(tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| JPEG | 95 |" in page and "BD-rate at" not in page


def test_the_command_says_what_is_missing(tmp_path, capsys):
    assert results.main(["--folder", str(tmp_path), "--out", str(tmp_path / "out.md")]) == 1
    assert "no measured points" in capsys.readouterr().err
    assert not (tmp_path / "out.md").exists()

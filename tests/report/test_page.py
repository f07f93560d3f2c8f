"""Tables, saved runs and the page of results."""

import io
import json

import pytest
from rich.console import Console

from experiments import results
from tests.evaluation.fakes import DeflatingModel, pictures, points
from vcinr.evaluation.classical import measure_jpeg
from vcinr.evaluation.measure import measure
from vcinr.evaluation.published import load
from vcinr.report import page as report


def save(folder, name, rows, **extra):
    return report.save_run(folder / f"{name}.json", rows, f"configs/{name}.py", "python -m experiments.evaluate", 12.34, **extra)


def test_a_saved_run_holds_what_produced_it(tmp_path):
    rows = measure(DeflatingModel(), pictures(2), "tiny", "test") + measure_jpeg(pictures(2), "tiny", "test", (50, 90))
    run = save(tmp_path / "new", "deflate", rows, notes="a note")
    assert run == json.loads((tmp_path / "new" / "deflate.json").read_text(encoding="utf-8"))
    assert set(report.RUN_KEYS) == set(run)
    assert run["points"] == rows
    assert run["duration_s"] == 12.3
    assert run["notes"] == "a note"
    assert run["versions"]["jax"]
    assert run["device"]
    assert len(run["date"]) == 10


def test_a_run_says_what_began_it_and_what_trained_it(tmp_path):
    rows = points("klt", name="step24")
    began = {"commit": "begun", "device": "a device", "date": "2000-01-01", "versions": {"jax": "0"}}
    run = save(tmp_path, "klt", rows, source=began, training_commit="trained")
    assert {key: run[key] for key in began} == began
    assert run["training_commit"] == "trained"
    assert "training_commit" not in save(tmp_path, "klt", rows, source=began, training_commit="begun")
    assert "training_commit" not in save(tmp_path, "klt", rows, source=began)
    save(tmp_path, "klt", rows, source=began, training_commit="trained")
    report.render_results(tmp_path, tmp_path / "page.md")
    assert "commit begun (trained at trained); jax 0." in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_a_run_without_its_keys_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="point 0 lacks bpp_payload"):
        save(tmp_path, "bad", [{k: v for k, v in row.items() if k != "bpp_payload"} for row in points()])
    with pytest.raises(ValueError, match="holds no points"):
        save(tmp_path, "bad", [])
    with pytest.raises(FileNotFoundError, match=r"experiments\.evaluate"):
        report.load_runs(tmp_path)
    (tmp_path / "cut.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cut\.json: not JSON"):
        report.load_runs(tmp_path)
    (tmp_path / "cut.json").write_text('{"points": []}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"cut\.json: lacks config, command"):
        report.load_runs(tmp_path)


def test_tables_hold_the_numbers_and_dashes_where_there_are_none():
    rows = points("klt", name="step24") + measure_jpeg(pictures(2), "tiny", "test", (50,))
    lines = report.markdown_table(rows).splitlines()
    assert lines[0].startswith("| codec | λ / quality | bytes | `bpp_file` | `bpp_container` |")
    assert lines[2].startswith("| KLT (linear floor) | step24 | 76.8 | 0.600 | 0.510 | 0.500 | 0.490 | 24.00 |")
    assert lines[6].startswith("| JPEG | 50 |")
    assert lines[6].count("–") == 2
    assert len({line.count("|") for line in lines}) == 1
    # A column that no codec fills is not printed.
    assert "bpp_container" not in report.markdown_table(rows[-1:])
    stream = io.StringIO()
    report.print_table(rows, "a title", Console(file=stream, width=200))
    text = stream.getvalue()
    assert "a title" in text
    assert "estimated" in text
    assert "24.00" in text
    assert "step24" in text


def test_the_comparison_states_the_difference_at_equal_rate():
    curve = load("coinpp", "cifar10")
    rate, decibels = curve.points[2]
    rows = points("klt", curve=((rate, decibels + 1.25), (0.01, 10.0)))
    lines = report.comparison_table(rows, [curve], "bpp_payload").splitlines()
    assert lines[2].endswith("| 10.00 | – |")
    assert lines[3].endswith(f"| {decibels + 1.25:.2f} | {decibels:.2f} (+1.25) |")


def test_what_was_measured_beside_is_compared_with_too():
    floor = points("klt", curve=((1.0, 30.0), (2.0, 34.0)))
    rows = floor + points("vc_inr", curve=((1.0, 31.5), (3.0, 36.0))) + points("jpeg", curve=((1.0, 28.0), (2.0, 30.0)))
    heading, _, *lines = report.comparison_table(rows, [], "bpp_payload").splitlines()
    assert heading.endswith("| PSNR dB | KLT (linear floor) |")
    assert not any("JPEG" in line for line in lines)
    assert lines[-2].endswith("| 31.50 | 30.00 (+1.50) |") and lines[-1].endswith("| 36.00 | – |")
    assert all(line.endswith("| – |") for line in lines[:2]), "no codec is compared with itself"


def test_bd_table_is_exact_for_a_factor_in_rate_and_dashes_where_undefined():
    base = ((0.5, 24.0), (1.0, 27.0), (2.0, 31.0), (4.0, 36.0))
    half = tuple((bpp / 2, decibels) for bpp, decibels in base)
    lines = report.bd_table(points("jpeg", base) + points("klt", half) + points("few", base[:2]), [], "bpp_payload").splitlines()
    assert lines[2] == "| JPEG |  | +100.0 % | – |"
    assert lines[3] == "| KLT (linear floor) | -50.0 % |  | – |"
    assert lines[4] == "| few | – | – |  |"


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
    assert str(tmp_path) not in page
    capsys.readouterr()


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


def test_the_command_says_what_is_missing(tmp_path, capsys):
    assert results.main(["--folder", str(tmp_path), "--out", str(tmp_path / "out.md")]) == 1
    assert "no measured points" in capsys.readouterr().err
    assert not (tmp_path / "out.md").exists()


def test_a_terminal_of_80_columns_cuts_no_number():
    rows = points("klt", name="step24", label="klt (a long name)") + points("jpeg", overhead=5.0, quality=95)
    stream = io.StringIO()
    report.print_table(rows, console=Console(file=stream, width=80))
    text = stream.getvalue()
    assert "…" not in text
    for number in ("524.8", "9.000", "4.010", "3.990", "36.00", "step24"):
        assert number in text
    assert max(len(line) for line in text.splitlines()) <= 80

"""Releasing a trained run: what its card says, what of the machine it leaves out, and what is no model to ship."""

import json
import shutil

import numpy as np
import pytest

import vcinr
from experiments import release
from tests.conftest import smooth_picture
from tests.tiny import hand_made
from vcinr.evaluation.measure import measure
from vcinr.model.model import Model
from vcinr.model.places import model_folders
from vcinr.report.records import save_run

COMMAND = "python -m experiments.train --config=configs/klt.py:demo --config.model_precision=float16 --workdir=DIR"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ENVIRONMENT = {
    "device_kind": "cpu",
    "device_count": 2,
    "cpu_count": 2,
    "python": "3.11.7",
    **dict.fromkeys(("jax", "jaxlib", "flax", "optax", "numpy"), "1.2.3"),
}
START = {"time": "2026-11-20T12:00:00+00:00", "git_revision": COMMIT, "environment": ENVIRONMENT}
INFO = {
    "config": {"seed": 54321, "data": {"name": "demo"}},
    "config_name": "configs/klt.py:demo",
    "command": COMMAND,
    "duration_s": 3685.4,
    "starts": [{**START, "argv": ["/home/someone/experiments/train.py", "--workdir=/home/someone/runs"]}],
}


def trained(workdir, info=INFO, **about):
    """A run's folder with a model in it, and the record of its evaluation."""
    made = hand_made(**{"precision": "float16", **about})
    model = Model(made.codec, made.params, made.points, info, made.precision)
    model.save(workdir / "model")
    rows = measure(model, [smooth_picture(8, 10)], "demo", "test")
    for row in rows:
        row["lambda"] = 0.25
    save_run(workdir / "record.json", rows, "klt", "python -m experiments.evaluate …", 5.0, "A note to readers.")
    return model


@pytest.fixture
def run(tmp_path):
    trained(tmp_path / "run")
    return tmp_path / "run"


def fails(capsys, run, *words, out):
    """The one line that a release ends in; nothing is written."""
    before = sorted(out.rglob("*"))
    words = words or ("--results", str(run / "record.json"))
    assert release.main(["--workdir", str(run), "--name=tiny", f"--out={out}", *words]) == 1
    assert sorted(out.rglob("*")) == before
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("release: ")


def test_a_run_becomes_a_bundled_model_with_its_card(run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "bundled"
    record = str(run / "record.json")
    assert release.main(["--workdir", str(run), "--name", "tiny", "--results", record, record, f"--out={out}"]) == 0
    assert "MB" in capsys.readouterr().out
    monkeypatch.setattr("vcinr.model.places.BUNDLED", out)
    assert model_folders() == [out / "tiny"]
    before, after = vcinr.load(run / "model"), vcinr.load("tiny")
    assert after.fingerprints == before.fingerprints
    np.testing.assert_array_equal(after.params["basis"], before.params["basis"])
    assert after.info == {**INFO, "starts": [START]}
    card = (out / "tiny" / "README.md").read_text(encoding="utf-8")
    for fact in (COMMAND, COMMIT, "| seed | 54321 |", "3,685 s", "cpu × 2", "jax 1.2.3", "scikit-image", "`klt`", "2×2"):
        assert fact in card
    (row,) = json.loads((run / "record.json").read_text())["points"]
    cells = [f"{row[key]:.3f}" for key in ("bpp_file", "bpp_container", "bpp_payload")]
    assert card.count(f"| 0 | 0.25 | {' | '.join(cells)} | {row['psnr_db']:.2f} |") == 2
    assert card.count("### demo, test: 1 signals") == 2 and "A note to readers." in card
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"someone" not in everything and str(tmp_path).encode() not in everything


def test_a_model_released_again_replaces_the_old_one(run, tmp_path):
    out = tmp_path / "bundled"
    first = release.release(run, "tiny", [run / "record.json"], out)
    old = {path.name: path.read_bytes() for path in first.iterdir()}
    release.release(run, "tiny", [run / "record.json"], out)
    assert {path.name: path.read_bytes() for path in first.iterdir()} == old
    trained(tmp_path / "finer", step=1 / 255)
    release.release(tmp_path / "finer", "tiny", [tmp_path / "finer" / "record.json"], out)
    assert vcinr.load(first).fingerprints == vcinr.load(tmp_path / "finer" / "model").fingerprints


def test_a_run_that_was_interrupted_says_so(tmp_path):
    trained(tmp_path, {**INFO, "starts": [{**START, "time": "earlier"}, START]})
    card = (release.release(tmp_path, "photo", [tmp_path / "record.json"], tmp_path / "out") / "README.md").read_text()
    assert "(the last of 2 starts)" in card and "| begun | earlier |" in card


def test_models_of_full_precision_are_refused(tmp_path, capsys):
    trained(tmp_path, precision="float32")
    line = fails(capsys, tmp_path, out=tmp_path / "out")
    assert line == "the model's arrays are float32: train with --config.model_precision=float16"


@pytest.mark.parametrize(
    ("info", "complaint"),
    [
        ({"about": "by hand"}, "does not say its command, config, config_name, duration_s, starts: train it with"),
        ({**INFO, "config": {"seed": 0, "data": {"name": "folder"}}}, "the terms of the data set 'folder' are not known"),
        ({**INFO, "starts": [{**START, "git_revision": None}]}, "of which commit it is: train it in a git checkout"),
        ({**INFO, "command": f"{COMMAND} '--config.data.data_dir=/srv/data'"}, "names a folder of one machine, /srv/data: train"),
    ],
)
def test_models_that_cannot_tell_where_they_are_from_are_refused(tmp_path, capsys, info, complaint):
    trained(tmp_path, info)
    assert complaint in fails(capsys, tmp_path, out=tmp_path / "out")


def test_results_of_another_model_are_refused(run, tmp_path, capsys):
    trained(tmp_path / "other", step=1 / 255)
    shutil.copy(tmp_path / "other" / "record.json", tmp_path / "other.json")
    both = ("--results", str(run / "record.json"), str(tmp_path / "other.json"))
    assert "other.json was measured with another model" in fails(capsys, run, *both, out=tmp_path / "out")
    (tmp_path / "bad.json").write_text("{")
    assert "bad.json: not JSON" in fails(capsys, run, "--results", str(tmp_path / "bad.json"), out=tmp_path / "out")
    assert "none.json" in fails(capsys, run, "--results", str(tmp_path / "none.json"), out=tmp_path / "out")


def test_a_model_that_is_too_large_leaves_the_old_one(run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    size = release.folder_bytes(release.release(run, "photo", [run / "record.json"], out))
    shutil.copytree(out / "photo", out / "tiny")
    trained(tmp_path / "finer", step=1 / 255)
    monkeypatch.setattr(release, "MAX_BYTES", size - 100)
    assert f"more than {size - 100:,}: train a smaller one" in fails(capsys, tmp_path / "finer", out=out)
    monkeypatch.setattr(release, "MAX_BYTES", 2 * size)
    monkeypatch.setattr(release, "MAX_TOTAL_BYTES", 2 * size - 100)
    assert f"beside {size:,} the models would have more than" in fails(capsys, tmp_path / "finer", out=out)
    # What it replaces does not count.
    monkeypatch.setattr(release, "MAX_TOTAL_BYTES", 2 * size + 100)
    release.release(tmp_path / "finer", "tiny", [tmp_path / "finer" / "record.json"], out)


def test_a_bundled_model_gets_a_new_card_and_stays_what_it_is(run, tmp_path):
    out = tmp_path / "bundled"
    record = str(run / "record.json")
    assert release.main(["--workdir", str(run), "--name", "tiny", "--results", record, f"--out={out}"]) == 0
    files = {path.name: path.read_bytes() for path in (out / "tiny").iterdir()}
    (out / "tiny" / "README.md").write_text("old")
    assert release.main(["--name", "tiny", "--results", record, f"--out={out}"]) == 0
    assert {path.name: path.read_bytes() for path in (out / "tiny").iterdir()} == files

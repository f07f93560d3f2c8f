"""Records: what is written, what is refused."""

import json

import pytest

from tests.evaluation.fakes import DeflatingModel, pictures, points
from vcinr.evaluation.classical import measure_jpeg
from vcinr.evaluation.measure import measure
from vcinr.report import records


def save(folder, name, rows, **extra):
    return records.save_run(folder / f"{name}.json", rows, f"configs/{name}.py", "python -m experiments.evaluate", 12.34, **extra)


def test_a_saved_run_holds_what_produced_it(tmp_path):
    rows = measure(DeflatingModel(), pictures(2), "tiny", "test") + measure_jpeg(pictures(2), "tiny", "test", (50, 90))
    run = save(tmp_path / "new", "deflate", rows, notes="a note")
    assert run == json.loads((tmp_path / "new" / "deflate.json").read_text(encoding="utf-8"))
    assert set(records.RUN_KEYS) == set(run)
    assert run["points"] == rows
    assert run["duration_s"] == 12.3
    assert run["notes"] == "a note"
    assert run["versions"]["jax"]
    assert run["device"]
    assert len(run["date"]) == 10


def test_each_point_is_one_line_of_the_file(tmp_path):
    rows = measure(DeflatingModel(), pictures(3), "tiny", "test")
    save(tmp_path, "deflate", rows)
    lines = (tmp_path / "deflate.json").read_text(encoding="utf-8").splitlines()
    kept = [json.loads(line.rstrip(",")) for line in lines if line.startswith('{"codec"')]
    assert kept == rows and all(len(row["signals"]["psnr_db"]) == 3 for row in kept)


def test_a_run_says_what_began_it_and_what_trained_it(tmp_path):
    rows = points("klt", name="step24")
    began = {"commit": "begun", "device": "a device", "date": "2000-01-01", "versions": {"jax": "0"}}
    run = save(tmp_path, "klt", rows, source=began, training_commit="trained")
    assert {key: run[key] for key in began} == began
    assert run["training_commit"] == "trained"
    assert "training_commit" not in save(tmp_path, "klt", rows, source=began, training_commit="begun")
    assert "training_commit" not in save(tmp_path, "klt", rows, source=began)


def test_a_run_without_its_keys_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="point 0 lacks bpp_payload"):
        save(tmp_path, "bad", [{k: v for k, v in row.items() if k != "bpp_payload"} for row in points()])
    with pytest.raises(ValueError, match="holds no points"):
        save(tmp_path, "bad", [])
    with pytest.raises(FileNotFoundError, match=r"experiments\.evaluate"):
        records.load_runs(tmp_path)
    (tmp_path / "cut.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cut\.json: not JSON"):
        records.load_runs(tmp_path)
    (tmp_path / "cut.json").write_text('{"points": []}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"cut\.json: lacks config, command"):
        records.load_runs(tmp_path)

"""The study of meta-learned starts: steps to a quality on curves that are known, and the whole of it, small."""

import argparse
import json

import numpy as np
import pytest

from experiments import meta_speedup
from tests.conftest import smooth_picture
from vcinr.adaptation.long_fit import OptimiserSpec, overfit
from vcinr.datasets.catalogue import prepare
from vcinr.report.studies import load_studies


def test_steps_to_a_quality_lie_between_points_of_the_curve():
    at, curve = np.array([0.0, 10.0, 20.0]), np.array([20.0, 24.0, 25.0])
    found = [meta_speedup.steps_to(at, curve, wanted) for wanted in (10.0, 20.0, 22.0, 24.0, 24.5, 25.0, 25.1)]
    assert found == [0.0, 0.0, 5.0, 10.0, 15.0, 20.0, np.inf]


def descending(config, shared, params, data, step):
    """Adam takes a step of just its rate, whatever the gradient's size is."""
    del config, shared, step
    return -data * params


def test_points_of_a_curve_are_labelled_by_the_updates_they_have_seen():
    for steps in (10, 30):
        one = np.ones(1, np.float32)
        found = overfit(descending, None, None, 0 * one, one, OptimiserSpec(1.0), steps, chunk_steps=meta_speedup.EVERY)
        seen = np.append(0, np.round(-found.losses[0]))
        np.testing.assert_array_equal(meta_speedup.updates_seen(len(seen)), seen)


def test_a_curve_ten_times_as_steep_takes_a_tenth_of_the_steps():
    at = meta_speedup.updates_seen(101)
    slow = np.stack([[20 + 0.01 * at, 22 + 0.01 * at]] * 3)
    fast = np.stack([[20 + 0.1 * at, 22 + 0.1 * at]] * 3)
    options = argparse.Namespace(steps=1000)
    columns, rows = meta_speedup.summary(options, slow, fast, inner=0)
    assert [row[0] for row in rows] == [49, 99, 249, 499, 1000]
    for row in rows:
        found = dict(zip(columns, row, strict=True))
        assert (found["share"], found["median share per picture"]) == ("0.100", "0.100")
        assert found["pictures that reach it"] == "100 %"
        assert found["gain at equal steps"] == f"{0.09 * row[0]:.2f} ± 0.00"
    # Steps before its curve begins count; a quality that is never reached is said to be.
    assert meta_speedup.summary(options, slow, fast, inner=100)[1][-1][3] == "0.200"
    never = meta_speedup.summary(options, fast, slow, inner=0)[1][-1]
    assert (never[2], never[3], never[5]) == ("over 1000", "–", "0 %")


def test_the_basic_codecs_own_rate_is_chosen_on_validation_pictures(monkeypatch):
    ends = {1e-3: 20.0, 2e-3: 22.0, 4e-3: 21.0}
    monkeypatch.setattr(meta_speedup, "held_out", lambda options, split, count: split)

    def basic_curves(options, codec, seed, signals, lr):
        assert signals == "validation"
        return np.array([[10.0, ends[lr] - 1], [10.0, ends[lr] + 1]])

    monkeypatch.setattr(meta_speedup, "basic_curves", basic_curves)
    options = argparse.Namespace(lr=1e-3, basic_lrs=[2e-3, 4e-3])
    assert meta_speedup.best_basic_lr(options, None) == (2e-3, ends)
    # That of the meta-learned fit is a candidate, too.
    assert meta_speedup.best_basic_lr(argparse.Namespace(lr=2e-3, basic_lrs=[4e-3]), None)[0] == 2e-3


def test_weights_learned_from_other_data_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(meta_speedup, "load_split", lambda name, split: [smooth_picture(16, 16)] * 2)
    monkeypatch.setattr(meta_speedup, "curves", lambda fit, batch, updates, lr, steps: np.array([[20.0, 25.0]]))
    sizes = ["--tiles=16", "--pictures=1", "--seeds=1", "--steps=10", "--width=4", "--layers=1", "--frequencies=1"]
    options = [*sizes, f"--workdir={tmp_path}", f"--record={tmp_path / 'a.json'}", "--meta-steps=60"]
    assert meta_speedup.main([*options, "--data=one"]) == 0
    assert meta_speedup.main([*options, "--data=one", "--lr=2e-3"]) == 0
    assert meta_speedup.main([*options, "--data=two"]) == 1
    assert "holds a run with another config (config.data: 'one' → 'two')" in capsys.readouterr().err


def test_settings_that_make_no_sense_are_told(datasets_dir, tmp_path, capsys):
    assert meta_speedup.main([f"--workdir={tmp_path}", "--steps=105"]) == 1
    assert capsys.readouterr().err == "--steps must be a multiple of 10, not 105\n"
    assert meta_speedup.main([f"--workdir={tmp_path}"]) == 1
    assert "python -m experiments.prepare demo" in capsys.readouterr().err


@pytest.mark.slow
def test_a_learned_start_saves_steps(datasets_dir, tmp_path):
    prepare("demo")
    record = tmp_path / "studies" / "meta_speedup.json"
    sizes = ["--tiles=16", "--pictures=12", "--seeds=2", "--steps=100", "--width=6", "--layers=2", "--meta-steps=100"]
    assert meta_speedup.main([f"--workdir={tmp_path / 'run'}", f"--record={record}", *sizes]) == 0
    (study,) = load_studies(record.parent)
    assert str(tmp_path) not in json.dumps(study)
    assert record.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert study["figures"] == ["meta_speedup.png"]
    assert {row[0] for row in study["rows"]} <= {"0.001", "0.002", "0.004"}
    column = study["columns"].index("share")
    shares = [float(row[column]) for row in study["rows"] if row[column] != "–"]
    assert shares
    assert max(shares) < 1
    with pytest.raises(ValueError, match="has .* test pictures of this size, not 100000"):
        meta_speedup.held_out(argparse.Namespace(data="demo", tiles=32), "test", 100_000)

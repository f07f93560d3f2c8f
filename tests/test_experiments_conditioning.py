"""The study of conditioning: a clock that counts work alone, a table of curves that are known, and the whole of it, small."""

import json
import time

import numpy as np
import pytest

from experiments import conditioning
from experiments.conditioning import Arm, Clock, Curve
from vcinr.evaluation.studies import load_studies
from vcinr.signals.datasets import prepare

pytestmark = pytest.mark.slow


def test_the_clock_counts_what_it_runs_and_nothing_else():
    clock = Clock()
    clock.run(lambda: time.sleep(0.2))
    assert clock.seconds < 0.1, "waiting is no work"
    size = 400
    clock.run(lambda: [np.linalg.svd(np.random.default_rng(0).normal(size=(size, size))) for _ in range(3)])
    once = clock.seconds
    assert once > 0
    np.linalg.svd(np.ones((size, size)))
    assert clock.seconds == once


def test_rates_rise_and_fall_over_the_seconds_of_an_arm():
    found = np.array([conditioning.rate(share) for share in np.linspace(0, 1, 101)])
    assert found[0] == pytest.approx(0.05)
    assert np.argmax(found) <= 6 and found.max() == pytest.approx(1.0, abs=0.03)
    assert (np.diff(found[6:]) < 0).all()
    assert found[-1] == pytest.approx(0.02)
    assert conditioning.rate(1.3) == pytest.approx(0.02), "the last step may end late"


def test_the_table_reads_curves_at_shares_of_the_seconds():
    plain = [Curve(np.array([[0.0, 10.0], [8.0, 18.0]]), 100, 0.5), Curve(np.array([[0.0, 12.0], [8.0, 20.0]]), 110, 0.5)]
    warm = [Curve(np.array([[5.0, 20.0], [8.0, 20.5]]), 50, 0.1), Curve(np.array([[5.0, 20.0], [8.0, 19.5]]), 50, 0.1)]
    columns, rows = conditioning.summary({"plain": plain, "warm": warm}, 8.0)
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [found[0][f"{at:g} s"] for at in (4, 6, 8)] == [f"{at + 11:.2f} ± 1.41" for at in (4, 6, 8)]
    assert (found[0]["gain"], found[0]["steps"]) == ("8.00 ± 0.00", "105")
    assert (found[1]["begins at, s"], found[1]["there, dB"]) == ("5.0 ± 0.0", "20.00 ± 0.00")
    assert (found[1]["4 s"], found[1]["8 s"], found[1]["gradients agree"]) == ("–", "20.00 ± 0.71", "0.10 ± 0.00")
    assert found[1]["gain"] == "0.00 ± 0.71"


def test_settings_that_make_no_sense_are_told(capsys):
    assert conditioning.main(["--seconds=0"]) == 1
    assert capsys.readouterr().err == "--side must be at least 2, --seconds positive and --seeds at least 1\n"


@pytest.mark.slow
def test_a_warm_start_begins_above_a_plain_one(datasets_dir, tmp_path, monkeypatch):
    prepare("demo")
    arms = (Arm("plain", 1e-3, "plain"), Arm("warm start", 3e-2, "fan_in", "running", fit_share=0.5, quarter=True))
    monkeypatch.setattr(conditioning, "ARMS", arms)
    monkeypatch.setattr(conditioning, "VALIDATION", 32)
    record = tmp_path / "studies" / "conditioning.json"
    sizes = ["--data=demo", "--seconds=1", "--seeds=1", "--side=8", "--latent=4", "--width=8", "--last-width=12", "--patches=500"]
    assert conditioning.main([*sizes, f"--record={record}"]) == 0
    (study,) = load_studies(record.parent)
    assert record.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in json.dumps(study)
    begun = [float(row[study["columns"].index("there, dB")].split()[0]) for row in study["rows"]]
    plain, warm, floor = begun
    # The components are the best in mean squared error, not in mean decibels.
    assert plain < warm < floor + 0.5

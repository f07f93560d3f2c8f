"""The study of rounding: its table from numbers that are known, and the whole of it, small."""

import json

import numpy as np
import pytest

from experiments import adaround
from vcinr.report.studies import load_studies


def test_a_square_is_cut_from_the_middle():
    picture = np.arange(10 * 7 * 3).reshape(10, 7, 3)
    np.testing.assert_array_equal(adaround.square(picture, 4), picture[3:7, 1:5])
    np.testing.assert_array_equal(adaround.square(picture, 8), picture[1:9])


def test_cells_are_means_and_deviations_over_seeds():
    found = dict.fromkeys(adaround.COLUMNS[1:], np.array([1.0, 2.0, 3.0])) | {"bytes nearest": np.array([100.0, 200.0])}
    row = adaround.cells(7, found)
    assert row[:2] == [7, "2.00 ± 1.00"]
    assert row[adaround.COLUMNS.index("bytes nearest")] == "150 ± 71"
    assert adaround.cells(7, {name: values[:1] for name, values in found.items()})[1] == "1.00 ± 0.00"


def test_a_picture_that_is_not_there_is_named(tmp_path, capsys):
    assert adaround.main([f"--picture={tmp_path / 'none.png'}", f"--record={tmp_path / 'a.json'}"]) == 1
    assert "none.png" in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()


@pytest.mark.slow
def test_rounding_and_retraining_pay_on_a_real_picture(tmp_path):
    sizes = ["--crop=40", "--width=10", "--frequencies=5", "--steps=300", "--adaround-steps=150", "--retraining-steps=150"]
    assert adaround.main([*sizes, "--bits", "6", "4", f"--record={tmp_path / 'studies' / 'adaround.json'}"]) == 0
    (study,) = load_studies(tmp_path / "studies")
    assert str(tmp_path) not in json.dumps(study)
    assert study["command"].startswith("python -m experiments.adaround --crop=40 ")
    for row in study["rows"]:
        mean = dict(zip(study["columns"][1:], (float(cell.split()[0]) for cell in row[1:]), strict=True))
        assert mean["layer error, AdaRound / nearest"] < 1
        assert mean["nearest"] < mean["AdaRound"] < mean["+ retraining"] < mean["PSNR float"]
        assert mean["% flips at 1e-6"] == 0 < mean["% retraining flips"]

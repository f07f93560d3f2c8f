"""Signals on another grid: fields between their samples, other codecs interpolated."""

import numpy as np
import pytest

import vcinr
from tests.conftest import smooth_picture
from tests.tiny import hand_made
from vcinr.bitstream.container import BitstreamError
from vcinr.cli.main import main
from vcinr.codec import Codec
from vcinr.codecs import make_codec
from vcinr.model.model import make_model

PICTURE = smooth_picture(37, 45, seed=3)


def coin():
    codec = make_codec("coin", {"architectures": ((2, 6),), "num_steps": 5})
    return make_model(codec, codec.init(), {})


@pytest.mark.parametrize("model", [lambda: vcinr.load("gates_tiny"), lambda: vcinr.load("tiny"), coin, hand_made])
def test_every_third_sample_of_three_times_the_grid_is_a_sample(model):
    model = model()
    data = model.encode(PICTURE)
    finer = model.decode_at(data, scale=3)
    assert finer.shape == (111, 135, 3)
    assert np.abs(finer[1::3, 1::3].astype(int) - model.decode(data).astype(int)).max() <= 1
    assert model.decode_at(data, shape=(20, 60)).shape == (20, 60, 3)


def test_a_continuous_field_is_not_interpolated():
    model = vcinr.load("gates_tiny")
    point, (code,), (grid,) = model.read_codes(model.encode(PICTURE))
    arguments = (model.params, point, code, grid, (74, 90))
    gap = np.abs(model.codec.resample(*arguments) - Codec.resample(model.codec, *arguments))
    assert gap.max() > 2 / 255  # A field bends between its samples, and patches do not see each other.


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({}, "give one of"),
        ({"scale": 2, "shape": (3, 3)}, "give one of"),
        ({"scale": 0}, "positive and finite"),
        ({"scale": float("nan")}, "positive and finite"),
        ({"shape": (3,)}, "as many axes"),
        ({"shape": (3, 0)}, "as many axes"),
        ({"rate": 100}, "a picture has no sample rate"),
        ({"scale": 1e4}, "more samples than the limit"),
    ],
)
def test_wishes_that_mean_nothing_are_refused(wish, message):
    model = hand_made()
    with pytest.raises(ValueError, match=message):
        model.decode_at(model.encode(PICTURE), **wish)


def test_damaged_files_are_refused():
    model = hand_made()
    data = bytearray(model.encode(PICTURE))
    data[-6] ^= 1
    with pytest.raises(BitstreamError):
        model.decode_at(bytes(data), scale=2)


def test_the_command_line_says_where_samples_are_interpolated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hand_made().save("model")
    picture = vcinr.modalities.MODALITIES["picture"]
    picture.write("in.png", PICTURE)
    assert main(["encode", "in.png", "in.vcinr", "--model", "model"]) == 0
    assert main(["decode", "in.vcinr", "out.png", "--model", "model", "--shape", "10x20"]) == 0
    assert picture.read("out.png").shape == (10, 20, 3)
    assert "klt has no field between its samples" in capsys.readouterr().err
    assert main(["decode", "in.vcinr", "out.png", "--model", "model", "--rate", "8000"]) == 1
    assert "has no sample rate" in capsys.readouterr().err

"""Large signals in slabs: the same file, and memory that does not grow with them."""

import numpy as np
import pytest

import vcinr
from tests.conftest import smooth_picture
from tests.tiny import hand_made
from vcinr.model import encoding

PICTURE = smooth_picture(100, 75, seed=5)


@pytest.mark.parametrize("model", [hand_made, lambda: vcinr.load("gates_tiny")])
@pytest.mark.parametrize("slab", [1, 5000])
def test_a_signal_in_slabs_has_the_file_of_the_whole(monkeypatch, model, slab):
    model = model()
    whole = model.encode(PICTURE)
    calls = []
    monkeypatch.setattr(encoding, "SLAB_SAMPLES", slab)
    encode = type(model.codec).encode
    monkeypatch.setattr(type(model.codec), "encode", lambda *a, **k: calls.append(1) or encode(*a, **k))
    assert model.encode(PICTURE) == whole
    assert len(calls) == -(-100 // (model.codec.patch[0] * max(1, slab // (model.codec.patch[0] * 75))))


def test_codecs_whose_patches_see_each_other_take_signals_whole(monkeypatch):
    model = vcinr.load("tiny")
    whole = model.encode(PICTURE)
    monkeypatch.setattr(encoding, "SLAB_SAMPLES", 1)
    assert not model.codec.patches_alone
    assert model.encode(PICTURE) == whole


def test_slabs_and_whole_signals_keep_their_places(monkeypatch):
    model = hand_made()
    pictures = [PICTURE[:4, :4], PICTURE, PICTURE[:6, :2], PICTURE[::-1]]
    files = model.encode_batch(pictures)
    monkeypatch.setattr(encoding, "SLAB_SAMPLES", 100)
    assert model.encode_batch(pictures) == files


def test_floats_of_a_large_signal_are_held_in_slabs(monkeypatch):
    model, held = hand_made(), []
    monkeypatch.setattr(encoding, "SLAB_SAMPLES", 1000)
    normalise = type(model.modality).normalise
    monkeypatch.setattr(type(model.modality), "normalise", lambda row, x: held.append(x.size) or normalise(row, x))
    for height in (100, 400):
        model.encode(np.tile(PICTURE[:100], (height // 100, 1, 1)))
    assert max(held) <= 3 * 1000

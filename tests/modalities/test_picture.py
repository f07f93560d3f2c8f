"""The picture row: raw to normalised and back, and wrong arrays refused with the mend."""

import numpy as np
import pytest

from vcinr.modalities import MODALITIES

PICTURE = MODALITIES["picture"]


def test_rows_are_keyed_by_their_names():
    assert all(name == row.name for name, row in MODALITIES.items())


def test_every_8_bit_value_returns_and_the_ends_are_exact():
    raw = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(PICTURE.channels, axis=-1)
    values = PICTURE.normalise(raw)
    assert values.dtype == np.float32
    assert values.min() == 0
    assert values.max() == 1
    assert values.ndim - 1 == PICTURE.coord_dim
    np.testing.assert_array_equal(PICTURE.denormalise(values), raw)
    assert PICTURE.peak == 255


def test_denormalise_clips_and_rounds_to_nearest():
    values = np.array([-np.inf, -3.0, 0.499 / 255, 0.501 / 255, 254.4 / 255, 254.6 / 255, 1.001, np.inf], np.float32)
    np.testing.assert_array_equal(PICTURE.denormalise(values), [0, 0, 0, 1, 254, 255, 255, 255])
    assert PICTURE.denormalise(values).dtype == np.uint8


def test_a_diverged_field_is_not_turned_into_a_picture():
    with pytest.raises(ValueError, match="diverged"):
        PICTURE.denormalise(np.array([[[0.5, np.nan, 0.5]]], np.float32))


@pytest.mark.parametrize(
    ("array", "mend"),
    [
        (np.zeros((4, 5), np.uint8), "repeat the grey channel"),
        (np.zeros((4, 5, 1), np.uint8), "repeat the grey channel"),
        (np.zeros((4, 5, 4), np.uint8), "background"),
        (np.zeros((3, 4, 5), np.uint8), "channels last"),
        (np.zeros((2, 4, 5, 3), np.uint8), "one at a time"),
        (np.zeros((4, 5, 2), np.uint8), "length 3"),
        (np.zeros((4, 0, 3), np.uint8), "no pixels"),
        (np.zeros((4, 5, 3), np.float32), r"scale it to 0\.\.255, then np.round"),
        (np.zeros((4, 5, 3), np.uint16), "astype"),
        (np.zeros((4, 5, 3), bool), "astype"),
        ([[[0, 0, 0]]], "np.asarray"),
    ],
)
def test_a_wrong_array_is_refused_with_the_mend(array, mend):
    with pytest.raises(ValueError, match=mend):
        PICTURE.normalise(array)

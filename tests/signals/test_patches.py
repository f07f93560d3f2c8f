"""Patches tile any shape and are joined again; overhang is marked."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from vcinr.signals.grids import pixel_grid
from vcinr.signals.patches import from_values, join, patch_mask, split, to_signal
from vcinr.signals.signal import Grid


@st.composite
def shape_and_patch(draw):
    rank = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=rank, max_size=rank)))
    patch = tuple(draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank)))
    return shape, patch


def numbered(shape, channels=2):
    return np.arange(math.prod(shape) * channels, dtype=np.float32).reshape(*shape, channels)


@hypothesis.given(shape_and_patch())
def test_join_undoes_split_and_the_mask_counts_the_samples(case):
    shape, patch = case
    array = numbered(shape)
    patches, mask = split(array, patch), patch_mask(shape, patch)
    assert patches.shape == (Grid(shape, patch).num_patches, *patch, 2)
    assert mask.shape == patches.shape[:-1]
    np.testing.assert_array_equal(join(patches, shape), array)
    # Inside the mask stands every sample exactly once.
    np.testing.assert_array_equal(np.sort(patches[mask == 1].ravel()), np.sort(array.ravel()))
    assert set(np.unique(mask)) <= {0, 1}


@hypothesis.given(shape_and_patch())
def test_a_signal_is_joined_again_and_weighs_only_its_samples(case):
    shape, patch = case
    array = numbered(shape)
    signal = to_signal(array, patch)
    assert signal.grid == Grid(shape, patch)
    np.testing.assert_array_equal(signal.coords, pixel_grid(patch))
    np.testing.assert_array_equal(from_values(signal.values, signal.grid), array)
    if all(n % q == 0 for n, q in zip(shape, patch, strict=True)):
        assert signal.weight is None
    else:
        assert signal.weight.shape == signal.values.shape[:2]
        assert signal.weight.sum() == math.prod(shape)
        np.testing.assert_allclose((signal.weight[..., None] * signal.values).sum(), array.sum(), rtol=1e-6)


def test_patches_are_row_major_and_the_remainder_repeats_the_edge():
    array = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    patches = split(array, (2, 3))[..., 0]
    assert patches.dtype == np.uint8
    np.testing.assert_array_equal(
        patches,
        [[[0, 1, 2], [4, 5, 6]], [[3, 3, 3], [7, 7, 7]], [[8, 9, 10], [8, 9, 10]], [[11, 11, 11], [11, 11, 11]]],
    )
    np.testing.assert_array_equal(
        patch_mask((3, 4), (2, 3)),
        [[[1, 1, 1], [1, 1, 1]], [[1, 0, 0], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]], [[1, 0, 0], [0, 0, 0]]],
    )


def test_the_joined_array_is_its_own():
    patches = split(numbered((4, 4)), (4, 4))
    whole = join(patches, (3, 3))
    patches[:] = -1
    assert whole.min() >= 0
    assert whole.flags.c_contiguous


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in rank"):
        split(numbered((4, 4)), (2,))
    with pytest.raises(ValueError, match="positive"):
        split(numbered((4, 0)), (2, 2))
    with pytest.raises(ValueError, match="tiled by 4 patches"):
        join(np.zeros((3, 2, 2, 1), np.float32), (3, 4))
    with pytest.raises(ValueError, match="has 4 samples, not 3"):
        from_values(np.zeros((4, 3, 1), np.float32), Grid((4, 4), (2, 2)))


def test_weights_are_cut_with_the_samples_and_padding_stays_out():
    weights = np.arange(30, dtype=np.float32).reshape(5, 6)
    signal = to_signal(np.zeros((5, 6, 1), np.float32), (4, 4), weights=weights)
    np.testing.assert_array_equal(signal.weight.reshape(4, 4, 4)[0], weights[:4, :4])
    assert signal.weight.sum() == weights.sum()


def test_a_patch_of_which_nothing_is_known_weighs_as_a_whole_one():
    weights = np.ones((4, 8), np.float32)
    weights[:, 4:] = 0
    weights[0, 0] = 0
    signal = to_signal(np.zeros((4, 8, 1), np.float32), (4, 4), weights=weights)
    assert signal.weight[0].sum() == 15 and (signal.weight[1] == 1).all()

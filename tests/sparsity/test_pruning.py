"""Magnitude pruning keeps exactly what it says."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from vcinr.sparsity.pruning import geometric_schedule, magnitude_mask


@hypothesis.given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.data())
def test_exactly_the_largest_survivors_are_kept(values, data):
    weights = np.array(values, np.float32)
    alive = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))), bool)
    hypothesis.assume(alive.any())
    keep = data.draw(st.integers(1, int(alive.sum())))
    kept = magnitude_mask(weights, alive, keep)
    assert kept.sum() == keep
    assert not (kept & ~alive).any()
    if (alive & ~kept).any():
        assert np.abs(weights[kept]).min() >= np.abs(weights[alive & ~kept]).max()


def test_pruning_in_rounds_ends_where_the_schedule_does():
    sizes = geometric_schedule(1000, 107, 10)
    assert sizes[-1] == 107 and len(sizes) == 10
    assert all(0.79 < b / a < 0.81 for a, b in zip((1000, *sizes), sizes, strict=False))
    weights, mask = np.random.default_rng(0).normal(size=1000).astype(np.float32), np.ones(1000, bool)
    for keep in sizes:
        mask = magnitude_mask(weights, mask, keep)
    np.testing.assert_array_equal(mask, magnitude_mask(weights, np.ones(1000, bool), 107))


@pytest.mark.parametrize("keep", [0, 4])
def test_more_than_are_left_cannot_be_kept(keep):
    with pytest.raises(ValueError, match="cannot keep"):
        magnitude_mask(np.ones(5, np.float32), np.array([1, 1, 1, 0, 0], bool), keep)


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        magnitude_mask(np.array([1.0, np.nan], np.float32), np.ones(2, bool), 1)


@pytest.mark.parametrize("arguments", [(10, 0, 3), (10, 11, 3), (10, 5, 0)])
def test_a_schedule_that_leads_nowhere_is_refused(arguments):
    with pytest.raises(ValueError, match="pruning needs"):
        geometric_schedule(*arguments)

"""Blocks within their budget, and permutations that are part of the format."""

import dataclasses
import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from vcinr.posterior.partition import Partition, next_fit, patch_permutation
from vcinr.posterior.shared_randomness import philox

BITS = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 12, width=16))


@given(kl_bits=BITS, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=150)
def test_blocks_are_those_of_next_fit(kl_bits, seed):
    budget = 8.0
    partition = next_fit(kl_bits, budget, seed)
    blocks = [partition.members(block) for block in range(partition.num_blocks)]
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(len(kl_bits)))
    np.testing.assert_array_equal(np.concatenate(blocks), partition.order)
    for block, members in enumerate(blocks):
        assert len(members)
        assert set(partition.block_of[members]) == {block}
        # More than the budget only by one dimension that alone exceeds it, all others being free.
        assert kl_bits[members].sum() <= budget or np.count_nonzero(kl_bits[members]) == 1
    for before, after in itertools.pairwise(blocks):
        assert kl_bits[before].sum() + kl_bits[after[0]] > budget


def test_the_order_is_random_and_the_seeds():
    kl_bits = np.full(40, 2.0)
    one, again, other = (next_fit(kl_bits, 8, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.order, again.order)
    assert not np.array_equal(one.order, other.order)
    assert not np.array_equal(one.order, np.arange(40))
    assert np.diff(one.ends, prepend=0).tolist() == [4] * 10


def test_a_partition_survives_storage():
    one = next_fit(np.arange(9.0), 8, 0)
    again = Partition.from_arrays(one.to_arrays())
    for field in dataclasses.fields(Partition):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(one, field.name))
        assert getattr(again, field.name).dtype == np.int32


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1])
def test_divergences_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match="prior learning has diverged"):
        next_fit(np.array([1.0, bad, 2.0]), 8, 0)


def test_a_divergence_below_zero_by_rounding_alone_is_zero():
    assert next_fit(np.array([-1e-7, 0.0]), 8, 0).num_blocks == 1


def test_every_dimension_has_a_permutation_of_its_own():
    found = patch_permutation(5, 12, 30)
    assert found.shape == (12, 30)
    np.testing.assert_array_equal(np.sort(found, axis=0), np.repeat(np.arange(12)[:, None], 30, axis=1))
    assert len({tuple(column) for column in found.T}) == 30
    np.testing.assert_array_equal(patch_permutation(5, 12, 30), found)
    assert not np.array_equal(patch_permutation(6, 12, 30), found)
    # A column does not depend on how many there are: models of other sizes mix alike.
    np.testing.assert_array_equal(patch_permutation(5, 12, 7), found[:, :7])


def test_permutations_are_uniform():
    """Each of 24 orders of 4 patches equally often: χ² with 23 degrees of freedom."""
    columns = patch_permutation(0, 4, 24 * 200).T @ np.array([64, 16, 4, 1])
    _, counts = np.unique(columns, return_counts=True)
    assert len(counts) == 24
    assert np.sum((counts - 200) ** 2 / 200) < 50  # 0.1 % quantile: 49.7


def test_a_column_sorts_the_words_of_philox():
    column = 3
    words = [philox([np.uint32(w) for w in (row, column, 0, 0)], [np.uint32(9), np.uint32(2**32 - 1)])[0] for row in range(6)]
    assert patch_permutation(9, 6, 5)[:, column].tolist() == np.argsort(words).tolist()


def test_permutations_never_change():
    """Files decode to mixed-up patches with any others."""
    assert patch_permutation(0, 5, 3).T.tolist() == [[2, 1, 4, 3, 0], [4, 1, 2, 3, 0], [4, 0, 2, 3, 1]]

"""Rounding by cost: never dearer than the nearest whole number, which it becomes where error is all that counts."""

import numpy as np
import pytest

from vcinr.context.rounding import rounded
from vcinr.entropy.tables import code_length_bits, tables_from_cdf


@pytest.fixture(scope="module")
def case():
    """(z, whole, table, tables): 2,000 numbers, some of them wild, and tables about their predicted whole part."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, rng.choice([0.3, 2.0, 30.0], (40, 50)), (40, 50))
    z[0, :4] = [0.5, -0.5, 1e6, -2.0e9]
    scales = np.array([0.05, 0.5, 5.0])
    tables = tables_from_cdf(lambda x: 0.5 + 0.5 * np.tanh(x / (2 * scales)), np.full(3, -(2**20)), np.full(3, 2**20))
    return z, np.rint(z + rng.normal(0, 2, z.shape)).astype(np.int32), rng.integers(0, 3, z.shape), tables


def cost(case, symbols, weight):
    z, whole, table, tables = case
    bits = code_length_bits(tables, (symbols - whole.astype(np.int64)).ravel(), table.ravel()).reshape(z.shape)
    return weight * np.square(z - symbols) + bits


def candidates(z):
    nearest = np.rint(z)
    return np.stack([nearest, nearest - np.sign(nearest), np.zeros_like(z)])


@pytest.mark.parametrize("weight", [0.0, 0.3, 5.0, 1e3])
def test_of_three_candidates_the_cheapest_is_taken(case, weight):
    chosen = rounded(*case, np.array(weight))
    assert chosen.dtype == np.int32
    costs = np.stack([cost(case, candidate, weight) for candidate in candidates(case[0])])
    assert (chosen == candidates(case[0])).any(axis=0).all()
    np.testing.assert_allclose(cost(case, chosen, weight), costs.min(axis=0), rtol=1e-12)
    assert (cost(case, chosen, weight) <= costs[0]).all()


def test_without_a_price_of_bits_it_is_the_nearest_and_without_one_of_error_the_shortest(case):
    nearest = np.rint(case[0])
    np.testing.assert_array_equal(rounded(*case, np.array(1e12)), nearest)
    moved = rounded(*case, np.array(5.0)) != nearest
    free = rounded(*case, np.array(0.0))
    assert 0 < moved.mean() < (free != nearest).mean()
    bits = np.stack([cost(case, candidate, 0.0) for candidate in candidates(case[0])])
    np.testing.assert_array_equal(cost(case, free, 0.0), bits.min(axis=0))


def test_about_a_centre_it_is_as_about_zero(case):
    z, whole, table, tables = case
    centre = np.random.default_rng(1).integers(-50, 50, z.shape)
    near = (np.abs(z) < 1e5) & (np.abs(z) != 0.5)
    moved = rounded((z + centre)[near], (whole + centre)[near], table[near], tables, np.array(5.0), centre[near])
    np.testing.assert_array_equal(moved - centre[near], rounded(z[near], whole[near], table[near], tables, np.array(5.0)))


def test_each_symbol_has_its_own_weight(case):
    weight = np.where(np.arange(50) < 25, 1e12, 0.0)
    chosen = rounded(*case, weight)
    np.testing.assert_array_equal(chosen[:, :25], np.rint(case[0])[:, :25])
    np.testing.assert_array_equal(chosen[:, 25:], rounded(*case, np.array(0.0))[:, 25:])

"""Integer tables: sums, tails, smoothing, code lengths, and every array that is refused."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcinr.entropy.tables import (
    MAX_SIZE,
    TOTAL,
    Tables,
    code_length_bits,
    frequencies_from_masses,
    tables_from_cdf,
    tables_from_counts,
)


def logistic(location, scale):
    """Columns of logistic distributions, exact in both tails."""

    def cdf(edges):
        return 0.5 * (1 + np.tanh(0.5 * (edges - np.asarray(location, np.float64)) / np.asarray(scale, np.float64)))

    return cdf


def table(tables, i):
    return tables.frequencies[tables.offsets[i] : tables.offsets[i] + tables.sizes[i]]


def entropy_bits(frequencies):
    shares = frequencies / frequencies.sum()
    return float(-np.sum(shares * np.log2(shares)))


@given(st.lists(st.floats(0, 1e308), min_size=2, max_size=300).filter(any))
def test_frequencies_sum_to_the_total_with_at_least_one_each(masses):
    frequencies = frequencies_from_masses(np.array(masses))
    assert frequencies.dtype == np.int32
    assert frequencies.sum() == TOTAL
    assert frequencies.min() >= 1


def test_exact_masses_give_exact_frequencies():
    np.testing.assert_array_equal(frequencies_from_masses(np.array([0.5, 0.25, 0.125, 0.125])), [32768, 16384, 8192, 8192])
    np.testing.assert_array_equal(frequencies_from_masses(np.array([3.0, 1.0])), [49152, 16384])


def test_remainders_go_to_the_largest_and_then_to_the_first():
    np.testing.assert_array_equal(frequencies_from_masses(np.ones(3)), [21846, 21845, 21845])
    np.testing.assert_array_equal(frequencies_from_masses(np.array([1.0, 0.0])), [65535, 1])
    np.testing.assert_array_equal(frequencies_from_masses(np.r_[np.zeros(1000), 1.0]), np.r_[np.ones(1000), TOTAL - 1000])


def test_rounding_costs_next_to_nothing():
    masses = np.random.default_rng(0).dirichlet(np.full(64, 0.5)) + 1e-4
    masses /= masses.sum()
    cross_entropy = -np.sum(masses * np.log2(frequencies_from_masses(masses) / TOTAL))
    assert cross_entropy - entropy_bits(masses) < 1e-5


@pytest.mark.parametrize("masses", [[1.0], [-1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0], [0.0, 0.0], [[1.0, 1.0]]])
def test_masses_that_are_none_are_refused(masses):
    with pytest.raises(ValueError, match="masses must be"):
        frequencies_from_masses(np.array(masses))


def test_tables_end_where_the_tails_fall_under_two_to_the_minus_sixteen():
    locations, scales = np.array([0.0, 0.3, -40.0, 1e5]), np.array([0.05, 1.0, 7.0, 20.0])
    cdf = logistic(locations, scales)
    tables = tables_from_cdf(cdf, np.full(4, -(2**20)), np.full(4, 2**20))
    first, last = tables.first, tables.first + tables.sizes - 2
    below, above = cdf((first - 0.5)[None])[0], 1 - cdf((last + 0.5)[None])[0]
    assert np.all(below < 2**-16)
    assert np.all(above <= 2**-16)
    # One symbol more on either side would already be outside.
    assert np.all(cdf((first + 0.5)[None])[0] >= 2**-16)
    assert np.all(1 - cdf((last - 0.5)[None])[0] > 2**-16)


def test_frequencies_follow_the_cdf():
    cdf = logistic([0.25], [3.0])
    tables = tables_from_cdf(cdf, np.array([-1000]), np.array([1000]))
    symbols = tables.first[0] + np.arange(tables.sizes[0] - 1)
    masses = np.diff(cdf((np.append(symbols, symbols[-1] + 1) - 0.5)[:, None])[:, 0])
    np.testing.assert_allclose(table(tables, 0)[:-1], TOTAL * masses, atol=1.01)
    assert table(tables, 0)[-1] <= 2


def test_a_silent_dimension_costs_nothing():
    tables = tables_from_cdf(logistic([0.0], [0.01]), np.array([-100]), np.array([100]))
    np.testing.assert_array_equal(tables.sizes, [2])
    np.testing.assert_array_equal(tables.frequencies, [65535, 1])
    assert code_length_bits(tables, np.array([0]), np.array([0]))[0] < 3e-5


def test_mass_outside_the_bracket_goes_to_the_escape():
    tables = tables_from_cdf(logistic([50.0, 0.0], [0.1, 4.0]), np.array([-1, 0]), np.array([1, 30]))
    np.testing.assert_array_equal(table(tables, 0), [1, 65535])
    assert tables.first[1] == 0
    outside = 1 - np.diff(logistic([0.0], [4.0])(np.array([[-0.5], [30.5]])), axis=0)[0, 0]
    assert table(tables, 1)[-1] / TOTAL == pytest.approx(outside, abs=1e-4)


def test_a_table_too_wide_is_cut_about_its_median():
    tables = tables_from_cdf(logistic([1000.0], [1e6]), np.array([-(2**31)]), np.array([2**31 - 1]))
    assert tables.sizes[0] == MAX_SIZE
    assert tables.first[0] + (MAX_SIZE - 2) // 2 == 1000


def test_a_column_of_many_blocks_equals_the_column_alone():
    scales = np.full(300, 0.3)
    scales[7] = 500.0  # 11,000 entries in a batch of 300 columns: four blocks
    together = tables_from_cdf(logistic(np.zeros(300), scales), np.full(300, -(2**20)), np.full(300, 2**20))
    alone = tables_from_cdf(logistic([0.0], [500.0]), np.array([-(2**20)]), np.array([2**20]))
    assert alone.sizes[0] > 2**20 // 300 * 3
    np.testing.assert_array_equal(table(together, 7), alone.frequencies)
    np.testing.assert_array_equal(table(together, 299), table(together, 0))


@pytest.mark.parametrize(
    ("cdf", "lower", "upper", "match"),
    [
        (lambda x: np.full(x.shape, np.nan), [0], [5], "finite and in"),
        (lambda x: x, [0], [5], "finite and in"),
        (lambda x: np.float32(x) * 0, [0], [5], "float64"),
        (lambda x: x[:1, :1] * 0, [0, 0], [5, 5], "float64"),
        (lambda x: x * 0, [5], [0], "lower <= upper"),
        (lambda x: x * 0, [], [], "lower <= upper"),
        (lambda x: x * 0, [-(2**40)], [0], "fit int32"),
    ],
)
def test_cdfs_and_brackets_that_do_not_fit_are_refused(cdf, lower, upper, match):
    with pytest.raises(ValueError, match=match):
        tables_from_cdf(cdf, np.array(lower), np.array(upper))


def test_counts_cost_unseen_symbols_little_more_than_the_truth():
    rng = np.random.default_rng(1)
    scales = np.array([0.2, 1.0, 5.0, 30.0])
    index = np.arange(40_000) % 4
    train, test = (np.rint(rng.laplace(0.0, scales[index])).astype(np.int64) for _ in range(2))
    tables = tables_from_counts(train, index, 4)
    bits = code_length_bits(tables, test, index)
    for i, scale in enumerate(scales):
        edges = np.arange(-1000, 1001) - 0.5
        masses = np.diff(np.where(edges < 0, 0.5 * np.exp(-np.abs(edges) / scale), 1 - 0.5 * np.exp(-np.abs(edges) / scale)))
        ideal = -np.log2(masses[test[index == i] + 1000]).mean()
        assert bits[index == i].mean() < 1.02 * ideal + 0.005


def test_an_unseen_neighbour_is_not_absurdly_expensive():
    symbols = np.repeat([-1, 0, 1], [100, 800, 100])
    bits = code_length_bits(tables_from_counts(symbols, np.zeros(1000, int), 1), np.array([0, 1, 2, 3]), np.zeros(4, int))
    assert bits[0] < 0.4
    assert bits[1] < 3.4
    assert bits[2] < bits[3] < 20


def test_a_table_without_symbols_prefers_small_numbers():
    tables = tables_from_counts(np.array([5, 5]), np.array([1, 1]), 3)
    assert tables.num_tables == 3
    bits = code_length_bits(tables, np.array([0, 1, 2, 4]), np.zeros(4, int))
    assert np.all(np.diff(bits) > 0)
    assert bits[0] < 2


def test_counts_are_smoothed_towards_what_is_expected():
    """Of 100 symbols, two of them distinct, 2/102 of the mass are spread as expected; with no symbols, all of it is."""
    expected = logistic([3.25, -40.0], [2.0, 0.5])
    symbols = np.repeat([0, 7], [60, 40])
    tables = tables_from_counts(symbols, np.zeros(100, int), 2, expected)
    plain = tables_from_cdf(expected, np.full(2, -(2**20)), np.full(2, 2**20))
    np.testing.assert_array_equal(table(tables, 1), table(plain, 1))
    assert tables.first[1] == plain.first[1]
    masses = np.diff(expected(np.arange(-0.5, 8.5)[:, None] * np.ones(2))[:, 0])
    bits = code_length_bits(tables, np.arange(8), np.zeros(8, int))
    counted = np.array([60, 0, 0, 0, 0, 0, 0, 40])
    np.testing.assert_allclose(2.0**-bits, (counted + 2 * masses) / 102, atol=2 / TOTAL)
    geometric = code_length_bits(tables_from_counts(symbols, np.zeros(100, int), 2), np.arange(8), np.zeros(8, int))
    assert bits[3] < geometric[3]


def test_far_outliers_in_training_symbols_are_left_to_the_escape():
    symbols = np.array([0] * 50 + [2**31 - 1, -(2**31)])
    tables = tables_from_counts(symbols, np.zeros(52, int), 1)
    assert tables.sizes[0] <= MAX_SIZE
    assert np.all(np.isfinite(code_length_bits(tables, symbols, np.zeros(52, int))))


@pytest.mark.parametrize(
    ("symbols", "index", "match"), [([1, 2], [0], "one length"), ([1], [1], r"0\.\.0"), ([1], [-1], r"0\.\.0")]
)
def test_counts_that_do_not_fit_are_refused(symbols, index, match):
    with pytest.raises(ValueError, match=match):
        tables_from_counts(np.array(symbols), np.array(index), 1)


@pytest.mark.parametrize(
    ("first", "sizes", "frequencies", "match"),
    [
        ([0], [2], [65535, 2], "add up"),
        ([0], [3], [65536, 0, 0], "at least 1"),
        ([0], [3], [65535, 1], "sizes add up"),
        ([0], [1], [65536], "sizes must lie"),
        ([0], [-2], [65536], "sizes must lie"),
        ([0, 0], [2], [65535, 1], "both need one"),
        ([], [], [], "integers"),
        (np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), "both need one"),
        ([2**31 - 1], [3], [65534, 1, 1], "last symbol"),
        ([2**31], [2], [65535, 1], "fit int32"),
        ([0.0], [2], [65535, 1], "integers"),
        ([[0]], [2], [65535, 1], "vector"),
    ],
)
def test_arrays_that_make_no_tables_are_refused(first, sizes, frequencies, match):
    with pytest.raises(ValueError, match=match):
        Tables(np.array(first), np.array(sizes), np.array(frequencies))


def test_tables_are_saved_compared_copied_and_never_changed():
    tables = tables_from_cdf(logistic([0.0, 3.0], [1.0, 2.0]), np.full(2, -500), np.full(2, 500))
    assert len(tables.models) == 2
    for other in (Tables.from_arrays(tables.to_arrays()), copy.deepcopy(tables), pickle.loads(pickle.dumps(tables))):
        assert other == tables
    assert tables != tables_from_cdf(logistic([0.0, 3.0], [1.0, 2.1]), np.full(2, -500), np.full(2, 500))
    assert tables.models is tables.models
    with pytest.raises(ValueError, match="read-only"):
        tables.frequencies[0] = 5
    with pytest.raises(ValueError, match="missing sizes"):
        Tables.from_arrays({"first": tables.first, "frequencies": tables.frequencies})


def test_code_lengths_of_table_and_escaped_symbols():
    tables = Tables(np.array([-1]), np.array([4]), np.array([16384, 32768, 16000, 384]))
    # Distance 1 has length 0, of frequency 32753; distances 2 and 3 have length 1, of 1/4; distances 4 to 7 length 2, of 1/8.
    escape, side = np.log2(65536 / 384), 1
    expected = [2, 1, np.log2(65536 / 16000)]
    expected += [escape + side + np.log2(65536 / 32753), escape + side + 2 + 1, escape + side + 3 + 2]
    np.testing.assert_allclose(code_length_bits(tables, np.array([-1, 0, 1, 2, 3, -5]), np.zeros(6, int)), expected)

"""The order of coding: streams and symbols are inverse, every symbol is coded once, neighbours are what they seem."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcinr.context.order import (
    Order,
    around,
    beside,
    between,
    differences,
    is_odd,
    neighbours,
    restored,
    streams_of,
    symbols_of,
)

ORDER, OCTAVES = Order((2, 3, 7), 3), Order((2, 3, 7), 3, 2)
GRIDS = [(1,), (9,), (1, 1), (1, 6), (6, 1), (4, 5), (2, 3, 4), (1, 1, 3)]
INT32_MAX = 2**31 - 1


def random_symbols(counts, k, seed=0, size=2**20):
    return np.random.default_rng(seed).integers(-size, size, (*counts, k))


def in_bounds(place, counts):
    return all(0 <= i < n for i, n in zip(place, counts, strict=True))


@given(
    st.integers(1, 3).flatmap(lambda rank: st.tuples(*[st.integers(1, 5)] * rank)),
    st.lists(st.integers(1, 9), min_size=2, max_size=5, unique=True),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 4, 2**20, 2**29]),
    st.integers(0, 3),
)
def test_streams_and_symbols_are_inverse(counts, ends, seed, size, octaves):
    order = Order(tuple(sorted(ends)), 4, octaves)
    symbols = random_symbols(counts, order.ends[-1], seed, size)
    streams = streams_of(order, symbols)
    assert tuple(streams) == order.streams
    assert all(stream.dtype == np.int32 and stream.ndim == 1 for stream in streams.values())
    assert sum(stream.size for stream in streams.values()) == symbols.size
    back = symbols_of(order, counts, streams)
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, symbols)


@pytest.mark.parametrize("order", [ORDER, OCTAVES])
@pytest.mark.parametrize("counts", GRIDS)
def test_every_symbol_is_in_one_stream_and_the_rest_stays_unknown(counts, order):
    symbols = random_symbols(counts, 7)
    streams = streams_of(order, symbols)
    unknown = symbols_of(order, counts, {})
    assert not unknown.any()
    times = np.zeros(symbols.shape, int)
    for name in order.streams:
        known = symbols_of(order, counts, {name: streams[name]})
        times += known != 0
        assert np.all((known == 0) | (known == symbols))
    # No symbol drawn above is 0, so each is seen exactly where its stream is.
    assert (symbols != 0).all()
    assert (times == 1).all()


def test_streams_come_group_by_group_the_even_patches_first():
    symbols = np.arange(2 * 2 * 4).reshape(2, 2, 4)
    streams = streams_of(Order((1, 3, 4), 0), symbols)
    assert list(streams) == ["first", "even_1", "odd_1", "even_2", "odd_2"]
    expected = {"first": [0, 4, 8, 6], "even_1": [1, 2, 13, 14], "odd_1": [5, 6, 9, 10], "even_2": [3, 15], "odd_2": [7, 11]}
    assert {name: stream.tolist() for name, stream in streams.items()} == expected


def test_the_first_group_goes_from_a_coarse_lattice_to_all_patches():
    symbols = np.arange(5 * 6).reshape(5, 6, 1) + np.zeros((1, 1, 2), int)
    streams = streams_of(Order((1, 2), 0, 2), symbols)
    assert list(streams) == ["first", "even_0_2", "odd_0_2", "even_0_1", "odd_0_1", "even_1", "odd_1"]
    # 0, 4, 24 and 28, less their predecessors; then their diagonal middle; then what lies between these; and so once more.
    assert streams["first"].tolist() == [0, 4, 24, 28 - (24 + 4) // 2]
    assert streams["even_0_2"].tolist() == [14]
    assert streams["odd_0_2"].tolist() == [2, 12, 16, 26]
    assert streams["even_0_1"].tolist() == [7, 9, 11, 19, 21, 23]
    assert sorted(streams["odd_0_1"]) == [i for i in range(30) if (i // 6 + i % 6) % 2]


@pytest.mark.parametrize("counts", [*GRIDS, (9, 11), (7, 3, 5)])
def test_between_known_patches_there_is_one_at_least_and_none_that_comes_later(counts):
    known = np.zeros(counts, bool)
    known[tuple(slice(None, None, 4) for _ in counts)] = True
    for turn in OCTAVES.turns[:4]:
        places, near, sure = between(turn, counts)
        index = np.argwhere(turn.patches(counts))
        np.testing.assert_array_equal(places, np.ravel_multi_index(tuple(index.T), counts))
        assert not known[turn.patches(counts)].any()
        for place, around_it, known_there in zip(index, near, sure, strict=True):
            steps = turn.stride * np.array(around(len(counts)))
            expected = [in_bounds(place + step, counts) and known[tuple(place + step)] for step in steps]
            assert known_there.tolist() == expected
            assert known_there.any()
            there = np.ravel_multi_index(tuple((place + steps[known_there]).T), counts)
            np.testing.assert_array_equal(around_it[known_there], there)
        known |= turn.patches(counts)
    assert known.all()


@pytest.mark.parametrize("counts", GRIDS)
def test_what_is_predicted_is_what_streams_after_the_first_hold(counts):
    for order in (ORDER, OCTAVES):
        symbols = random_symbols(counts, 7)
        first = symbols_of(order, counts, {"first": streams_of(order, symbols)["first"]})
        np.testing.assert_array_equal(order.predicted(counts), first == 0)


def naive_differences(first):
    counts = first.shape[:-1]
    out = np.empty_like(first)
    for place in itertools.product(*map(range, counts)):
        before = [first[tuple(np.subtract(place, np.eye(len(counts), dtype=int)[a]))] for a in range(len(counts)) if place[a]]
        out[place] = first[place] - (np.floor(sum(before) / len(before)).astype(int) if before else 0)
    return out


@pytest.mark.parametrize("counts", GRIDS)
def test_differences_are_from_the_whole_part_of_the_predecessors_mean(counts):
    first = random_symbols(counts, 2, 3, 1000)
    np.testing.assert_array_equal(differences(first), naive_differences(first))
    np.testing.assert_array_equal(restored(differences(first)), first)


@pytest.mark.parametrize("counts", GRIDS)
def test_extreme_differences_are_exact_in_64_bits(counts):
    first = np.random.default_rng(1).choice([-INT32_MAX, INT32_MAX, 0], (*counts, 2))
    residual = differences(first)
    assert residual.dtype == np.int64
    np.testing.assert_array_equal(restored(residual), first)


def test_first_groups_beyond_32_bits_are_refused():
    far = np.zeros((2, 1, 3), int)
    far[0, 0, 0], far[1, 0, 0] = 2**31 - 1, -5
    with pytest.raises(ValueError, match="do not fit 32 bits"):
        streams_of(Order((1, 3), 0), far)
    for place in ((0, 0, 0), (1, 0, 0), (1, 0, 2)):
        beyond = np.zeros((2, 1, 3), int)
        beyond[place] = -(2**31)
        with pytest.raises(ValueError, match="do not fit 32 bits"):
            streams_of(Order((1, 3), 0, 1), beyond)
    steps = np.full((3, 1), 2**30)
    for residual in (
        steps,
        -steps,
        steps.reshape(1, 3, 1),
        np.full((2, 2, 1), 2**30),
        np.full((1, 1), -(2**31)),
        -(2**31) * np.eye(4, 1).reshape(2, 2, 1).astype(int),
    ):
        with pytest.raises(ValueError, match="do not fit 32 bits"):
            restored(residual)
    with pytest.raises(ValueError, match="do not fit 32 bits"):
        symbols_of(Order((1, 2), 0), (3,), {"first": steps.ravel().astype(np.int32)})


@pytest.mark.parametrize("counts", GRIDS)
@pytest.mark.parametrize("steps", [around, beside])
def test_neighbours_are_what_a_loop_finds_and_zero_outside(counts, steps):
    rank = len(counts)
    x = random_symbols((2, *counts), 3, 5)
    found = neighbours(x, steps(rank))
    assert len(steps(rank)) == (3**rank - 1 if steps is around else 2 * rank)
    for batch in range(2):
        for place in itertools.product(*map(range, counts)):
            expected = []
            for step in steps(rank):
                at = tuple(np.add(place, step))
                expected += x[(batch, *at)].tolist() if in_bounds(at, counts) else [0, 0, 0]
            assert found[(batch, *place)].tolist() == expected
    np.testing.assert_array_equal(neighbours(jnp.asarray(x, jnp.int32), steps(rank), jnp), found)


@pytest.mark.parametrize("counts", GRIDS)
def test_odd_patches_have_only_even_ones_beside_them(counts):
    odd = is_odd(counts)
    beside_them = neighbours(np.where(odd, 1, 2)[..., None], beside(len(counts)))
    assert set(np.unique(beside_them[odd])) <= {0, 2}
    assert set(np.unique(beside_them[~odd])) <= {0, 1}
    assert not odd.ravel()[0]


@pytest.mark.parametrize("ends", [(), (5,), (3, 3), (5, 3), (0, 4), (-1, 2)])
def test_groups_that_are_none_are_refused(ends):
    with pytest.raises(ValueError, match="groups must be two or more"):
        Order(ends, 3)


@pytest.mark.parametrize("octaves", [-1, 9])
def test_octaves_have_bounds(octaves):
    with pytest.raises(ValueError, match="octaves lies in 0..8"):
        Order((1, 2), 0, octaves)


def test_neighbours_lend_no_fewer_than_no_dimensions():
    with pytest.raises(ValueError, match="neighbour_dims"):
        Order((1, 2), -1)

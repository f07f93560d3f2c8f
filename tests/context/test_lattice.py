"""Lattices and neighbours: what a loop finds, what the drawings show, and differences that are exact in 64 bits."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.context import lattice
from vcinr.context.lattice import (
    differences,
    face_offsets,
    lattice_neighbours,
    neighbour_offsets,
    neighbours,
    odd_patches,
    restored,
)
from vcinr.context.order import Order

ORDER, OCTAVES = Order((2, 3, 7), 3), Order((2, 3, 7), 3, 2)
GRIDS = [(1,), (9,), (1, 1), (1, 6), (6, 1), (4, 5), (2, 3, 4), (1, 1, 3)]
INT32_MAX = 2**31 - 1


def random_symbols(counts, k, seed=0, size=2**20):
    """Symbols [*counts, k] up to a size."""
    return np.random.default_rng(seed).integers(-size, size, (*counts, k))


def in_bounds(place, counts):
    """Whether a patch is inside the grid."""
    return all(0 <= i < n for i, n in zip(place, counts, strict=True))


@pytest.mark.parametrize("counts", [*GRIDS, (9, 11), (7, 3, 5)])
def test_between_known_patches_there_is_one_at_least_and_none_that_comes_later(counts):
    known = np.zeros(counts, bool)
    known[tuple(slice(None, None, 4) for _ in counts)] = True
    for step in OCTAVES.lattice_steps:
        places, near, sure = lattice_neighbours(step.patches(counts), step.known(counts), step.stride)
        index = np.argwhere(step.patches(counts))
        np.testing.assert_array_equal(places, np.ravel_multi_index(tuple(index.T), counts))
        assert not known[step.patches(counts)].any()
        for place, around_it, known_there in zip(index, near, sure, strict=True):
            offsets = step.stride * np.array(neighbour_offsets(len(counts)))
            expected = [in_bounds(place + offset, counts) and known[tuple(place + offset)] for offset in offsets]
            assert known_there.tolist() == expected
            assert known_there.any()
            there = np.ravel_multi_index(tuple((place + offsets[known_there]).T), counts)
            np.testing.assert_array_equal(around_it[known_there], there)
        known |= step.patches(counts)
    assert known.all()


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


@pytest.mark.parametrize("counts", GRIDS)
@pytest.mark.parametrize("offsets", [neighbour_offsets, face_offsets])
def test_neighbours_are_what_a_loop_finds_and_zero_outside(counts, offsets):
    rank = len(counts)
    x = random_symbols((2, *counts), 3, 5)
    found = neighbours(x, offsets(rank))
    assert len(offsets(rank)) == (3**rank - 1 if offsets is neighbour_offsets else 2 * rank)
    for batch in range(2):
        for place in itertools.product(*map(range, counts)):
            expected = []
            for offset in offsets(rank):
                at = tuple(np.add(place, offset))
                expected += x[(batch, *at)].tolist() if in_bounds(at, counts) else [0, 0, 0]
            assert found[(batch, *place)].tolist() == expected
    np.testing.assert_array_equal(neighbours(jnp.asarray(x, jnp.int32), offsets(rank), jnp), found)


@pytest.mark.parametrize("counts", GRIDS)
def test_odd_patches_have_only_even_ones_beside_them(counts):
    odd = odd_patches(counts)
    beside_them = neighbours(np.where(odd, 1, 2)[..., None], face_offsets(len(counts)))
    assert set(np.unique(beside_them[odd])) <= {0, 2}
    assert set(np.unique(beside_them[~odd])) <= {0, 1}
    assert not odd.ravel()[0]


def test_drawn_neighbours_are_those_there_are():
    """The frames of the docstring, left to right, from the functions that they name."""
    frames = [np.full((3, 3), "."), np.full((3, 3), "."), np.full((5, 5), "."), np.full((5, 5), ".")]
    for frame, offsets in zip(frames, (neighbour_offsets(2), face_offsets(2)), strict=False):
        for offset in offsets:
            frame[tuple(np.add((1, 1), offset))] = "x"
        frame[1, 1] = "*"
    coarse = np.zeros((9, 9), bool)
    coarse[::4, ::4] = True
    for frame, step in zip(frames[2:], OCTAVES.lattice_steps, strict=False):
        assert step.stride == 2
        places, near, known = lattice_neighbours(step.patches((9, 9)), step.known((9, 9)), step.stride)
        # An inner patch: all that is drawn lies inside the grid.
        row = next(i for i, place in enumerate(places) if all(2 <= x <= 6 for x in divmod(place, 9)))
        centre = np.array(divmod(places[row], 9))
        for number in near[row][known[row]]:
            frame[tuple(np.array(divmod(number, 9)) - centre + 2)] = "x"
        frame[2, 2] = "*"
    text = lattice.__doc__.splitlines()
    pictures = [["".join(row) for row in frame] for frame in frames]
    # Rows of the small frames stand beside rows 0 to 2 of the large ones.
    expected = [[picture[i] for picture in pictures if i < len(picture)] for i in range(5)]
    shown = [line.split() for line in text if set(line.replace(" ", "")) <= set("x*.") and line.strip()]
    assert ["".join(line) for line in shown] == ["".join(row) for row in expected]

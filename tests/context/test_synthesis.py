"""The synthesis that sees neighbours: nothing at its start, and later only the leading dimensions of neighbours."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.context import synthesis as neighbour_synthesis

K, NEAR = 5, 2


def symbols_of(counts, seed=0):
    return np.random.default_rng(seed).integers(-30, 30, (*counts, K))


def parameters(rank, seed=0, points=3):
    start = neighbour_synthesis.init(jax.random.key(seed), K, K + (3**rank - 1) * NEAR, 7, points)
    rng = np.random.default_rng(seed)
    return start, jax.tree.map(lambda a: jnp.asarray(rng.normal(0, 0.3, a.shape), jnp.float32), start)


@pytest.mark.parametrize("counts", [(4,), (1, 1), (1, 5), (3, 4), (2, 2, 3)])
def test_rows_are_the_patch_and_then_the_leading_dimensions_of_its_neighbours(counts):
    symbols = symbols_of(counts)
    rows = neighbour_synthesis.rows(symbols, NEAR)
    for place in itertools.product(*map(range, counts)):
        expected = symbols[place].tolist()
        for step in itertools.product((-1, 0, 1), repeat=len(counts)):
            at = tuple(np.add(place, step))
            if any(step):
                inside = all(0 <= i < n for i, n in zip(at, counts, strict=True))
                expected += symbols[at][:NEAR].tolist() if inside else [0] * NEAR
        assert rows[place].tolist() == expected
    np.testing.assert_array_equal(neighbour_synthesis.rows(jnp.asarray(symbols), NEAR, jnp), rows)
    flat = rows.reshape(-1, rows.shape[-1])
    for start, stop in ((0, 3), (2, 5), (0, 10**6)):
        np.testing.assert_array_equal(neighbour_synthesis.some_rows(symbols, NEAR, start, stop), flat[start:stop])


@pytest.mark.parametrize("rank", [1, 2])
def test_it_starts_as_the_identity(rank):
    start, _ = parameters(rank)
    symbols = symbols_of((4,) * rank) * 1000
    for point in range(3):
        own = neighbour_synthesis.of_point(start, point)
        np.testing.assert_array_equal(neighbour_synthesis.apply(own, neighbour_synthesis.rows(symbols, NEAR)), symbols)


def test_it_sees_the_leading_dimensions_of_the_patches_around_and_nothing_else():
    own = neighbour_synthesis.of_point(parameters(2)[1], 1)

    def made(symbols):
        return np.asarray(neighbour_synthesis.apply(own, neighbour_synthesis.rows(symbols, NEAR)))

    symbols = symbols_of((5, 5)) % 3
    before = made(symbols)
    for dim in range(K):
        changed = symbols.copy()
        changed[2, 2, dim] += 4
        moved = (made(changed) != before).any(axis=-1)
        expected = np.zeros((5, 5), bool)
        expected[(slice(1, 4),) * 2 if dim < NEAR else (2, 2)] = True
        np.testing.assert_array_equal(moved, expected)


def test_it_is_its_formula():
    """ẑ = q + q_N A + MLP(q_N) + offset, in float64; A and the MLP see clipped symbols."""
    own = {name: np.asarray(array, np.float64) for name, array in neighbour_synthesis.of_point(parameters(2)[1], 2).items()}
    row = neighbour_synthesis.rows(symbols_of((3, 3)), NEAR)[1, 1].astype(np.float64)
    clipped = np.clip(row, -neighbour_synthesis.MAX_SYNTHESIS_SYMBOL, neighbour_synthesis.MAX_SYNTHESIS_SYMBOL)
    assert (clipped != row).any()
    hidden = np.concatenate([clipped / 4, np.clip(row, -1, 1), np.log1p(np.abs(row))])
    for i in range(2):
        hidden = hidden @ own[f"kernel_{i}"] + own[f"bias_{i}"]
        hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    expected = row[:K] + clipped @ own["linear"] + hidden @ own["out"] + own["offset"]
    found = neighbour_synthesis.apply(neighbour_synthesis.of_point(parameters(2)[1], 2), row)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_points_share_all_but_their_biases_and_far_symbols_stay_finite():
    trained = parameters(2)[1]
    one, other = (neighbour_synthesis.of_point(trained, point) for point in (0, 2))
    assert {name for name in trained if not np.array_equal(one[name], other[name])} == {"bias_0", "bias_1", "offset"}
    wild = np.full((1, 1, K), 2**31 - 1)
    wild[..., 1] = -(2**31)
    out = np.asarray(neighbour_synthesis.apply(one, neighbour_synthesis.rows(wild, NEAR)))
    # The network sees them held; the identity's part is exact.
    np.testing.assert_allclose(out, wild, rtol=1e-6)

"""Shared normals: known answers, equal bits everywhere, and the distribution that they claim."""

import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vcinr.posterior.shared_randomness import candidate_normals, normal_quantiles, philox

FULL = 0xFFFFFFFF
DOC = Path(__file__).parents[2] / "docs" / "bitstream.md"
TABLE = Path(__file__).parents[2] / "vcinr" / "posterior" / "normal_quantiles.npy"


# Random123's kat_vectors, philox4x32 10.
@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((FULL,) * 4, (FULL,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers(xp, counter, key, words):
    counter, key = (tuple(np.uint32(word) for word in each) for each in (counter, key))
    assert tuple(int(word) for word in philox(counter, key, xp)) == words


def test_philox_is_a_permutation_of_counters():
    """A block cipher: another key another permutation, and no two counters give the same words."""
    n = np.arange(4096, dtype=np.uint32)
    seen = {tuple(words) for key in ((0, 0), (1, 0), (0, 1)) for words in np.stack(philox((n, 0, 0, 0), key), -1).tolist()}
    assert len(seen) == 3 * 4096


def test_table_holds_the_normal_quantiles():
    table = normal_quantiles().astype(np.float64)
    np.testing.assert_array_equal(table, -table[::-1])
    np.testing.assert_allclose(table, stats.norm.ppf((np.arange(1 << 16) + 0.5) / (1 << 16)), atol=2.0**-22 * 1.001, rtol=0)
    assert np.all(np.diff(table) > 0)
    with pytest.raises(ValueError, match="read-only"):
        normal_quantiles()[0] = 0


def test_table_is_the_one_of_the_format():
    """Files decode to other weights with any other table."""
    table = np.load(TABLE)
    assert (table.dtype, table.shape) == (np.dtype("<i4"), (1 << 15,))
    assert np.abs(table).max() < 1 << 24
    assert hashlib.sha256(table.tobytes()).hexdigest() in DOC.read_text(encoding="utf-8")


def test_numpy_and_jax_give_equal_bits():
    indices = np.r_[0:1000, FULL - 1, FULL].astype(np.uint32)
    compiled = jax.jit(lambda block, indices: candidate_normals(FULL, block, indices, 21, jnp))
    for block in (0, 1, FULL):
        host, device = candidate_normals(FULL, block, indices, 21), compiled(np.uint32(block), indices)
        assert host.dtype == device.dtype == np.float32
        np.testing.assert_array_equal(host.view(np.uint32), np.asarray(device).view(np.uint32))


def test_a_candidate_alone_is_the_one_in_a_chunk():
    chunk = candidate_normals(3, 4, np.arange(512), 19)
    for n in (0, 1, 300, 511):
        np.testing.assert_array_equal(candidate_normals(3, 4, [n], 19)[0], chunk[n])
    np.testing.assert_array_equal(candidate_normals(3, 4, np.arange(512), 5), chunk[:, :5])
    assert candidate_normals(3, 4, np.arange(2), 0).shape == (2, 0)


def test_candidates_are_independent_standard_normals():
    """Over dimensions, candidates, blocks and seeds; without the lowest bits of a word being worse than the others."""
    draws = np.stack([candidate_normals(seed, block, np.arange(64), 24) for seed in (0, 1) for block in range(128)]).astype(float)
    count = draws.size
    assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-3
    # Standard errors of the first four moments of n normals: 1, √2, √15 and √96 over √n.
    for power, (moment, error) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert abs(np.mean(draws**power) - moment) < 4 * np.sqrt(error / count)
    for axis in range(3):
        for lag in (1, 2, 8):
            pairs = np.roll(draws, lag, axis) * draws
            assert abs(pairs.mean()) < 4.5 / np.sqrt(count), (axis, lag)
    for j in range(24):
        assert stats.kstest(draws[:, :, j].ravel(), "norm").pvalue > 1e-4, j

"""Relative entropy coding: the format to the bit, the distribution of coded samples, and what an index tells."""

import hashlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vcinr.posterior import relative_entropy_coding as rec
from vcinr.posterior.shared_randomness import candidate_normals

ROOT = Path(__file__).parents[2]
MEAN = np.array([0.1, -2.5, 0.0, 3.25, 1e-3, 7, -0.7, 0.3, 0.6], np.float32)
SCALE = np.array([0.05, 1.3, 1, 0.7, 1e-4, 2.5, 0.3, 0.9, 0.11], np.float32)
GOLDEN = {
    (0, 0, 0): "3e2ae44c c0354905 3f3e92a8 408260a9 3a88f2c7 41093500 bec14ec6 3f0a716e 3f2eb2c1",
    (42, 7, 65535): "3da33f0a c03e63ab 3f0de1f8 3f99135c 3a9540ab 40406096 bed12ea1 3fc9de68 3f45dff4",
    (2**32 - 1, 2**32 - 1, 2**32 - 1): "3dbf990d bfcaef68 3ef71d10 404e403c 3a83dfb6 410bd472 bf037df4 bf49c49d 3ebf308a",
}
KEY = jax.random.key(0)


def normal(*shape):
    return np.zeros(shape, np.float32), np.ones(shape, np.float32)


def kl_bits(m, s):
    m, s = np.asarray(m, float), np.asarray(s, float)
    return float(np.sum(-np.log(s) + (s**2 + m**2) / 2 - 0.5) / np.log(2))


def coded(m, s, bits, blocks, method="a_star"):
    """Coded samples of N(m, s²), in the prior's coordinates, float [2 blocks, d]; the prior is N(−1, 0.5²).

    A block has another row with −m, whose sample is turned round: it hardly ever wants the same candidates.
    """
    means, scales = np.array([m, np.negative(m)]), np.array([s, s])
    mean, scale = np.full(means.shape[1], -1.0), np.full(means.shape[1], 0.5)
    rows = []
    for block in range(blocks):
        indices = rec.encode_block(KEY, 5, block, mean + scale * means, scale * scales, mean, scale, bits, None, method)
        rows.append((rec.decode_blocks(5, block, indices, mean, scale) - mean) / scale * [[1], [-1]])
    return np.concatenate(rows)


def hexadecimal(array):
    return " ".join(f"{word:08x}" for word in array.view(np.uint32))


@pytest.mark.parametrize("where", GOLDEN)
def test_samples_are_those_of_the_format(where):
    assert hexadecimal(rec.decode_block(*where, MEAN, SCALE)) == GOLDEN[where]


def by_the_page(seed, block, index, mean, scale, table):
    """A decoder after docs/bitstream.md, in Python's integers."""
    samples = []
    for j in range(len(mean)):
        c, k = [index, j // 8, 0, 0], [seed, block]
        for _ in range(10):
            p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [q >> 32 ^ c[1] ^ k[0], q % 2**32, p >> 32 ^ c[3] ^ k[1], p % 2**32]
            k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
        u = c[j % 8 // 2] >> 16 * (j % 2) & 0xFFFF
        z = np.float32((table[u - 2**15] if u >= 2**15 else -table[2**15 - 1 - u]) / 2**21)
        samples.append(mean[j] + scale[j] * z)
    return np.array(samples, np.float32)


def test_a_decoder_of_the_page_alone_gives_equal_bits():
    page = (ROOT / "docs" / "bitstream.md").read_text(encoding="utf-8").partition("## Samples by relative entropy coding")[2]
    data = (ROOT / "vcinr" / "posterior" / "normal_quantiles.npy").read_bytes()[-4 * 2**15 :]
    assert hashlib.sha256(data).hexdigest() in page
    table = [int.from_bytes(data[i : i + 4], "little", signed=True) for i in range(0, len(data), 4)]
    rng = np.random.default_rng(0)
    mean, scale = rng.normal(size=37).astype(np.float32), rng.gamma(1, size=37).astype(np.float32)
    for seed, block, index in rng.integers(0, 2**32, (20, 3)).tolist():
        theirs, ours = by_the_page(seed, block, index, mean, scale, table), rec.decode_block(seed, block, index, mean, scale)
        assert hexadecimal(theirs) == hexadecimal(ours)
    # The page's example.
    words = re.search(r"`((?:[0-9a-f]{8} ){8}[0-9a-f]{8})`", page)[1]
    assert words == hexadecimal(by_the_page(42, 7, 65535, MEAN, SCALE, table)) == GOLDEN[42, 7, 65535]


def test_decoding_many_is_decoding_each():
    indices = np.array([5, 0, 5, 2**20])
    many = rec.decode_blocks(1, 2, indices, MEAN, SCALE)
    for row, index in zip(many, indices.tolist(), strict=True):
        np.testing.assert_array_equal(row, rec.decode_block(1, 2, index, MEAN, SCALE))
    assert rec.decode_blocks(1, 2, np.zeros(0, int), MEAN, SCALE).shape == (0, 9)


@pytest.mark.parametrize(("m", "s", "bits"), [([2.0], [0.4], 12), ([1.2, -0.9, 0.5], [0.5, 0.6, 0.8], 11), ([0.5], [1.2], 9)])
@pytest.mark.parametrize("method", rec.METHODS)
def test_coded_samples_are_distributed_as_the_posterior(m, s, bits, method):
    assert bits >= kl_bits(m, s) + 8
    samples, exact = coded(m, s, bits, 300, method), np.random.default_rng(0).normal(m, s, (20000, len(m)))
    # All marginals, and one function of all dimensions together.
    for f in [*(lambda w, j=j: w[:, j] for j in range(len(m))), lambda w: np.sum(((w - m) / s) ** 2 - w**2, axis=1)]:
        assert stats.ks_2samp(f(samples), f(exact)).pvalue > 1e-3


def test_bias_falls_with_extra_bits_and_its_bound_says_nothing_yet():
    """Total variation of A* coding's samples by a histogram, for t = 0 and 8; the lemma's bound exceeds 1 for t ≤ 16."""
    m, s = 2.15, 0.4
    kl = kl_bits(m, s)
    assert 3.9 < kl < 4.2
    edges = stats.norm.ppf(np.arange(1, 16) / 16, m, s)
    variation = []
    for bits in (4, 12):
        counts = np.bincount(np.searchsorted(edges, coded([m], [s], bits, 400)[:, 0]), minlength=16)
        variation.append(np.abs(counts / 800 - 1 / 16).sum() / 2)
    # With no bias at all, 800 samples in 16 bins are expected at 0.055.
    assert variation[0] > 0.13
    assert variation[1] < 0.09
    w = np.random.default_rng(0).normal(m, s, 100000)
    ratios = stats.norm.logpdf(w, m, s) - stats.norm.logpdf(w)
    assert rec.total_variation_bound(ratios, 8) > 1
    # By hand: a divergence of 1 bit, and a quarter of the samples at 3 bits above it.
    by_hand = np.log(2) * np.array([0, 0, 0, 4])
    assert rec.total_variation_bound(by_hand, 2) == pytest.approx(4 * np.sqrt(2**-0.5 + 2 * np.sqrt(1 / 4)))
    # Far beyond the spread of the ratios the bound is 4 · 2^(−t/8).
    assert rec.total_variation_bound(ratios, 80) == pytest.approx(4 * 2**-10)


def test_minimal_random_coding_chooses_in_proportion_to_the_ratios():
    """Of fixed candidates, each has its exact probability: the softmax of log q / p."""
    m, s, rows = np.array([0.8, -0.3], np.float32), np.array([0.6, 0.9], np.float32), 20000
    means, scales = np.tile(m, (rows, 1)), np.tile(s, (rows, 1))
    indices = rec.encode_block(KEY, 1, 2, means, scales, *normal(2), 3, None, "minimal_random")
    z = candidate_normals(1, 2, np.arange(8), 2).astype(float)
    weight = np.exp(np.sum(stats.norm.logpdf(z, m, s) - stats.norm.logpdf(z), axis=1))
    assert stats.chisquare(np.bincount(indices, minlength=8), rows * weight / weight.sum()).pvalue > 1e-3


@pytest.mark.parametrize("block", range(6))
def test_a_star_chooses_between_two_by_the_closed_form(block):
    """T_1 / T_2 is uniform, so the first of two candidates wins with probability min(1, r_1 / r_2)."""
    m, s, rows = 0.8, 0.6, 20000
    indices = rec.encode_block(KEY, 1, block, np.full((rows, 1), m), np.full((rows, 1), s), *normal(1), 1)
    z = candidate_normals(1, block, np.arange(2), 1)[:, 0].astype(float)
    first = min(1, np.exp(np.subtract(*(stats.norm.logpdf(z, m, s) - stats.norm.logpdf(z)))))
    assert np.mean(indices == 0) == pytest.approx(first, abs=4 * np.sqrt(first * (1 - first) / rows) + 1e-9)


def test_a_star_is_algorithm_6():
    """Indices of 16 fixed candidates against the thesis' loop, with truncated Gumbels by the inverse of their distribution."""
    m, s, rows, rng = 1.1, 0.5, 20000, np.random.default_rng(0)
    indices = rec.encode_block(KEY, 1, 2, np.full((rows, 1), m), np.full((rows, 1), s), *normal(1), 4)
    z = candidate_normals(1, 2, np.arange(16), 1)[:, 0].astype(float)
    ratio = stats.norm.logpdf(z, m, s) - stats.norm.logpdf(z)
    bound, best, index = np.full(rows, np.inf), np.full(rows, -np.inf), np.zeros(rows, int)
    for n in range(16):
        # P(G ≤ x | G ≤ b) = exp(−e^−x + e^−b).
        bound = -np.log(np.exp(-bound) - np.log(rng.uniform(size=rows)))
        index = np.where(bound + ratio[n] > best, n, index)
        best = np.maximum(best, bound + ratio[n])
    table = np.stack([np.bincount(each, minlength=16) for each in (indices, index)])
    assert stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue > 1e-3


def test_arrival_times_are_truncated_gumbels():
    """Each, by the distribution that the one before truncates, is uniform; so it goes on from one chunk to the next."""
    first, reached = rec.ordered_gumbels(KEY, jnp.zeros(500), 8)
    second, _ = rec.ordered_gumbels(jax.random.key(1), reached, 8)
    gumbels = np.concatenate([first, second], axis=1).astype(float)
    before = np.concatenate([np.full((500, 1), np.inf), gumbels[:, :-1]], axis=1)
    assert np.all(gumbels < before)
    uniform = np.exp(-np.exp(-gumbels) + np.exp(-before))
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(uniform.T)[~np.eye(16, dtype=bool)]).max() < 0.2


def test_a_star_indices_are_small_and_keep_to_their_bound():
    """E log2 n of A* coding is at most the divergence + 1 + log2(e) / e; minimal random coding's indices are uniform."""
    m, s, bits, rows = np.full(4, 0.9), np.full(4, 0.6), 11, 100
    logs = {}
    for method in rec.METHODS:
        indices = np.concatenate(
            [
                rec.encode_block(
                    jax.random.key(9), 3, block, np.tile(m, (8, 1)), np.tile(s, (8, 1)), *normal(4), bits, None, method
                )
                for block in range(rows)
            ]
        )
        assert indices.dtype == np.int32 and 0 <= indices.min() and indices.max() < 1 << bits
        logs[method] = np.log2(indices + 1.0)
        if method == "minimal_random":
            # Eight rows share candidates, which leaves eighths of the indices dependent.
            assert stats.kstest(indices[::8] / 2**bits, "uniform").pvalue > 1e-3
    assert 0.5 < logs["a_star"].mean() < kl_bits(m, s) + 1 + np.log2(np.e) / np.e
    assert np.floor(logs["a_star"]).mean() < np.floor(logs["minimal_random"]).mean() - 2


@pytest.mark.parametrize("bits", [0, 13])
def test_posterior_equal_to_prior(bits):
    """All ratios are 1. A* coding then takes the first candidate whatever the chunk; minimal random coding any."""
    mean, scale = np.array([[1e3, -7]] * 64, np.float32), np.array([[1e-4, 9]] * 64, np.float32)
    arguments = KEY, 0, 0, mean, scale, mean[0], scale[0], bits
    np.testing.assert_array_equal(rec.encode_block(*arguments), 0)
    indices = rec.encode_block(*arguments, method="minimal_random")
    assert len(set(indices // 2 ** max(bits - 3, 0))) == min(2**bits, 8)


@pytest.mark.parametrize("method", rec.METHODS)
def test_a_narrow_posterior_takes_the_nearest_of_all_candidates(method):
    """Over several chunks, where ratios differ by far more than any noise."""
    m = np.linspace(-2, 2, 40, dtype=np.float32)[:, None]
    indices = rec.encode_block(KEY, 8, 9, m, np.full_like(m, 1e-7), *normal(1), 14, None, method)
    z = candidate_normals(8, 9, np.arange(1 << 14), 1)[:, 0]
    distance = np.abs(z[None, :] - m)
    chosen = np.take_along_axis(distance, indices[:, None], axis=1)[:, 0]
    np.testing.assert_array_equal(chosen, distance.min(axis=1))
    assert indices.max() >= 3 * rec.CHUNK


def test_what_the_mask_leaves_out_is_ignored():
    rng = np.random.default_rng(0)
    m, s = rng.normal(size=(50, 5)).astype(np.float32), rng.uniform(0.3, 1, (50, 5)).astype(np.float32)
    mean, scale = rng.normal(size=5).astype(np.float32), rng.uniform(0.3, 1, 5).astype(np.float32)
    alone = rec.encode_block(KEY, 1, 2, m, s, mean, scale, 10)
    mask = np.arange(12) < 5

    def padded(array, filler):
        return np.concatenate([array, np.full((*array.shape[:-1], 7), filler, np.float32)], axis=-1)

    for filler in (np.nan, np.inf, 0, -1):
        arrays = [padded(array, filler) for array in (m, s, mean, scale)]
        np.testing.assert_array_equal(rec.encode_block(KEY, 1, 2, *arrays, 10, mask), alone)


def test_all_blocks_share_one_program():
    arrays = np.zeros((3, 6)), np.full((3, 6), 0.5), *normal(6)
    rec.encode_block(KEY, 1, 0, *arrays, 5)
    programs = rec._encode._cache_size()
    different = {tuple(rec.encode_block(KEY, seed, block, *arrays, 5, np.arange(6) < 4)) for seed in (1, 2) for block in range(4)}
    assert rec._encode._cache_size() == programs
    assert len(different) > 1


def test_scores_are_those_of_double_precision():
    """Also where means are many posterior scales away from the prior's, and terms of tens of thousands would cancel."""
    rng = np.random.default_rng(0)
    s = np.exp(rng.uniform(np.log(0.003), np.log(1.5), (40, 24)))
    m = rng.normal(size=(40, 24))
    z = np.concatenate([m + s * rng.normal(size=m.shape), rng.normal(size=(100, 24))]).astype(np.float32)
    m, s = m.astype(np.float32), s.astype(np.float32)
    ours = np.asarray(rec.log_ratios(*map(jnp.asarray, (z, m, s))), float)
    z, m, s = z.astype(float), m.astype(float), s.astype(float)
    theirs = np.sum(stats.norm.logpdf(z[None], m[:, None], s[:, None]) - stats.norm.logpdf(z[None]), axis=2)
    likely = np.diag(ours[:, :40]), np.diag(theirs[:, :40])
    assert np.sum(m**2 / s**2, axis=1).max() > 3e4
    np.testing.assert_allclose(*likely, atol=1e-3, rtol=0)
    np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"posterior_scale": np.zeros((2, 3))}, "posterior's scale must be positive: bound it"),
        ({"prior_scale": np.array([1, -1, 1])}, "prior's scale must be positive: bound it"),
        ({"posterior_mean": np.full((2, 3), np.nan)}, "posterior's mean and scale must be finite"),
        ({"prior_mean": np.full(3, np.inf)}, "prior's mean and scale must be finite"),
        ({"prior_scale": np.full(3, 1e-20)}, "differ by a factor of"),
        ({"posterior_mean": np.full((2, 3), 1e38), "prior_scale": np.full(3, 1e-3)}, "differ by a factor of"),
        ({"posterior_mean": np.zeros(3)}, "must be .rows, dimensions."),
        ({"posterior_scale": np.ones((2, 4))}, "posterior's mean and scale must have shape"),
        ({"prior_mean": np.zeros((2, 3))}, "prior's mean and scale must have shape"),
        ({"mask": np.ones(3)}, "mask must be bool"),
        ({"mask": np.ones(4, bool)}, "mask must be bool"),
        ({"bits": 31}, "bits must lie in 0..30, got 31: split the block"),
        ({"bits": -1}, "bits must lie in"),
        ({"method": "a*"}, "unknown method 'a.'; valid: a_star, minimal_random"),
        ({"block": -1}, "block must lie in"),
        ({"seed": 2**32}, "seed must lie in"),
    ],
)
def test_encoding_refuses_what_it_cannot_code(change, complaint):
    good = {"key": KEY, "seed": 0, "block": 0, "posterior_mean": np.zeros((2, 3)), "posterior_scale": np.ones((2, 3)), "bits": 4}
    good |= {"prior_mean": np.zeros(3), "prior_scale": np.ones(3), "mask": np.ones(3, bool), "method": "a_star"}
    rec.encode_block(**good)
    with pytest.raises(ValueError, match=complaint):
        rec.encode_block(**good | change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"indices": np.array([-1])}, "indices must be a vector of integers"),
        ({"indices": np.array([2**32])}, "indices must be a vector of integers"),
        ({"indices": np.array([1.0])}, "indices must be a vector of integers"),
        ({"indices": np.array([[1]])}, "indices must be a vector of integers"),
        ({"mean": np.zeros((1, 2))}, "must be vectors"),
        ({"scale": np.ones(3)}, "must have shape"),
        ({"scale": np.array([1, 0])}, "must be positive"),
        ({"mean": np.array([0, np.nan])}, "must be finite"),
        ({"block": 2**32}, "block must lie in"),
    ],
)
def test_decoding_refuses_what_names_no_sample(change, complaint):
    good = {"seed": 0, "block": 0, "indices": np.array([1]), "mean": np.zeros(2), "scale": np.ones(2)}
    rec.decode_blocks(**good)
    with pytest.raises(ValueError, match=complaint):
        rec.decode_blocks(**good | change)

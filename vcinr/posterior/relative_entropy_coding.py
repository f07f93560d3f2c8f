"""Gaussian samples as the index of a shared candidate: A* coding and minimal random coding.

A block's prior draws 2^bits candidates, w = μ_p + σ_p z, from randomness that the decoder has too; the encoder chooses the
index of one that is distributed nearly as the posterior. Source: Flamich et al. 2022, "Fast relative entropy coding with A*
coding" (depth-limited, global bound), which is the ordered random coding of Theis and Yosri 2022; minimal random coding is of
Havasi et al. 2019.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.posterior.shared_randomness import MAX_WORD, candidate_normals

CHUNK = 4096
"""Candidates that are held at a time: some arrays float32 [rows, CHUNK]."""

MAX_BITS = 30
METHODS = ("a_star", "minimal_random")

# Differences in means, or ratios of scales, whose log ratios float32 could not hold.
_FAR = 1e8


def decode_block(seed: int, block: int, index: int, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The sample that an index names, float32 [d]; see `decode_blocks`."""
    return decode_blocks(seed, block, np.array([index]), mean, scale)[0]


def decode_blocks(seed: int, block: int, indices: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The samples that indices of one block name, one per patch or signal; float32 [b, d], equal to the bit everywhere.

    Args:
        seed, block: unsigned 32-bit numbers; all patches and signals share a block's candidates.
        indices: integers [b] in 0 … 2^32 − 1.
        mean, scale: the prior's of the block's dimensions, [d], finite, scale > 0; taken as float32.

    Raises:
        ValueError: on a number out of its range or arrays that don't fit.
    """
    indices, mean, scale = np.asarray(indices), np.asarray(mean, np.float32), np.asarray(scale, np.float32)
    _check_words(seed, block)
    if (
        indices.ndim != 1
        or indices.dtype.kind not in "iu"
        or (indices.size and not 0 <= indices.min() <= indices.max() <= MAX_WORD)
    ):
        raise ValueError(f"indices must be a vector of integers in 0..2^32 − 1, got {indices.dtype} {indices.shape}")
    if mean.ndim != 1:
        raise ValueError(f"the prior's mean and scale must be vectors, got shape {mean.shape}")
    _check_gaussian("prior", mean, scale, mean.shape)
    normals = candidate_normals(seed, block, indices, mean.size)
    # Two operations, each rounded to float32: a fused one, as compilers like to make, rounds once and gives other bits.
    return np.add(mean, np.multiply(scale, normals))


def encode_block(
    key: jax.Array,
    seed: int,
    block: int,
    posterior_mean: Any,
    posterior_scale: Any,
    prior_mean: Any,
    prior_scale: Any,
    bits: int,
    mask: Any = None,
    method: str = "a_star",
) -> np.ndarray:
    """Indices whose candidates are distributed nearly as the posteriors, int32 [b] in 0 … 2^bits − 1.

    Blocks padded to one d, with equal b and bits, share one compiled program. Time is in proportion to b d 2^bits.
    Where posterior and prior are equal, A* coding gives index 0.

    Args:
        key: the encoder's own randomness, independent for each row and block; decoding never needs it.
        seed, block: unsigned 32-bit numbers that name the candidates, shared with the decoder.
        posterior_mean, posterior_scale: [b, d], of b patches or signals.
        prior_mean, prior_scale: [d].
        bits: the block's KL divergence in bits, κ, and some more, t; the sample's bias falls with t (`total_variation_bound`).
        mask: bool [d], the dimensions that count; what others hold is ignored. None: all.
        method: `a_star` (thesis, Algorithm 6), whose indices tend to be small, or `minimal_random`, whose are uniform.

    Raises:
        ValueError: for values that are not finite or scales that are not positive, shapes that don't fit, bits outside
            0 … `MAX_BITS`, an unknown method.
    """
    means, scales, mean, scale = (
        np.asarray(array, np.float32) for array in (posterior_mean, posterior_scale, prior_mean, prior_scale)
    )
    if means.ndim != 2:
        raise ValueError(f"posterior_mean must be [rows, dimensions], got shape {means.shape}")
    mask = np.ones(means.shape[1:], bool) if mask is None else np.asarray(mask)
    if mask.shape != means.shape[1:] or mask.dtype != bool:
        raise ValueError(f"mask must be bool {list(means.shape[1:])}, got {mask.dtype} {list(mask.shape)}")
    _check_words(seed, block)
    _check_gaussian("posterior", means, scales, means.shape, mask)
    _check_gaussian("prior", mean, scale, means.shape[1:], mask)
    if not 0 <= bits <= MAX_BITS:
        raise ValueError(f"bits must lie in 0..{MAX_BITS}, got {bits}: split the block where it has more")
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; valid: {', '.join(METHODS)}")
    # In the prior's coordinates. Dimensions that don't count are the prior itself, whose ratio is exactly 1.
    with np.errstate(over="ignore", invalid="ignore"):
        means = np.divide(means - mean, scale, out=np.zeros_like(means), where=mask)
        scales = np.divide(scales, scale, out=np.ones_like(scales), where=mask)
    if not ((np.abs(means) < _FAR) & (scales > 1 / _FAR) & (scales < _FAR)).all():
        raise ValueError(f"a posterior and its prior differ by a factor of {_FAR:g}: bound the scales of both")
    return np.asarray(_encode(key, np.uint32(seed), np.uint32(block), means, scales, int(bits), method))


def log_ratios(normals: jax.Array, mean: jax.Array, scale: jax.Array) -> jax.Array:
    """log q(z) / p(z) in nats of n candidates under b posteriors, [b, n]; p is the standard normal.

    normals: [n, d].  mean, scale: of q, [b, d], in the prior's coordinates: (μ_q − μ_p) / σ_p and σ_q / σ_p.
    As a product of matrices in (z², z, 1), terms of thousands would cancel in float32. Here z − m comes first, and no term of a
    likely candidate is large.
    """

    def add(total: jax.Array, dimension: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        z, m, inverse = dimension
        distance = (z[None, :] - m[:, None]) * inverse[:, None]
        return total + 0.5 * (z * z)[None, :] - 0.5 * distance * distance, None

    start = jnp.broadcast_to(-jnp.log(scale).sum(axis=1)[:, None], (mean.shape[0], normals.shape[0]))
    return jax.lax.scan(add, start, (normals.T, mean.T, 1 / scale.T), unroll=8)[0]


def ordered_gumbels(key: jax.Array, reached: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The next `count` truncated Gumbels of Algorithm 6 [b, count], falling, and the times reached after them [b].

    TruncGumbel(G) is −log(exp(−G) + E) with E exponential, so that exp(−G_n) = T_n are sums of exponentials: arrival times of a
    Poisson process of rate 1. `reached` is the last one so far [b], 0 at the start (G = ∞).
    """
    times = reached[:, None] + jnp.cumsum(_exponentials(key, (reached.size, count)), axis=1)
    return -jnp.log(times), times[:, -1]


def total_variation_bound(sampled_log_ratios: np.ndarray, extra_bits: float | int) -> float:
    """The bound of lemma A.2.1 (Theis and Yosri 2022) on the total variation between coded samples and the posterior.

    sampled_log_ratios: [n], log q(w) / p(w) in nats of samples w of the posterior; their mean stands for the divergence.
    extra_bits: t ≥ 0.
    It is 4 ε > 4 · 2^(−t/8), so it says nothing (it exceeds 1) for any t ≤ 16: samples are far better than the bound.
    """
    bits = np.asarray(sampled_log_ratios, np.float64) / np.log(2)
    tail = np.mean(bits >= bits.mean() + extra_bits / 2)
    return float(4 * np.sqrt(2 ** (-extra_bits / 4) + 2 * np.sqrt(tail)))


def _exponentials(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    # jax.random.exponential is 0 once in 2^23, and coarse near it, where the winners of minimal random coding are.
    uniform = (jax.random.bits(key, shape, jnp.uint32).astype(jnp.float32) + 0.5) * 2.0**-32
    return -jnp.log1p(-jnp.minimum(uniform, 1 - 2.0**-24))


@functools.partial(jax.jit, static_argnames=("bits", "method"))
def _encode(
    key: jax.Array, seed: jax.Array, block: jax.Array, mean: jax.Array, scale: jax.Array, bits: int, method: str
) -> jax.Array:
    key, rows = jax.random.fold_in(key, block), mean.shape[0]
    chunk = min(CHUNK, 1 << bits)

    def step(carry: tuple[jax.Array, jax.Array, jax.Array], number: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        best, index, reached = carry
        indices = number * np.uint32(chunk) + jnp.arange(chunk, dtype=jnp.uint32)
        scores = log_ratios(candidate_normals(seed, block, indices, mean.shape[1], jnp), mean, scale)
        noise = jax.random.fold_in(key, number)
        if method == "a_star":
            gumbels, reached = ordered_gumbels(noise, reached, chunk)
        else:
            gumbels = -jnp.log(_exponentials(noise, (rows, chunk)))
        scores += gumbels
        place = jnp.argmax(scores, axis=1)
        score = jnp.take_along_axis(scores, place[:, None], axis=1)[:, 0]
        return (jnp.maximum(best, score), jnp.where(score > best, indices[place].astype(jnp.int32), index), reached), None

    start = jnp.full(rows, -jnp.inf), jnp.zeros(rows, jnp.int32), jnp.zeros(rows)
    return jax.lax.scan(step, start, jnp.arange((1 << bits) // chunk, dtype=jnp.uint32))[0][1]


def _check_words(seed: int, block: int) -> None:
    for name, word in (("seed", seed), ("block", block)):
        if not 0 <= word <= MAX_WORD:
            raise ValueError(f"{name} must lie in 0..2^32 − 1, got {word}")


def _check_gaussian(name: str, mean: np.ndarray, scale: np.ndarray, shape: tuple[int, ...], mask: Any = True) -> None:
    if mean.shape != shape or scale.shape != shape:
        raise ValueError(f"the {name}'s mean and scale must have shape {shape}, got {mean.shape} and {scale.shape}")
    if not (np.isfinite(mean) & np.isfinite(scale) | ~np.asarray(mask)).all():
        raise ValueError(f"the {name}'s mean and scale must be finite: start again from parameters that have not diverged")
    if not ((scale > 0) | ~np.asarray(mask)).all():
        raise ValueError(f"the {name}'s scale must be positive: bound it from below, by 1e-6 say")

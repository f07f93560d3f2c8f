"""Uniform quantisers: equidistant levels between two ends, or symmetric about zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vcinr.entropy.quantisers import hard

TINY_STEP = 1e-30
"""Step of a range of width 0: positive, and far above the subnormal numbers of float32."""


def uniform_range(mean: Any, std: Any, num_std: float, bits: int) -> tuple[jax.Array, jax.Array]:
    """(lower, step) of 2^bits levels evenly over mean ± num_std · std (Dupont et al. 2022, section 3.3).

    mean, std: per latent dimension, [k] or anything that broadcasts.   num_std: half the range in standard deviations.
    bits: 1 to 24.   The step is 2 num_std std / (2^bits − 1), float32, at least `TINY_STEP`.
    """
    _check(bits, 1)
    if not 0 < num_std < float("inf"):
        raise ValueError(f"num_std must be positive and finite, not {num_std}")
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    half = num_std * std
    return mean - half, jnp.maximum(2.0 * half / (2**bits - 1), TINY_STEP)


def quantise(x: Any, lower: Any, step: Any, bits: Any) -> jax.Array:
    """Symbols of x in 0..2^bits − 1, as whole float32 numbers: the nearest level, at the ends the last one.

    bits: as for `uniform_range`, or a traced integer, so that one compiled function serves all depths.
    """
    # A model stored in 16 bits may hold a step of 0.
    return jnp.clip(hard((x - lower) / jnp.maximum(step, TINY_STEP)), 0, 2**bits - 1)


def dequantise(symbols: Any, lower: Any, step: Any) -> jax.Array:
    """The levels of symbols, lower + symbol · step, float32."""
    return lower + jnp.asarray(symbols, jnp.float32) * step


def symmetric_step(max_abs: Any, bits: int) -> jax.Array:
    """Step of 2^bits − 1 levels from −max_abs to max_abs, float32, at least `TINY_STEP`.

    bits: 2 to 24. Zero is a level, so zeros stay zeros (Strümpler et al. 2022).
    """
    _check(bits, 2)
    return jnp.maximum(jnp.asarray(max_abs, jnp.float32) / (2 ** (bits - 1) - 1), TINY_STEP)


def quantise_symmetric(x: Any, step: Any, bits: Any) -> jax.Array:
    """Symbols of x within ±(2^(bits−1) − 1), as whole float32 numbers; ``symbols · step`` are the levels.

    bits: as for `symmetric_step`, or a traced integer.
    """
    largest = 2 ** (bits - 1) - 1
    return jnp.clip(hard(x / step), -largest, largest)


def _check(bits: int, least: int) -> None:
    # float32 holds whole numbers exactly up to 2^24.
    if not least <= bits <= 24:
        raise ValueError(f"bits must lie in {least}..24, not {bits}")

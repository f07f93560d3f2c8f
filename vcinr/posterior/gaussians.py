"""Factorized Gaussians: posteriors of single signals, the prior that all share, and how far one is from the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

NATS_PER_BIT = float(np.log(2.0))

SMALLEST_SCALE = 1e-9
"""Least standard deviation of a prior: a dimension on which all training signals agree still needs a density."""


class Gaussian(NamedTuple):
    """A Gaussian with independent entries.

    mean: any shape.   scale: standard deviations, positive, of that shape.
    """

    mean: Any
    scale: Any


def positive(raw: Any) -> jax.Array:
    """Standard deviations of unconstrained numbers: softplus(raw) / 6 (He 2023, section 3.1.1)."""
    return jax.nn.softplus(raw) / 6.0


def unconstrained(scale: Any) -> np.ndarray:
    """The inverse of `positive`, on the host; scale: positive."""
    # log(eʸ − 1), which loses no digits for small y and does not overflow for large ones.
    y = 6.0 * np.asarray(scale, np.float64)
    return (y + np.log(-np.expm1(-y))).astype(np.float32)


def to_tree(q: Gaussian) -> dict[str, Any]:
    """A Gaussian as the numbers that Adam moves: its mean, and its deviation unconstrained."""
    return {"mean": q.mean, "raw_scale": unconstrained(q.scale)}


def from_tree(tree: Mapping[str, Any]) -> Gaussian:
    """The inverse of `to_tree`."""
    return Gaussian(tree["mean"], positive(tree["raw_scale"]))


def kl_nats(q: Gaussian, p: Gaussian) -> Float[Array, "..."]:
    """KL divergence of q from p, entry by entry, in nats (He 2023, equation B.5)."""
    ratio = jnp.square(q.scale / p.scale)
    return 0.5 * (ratio + jnp.square((q.mean - p.mean) / p.scale) - 1.0 - jnp.log(ratio))


def best_prior(posteriors: Gaussian) -> Gaussian:
    """The Gaussian with the least mean KL divergence of posteriors [m, …] from it, on the host (He 2023, equation 3.8)."""
    means, scales = (np.asarray(a, np.float64) for a in posteriors)
    mean = means.mean(0)
    scale = np.sqrt(np.mean(np.square(scales) + np.square(means - mean), axis=0))
    return Gaussian(mean.astype(np.float32), np.maximum(scale, SMALLEST_SCALE).astype(np.float32))


def draw(key: jax.Array, q: Gaussian) -> jax.Array:
    """One sample of q."""
    return q.mean + q.scale * jax.random.normal(key, jnp.shape(q.mean), jnp.result_type(q.mean))

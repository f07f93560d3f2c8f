"""Hard-concrete gates: random z in [0, 1] that are exactly 0 or 1 with positive probability, differentiable in log α.

Louizos, Welling and Kingma 2018, "Learning sparse neural networks through L0 regularization", section 2.2.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

BETA = 2 / 3
"""Temperature of the concrete distribution."""
GAMMA, ZETA = -0.1, 1.1
"""The interval that (0, 1) is stretched to before clipping."""


def sample(key: jax.Array, log_alpha: Float[Array, "*g"]) -> Float[Array, "*g"]:
    """Gates z in [0, 1] (equations 10 and 11). The same key gives the same noise, whatever log α is.

    The gradient in log α is that of the clipped value: zero where a gate came out closed or fully open.
    """
    tiny = jnp.finfo(log_alpha.dtype).eps
    noise = jax.random.uniform(key, log_alpha.shape, log_alpha.dtype, tiny, 1.0 - tiny)
    return _stretched(jax.nn.sigmoid((jnp.log(noise) - jnp.log1p(-noise) + log_alpha) / BETA))


def deterministic(log_alpha: Float[Array, "*g"]) -> Float[Array, "*g"]:
    """Gates ẑ in [0, 1] for test time (equation 13); 0 where log α ≤ log(−γ/ζ), 1 from log(ζ/−γ) on."""
    return _stretched(jax.nn.sigmoid(log_alpha))


def open_probability(log_alpha: Float[Array, "*g"]) -> Float[Array, "*g"]:
    """P(z > 0) of a sampled gate, whose sum is the L0 penalty (equation 12)."""
    return jax.nn.sigmoid(log_alpha - BETA * jnp.log(-GAMMA / ZETA))


def log_alpha_of(probability: Float[Array, "*g"]) -> Float[Array, "*g"]:
    """The log α at which a sampled gate is open with this probability, in (0, 1): the inverse of `open_probability`."""
    return jnp.log(probability) - jnp.log1p(-probability) + BETA * jnp.log(-GAMMA / ZETA)


def _stretched(s: jax.Array) -> jax.Array:
    return jnp.clip(s * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)

"""Quantisers to whole numbers, and their relaxations for training. Entropy models never round."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def noise(key: jax.Array, z: jax.Array) -> jax.Array:
    """z + u, u uniform on [-½, ½): the relaxation of training (Ballé et al. 2017, equation 10)."""
    return z + jax.random.uniform(key, z.shape, z.dtype, -0.5, 0.5)


def hard(z: jax.Array) -> jax.Array:
    """The nearest whole number, halves to even; its gradient is zero."""
    return jnp.round(z)


def straight_through(z: jax.Array) -> jax.Array:
    """`hard` in value, the identity in gradient (Bengio et al. 2013, section 4)."""
    return z + jax.lax.stop_gradient(jnp.round(z) - z)

"""Encoder effort: symbols rounded again with the effect of each on all others taken into account; the format stays the same.

Rounding (`vcinr.context.rounding`) weighs a symbol's own bits against its own error. It ignores that the symbol is also context
of later ones, and that the synthesis corrects some of the error. `targets` adds both, to first order about the symbols of the
pass before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vcinr.context import prior as context_prior
from vcinr.context import synthesis as neighbour_synthesis
from vcinr.context.order import Order

MAX_EFFORT = 8
"""Passes at most."""
MAX_SHIFT = 0.3
"""Largest distance of a target from z, in symbols; the first order is not trusted further."""


def cost(order: Order, parts: Mapping[str, Any], own: jax.Array, seen: jax.Array, z: jax.Array) -> jax.Array:
    """Bits of the symbols that are coded in context, plus the weighted squared error after the synthesis, in bits.

    Args:
        order: the order of coding.
        parts: at one operating point, ``prior``, ``synthesis`` and ``weight`` [k], the bits that a squared error of one symbol
            is worth; and ``point``, its number.
        own: the symbols [*counts, k] as what is coded, and as q in ẑ = q + correction.
        seen: the same symbols as what the prior and the correction look at. Two arguments, for a gradient by one of them.
        z: what the symbols stand for, [*counts, k].
    """
    bits = context_prior.total_bits(order, parts["prior"], parts["point"], seen, own)
    corrected = neighbour_synthesis.apply(parts["synthesis"], neighbour_synthesis.rows(seen, order.neighbour_dims, jnp))
    return bits + jnp.sum(parts["weight"] * jnp.square(own + (corrected - seen) - z))


def targets(order: Order, parts: Mapping[str, Any], symbols: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(t, cost of ``symbols``): what to round instead of z [*counts, k], so that w (q − t)² + bits(q) is the whole cost.

    With the gradient g of the cost by what is seen, the correction c of the synthesis and the weight w, w (q + c − z)² + g q
    differs from w (q − t)² by a constant if t = z − c − g / 2w. t − z is clipped to ±`MAX_SHIFT`.
    """
    total, gradient = jax.value_and_grad(lambda seen: cost(order, parts, symbols, seen, z))(symbols)
    row = neighbour_synthesis.rows(symbols, order.neighbour_dims, jnp)
    correction = neighbour_synthesis.apply(parts["synthesis"], row) - symbols
    shift = correction + gradient / (2.0 * jnp.maximum(parts["weight"], 1e-6))
    return z - jnp.clip(shift, -MAX_SHIFT, MAX_SHIFT), total

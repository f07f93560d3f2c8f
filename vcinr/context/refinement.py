"""Encoder effort: a signal's symbols decided again, knowing what the first decisions did to each other; same file, same decoder.

Rounding turn by turn weighs a symbol's own bits against its own error. It does not see that the symbol is also context of later
ones, and that the synthesis corrects what rounding did. `targets` adds both, to first order about the symbols of the last pass.
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
FURTHEST = 0.3
"""How far a target may lie from z, in symbols: beyond, first order says nothing."""


def cost(order: Order, parts: Mapping[str, Any], own: jax.Array, seen: jax.Array, z: jax.Array) -> jax.Array:
    """Bits of symbols [*counts, k] but for those coded as differences, and what the synthesis' error is worth in bits.

    own, seen: the symbols as what is coded and scaled back, and as what prior and synthesis look at; equal for the cost itself.
    parts: ``prior``, ``synthesis`` and ``weight`` [k] of one point, and its number, ``point``.
    """
    predicted = context_prior.predict(order, parts["prior"], parts["point"], seen)
    bits = jnp.sum(jnp.where(order.predicted(z.shape[:-1]), context_prior.bin_bits(*predicted, own), 0.0))
    corrected = neighbour_synthesis.apply(parts["synthesis"], neighbour_synthesis.rows(seen, order.neighbour_dims, jnp))
    return bits + jnp.sum(parts["weight"] * jnp.square(own + (corrected - seen) - z))


def targets(order: Order, parts: Mapping[str, Any], symbols: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(t, cost of symbols): what to round instead of z [*counts, k], so that weight · (t − q)² + bits(q) is the whole cost.

    With a gradient g of the cost by what is seen and a correction c of the synthesis, w (q + c − z)² + g q is least where
    w (q − t)² is, t = z − c − g / 2w.
    """
    total, gradient = jax.value_and_grad(lambda seen: cost(order, parts, symbols, seen, z))(symbols)
    row = neighbour_synthesis.rows(symbols, order.neighbour_dims, jnp)
    correction = neighbour_synthesis.apply(parts["synthesis"], row) - symbols
    shift = correction + gradient / (2.0 * jnp.maximum(parts["weight"], 1e-6))
    return z - jnp.clip(shift, -FURTHEST, FURTHEST), total

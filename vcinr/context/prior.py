"""The context prior in floats, for training: location and scale of each symbol from what is decoded before it.

For symbol q of dimension i, p(q) = F(q + ½ − μ_i) − F(q − ½ − μ_i) with F logistic of scale s_i. μ and log s come from a network
with one hidden layer per group of dimensions. `vcinr.context.integer_prior` is the same network in whole numbers, which files
are coded with because every machine evaluates it alike (Ballé et al. 2019, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vcinr.context.features import (
    MAX_CONTEXT_SYMBOL,
    Arithmetic,
    Features,
    context_sizes,
    group_context,
    lattice_context,
)
from vcinr.context.lattice import lattice_neighbours, odd_patches
from vcinr.context.order import Order
from vcinr.context.tables import LOG_SCALE_MIN, LOG_SCALE_STEP, NUM_SCALES

ESCAPE_BITS = 20.0
"""About what an escape costs."""


def float_features(symbols: Any) -> Features:
    """`Features` of symbols, or of noisy stand-ins for them."""
    clipped = jnp.clip(symbols, -MAX_CONTEXT_SYMBOL, MAX_CONTEXT_SYMBOL)
    size = jnp.log1p(jnp.abs(clipped))
    return jnp.sign(clipped) * size, size, clipped


def _floor_divide(a: jax.Array, b: Any) -> jax.Array:
    """⌊a / b⌋ with the gradient of a / b."""
    x = a / b
    return x + jax.lax.stop_gradient(jnp.floor(x) - x)


FLOATS = Arithmetic(jnp, 1.0, float_features, _floor_divide)
"""JAX floats."""


def init(key: jax.Array, order: Order, rank: int, width: int, log_scale: jax.Array) -> dict[str, Any]:
    """Parameters of a prior that ignores its context at first: location 0 and the given scales.

    width: hidden units per group.   log_scale: log s of each dimension at each operating point, [points, k].
    """
    params: dict[str, Any] = {"log_scale": log_scale}
    for group in order.predicted_groups:
        start, stop = order.span(group)
        fan_in, linear = context_sizes(order, rank, group)
        params[f"group_{group}"] = {
            "kernel": jax.random.normal(jax.random.fold_in(key, group), (fan_in, width)) * fan_in**-0.5,
            "bias": jnp.zeros((len(log_scale), width)),
            "out": jnp.zeros((width, 2 * (stop - start))),
            "linear": jnp.zeros((linear, stop - start)),
        }
    return params


def predict(order: Order, params: Mapping[str, Any], point: Any, symbols: Any) -> tuple[jax.Array, jax.Array]:
    """(μ, log s), each [*counts, k], of every symbol of one signal given the symbols before it.

    symbols: [*counts, k], or noisy stand-ins.   point: number of the operating point.
    A symbol that files code as a difference (see `Order.predicted`) has μ = 0 and the scale ``params["log_scale"]``.
    """
    rank = symbols.ndim - 1
    seen, odd = float_features(symbols), jnp.asarray(odd_patches(symbols.shape[:-1]), symbols.dtype)
    first, change = _predict_first(order, params, point, symbols[..., : order.ends[0]])
    locations, changes = [first], [change]
    for group in range(1, len(order.ends)):
        hidden, linear = group_context(order, rank, group, seen, odd, FLOATS)
        location, change = _network(params[f"group_{group}"], point, hidden, linear)
        locations.append(location)
        changes.append(change)
    return jnp.concatenate(locations, -1), params["log_scale"][point] + jnp.concatenate(changes, -1)


def _predict_first(order: Order, params: Mapping[str, Any], point: Any, symbols: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(μ, log s − its value without context) of the first group, each [*counts, n]."""
    *counts, size = symbols.shape
    flat = symbols.reshape(-1, size)
    location = change = jnp.zeros_like(flat)
    for number, step in enumerate(order.lattice_steps):
        places, near, known = lattice_neighbours(step.patches(counts), step.known(counts), step.stride)
        if places.size:
            base, *inputs = lattice_context(flat[near], known, number, len(order.lattice_steps), FLOATS)
            offset, wider = _network(params["group_0"], point, *inputs)
            location, change = location.at[places].set(base + offset), change.at[places].set(wider)
    return location.reshape(symbols.shape), change.reshape(symbols.shape)


def _network(part: Mapping[str, Any], point: Any, hidden: jax.Array, linear: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(μ, log s − its value without context) from the inputs of a group's network."""
    out = jax.nn.relu(hidden @ part["kernel"] + part["bias"][point]) @ part["out"]
    location, change = jnp.split(out, 2, axis=-1)
    return location + linear @ part["linear"], change


def bin_bits(location: jax.Array, log_scale: jax.Array, symbols: jax.Array) -> jax.Array:
    """−log₂ of the logistic mass of [q − ½, q + ½]; a hundredth of what exceeds `ESCAPE_BITS`."""
    scale = jnp.exp(within_tables(log_scale))
    out = jnp.abs(symbols - location)
    # σ(x) − σ(y) = σ(x) σ(−y) (1 − e^(y − x)), free of cancellation however far out.
    inside = jax.nn.softplus((out - 0.5) / scale) + jax.nn.softplus(-(out + 0.5) / scale)
    bits = (inside - jnp.log(-jnp.expm1(-1.0 / scale))) / jnp.log(2.0)
    # An escape costs the same wherever the symbol lies, but without some gradient it would stay out there.
    return jnp.minimum(bits, ESCAPE_BITS) + 0.01 * jnp.maximum(bits - ESCAPE_BITS, 0.0)


def total_bits(order: Order, params: Mapping[str, Any], point: Any, seen: jax.Array, symbols: jax.Array) -> jax.Array:
    """Bits of all symbols [*counts, k] that are coded in context, where contexts see ``seen``: the same symbols, or nearly."""
    bits = bin_bits(*predict(order, params, point, seen), symbols)
    return jnp.sum(jnp.where(order.predicted(symbols.shape[:-1]), bits, 0.0))


def within_tables(log_scale: jax.Array) -> jax.Array:
    """log s clipped to the scales that there are tables for; no gradient beyond."""
    return jnp.clip(log_scale, LOG_SCALE_MIN, LOG_SCALE_MIN + LOG_SCALE_STEP * NUM_SCALES)

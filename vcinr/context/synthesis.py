"""The synthesis transform from a patch's symbols and its neighbours' to its latent, in units of the quantiser step; floats.

ẑ = q + q_N A + MLP(q_N), where q_N are the symbols q of the patch and the leading ones of the patches around it, both clipped.
It recovers some of what rounding lost and the neighbours still show. It starts as the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.context.lattice import neighbour_offsets, neighbours

MAX_SYNTHESIS_SYMBOL = 20.0
"""Symbols are clipped to ± this before A and the MLP see them."""


def rows(symbols: Any, neighbour_dims: int, xp: Any = np) -> Any:
    """Inputs of `apply`, [*counts, r]: symbols [*counts, k] of each patch, then the leading ones of its 3^rank − 1 neighbours."""
    near = neighbours(symbols[..., :neighbour_dims], neighbour_offsets(symbols.ndim - 1), xp)
    return xp.concatenate([symbols, near], axis=-1)


def some_rows(symbols: np.ndarray, neighbour_dims: int, start: int, stop: int) -> np.ndarray:
    """`rows` of the patches from ``start`` to ``stop``, in row-major order, [m, …]; symbols [*counts, k], NumPy."""
    counts = symbols.shape[:-1]
    flat = symbols.reshape(-1, symbols.shape[-1])
    numbers = np.arange(start, min(stop, len(flat)))
    place = np.stack(np.unravel_index(numbers, counts))
    parts = [flat[numbers]]
    for offset in neighbour_offsets(len(counts)):
        near = place + np.array(offset)[:, None]
        inside = ((near >= 0) & (near < np.array(counts)[:, None])).all(axis=0)
        found = flat[np.ravel_multi_index(tuple(np.where(inside, near, 0)), counts), :neighbour_dims]
        parts.append(np.where(inside[:, None], found, 0))
    return np.concatenate(parts, axis=-1)


def init(key: jax.Array, num_dims: int, row_length: int, width: int, num_points: int) -> dict[str, Any]:
    """Parameters of a synthesis that is the identity.

    num_dims: k, symbols per patch.   row_length: r of `rows`.   width: units per hidden layer.   num_points: operating points.
    """
    first, second = jax.random.split(key)
    return {
        "kernel_0": jax.random.normal(first, (3 * row_length, width)) * (3 * row_length) ** -0.5,
        "bias_0": jnp.zeros((num_points, width)),
        "kernel_1": jax.random.normal(second, (width, width)) * width**-0.5,
        "bias_1": jnp.zeros((num_points, width)),
        "out": jnp.zeros((width, num_dims)),
        "offset": jnp.zeros((num_points, num_dims)),
        "linear": jnp.zeros((row_length, num_dims)),
    }


def of_point(params: Mapping[str, Any], point: Any) -> dict[str, Any]:
    """Parameters at one operating point: its own biases, everything else shared."""
    own = ("bias_0", "bias_1", "offset")
    return {name: value[point] if name in own else value for name, value in params.items()}


def apply(params: Mapping[str, Any], row: Any) -> jax.Array:
    """ẑ [..., k] of `rows` [..., r], with the parameters of `of_point`."""
    num_dims = params["out"].shape[1]
    row = jnp.asarray(row, jnp.float32)
    clipped = jnp.clip(row, -MAX_SYNTHESIS_SYMBOL, MAX_SYNTHESIS_SYMBOL)
    seen = jnp.concatenate([0.25 * clipped, jnp.clip(row, -1.0, 1.0), jnp.log1p(jnp.abs(row))], axis=-1)
    hidden = jax.nn.gelu(seen @ params["kernel_0"] + params["bias_0"])
    hidden = jax.nn.gelu(hidden @ params["kernel_1"] + params["bias_1"])
    return row[..., :num_dims] + clipped @ params["linear"] + hidden @ params["out"] + params["offset"]

"""The synthesis transform of a patch's symbols that looks at its neighbours' too; floats, on any device.

Rounding throws away what the neighbourhood often tells: ẑ = q + q_N A + MLP(q_N), q_N the symbols of the patch and the leading
ones of the patches around it. It starts as the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.context.order import around, neighbours

REACH = 20.0
"""Symbols further out enter the network as this."""


def rows(symbols: Any, neighbour_dims: int, xp: Any = np) -> Any:
    """Symbols [*counts, k] → those of each patch, then those around it, [*counts, k + (3^d − 1) · neighbour_dims]."""
    near = neighbours(symbols[..., :neighbour_dims], around(symbols.ndim - 1), xp)
    return xp.concatenate([symbols, near], axis=-1)


def init(key: jax.Array, num_dims: int, row_length: int, width: int, num_points: int) -> dict[str, Any]:
    """Parameters of a synthesis that changes nothing yet."""
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
    """The parameters of one operating point."""
    own = ("bias_0", "bias_1", "offset")
    return {name: value[point] if name in own else value for name, value in params.items()}


def apply(params: Mapping[str, Any], row: Any) -> jax.Array:
    """ẑ [..., k] of `rows` [..., r], by the parameters of one point."""
    num_dims = params["out"].shape[1]
    row = jnp.asarray(row, jnp.float32)
    held = jnp.clip(row, -REACH, REACH)
    seen = jnp.concatenate([0.25 * held, jnp.clip(row, -1.0, 1.0), jnp.log1p(jnp.abs(row))], axis=-1)
    hidden = jax.nn.gelu(seen @ params["kernel_0"] + params["bias_0"])
    hidden = jax.nn.gelu(hidden @ params["kernel_1"] + params["bias_1"])
    return row[..., :num_dims] + held @ params["linear"] + hidden @ params["out"] + params["offset"]

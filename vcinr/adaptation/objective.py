"""The objective that every adaptation minimises: a weighted mean squared error, with coordinates in chunks."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def mean_squared_error(
    predicted: Float[Array, "n c"], values: Float[Array, "n c"], weight: Float[Array, " n"] | None = None
) -> Float[Array, ""]:
    """Σ w |predicted − values|² / (c Σ w); without weights, the plain mean over points and channels."""
    error = jnp.square(predicted - values)
    if weight is None:
        return jnp.mean(error)
    return jnp.sum(weight[:, None] * error) / (values.shape[-1] * jnp.sum(weight))


def chunked_mean_squared_error(
    evaluate: Callable[[jax.Array], jax.Array],
    coords: Float[Array, "n d"],
    values: Float[Array, "n c"],
    weight: Float[Array, " n"] | None = None,
    chunk: int = 0,
) -> Float[Array, ""]:
    """`mean_squared_error` of ``evaluate(coords)``, ``chunk`` points at a time (0: all at once).

    Value and all gradients are those of the whole mean; each chunk is recomputed in the backward pass, so activations take
    memory for one chunk only.
    """
    n = coords.shape[0]
    if chunk <= 0 or chunk >= n:
        return mean_squared_error(evaluate(coords), values, weight)
    count = -(-n // chunk)
    spare = count * chunk - n
    weight = jnp.ones((n,), values.dtype) if weight is None else weight
    pieces = tuple(
        jnp.pad(a, ((0, spare),) + ((0, 0),) * (a.ndim - 1)).reshape(count, chunk, *a.shape[1:]) for a in (coords, values, weight)
    )

    def step(total, piece):
        x, y, w = piece
        return total + jnp.sum(w[:, None] * jnp.square(evaluate(x) - y)), None

    total, _ = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), jnp.zeros((), values.dtype), pieces)
    return total / (values.shape[-1] * jnp.sum(weight))

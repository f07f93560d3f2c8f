"""The deep factorized prior: one learned, monotone cumulative per dimension (Ballé et al. 2018, appendix 6.1)."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FILTERS = (3, 3, 3)
"""Units of the cumulative's hidden layers."""


def init(key: jax.Array, scale: jax.Array | np.ndarray | float, dims: int) -> dict[str, Any]:
    """Parameters of ``dims`` cumulatives that start as logistic functions around zero.

    scale: [dims] or a number; scale s of the logistic functions, whose standard deviation is s π/√3.
    The biases of hidden units are random, because units that start alike stay alike; the last bias cancels their effect.
    """
    scale = jnp.broadcast_to(jnp.asarray(scale, jnp.float32), (dims,))
    widths = (1, *FILTERS, 1)
    slope = scale ** (-1.0 / (len(widths) - 1))
    params: dict[str, Any] = {}
    shift = jnp.zeros((dims, 1, 1))
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        entry = slope / fan_in
        kernel = jnp.broadcast_to(entry[:, None, None], (dims, fan_out, fan_in))
        params[f"kernel_{i}"] = jnp.where(kernel > 20.0, kernel, jnp.log(jnp.expm1(jnp.minimum(kernel, 20.0))))
        shift = kernel @ shift
        last = i == len(widths) - 2
        bias = -shift if last else jax.random.uniform(jax.random.fold_in(key, i), (dims, fan_out, 1), minval=-0.5, maxval=0.5)
        params[f"bias_{i}"] = bias
        shift = shift + bias
        if not last:
            params[f"factor_{i}"] = jnp.zeros((dims, fan_out, 1))
    return params


def cumulative_logits(params: dict[str, Any], z: Any, xp: Any = jnp) -> Any:
    """Logits of the cumulative at z [dims] or [dims, s], one row per dimension; same shape.

    xp: `jax.numpy`, or `numpy` for the float64 evaluation on the host that integer tables are made from.
    """
    total = z.reshape(z.shape[0], 1, -1)
    for i in range(len(FILTERS) + 1):
        total = xp.logaddexp(params[f"kernel_{i}"], xp.zeros((), total.dtype)) @ total + params[f"bias_{i}"]
        if f"factor_{i}" in params:
            total = total + xp.tanh(params[f"factor_{i}"]) * xp.tanh(total)
    return total.reshape(z.shape)


def bin_bits(params: dict[str, Any], z: jax.Array) -> jax.Array:
    """−log₂ of the mass of [z − ½, z + ½], per element; z [dims].

    With logits a < b of the bin's edges, log(σ(b) − σ(a)) = log σ(b) + log(1 − σ(a)/σ(b)), evaluated on the side where the
    sigmoids are small. So value and gradient stay exact however far out z lies.
    """
    lower, upper = cumulative_logits(params, z - 0.5), cumulative_logits(params, z + 0.5)
    mirrored = jax.lax.stop_gradient(lower + upper) > 0
    a, b = jnp.where(mirrored, -upper, lower), jnp.where(mirrored, -lower, upper)
    log_b = jax.nn.log_sigmoid(b)
    gap = jnp.maximum(log_b - jax.nn.log_sigmoid(a), 1e-12)
    return -(log_b + jnp.log(-jnp.expm1(-gap))) / jnp.log(2.0)


def host_cumulative(params: dict[str, Any]):
    """The cumulative as a float64 NumPy function of z [s, dims], one column per dimension, for `tables_from_cdf`."""
    params = {name: np.asarray(value, np.float64) for name, value in params.items()}

    def cdf(z: np.ndarray) -> np.ndarray:
        logits = cumulative_logits(params, np.ascontiguousarray(np.asarray(z, np.float64).T), np).T
        return np.where(logits >= 0, 1.0, np.exp(np.minimum(logits, 0.0))) / (1.0 + np.exp(-np.abs(logits)))

    return cdf

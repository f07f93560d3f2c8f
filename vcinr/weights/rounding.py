"""AdaRound of the networks of a batch of signals, each on a grid of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from vcinr.batching import map_batches
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig
from vcinr.weights.adaround import AdaRoundConfig, Layer, adaround
from vcinr.weights.fit import Batch, FitConfig
from vcinr.weights.grid import tensor_index


class Rounding(NamedTuple):
    """Whole and soft levels of all weights, [b, p], and errors of each layer, [b, layers]; see `adaround.Rounded`."""

    hard: np.ndarray
    soft: np.ndarray
    error: np.ndarray
    nearest_error: np.ndarray


def network(field: FieldConfig, base: Float[Array, " p"]) -> list[Layer]:
    """The field's layers as functions of their updates: ((ΔW, Δb), x) → σ(x (W₀ + ΔW) + b₀ + Δb), the last without σ."""
    scale, activation = field.nonlinearity()

    def layer(kernel: jax.Array, bias: jax.Array, last: bool) -> Layer:
        def apply(update: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
            linear = x @ (kernel + update[0]) + (bias + update[1])
            return linear if last else activation(scale * linear)

        return apply

    fixed = siren.unflatten(base, field.sizes())
    return [layer(kernel, bias, i + 1 == len(fixed)) for i, (kernel, bias) in enumerate(fixed)]


def round_weights(
    config: AdaRoundConfig,
    fit: FitConfig,
    batch: Batch,
    updates: np.ndarray,
    steps: np.ndarray,
    bits: int,
    num_coordinates: int = 0,
) -> Rounding:
    """AdaRound of the weights of each signal.

    Args:
      config: of AdaRound.
      fit: the network.
      batch: b signals.
      updates: fitted weights, [b, p].
      steps: step size of each tensor, [b, t].
      bits: of the grid.
      num_coordinates: coordinates that layers are measured on, drawn in proportion to their weight where there is one; 0: all.
    """
    inputs, weight = batch.shared["inputs"], batch.data["weight"]
    count = min(num_coordinates, len(inputs)) or len(inputs)
    rows: tuple[np.ndarray, ...] = (updates, steps)
    if weight is not None:
        rows += (np.stack([_drawn(row, count) for row in np.asarray(weight, np.float64)]),)
    elif count < len(inputs):
        inputs = inputs[np.sort(np.random.default_rng(0).choice(len(inputs), count, replace=False))]
    static, shared = (fit.field, config, bits), {"base": batch.shared["base"], "inputs": inputs}
    return Rounding(*map_batches(_round_row, static, shared, rows, len(updates)))


def _drawn(weight: np.ndarray, count: int) -> np.ndarray:
    """``count`` coordinates of a signal, in proportion to their weight [n], int32."""
    chosen = np.random.default_rng(0).choice(len(weight), count, p=weight / weight.sum())
    return np.sort(chosen).astype(np.int32)


def _round_row(
    static: tuple, shared: Any, update: jax.Array, steps: jax.Array, chosen: jax.Array | None = None
) -> tuple[jax.Array, ...]:
    field, config, bits = static
    inputs = shared["inputs"] if chosen is None else shared["inputs"][chosen]
    sizes = field.sizes()
    levels = siren.unflatten(update / steps[tensor_index(tuple(sizes))], sizes)
    tensors = [(steps[2 * i], steps[2 * i + 1]) for i in range(len(sizes))]
    limit = 2 ** (bits - 1) - 1
    found = adaround(network(field, shared["base"]), levels, tensors, inputs, jax.random.key(0), config, limit)
    return siren.flatten(found.hard), siren.flatten(found.soft), found.error, found.nearest_error

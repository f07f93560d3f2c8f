"""Networks fitted to whole signals: what a batch holds, the loss, thousands of steps of Adam (Strümpler et al. 2022, section 3).

Every layer is σ(x (W₀ + ΔW) + b₀ + Δb). W₀ and b₀ are known to the decoder, and are 0 where it knows none; ΔW and Δb, the
update, are fitted here and are what a file holds (section 3.4).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vcinr.adaptation.long_fit import OptimiserSpec, Overfitted, overfit
from vcinr.adaptation.objective import chunked_mean_squared_error
from vcinr.fields import siren
from vcinr.fields.encodings import encode
from vcinr.fields.field import FieldConfig
from vcinr.stage import Progress
from vcinr.weights.signal_batches import SignalBatch

CHECKPOINT_WORK = 2**35
"""Multiplications between two checkpoints, some tens of seconds on two CPU cores."""


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """What a signal's loss depends on besides arrays.

    field: the network.
    l1: λ, weight of Σ|Δ| beside the mean squared error of values in [0, 1]; at least 0.
    chunk: coordinates per evaluation, which bounds memory; 0: all at once.
    """

    field: FieldConfig
    l1: float = 0.0
    chunk: int = 0


class Batch(NamedTuple):
    """Signals of equal shape as the functions of this room take them.

    shared: W₀ and b₀ as one vector ("base", [p]) and the encoded coordinates ("inputs", [n, e]).
    data: "values" [b, n, c] and "weight" [b, n], or None where it is 1 everywhere.
    name: a file name for checkpoints.
    labels: what messages call the signals.
    """

    shared: Mapping[str, Any]
    data: Mapping[str, Any]
    name: str
    labels: Sequence[int]


def make_batch(field: FieldConfig, base: Any, signals: SignalBatch, name: str) -> Batch:
    """The batch of whole signals for a network.

    Args:
      field: the network, whose encoding the coordinates go through.
      base: W₀ and b₀ as one vector [p].
      signals: of equal shape.
      name: put before the batch's own.
    """
    shared = {"base": jnp.asarray(base), "inputs": encode(field, jnp.asarray(signals.coords))}
    data = {"values": signals.values, "weight": signals.weight}
    return Batch(shared, data, f"{name}_{signals.name}", signals.indices)


def signal_error(config: FitConfig, shared: Any, update: Float[Array, " p"], data: Any) -> Float[Array, ""]:
    """Weighted MSE of one signal at an update of its weights."""
    layers = siren.unflatten(shared["base"] + update, config.field.sizes())
    field = lambda x: siren.apply(layers, x, *config.field.nonlinearity())
    return chunked_mean_squared_error(field, shared["inputs"], data["values"], data["weight"], config.chunk)


def signal_errors(config: FitConfig, batch: Batch, updates: Any) -> np.ndarray:
    """`signal_error` of each signal of a batch at its row of updates [b, p]; float32 [b]."""
    with jax.default_matmul_precision("float32"):
        return np.asarray(_errors(config, batch.shared, jnp.asarray(updates), batch.data))


def fit_loss(config: FitConfig, shared: Any, update: Any, data: Any, step: Any) -> jax.Array:
    """MSE + λ Σ|Δ| (sections 3.2 and 3.4). The authors' code sums over weights, too."""
    del step
    return signal_error(config, shared, update, data) + config.l1 * jnp.sum(jnp.abs(update))


def fit_weights(
    config: FitConfig,
    batch: Batch,
    updates: Any,
    optimiser: OptimiserSpec,
    num_steps: int,
    *,
    workdir: str | None = None,
    progress: Progress | None = None,
) -> Overfitted:
    """Fits each signal of a batch from its row of ``updates`` [b, p]; the best of each is kept."""
    return overfit(
        fit_loss,
        config,
        batch.shared,
        updates,
        batch.data,
        optimiser,
        num_steps,
        chunk_steps=chunk_steps(config, batch),
        workdir=workdir,
        name=f"{batch.name}_fit",
        labels=batch.labels,
        progress=progress,
    )


def chunk_steps(config: FitConfig, batch: Batch) -> int:
    """Steps between two checkpoints of a batch, 1 to 250; about `CHECKPOINT_WORK`."""
    count, samples = batch.data["values"].shape[:2]
    return max(1, min(250, CHECKPOINT_WORK // (count * samples * siren.num_weights(config.field.sizes()))))


@functools.partial(jax.jit, static_argnums=0)
def _errors(config: FitConfig, shared: Any, updates: Any, data: Any) -> jax.Array:
    return jax.vmap(functools.partial(signal_error, config, shared))(updates, data)

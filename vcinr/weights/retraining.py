"""Quantisation-aware training: weights go on being trained while the loss sees them on their grid.

Strümpler et al. 2022, section 3.3; the gradient passes straight through the rounding (Bengio et al. 2013, section 4).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vcinr.adaptation.long_fit import OptimiserSpec, overfit
from vcinr.stage import Progress
from vcinr.weights.fit import Batch, FitConfig, chunk_steps, signal_error
from vcinr.weights.grid import on_grid, tensor_index


@dataclasses.dataclass(frozen=True)
class RetrainingConfig:
    """Config of the retraining.

    num_steps: of Adam; 0 leaves weights as they were rounded.
    lr: of Adam, in quantiser steps, positive; it falls as a cosine to 0.

    Levels, weights in units of their step size, are what is trained, so that one rate suits every tensor and every bit depth. A
    rate in units of the weights, such as the 1e-6 of Strümpler et al. 2022, can move a level of a grid of step 1e-2 by no more
    than 0.03 in 300 steps, and none that starts on the grid flips.
    """

    num_steps: int = 300
    lr: float = 0.003

    def __post_init__(self):
        if self.num_steps < 0 or not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"retraining needs num_steps >= 0 and a positive lr, not {self.num_steps} and {self.lr}")


def retrain_weights(
    config: RetrainingConfig,
    fit: FitConfig,
    batch: Batch,
    levels: np.ndarray,
    steps: np.ndarray,
    bits: int,
    *,
    workdir: str | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Whole levels of the lowest MSE on the way from soft ones.

    Args:
      config: how to train.
      fit: the network; its L1 penalty plays no part.
      batch: b signals.
      levels: where training starts, [b, p]; the start counts, rounded.
      steps: step size of each tensor, [b, t].
      bits: of the grid.

    Returns:
      float32 [b, p], whole.
    """
    best = overfit(
        _loss_on_grid,
        (fit, bits),
        batch.shared,
        levels,
        {"signal": batch.data, "steps": steps},
        OptimiserSpec(lr=config.lr, schedule="cosine"),
        config.num_steps,
        chunk_steps=chunk_steps(fit, batch),
        workdir=workdir,
        name=f"{batch.name}_{bits}bits_retrain",
        labels=batch.labels,
        progress=progress,
    )
    return np.asarray(on_grid(best.params, bits))


def quantise_straight_through(quantise: Callable[[jax.Array], jax.Array], levels: Any) -> Any:
    """``quantise(levels)`` in value, the identity in gradient; levels: any pytree."""
    return jax.tree.map(lambda level: level + jax.lax.stop_gradient(quantise(level) - level), levels)


def num_flipped(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How many whole levels of each row [b, p] retraining has changed, int64 [b]."""
    return np.count_nonzero(before != after, axis=-1)


def flips_in_words(flipped: np.ndarray, num_symbols: int) -> str:
    """What retraining did to a batch of signals: ``flipped`` [b] of ``num_symbols`` each."""
    share = 100.0 * flipped / num_symbols
    return (
        f"retraining changed {np.mean(share):.1f} % of the {num_symbols} symbols per signal "
        f"({np.min(share):.1f} to {np.max(share):.1f} % in {len(share)} signals)"
    )


def _loss_on_grid(static: tuple[FitConfig, int], shared: Any, levels: Any, data: Any, step: Any) -> jax.Array:
    del step
    config, bits = static
    whole = quantise_straight_through(lambda level: on_grid(level, bits), levels)
    update = whole * data["steps"][tensor_index(tuple(config.field.sizes()))]
    return signal_error(config, shared, update, data["signal"])

"""Quantisation-aware training: weights go on being trained while the loss sees them on their grid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class RetrainingConfig:
    """num_steps: of Adam; 0 leaves weights as they were rounded.   lr: of Adam, in quantiser steps; it falls as a cosine to 0.

    Levels, weights in units of their quantiser step, are what is trained, so that one rate suits every tensor and every bit
    depth. A rate in units of the weights, such as the 1e-6 of Strümpler et al. 2022, can move a level of a grid of step 1e-2 by
    no more than 0.03 in 300 steps, and none that starts on the grid flips.
    """

    num_steps: int = 300
    lr: float = 0.003

    def __post_init__(self):
        if self.num_steps < 0 or not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"retraining needs num_steps >= 0 and a positive lr, not {self.num_steps} and {self.lr}")


def quantise_straight_through(quantise: Callable[[jax.Array], jax.Array], levels: Any) -> Any:
    """``quantise(levels)`` in value, the identity in gradient (Bengio et al. 2013, section 4); levels: any pytree."""
    return jax.tree.map(lambda level: level + jax.lax.stop_gradient(quantise(level) - level), levels)


def num_flipped(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How many whole levels of each row [b, p] retraining has changed, int64 [b]."""
    return np.count_nonzero(before != after, axis=-1)

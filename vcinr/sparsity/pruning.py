"""Magnitude pruning: which weights survive, and how many after each round. Host functions, called once per round."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def magnitude_mask(weights: Float[np.ndarray, " k"], mask: Bool[np.ndarray, " k"], keep: int) -> Bool[np.ndarray, " k"]:
    """The ``keep`` largest |w| among those that ``mask`` has left; of equals the earlier ones.

    Exactly ``keep`` survive, whatever the weights. ValueError where fewer are left, or for weights that are not finite.
    Ström 1997, "Sparse connection and pruning in large dynamic artificial neural networks"; Lee et al. 2021, section 3.
    """
    if not 1 <= keep <= mask.sum():
        raise ValueError(f"cannot keep {keep} of the {mask.sum()} weights that are left")
    if not np.isfinite(weights).all():
        raise ValueError("weights to prune must be finite")
    order = np.argsort(np.where(mask, -np.abs(weights), np.inf), kind="stable")
    kept = np.zeros(mask.size, bool)
    kept[order[:keep]] = True
    return kept


def geometric_schedule(total: int, keep: int, rounds: int) -> tuple[int, ...]:
    """Survivors after each of ``rounds``: every round prunes the same fraction of what is left, the last leaves ``keep``.

    ValueError unless 1 ≤ keep ≤ total and rounds ≥ 1. Frankle and Carbin 2019, section 1 (iterative pruning).
    """
    if not 1 <= keep <= total or rounds < 1:
        raise ValueError(f"pruning needs 1 <= keep <= total and rounds >= 1, not keep {keep}, total {total}, rounds {rounds}")
    return (*(max(keep, round(total * (keep / total) ** (r / rounds))) for r in range(1, rounds)), keep)

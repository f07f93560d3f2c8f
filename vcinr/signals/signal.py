"""The signal: coordinates, values and weights, on a static grid."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where a signal's samples lie: the whole signal's shape and the shape of one patch.

    shape: samples along each axis of the whole signal, e.g. ``(512, 768)`` for a picture.
    patch: samples along each axis of one patch; equal to ``shape`` where the signal is not cut up.
    """

    shape: tuple[int, ...]
    patch: tuple[int, ...]

    def __post_init__(self):
        if len(self.shape) != len(self.patch):
            raise ValueError(f"grid shape {self.shape} and patch {self.patch} differ in rank")
        if min(self.shape, default=1) < 1 or min(self.patch, default=1) < 1:
            raise ValueError(f"grid shape {self.shape} and patch {self.patch} must be positive")

    @property
    def counts(self) -> tuple[int, ...]:
        """Patches along each axis; the last one may hang over the edge."""
        return tuple(-(-n // p) for n, p in zip(self.shape, self.patch, strict=True))

    @property
    def num_patches(self) -> int:
        """Patches in the whole signal."""
        total = 1
        for count in self.counts:
            total *= count
        return total


@flax.struct.dataclass
class Signal:
    """One signal as samples of a function from coordinates to values.

    coords: [n, d] in [-1, 1], those of one patch; shared by all patches of the signal.
    values: [p, n, c], one row per patch, in the modality's normalised units ([0, 1] for pictures).
    weight: [p, n] or None; 0 where a sample is padding or missing, else its share in every mean.
    grid: static; tells how the patches tile the whole.
    """

    coords: Any
    values: Any
    weight: Any = None
    grid: Grid = flax.struct.field(pytree_node=False, default=None)

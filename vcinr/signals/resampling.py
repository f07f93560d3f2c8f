"""Samples of a signal at another resolution: where the samples of a finer or coarser grid lie in the patches of the signal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Shaped

from vcinr.signals.signal import Grid


class Axis(NamedTuple):
    """One axis of a new grid, patch by patch.

    starts: first new sample of each patch.   counts: new samples of each patch, 0 where patches are narrower than samples.
    positions: of the new samples in their patch, in (−1, 1), filled up with 0 to the largest count.
    """

    starts: Int[np.ndarray, " k"]
    counts: Int[np.ndarray, " k"]
    positions: Float32[np.ndarray, "k m"]


def along_axis(samples: int, patch: int, new: int) -> Axis:
    """Where ``new`` half-pixel centres lie in the patches of an axis of ``samples`` samples. ValueError for none of either."""
    if min(samples, patch, new) < 1:
        raise ValueError(f"an axis of {samples} samples in patches of {patch} has no grid of {new} samples")
    centres = (np.arange(new) + 0.5) * (samples / new)
    number = -(-samples // patch)
    owner = np.minimum((centres // patch).astype(np.int64), number - 1)
    counts = np.bincount(owner, minlength=number)
    starts = np.cumsum(counts) - counts
    positions = np.zeros((number, int(counts.max())), np.float32)
    positions[owner, np.arange(new) - starts[owner]] = 2.0 * (centres - owner * patch) / patch - 1.0
    return Axis(starts, counts, positions)


class Resampling:
    """The new samples of a signal, patch by patch.

    grid: of the signal.   shape: of the new grid, over the same extent.
    Raises ValueError where the ranks differ, or an axis has no samples.
    """

    def __init__(self, grid: Grid, shape: Sequence[int]):
        if len(shape) != len(grid.shape):
            raise ValueError(f"a signal of shape {grid.shape} has no grid of shape {tuple(shape)}: it has {len(grid.shape)} axes")
        self.grid, self.shape = grid, tuple(shape)
        self._axes = [along_axis(*each) for each in zip(grid.shape, grid.patch, self.shape, strict=True)]
        self.most = math.prod(axis.positions.shape[1] for axis in self._axes)

    def positions(self, patches: Sequence[int] | np.ndarray) -> Float32[np.ndarray, "p m d"]:
        """Positions in (−1, 1) along each axis of the new samples of some patches, filled up to the largest number of a patch."""
        index = np.unravel_index(np.asarray(patches), self.grid.counts)
        found = []
        for i, axis in enumerate(self._axes):
            around = [axis.positions.shape[1] if i == j else 1 for j in range(len(self._axes))]
            found.append(axis.positions[index[i]].reshape(len(index[i]), *around))
        return np.stack(np.broadcast_arrays(*found), axis=-1).reshape(len(index[0]), self.most, len(found)).astype(np.float32)

    def assemble(self, values: Iterator[Shaped[np.ndarray, "p m c"]]) -> Shaped[np.ndarray, "*shape c"]:
        """The new signal from the values at `positions` of all patches, in order, in blocks."""
        whole, patch = np.empty(0), 0
        for block in values:
            if patch == 0:
                whole = np.empty((*self.shape, block.shape[-1]), block.dtype)
            for row in block:
                index = np.unravel_index(patch, self.grid.counts)
                chosen = [(axis.starts[i], axis.counts[i]) for axis, i in zip(self._axes, index, strict=True)]
                part = row.reshape(*(axis.positions.shape[1] for axis in self._axes), -1)
                inside = part[tuple(slice(count) for _, count in chosen)]
                whole[tuple(slice(start, start + count) for start, count in chosen)] = inside
                patch += 1
        return whole

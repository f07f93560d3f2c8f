"""Training examples: batches that depend on the given generator alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vcinr.modalities import Modality


class PatchSource:
    """Random crops, and mirror images, of pictures (or of the raw samples of any signals on grids: sounds, volumes).

    pictures: [*shape, c], any shapes at least as large as ``patch``, one dtype and c; a lazy sequence is gone through once.
    patch: samples along each axis of a crop.
    flips: axes of the grid along each of which a crop is mirrored with probability one half (a modality's ``mirrored_axes``);
        True for the last one (left to right), False for none.
    max_bytes: pictures beyond this many bytes in all are not kept in memory but read again from ``pictures`` when drawn.
    Raises ValueError for no pictures, ones that differ in dtype or channels, another rank, or pictures smaller than the patch.
    """

    def __init__(
        self,
        pictures: Sequence[np.ndarray] | np.ndarray,
        patch: tuple[int, ...],
        flips: bool | tuple[int, ...] = True,
        max_bytes: int = 2**32,
    ):
        if len(pictures) == 0:
            raise ValueError("a source needs at least one picture, and the split it was given has none")
        self.patch = tuple(patch)
        self.flips = ((len(self.patch) - 1,) if flips else ()) if isinstance(flips, bool) else tuple(flips)
        if not all(0 <= axis < len(self.patch) for axis in self.flips):
            raise ValueError(f"flips {self.flips} are axes of a patch of {self.patch}: from 0 to {len(self.patch) - 1}")
        self._max_bytes = max_bytes
        self._pictures = pictures
        self._kept: list[np.ndarray | None] = []
        shapes = []
        room = max_bytes
        for index in range(len(pictures)):
            picture = pictures[index]
            if picture.ndim != len(self.patch) + 1:
                raise ValueError(
                    f"picture {index} is {picture.dtype} {list(picture.shape)}; a patch of {self.patch} needs "
                    f"{len(self.patch)} axes and channels last"
                )
            if index == 0:
                self.dtype = picture.dtype
            if picture.dtype != self.dtype:
                raise ValueError(f"picture {index} is {picture.dtype} and picture 0 is {self.dtype}: make them equal")
            if shapes and picture.shape[-1] != shapes[0][-1]:
                raise ValueError(
                    f"picture {index} has {picture.shape[-1]} channels and picture 0 has {shapes[0][-1]}: make them equal"
                )
            shapes.append(picture.shape)
            room -= picture.nbytes
            self._kept.append(picture if room >= 0 else None)
        self.channels = shapes[0][-1]
        self._shapes = np.array([shape[:-1] for shape in shapes])
        small = np.flatnonzero((self._shapes < self.patch).any(axis=1))
        if small.size:
            smallest = tuple(self._shapes.min(axis=0).tolist())
            raise ValueError(
                f"{small.size} of {len(shapes)} pictures are smaller than the patch {self.patch}: picture {small[0]} is "
                f"{tuple(self._shapes[small[0]].tolist())}; drop them, or take a patch of at most {smallest}"
            )
        # In integers, so that a draw is exact and the same everywhere.
        self._ends = np.cumsum(self._shapes.prod(axis=1))

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._kept)

    def with_patch(self, patch: tuple[int, ...]) -> PatchSource:
        """The same pictures, in crops of another shape; those kept in memory are shared."""
        return PatchSource(_Pictures(self._pictures, self._kept), patch, self.flips, self._max_bytes)

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Shaped[np.ndarray, "size *patch c"]]:
        """``{"values": [size, *patch, c]}``, raw: a picture in proportion to its area, then a uniformly random crop."""
        index = np.searchsorted(self._ends, rng.integers(self._ends[-1], size=size), side="right")
        offset = rng.integers(self._shapes[index] - self.patch + 1)
        mirror = rng.integers(2 ** len(self.flips), size=size) if self.flips else np.zeros(size, np.int64)
        return {"values": self._gather(index, offset, mirror)}

    def all_patches(
        self, rng: np.random.Generator, offsets_per_picture: int = 1, limit: int | None = None
    ) -> Shaped[np.ndarray, "n *patch c"]:
        """Every whole patch of every picture, tiled from random offsets; its mirror images along ``flips`` follow each patch.

        offsets_per_picture: tilings of each picture, at different offsets (fewer where it has no more).
        limit: at most this many patches, a uniformly random choice.
        """
        rows = []
        patch = np.array(self.patch)
        for index, shape in enumerate(self._shapes):
            starts = np.minimum(patch, shape - patch + 1)
            num_starts = math.prod(starts.tolist())
            chosen = rng.choice(num_starts, size=min(offsets_per_picture, num_starts), replace=False)
            for start in np.stack(np.unravel_index(chosen, starts), axis=-1):
                axes = [np.arange(a, n - q + 1, q) for a, n, q in zip(start, shape, patch, strict=True)]
                tiles = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(patch))
                rows.append(np.concatenate([np.full((len(tiles), 1), index), tiles], axis=1))
        table = np.concatenate(rows)
        mirrors = 2 ** len(self.flips)
        total = len(table) * mirrors
        # Sorted, so that every picture is read once.
        chosen = np.arange(total) if limit is None or limit >= total else np.sort(rng.choice(total, size=limit, replace=False))
        table = table[chosen // mirrors]
        return self._gather(table[:, 0], table[:, 1:], chosen % mirrors)

    def _gather(self, index: np.ndarray, offset: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        out = np.empty((len(index), *self.patch, self.channels), self.dtype)
        last, picture = -1, None
        for row, (i, start, flip) in enumerate(zip(index, offset, mirror, strict=True)):
            if i != last:
                kept = self._kept[i]
                last, picture = i, self._pictures[int(i)] if kept is None else kept
            crop = picture[tuple(slice(a, a + q) for a, q in zip(start, self.patch, strict=True))]
            # Bit b of the draw mirrors along the b-th axis that may be.
            out[row] = np.flip(crop, [axis for bit, axis in enumerate(self.flips) if flip >> bit & 1])
        return out


class Samples(Sequence[np.ndarray]):
    """The raw samples [*shape, c] of raw signals, each unpacked by its modality when it is asked for."""

    def __init__(self, signals: Sequence[Any], modality: Modality):
        self._signals, self._modality = signals, modality

    def __len__(self) -> int:
        """Number of signals."""
        return len(self._signals)

    def __getitem__(self, index: int) -> np.ndarray:
        """Samples of the signal at an index."""
        return self._modality.unpack(self._signals[index])[0]


class _Pictures(Sequence):
    """Pictures, from memory where they are kept there."""

    def __init__(self, pictures: Any, kept: list[np.ndarray | None]):
        self._pictures, self._kept = pictures, kept

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._pictures[index] if self._kept[index] is None else self._kept[index]


class ArraySource:
    """Rows of arrays that share a leading axis, drawn uniformly with replacement.

    arrays: name → [n, …], one n ≥ 1 for all. Raises ValueError where there are none or they differ in length.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ValueError(f"a source needs arrays of one length, at least 1, not {lengths}")
        self.arrays = dict(arrays)

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.arrays.values())))

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Shaped[np.ndarray, "size ..."]]:
        """Arrays [size, …] under the same names."""
        index = rng.integers(len(self), size=size)
        return {name: np.asarray(array)[index] for name, array in self.arrays.items()}

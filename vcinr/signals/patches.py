"""Patches that tile a signal of any shape, remainders filled and masked, and back again."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Shaped

from vcinr.signals.grids import pixel_grid
from vcinr.signals.signal import Grid, Signal


def split(array: Shaped[np.ndarray, "*shape c"], patch: tuple[int, ...]) -> Shaped[np.ndarray, "p *patch c"]:
    """Cut an array into patches, row-major; what hangs over the edge repeats the edge sample.

    array: [*shape, c], any dtype. patch: samples along each axis.
    Returns [p, *patch, c] of the same dtype, p = Π ⌈shape / patch⌉.
    Raises ValueError where array and patch differ in rank, or one of them has an axis without samples.
    """
    grid = Grid(array.shape[:-1], tuple(patch))
    overhang = [(0, k * q - n) for n, k, q in zip(grid.shape, grid.counts, grid.patch, strict=True)]
    tiled = np.pad(array, [*overhang, (0, 0)], mode="edge")
    interleaved = [size for pair in zip(grid.counts, grid.patch, strict=True) for size in pair]
    rank = len(grid.shape)
    order = [*range(0, 2 * rank, 2), *range(1, 2 * rank, 2), 2 * rank]
    tiled = tiled.reshape(*interleaved, array.shape[-1]).transpose(order)
    return tiled.reshape(grid.num_patches, *grid.patch, array.shape[-1])


def join(patches: Shaped[np.ndarray, "p *patch c"], shape: tuple[int, ...]) -> Shaped[np.ndarray, "*shape c"]:
    """Put patches together again and cut off what hangs over: the inverse of `split`.

    patches: [p, *patch, c], row-major. shape: samples along each axis of the whole.
    Returns [*shape, c] of the same dtype.
    Raises ValueError where the number of patches is not the one that tiles ``shape``.
    """
    grid = Grid(tuple(shape), patches.shape[1:-1])
    if patches.shape[0] != grid.num_patches:
        raise ValueError(f"shape {grid.shape} is tiled by {grid.num_patches} patches of {grid.patch}, not by {patches.shape[0]}")
    rank = len(grid.shape)
    order = [axis for i in range(rank) for axis in (i, rank + i)]
    whole = patches.reshape(*grid.counts, *grid.patch, patches.shape[-1]).transpose([*order, 2 * rank])
    whole = whole.reshape(*(k * q for k, q in zip(grid.counts, grid.patch, strict=True)), patches.shape[-1])
    return np.ascontiguousarray(whole[tuple(slice(n) for n in grid.shape)])


def patch_mask(shape: tuple[int, ...], patch: tuple[int, ...]) -> Float32[np.ndarray, "p *patch"]:
    """1 where a sample of a patch lies inside the signal, 0 where it hangs over the edge."""
    grid = Grid(tuple(shape), tuple(patch))
    inside = np.ones((1, *grid.patch), np.float32)
    for axis, (n, count, q) in enumerate(zip(grid.shape, grid.counts, grid.patch, strict=True)):
        along = (np.arange(count * q) < n).astype(np.float32).reshape(count, q)
        others = [q if i == axis else 1 for i in range(len(grid.patch))]
        # Appending one axis of patches at a time keeps them row-major.
        inside = (inside[:, None] * along.reshape(1, count, *others)).reshape(-1, *grid.patch)
    return inside


def to_signal(
    values: Float32[np.ndarray, "*shape c"],
    patch: tuple[int, ...],
    coordinates: Callable[[tuple[int, ...]], np.ndarray] = pixel_grid,
    weights: Float32[np.ndarray, "*shape"] | None = None,
) -> Signal:
    """A signal from normalised values on a regular grid, cut into patches.

    values: [*shape, c], in the modality's normalised units. patch: samples along each axis of a patch.
    coordinates: those of a patch of this shape, [n, d] (a modality's ``coordinates``); half-pixel centres by default.
    weights: share of each sample in errors, 0 where it is missing; None: all alike. A patch of zeros counts as one of ones.
    Returns coords [n, d] of one patch, values [p, n, c], weight [p, n] (None where all samples count alike) and the grid.
    """
    grid = Grid(values.shape[:-1], tuple(patch))
    samples = math.prod(grid.patch)
    overhangs = any(n % q for n, q in zip(grid.shape, grid.patch, strict=True))
    weight = patch_mask(grid.shape, grid.patch) if overhangs else None
    if weights is not None:
        own = split(weights[..., None], grid.patch)[..., 0]
        own = own if weight is None else own * weight
        # A patch of which nothing is known is fitted to what stands in its place.
        unknown = ~own.any(axis=tuple(range(1, own.ndim)), keepdims=True)
        weight = np.where(unknown, np.float32(1), own)
    return Signal(
        coords=coordinates(grid.patch),
        values=split(values, grid.patch).reshape(grid.num_patches, samples, values.shape[-1]),
        weight=None if weight is None else weight.reshape(grid.num_patches, samples),
        grid=grid,
    )


def from_values(values: Shaped[np.ndarray, "p n c"], grid: Grid) -> Shaped[np.ndarray, "*shape c"]:
    """The whole [*shape, c] from the values [p, n, c] of all its patches: the inverse of `to_signal`."""
    if values.shape[1] != math.prod(grid.patch):
        raise ValueError(f"a patch of {grid.patch} has {math.prod(grid.patch)} samples, not {values.shape[1]}")
    return join(values.reshape(values.shape[0], *grid.patch, values.shape[-1]), grid.shape)

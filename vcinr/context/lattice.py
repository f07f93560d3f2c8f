"""Grids of patches: lattices, checkerboards, neighbours, and differences from predecessors.

Arrays of patches are [*batch, *counts, m]; counts are the patches along each of the signal's ``rank`` axes. The lattice of
stride s holds the patches all of whose indices are multiples of s. In two dimensions, with ``*`` for a patch:

    neighbour_offsets   face_offsets   lattice_neighbours of a patch that is added at stride 2:
                                       first the even ones    then the odd ones

         x x x             . x .           x . . . x              . . x . .
         x * x             x * x           . . . . .              . . . . .
         x x x             . x .           . . * . .              x . * . x
                                           . . . . .              . . . . .
                                           x . . . x              . . x . .

    x  a patch that is looked at     .  a patch that is not
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def on_lattice(counts: Sequence[int], stride: int) -> np.ndarray:
    """Which patches are on the lattice of a stride, bool [*counts]."""
    return (np.indices(tuple(counts)) % stride == 0).all(axis=0)


def odd_patches(counts: Sequence[int]) -> np.ndarray:
    """Which patches have an odd sum of indices, one colour of the checkerboard; bool [*counts]."""
    return np.indices(tuple(counts)).sum(axis=0) % 2 == 1


def neighbour_offsets(rank: int) -> list[tuple[int, ...]]:
    """Offsets of the 3^rank − 1 patches that touch a patch, corners included, in row-major order."""
    return [offset for offset in itertools.product((-1, 0, 1), repeat=rank) if any(offset)]


def face_offsets(rank: int) -> list[tuple[int, ...]]:
    """Offsets of the 2 · rank patches that share a face with a patch, in row-major order."""
    return [offset for offset in neighbour_offsets(rank) if sum(map(abs, offset)) == 1]


def neighbours(x: Any, offsets: Sequence[tuple[int, ...]], xp: Any = np) -> Any:
    """What the patches at some offsets hold, [*batch, *counts, len(offsets) · m]; zero outside the grid.

    x: [*batch, *counts, m], a NumPy array or, with ``xp=jax.numpy``, a JAX array.   offsets: −1, 0 or 1 along each axis.
    """
    rank = len(offsets[0])
    lead = x.ndim - 1 - rank
    padded = _zero_padded(x, rank) if xp is np else xp.pad(x, [(0, 0)] * lead + [(1, 1)] * rank + [(0, 0)])
    windows = [
        tuple([slice(None)] * lead + [slice(1 + s, 1 + s + n) for s, n in zip(offset, x.shape[lead:-1], strict=True)])
        for offset in offsets
    ]
    return xp.concatenate([padded[window] for window in windows], axis=-1)


def _zero_padded(x: np.ndarray, rank: int) -> np.ndarray:
    """x with one more patch of zeros on every side. On small grids `numpy.pad` takes longer than the rest of `neighbours`."""
    counts = x.shape[-1 - rank : -1]
    padded = np.zeros((*x.shape[: -1 - rank], *(n + 2 for n in counts), x.shape[-1]), x.dtype)
    padded[(..., *(slice(1, -1) for _ in counts), slice(None))] = x
    return padded


def lattice_neighbours(added: np.ndarray, known: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The patches that a step adds to a lattice, and their neighbours at the distance of its stride.

    Args:
        added: which patches the step codes, bool [*counts].
        known: which patches are decoded before it, bool [*counts].
        stride: of the lattice that the step fills, in patches.

    Returns:
        Row-major numbers of the m patches that are added, int [m]; row-major numbers of their neighbours, in the order of
        `neighbour_offsets`, int [m, 3^rank − 1]; and which neighbours are known, bool [m, 3^rank − 1]. A neighbour
        outside the grid has the number 0 and is not known.
    """
    counts = added.shape
    places = np.argwhere(added)
    near = places[:, None, :] + stride * np.array(neighbour_offsets(len(counts)))
    inside = ((near >= 0) & (near < counts)).all(axis=-1)
    near = np.ravel_multi_index(tuple(np.moveaxis(np.where(inside[..., None], near, 0), -1, 0)), counts)
    return np.ravel_multi_index(tuple(places.T), counts), near, inside & known.ravel()[near]


def differences(symbols: np.ndarray) -> np.ndarray:
    """Symbols [*counts, n] minus the floor of the mean of their predecessors, one per axis; int64.

    The first patch has no predecessor and keeps its symbols.
    """
    symbols = np.asarray(symbols, np.int64)
    rank = symbols.ndim - 1
    total, number = np.zeros_like(symbols), np.zeros((*symbols.shape[:-1], 1), np.int64)
    for axis in range(rank):
        later, earlier = ([slice(None)] * symbols.ndim for _ in range(2))
        later[axis], earlier[axis] = slice(1, None), slice(None, -1)
        total[tuple(later)] += symbols[tuple(earlier)]
        number[tuple(later)] += 1
    return symbols - total // np.maximum(number, 1)


def restored(residual: np.ndarray) -> np.ndarray:
    """Inverse of `differences`, int64. ValueError where symbols exceed 32 bits.

    One array operation per diagonal: all patches with the same sum of indices.
    """
    *counts, n = residual.shape
    if max(counts) == math.prod(counts):
        # On a line every diagonal is one patch, with one predecessor: a cumulative sum is faster.
        result = np.cumsum(residual.reshape(-1, n), axis=0, dtype=np.int64)
        check_int32(result)
        return result.reshape(residual.shape)
    index = np.indices(counts).reshape(len(counts), -1)
    strides = [int(np.prod(counts[axis + 1 :])) for axis in range(len(counts))]
    result = np.array(residual, np.int64).reshape(-1, n)
    diagonal = index.sum(axis=0)
    check_int32(result[:1])
    order = np.argsort(diagonal, kind="stable")
    for places in np.split(order, np.cumsum(np.bincount(diagonal))[:-1])[1:]:
        inside = index[:, places] > 0
        total = sum(inside[a][:, None] * result[places - inside[a] * stride] for a, stride in enumerate(strides))
        result[places] += total // inside.sum(axis=0)[:, None]
        check_int32(result[places])
    return result.reshape(residual.shape)


def check_int32(symbols: np.ndarray) -> None:
    """ValueError where symbols lie beyond ±(2^31 − 1)."""
    if symbols.size and max(-int(symbols.min()), int(symbols.max())) >= 2**31:
        raise ValueError("symbols do not fit 32 bits")

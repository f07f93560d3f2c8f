"""The order in which the symbols of a signal's patches are coded, and what the decoder knows of the neighbours at each turn.

Every patch of the grid has the same k symbols, cut into groups by their dimension. The first group comes first: in the patches
of a coarse lattice as differences from their predecessors along each axis, then octave by octave in the patches between those
that are known. Every further group is two streams, patches of even and of odd index sum (a checkerboard): the even ones see all
earlier groups of the patch and its neighbours, the odd ones the group itself next door besides. Each stream is one array
operation over all patches (Minnen and Singh 2020, section 2; He et al. 2021, section 3.2).

Arrays are [*batch, *counts, m], ``rank`` axes of patches before the last; NumPy or JAX, as ``xp`` says.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

MAX_OCTAVES = 8


@dataclasses.dataclass(frozen=True)
class Turn:
    """Symbols that are coded at once, of one group of dimensions.

    stream: their name.   stride, odd: their patches have indices of multiples of the stride, the sum of which, in strides, is
    odd or not; the first group's patches on the lattice of twice the stride are known before."""

    stream: str
    group: int
    odd: bool
    stride: int = 1

    def patches(self, counts: Sequence[int]) -> np.ndarray:
        """Which patches they are of, bool [*counts]; not to be written to."""
        return _patches(self, tuple(counts))

    def known(self, counts: Sequence[int]) -> np.ndarray:
        """Patches whose symbols of the group are known before, bool [*counts]."""
        earlier = dataclasses.replace(self, odd=False).patches(counts) & self.odd
        return earlier | on_lattice(counts, 2 * self.stride) if self.group == 0 else earlier


@dataclasses.dataclass(frozen=True)
class Order:
    """ends: where the groups of dimensions end, ascending; the last is k.
    neighbour_dims: leading dimensions that neighbouring patches lend to the context of others.
    octaves: in which the first group goes from a lattice of every 2^octaves-th patch along each axis to all."""

    ends: tuple[int, ...]
    neighbour_dims: int
    octaves: int = 0

    def __post_init__(self):
        if len(self.ends) < 2 or list(self.ends) != sorted(set(self.ends)) or self.ends[0] < 1:
            raise ValueError(f"groups must be two or more, their ends ascending from at least 1; got {self.ends}")
        if self.neighbour_dims < 0:
            raise ValueError(f"neighbour_dims must be 0 or more, not {self.neighbour_dims}")
        if not 0 <= self.octaves <= MAX_OCTAVES:
            raise ValueError(f"octaves lies in 0..{MAX_OCTAVES}, not {self.octaves}")

    @property
    def streams(self) -> tuple[str, ...]:
        """Names, in the order of coding."""
        return ("first", *(turn.stream for turn in self.turns))

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Of every stream but the first."""
        strides = [2**i for i in reversed(range(self.octaves))]
        return (
            *(Turn(f"{name}_0_{s}", 0, name == "odd", s) for s in strides for name in ("even", "odd")),
            *(Turn(f"{name}_{i}", i, name == "odd") for i in range(1, len(self.ends)) for name in ("even", "odd")),
        )

    @property
    def coarsest(self) -> int:
        """Stride of the lattice of patches whose first group is coded as differences."""
        return 2**self.octaves

    def span(self, group: int) -> tuple[int, int]:
        """Dimensions of a group, from and to."""
        return (self.ends[group - 1] if group else 0), self.ends[group]

    def predicted(self, counts: Sequence[int]) -> np.ndarray:
        """Which symbols are not coded as differences, bool [*counts, k]."""
        return ~(on_lattice(counts, self.coarsest)[..., None] & (np.arange(self.ends[-1]) < self.ends[0]))


@lru_cache(maxsize=64)
def _patches(turn: Turn, counts: tuple[int, ...]) -> np.ndarray:
    index = np.indices(counts)
    mine = on_lattice(counts, turn.stride) & ((index // turn.stride).sum(axis=0) % 2 == turn.odd)
    mine = mine & ~on_lattice(counts, 2 * turn.stride) if turn.group == 0 else mine
    mine.flags.writeable = False
    return mine


def on_lattice(counts: Sequence[int], stride: int) -> np.ndarray:
    """Which patches have multiples of a stride as indices, bool [*counts]."""
    return (np.indices(tuple(counts)) % stride == 0).all(axis=0)


def coarsest(order: Order, x: Any, rank: int) -> Any:
    """The first group on the coarsest lattice, a view of x [*batch, *counts, k]."""
    return x[(..., *[slice(None, None, order.coarsest)] * rank, slice(order.ends[0]))]


def between(turn: Turn, counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(patches [m], those around [m, 3^rank − 1] at the turn's stride, which of these are known) of a turn of the first group.

    Patches are numbers, in row-major order; where there is none, it is any.
    """
    places = np.argwhere(turn.patches(counts))
    near = places[:, None, :] + turn.stride * np.array(around(len(counts)))
    inside = ((near >= 0) & (near < counts)).all(axis=-1)
    near = np.ravel_multi_index(tuple(np.moveaxis(np.where(inside[..., None], near, 0), -1, 0)), counts)
    return np.ravel_multi_index(tuple(places.T), counts), near, inside & turn.known(counts).ravel()[near]


def is_odd(counts: Sequence[int]) -> np.ndarray:
    """Which patches have an odd sum of indices, bool [*counts]."""
    return np.indices(tuple(counts)).sum(axis=0) % 2 == 1


def around(rank: int) -> list[tuple[int, ...]]:
    """Steps to the 3^rank − 1 patches around one."""
    return [step for step in itertools.product((-1, 0, 1), repeat=rank) if any(step)]


def beside(rank: int) -> list[tuple[int, ...]]:
    """Steps to the 2 · rank patches that share a face with one."""
    return [step for step in around(rank) if sum(map(abs, step)) == 1]


def neighbours(x: Any, steps: Sequence[tuple[int, ...]], xp: Any = np) -> Any:
    """What lies these steps away, [*batch, *counts, len(steps) · m]; zero outside the grid."""
    rank = len(steps[0])
    lead = x.ndim - 1 - rank
    padded = _padded(x, rank) if xp is np else xp.pad(x, [(0, 0)] * lead + [(1, 1)] * rank + [(0, 0)])
    window = [
        tuple([slice(None)] * lead + [slice(1 + s, 1 + s + n) for s, n in zip(step, x.shape[lead:-1], strict=True)])
        for step in steps
    ]
    return xp.concatenate([padded[w] for w in window], axis=-1)


def _padded(x: np.ndarray, rank: int) -> np.ndarray:
    """As NumPy's own, which on small pictures takes longer than all that it is for."""
    counts = x.shape[-1 - rank : -1]
    padded = np.zeros((*x.shape[: -1 - rank], *(n + 2 for n in counts), x.shape[-1]), x.dtype)
    padded[(..., *(slice(1, -1) for _ in counts), slice(None))] = x
    return padded


def differences(first: np.ndarray) -> np.ndarray:
    """Symbols [*counts, n] less the whole part of the mean of their predecessors along each axis; int64."""
    first = np.asarray(first, np.int64)
    rank = first.ndim - 1
    total, number = np.zeros_like(first), np.zeros((*first.shape[:-1], 1), np.int64)
    for axis in range(rank):
        later, earlier = ([slice(None)] * first.ndim for _ in range(2))
        later[axis], earlier[axis] = slice(1, None), slice(None, -1)
        total[tuple(later)] += first[tuple(earlier)]
        number[tuple(later)] += 1
    return first - total // np.maximum(number, 1)


def restored(residual: np.ndarray) -> np.ndarray:
    """The inverse of `differences`, int64; patches whose indices have one sum at a time. ValueError beyond 32 bits."""
    *counts, n = residual.shape
    if max(counts) == math.prod(counts):
        # A line: one level a patch, and each patch has one predecessor at most.
        result = np.cumsum(residual.reshape(-1, n), axis=0, dtype=np.int64)
        _check(result)
        return result.reshape(residual.shape)
    index = np.indices(counts).reshape(len(counts), -1)
    strides = [int(np.prod(counts[axis + 1 :])) for axis in range(len(counts))]
    result = np.array(residual, np.int64).reshape(-1, n)
    level = index.sum(axis=0)
    _check(result[:1])
    order = np.argsort(level, kind="stable")
    for places in np.split(order, np.cumsum(np.bincount(level))[:-1])[1:]:
        inside = index[:, places] > 0
        total = sum(inside[a][:, None] * result[places - inside[a] * stride] for a, stride in enumerate(strides))
        result[places] += total // inside.sum(axis=0)[:, None]
        _check(result[places])
    return result.reshape(residual.shape)


def _check(symbols: np.ndarray) -> None:
    if symbols.size and max(-int(symbols.min()), int(symbols.max())) >= 2**31:
        raise ValueError("symbols do not fit 32 bits")


def streams_of(order: Order, symbols: np.ndarray) -> dict[str, np.ndarray]:
    """Symbols of one signal, int [*counts, k] → its streams, int32. ValueError beyond 32 bits."""
    symbols = np.asarray(symbols)
    counts = symbols.shape[:-1]
    streams = {"first": differences(coarsest(order, symbols, len(counts))).ravel()}
    for turn in order.turns:
        start, stop = order.span(turn.group)
        streams[turn.stream] = symbols[turn.patches(counts), start:stop].ravel()
    for stream in streams.values():
        _check(stream)
    return {name: stream.astype(np.int32) for name, stream in streams.items()}


def symbols_of(order: Order, counts: Sequence[int], streams: Any) -> np.ndarray:
    """Symbols int32 [*counts, k] from the streams known so far; 0 where they are not."""
    symbols = np.zeros((*counts, order.ends[-1]), np.int32)
    if "first" in streams:
        first = coarsest(order, symbols, len(counts))
        first[...] = restored(np.asarray(streams["first"]).reshape(first.shape))
    for turn in order.turns:
        if turn.stream in streams:
            start, stop = order.span(turn.group)
            symbols[turn.patches(counts), start:stop] = np.asarray(streams[turn.stream]).reshape(-1, stop - start)
    return symbols

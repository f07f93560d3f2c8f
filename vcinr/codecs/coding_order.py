"""The order in which the symbols of a signal's patches are coded, and what the decoder knows of the neighbours at each turn.

Every patch of the grid has the same k symbols, cut into groups by their dimension. The first group of all patches comes first, as
differences from its predecessors along each axis. Every further group is two streams, patches of even and of odd index sum (a
checkerboard): the even ones see all earlier groups of the patch and its neighbours, the odd ones the group itself next door
besides. Each stream is one array operation over all patches (Minnen and Singh 2020, section 2; He et al. 2021, section 3.2).

Arrays are [*batch, *counts, m], ``rank`` axes of patches before the last; NumPy or JAX, as ``xp`` says.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Order:
    """ends: where the groups of dimensions end, ascending; the last is k.
    neighbour_dims: leading dimensions that neighbouring patches lend to the context of others."""

    ends: tuple[int, ...]
    neighbour_dims: int

    def __post_init__(self):
        if len(self.ends) < 2 or list(self.ends) != sorted(set(self.ends)) or self.ends[0] < 1:
            raise ValueError(f"groups must be two or more, their ends ascending from at least 1; got {self.ends}")
        if self.neighbour_dims < 0:
            raise ValueError(f"neighbour_dims must be 0 or more, not {self.neighbour_dims}")

    @property
    def streams(self) -> tuple[str, ...]:
        """Names, in the order of coding."""
        return ("first", *(f"{name}_{i}" for i in range(1, len(self.ends)) for name in ("even", "odd")))

    @property
    def turns(self) -> tuple[tuple[str, int, bool], ...]:
        """(stream, group, odd) of every stream but the first."""
        return tuple((f"{'odd' if odd else 'even'}_{i}", i, odd) for i in range(1, len(self.ends)) for odd in (False, True))

    def span(self, group: int) -> tuple[int, int]:
        """Dimensions of a group, from and to."""
        return (self.ends[group - 1] if group else 0), self.ends[group]


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
    padded = xp.pad(x, [(0, 0)] * lead + [(1, 1)] * rank + [(0, 0)])
    window = [
        tuple([slice(None)] * lead + [slice(1 + s, 1 + s + n) for s, n in zip(step, x.shape[lead:-1], strict=True)])
        for step in steps
    ]
    return xp.concatenate([padded[w] for w in window], axis=-1)


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


def _check(first: np.ndarray) -> None:
    if np.abs(first).max() >= 2**31:
        raise ValueError("symbols of the first group do not fit 32 bits")


def streams_of(order: Order, symbols: np.ndarray) -> dict[str, np.ndarray]:
    """Symbols of one signal, int [*counts, k] → its streams, int32."""
    symbols = np.asarray(symbols)
    odd = is_odd(symbols.shape[:-1])
    streams = {"first": differences(symbols[..., : order.ends[0]]).ravel()}
    for name, group, of_odd in order.turns:
        start, stop = order.span(group)
        streams[name] = symbols[..., start:stop][odd == of_odd].ravel()
    _check(streams["first"])
    return {name: stream.astype(np.int32) for name, stream in streams.items()}


def symbols_of(order: Order, counts: Sequence[int], streams: Any) -> np.ndarray:
    """Symbols int32 [*counts, k] from the streams known so far; 0 where they are not."""
    symbols = np.zeros((*counts, order.ends[-1]), np.int32)
    odd = is_odd(counts)
    if "first" in streams:
        symbols[..., : order.ends[0]] = restored(np.asarray(streams["first"]).reshape(*counts, -1))
    for name, group, of_odd in order.turns:
        if name in streams:
            start, stop = order.span(group)
            symbols[odd == of_odd, start:stop] = np.asarray(streams[name]).reshape(-1, stop - start)
    return symbols

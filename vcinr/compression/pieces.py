"""Decodes patches in blocks, so that the floats of a large signal are never in memory all at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import numpy as np

from vcinr.batching import map_batches
from vcinr.codec import Piece

NUMBERS_AT_ONCE = 2**22
"""Symbols and values in memory per block of patches."""

Block = tuple[int, tuple[np.ndarray, ...]]
"""(index of the signal, arrays [b, …] of b consecutive patches of it)."""


def patches_at_once(numbers: int) -> int:
    """Patches per block; ``numbers``: symbols and values per patch."""
    return max(1, NUMBERS_AT_ONCE // max(1, numbers))


def patch_pieces(
    function: Callable, config: Hashable, shared: Any, blocks: Iterable[Block], channels: int, batch_size: int, at_once: int
) -> Iterator[Piece]:
    """Values of all patches of all signals, piece by piece.

    Args:
      function: see `map_batches`; returns the values of one patch, [n, c] or [n · c].
      config: see `map_batches`.
      shared: see `map_batches`.
      blocks: all patches of each signal, in order; blocks of several small signals are evaluated together.
      channels: c.
      batch_size: see `map_batches`.
      at_once: approximate number of patches in memory.
    """
    held: list[Block] = []
    starts: dict[int, int] = {}

    def evaluated() -> Iterator[Piece]:
        arrays = tuple(np.concatenate(parts) for parts in zip(*(arrays for _, arrays in held), strict=True))
        values = map_batches(function, config, shared, arrays, batch_size)
        row = 0
        for signal, (first, *_) in held:
            part = values[row : row + len(first)].reshape(-1, channels)
            yield Piece(signal, starts.get(signal, 0), part)
            starts[signal] = starts.get(signal, 0) + len(part)
            row += len(first)

    for block in blocks:
        held.append(block)
        if sum(len(arrays[0]) for _, arrays in held) >= at_once:
            yield from evaluated()
            held = []
    if held:
        yield from evaluated()

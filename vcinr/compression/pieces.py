"""Patches decoded some at a time, so that the floats of a large signal are never held all at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import numpy as np

from vcinr.batching import map_batches
from vcinr.codec import Piece

NUMBERS_AT_ONCE = 2**22
"""Symbols and values that are held for it."""

Block = tuple[int, tuple[np.ndarray, ...]]
"""(number of the signal, arrays [m, …] of m consecutive patches of it)."""


def patches_at_once(numbers: int) -> int:
    """How many patches a block has, whose symbols and values are so many ``numbers`` each."""
    return max(1, NUMBERS_AT_ONCE // max(1, numbers))


def patch_pieces(
    function: Callable, config: Hashable, shared: Any, blocks: Iterable[Block], channels: int, batch_size: int, at_once: int
) -> Iterator[Piece]:
    """Values of signals from what each patch's are made of.

    Args:
      function, config, shared, batch_size: see `map_batches`; values are [n, c] of one patch, or [n · c].
      blocks: all patches of each signal, in order; blocks of several small signals are evaluated together.
      channels: c.
      at_once: patches that are evaluated together, about.
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

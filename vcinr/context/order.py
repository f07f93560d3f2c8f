"""The order in which the symbols of a signal's patches are coded, and what the decoder knows at each step.

Every patch has the same k symbols, divided by dimension into groups. The streams are coded one after the other:

* ``first``: the first group, on a coarse lattice of patches, as differences from the predecessors along each axis;
* ``even_0_s``, ``odd_0_s``: the first group on ever finer lattices, of stride s = 2^(octaves − 1) … 2, 1;
* ``even_g``, ``odd_g``: group g on the even patches of a checkerboard, then on the odd ones. Even patches see all earlier
  groups of the patch and its neighbours; odd patches also see group g of the patches that share a face with them.

Each stream is one array operation over all its patches (lattices and checkerboards: Minnen and Singh 2020, section 2; He et
al. 2021, section 3.2). With ``octaves`` = 2, the first group of 5 × 5 patches is coded in these five streams:

    first        even_0_2     odd_0_2      even_0_1     odd_0_1

    # . . . #    o . . . o    o . # . o    o . o . o    o # o # o
    . . . . .    . . . . .    . . . . .    . # . # .    # o # o #
    . . . . .    . . # . .    # . o . #    o . o . o    o # o # o
    . . . . .    . . . . .    . . . . .    . # . # .    # o # o #
    # . . . #    o . . . o    o . # . o    o . o . o    o # o # o

and every later group in two:

    even_1       odd_1

    # . # . #    o # o # o
    . # . # .    # o # o #
    # . # . #    o # o # o
    . # . # .    # o # o #
    # . # . #    o # o # o

    #  coded in this stream    o  known: this group was coded earlier    .  this group is coded later
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from vcinr.context.lattice import check_int32, differences, on_lattice, restored

MAX_OCTAVES = 8


@dataclasses.dataclass(frozen=True)
class CodingStep:
    """One group of dimensions of some of the patches, coded at once given everything before it.

    stream: its name.
    group: number of the group of dimensions.
    odd: whether the indices of its patches, divided by the stride, have an odd sum.
    stride: the indices of its patches are multiples of this, 1 for all groups but the first. In the first group, the
        patches on the lattice of twice the stride are coded by earlier steps.
    """

    stream: str
    group: int
    odd: bool
    stride: int = 1

    def patches(self, counts: Sequence[int]) -> np.ndarray:
        """Which patches the step codes, bool [*counts]; read-only."""
        return _patches(self, tuple(counts))

    def known(self, counts: Sequence[int]) -> np.ndarray:
        """Patches whose symbols of this group are decoded before the step, bool [*counts]."""
        earlier = dataclasses.replace(self, odd=False).patches(counts) & self.odd
        return earlier | on_lattice(counts, 2 * self.stride) if self.group == 0 else earlier


@dataclasses.dataclass(frozen=True)
class Order:
    """Order of coding; see the module.

    ends: where each group of dimensions ends, ascending; the last is k, the symbols per patch.
    neighbour_dims: leading dimensions of a patch that the contexts of its neighbours see.
    octaves: the first group starts on the lattice of stride 2^octaves; 0 to `MAX_OCTAVES`, 0 for all patches at once.
    """

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
        """Names of the streams, in the order of coding."""
        return ("first", *(step.stream for step in self.steps))

    @property
    def steps(self) -> tuple[CodingStep, ...]:
        """Every stream but ``first``, in the order of coding."""
        later = (CodingStep(f"{name}_{i}", i, name == "odd") for i in range(1, len(self.ends)) for name in ("even", "odd"))
        return (*self.lattice_steps, *later)

    @property
    def lattice_steps(self) -> tuple[CodingStep, ...]:
        """The steps of the first group, from coarse to fine; none where ``octaves`` is 0."""
        strides = [2**i for i in reversed(range(self.octaves))]
        return tuple(CodingStep(f"{name}_0_{s}", 0, name == "odd", s) for s in strides for name in ("even", "odd"))

    @property
    def coarsest_stride(self) -> int:
        """Stride of the lattice whose first group is coded as differences."""
        return 2**self.octaves

    @property
    def predicted_groups(self) -> range:
        """Groups with symbols that are coded in context, and so with a network of their own."""
        return range(0 if self.octaves else 1, len(self.ends))

    def span(self, group: int) -> tuple[int, int]:
        """First dimension of a group, and the one after its last."""
        return (self.ends[group - 1] if group else 0), self.ends[group]

    def predicted(self, counts: Sequence[int]) -> np.ndarray:
        """Which symbols are coded in context, and not as differences; bool [*counts, k]."""
        return ~(on_lattice(counts, self.coarsest_stride)[..., None] & (np.arange(self.ends[-1]) < self.ends[0]))


@lru_cache(maxsize=64)
def _patches(step: CodingStep, counts: tuple[int, ...]) -> np.ndarray:
    index = np.indices(counts)
    chosen = on_lattice(counts, step.stride) & ((index // step.stride).sum(axis=0) % 2 == step.odd)
    chosen = chosen & ~on_lattice(counts, 2 * step.stride) if step.group == 0 else chosen
    chosen.flags.writeable = False
    return chosen


def coarsest_lattice(order: Order, x: Any, rank: int) -> Any:
    """The first group on the coarsest lattice, a view of x [*batch, *counts, k]."""
    return x[(..., *[slice(None, None, order.coarsest_stride)] * rank, slice(order.ends[0]))]


def streams_of(order: Order, symbols: np.ndarray) -> dict[str, np.ndarray]:
    """Streams, int32 [n] each, of the symbols of one signal, int [*counts, k]. ValueError beyond 32 bits."""
    symbols = np.asarray(symbols)
    counts = symbols.shape[:-1]
    streams = {"first": differences(coarsest_lattice(order, symbols, len(counts))).ravel()}
    for step in order.steps:
        start, stop = order.span(step.group)
        streams[step.stream] = symbols[step.patches(counts), start:stop].ravel()
    for stream in streams.values():
        check_int32(stream)
    return {name: stream.astype(np.int32) for name, stream in streams.items()}


def symbols_of(order: Order, counts: Sequence[int], streams: Any) -> np.ndarray:
    """Symbols int32 [*counts, k] of the streams decoded so far; 0 where a stream is missing."""
    symbols = np.zeros((*counts, order.ends[-1]), np.int32)
    if "first" in streams:
        first = coarsest_lattice(order, symbols, len(counts))
        first[...] = restored(np.asarray(streams["first"]).reshape(first.shape))
    for step in order.steps:
        if step.stream in streams:
            start, stop = order.span(step.group)
            symbols[step.patches(counts), start:stop] = np.asarray(streams[step.stream]).reshape(-1, stop - start)
    return symbols

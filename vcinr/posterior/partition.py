"""Which dimensions make up which block, and which patches a block mixes: both are known to the decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from vcinr.posterior.shared_randomness import philox

PERMUTATION_KEY = 2**32 - 1
"""Second word of the key of `patch_permutation`; blocks have smaller numbers."""


@dataclasses.dataclass(frozen=True, eq=False)
class Partition:
    """Dimensions in blocks.

    order: the dimensions, int32 [d], block after block.
    ends: where each block ends in ``order``, int32 [k], ascending; the last is d.
    """

    order: Int32[np.ndarray, " d"]
    ends: Int32[np.ndarray, " k"]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Partition:
        """The inverse of `to_arrays`."""
        return cls(np.asarray(arrays["order"]), np.asarray(arrays["ends"]))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays to be stored."""
        return {"order": self.order, "ends": self.ends}

    @property
    def num_blocks(self) -> int:
        """Number of blocks k."""
        return len(self.ends)

    @property
    def block_of(self) -> Int32[np.ndarray, " d"]:
        """The block of each dimension."""
        blocks = np.empty(len(self.order), np.int32)
        blocks[self.order] = np.repeat(np.arange(self.num_blocks), np.diff(self.ends, prepend=0))
        return blocks

    def members(self, block: int) -> np.ndarray:
        """The dimensions of a block."""
        return self.order[self.ends[block - 1] if block else 0 : self.ends[block]]


def next_fit(kl_bits: Float[np.ndarray, " d"], budget: float | int, seed: int) -> Partition:
    """Blocks of at most ``budget`` bits by next-fit bin packing, in a random order (He 2023, algorithm 2).

    Args:
      kl_bits: mean KL divergence of the training signals' posteriors from the prior, per dimension; finite, at least 0.
      budget: κ, positive. A dimension that exceeds it alone is a block of its own.
      seed: of the order.

    Raises:
      ValueError: a divergence is negative or not finite.
    """
    kl_bits = np.asarray(kl_bits, np.float64)
    if not (np.isfinite(kl_bits) & (kl_bits >= -1e-6)).all():
        raise ValueError("the mean KL divergence of a dimension is negative or not finite: prior learning has diverged")
    order = np.random.default_rng(seed).permutation(len(kl_bits)).astype(np.int32)
    ends, filled = [], 0.0
    for place, dimension in enumerate(order):
        if filled + kl_bits[dimension] > budget and filled > 0.0:
            ends.append(place)
            filled = 0.0
        filled += kl_bits[dimension]
    return Partition(order, np.array([*ends, len(order)], np.int32))


def patch_permutation(seed: int, num_patches: int, num_dimensions: int) -> Int32[np.ndarray, "p d"]:
    """For each dimension, the patch that stands in each row of blocks: column j is a permutation of 0 … p − 1 (section 4.1.4).

    Column j sorts, stably, the first Philox words of the counters (row, j, 0, 0) under the key (seed, `PERMUTATION_KEY`).
    """
    rows, columns = np.meshgrid(*(np.arange(n, dtype=np.uint32) for n in (num_patches, num_dimensions)), indexing="ij")
    zero = np.zeros_like(rows)
    words = philox((rows, columns, zero, zero), (np.uint32(seed), np.uint32(PERMUTATION_KEY)))[0]
    return np.argsort(words, axis=0, kind="stable").astype(np.int32)

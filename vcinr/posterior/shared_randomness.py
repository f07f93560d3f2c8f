"""Normal numbers that encoder and decoder share: part of the file format, equal to the bit on every machine.

Random words are those of Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), a function of a
counter and a key, so that any candidate can be drawn alone. 16 bits of a word name an entry of a table of normal quantiles,
which is shipped: no library's logarithm or inverse error function decides what a file decodes to. docs/bitstream.md specifies it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

MAX_WORD = (1 << 32) - 1
"""Largest seed, block and candidate."""

_TABLE = Path(__file__).with_name("normal_quantiles.npy")
# Multiples of 2^−21: the largest quantile, 4.33, is then still below 2^24 steps, so float32 has every one exactly.
_STEP = np.float32(2.0**-21)
_MULTIPLIERS = np.uint32(0xD2511F53), np.uint32(0xCD9E8D57)
_WEYL = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_ROUNDS = 10
_HALF = np.uint32(0xFFFF)
_16 = np.uint32(16)


@functools.cache
def normal_quantiles() -> np.ndarray:
    """Φ⁻¹((u + ½) / 2^16) of u = 0 … 2^16 − 1, odd-symmetric to the bit, float32 [65536], read-only."""
    upper = np.load(_TABLE, allow_pickle=False).astype(np.float32) * _STEP
    table = np.concatenate([-upper[::-1], upper])
    table.flags.writeable = False
    return table


def philox(counter: Sequence[Any], key: Sequence[Any], xp: ModuleType = np) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10: four random words uint32 of a counter of four words and a key of two, elementwise.

    Words are uint32 arrays of shapes that broadcast; `xp` is `numpy` or `jax.numpy`, which give equal words.
    Source: Salmon et al. 2011, section 3.3 and table 2.
    """
    c0, c1, c2, c3 = (xp.asarray(word, dtype=xp.uint32) for word in counter)
    k0, k1 = (xp.asarray(word, dtype=xp.uint32) for word in key)
    # NumPy warns where scalars, unlike arrays, wrap around.
    with np.errstate(over="ignore"):
        for _ in range(_ROUNDS):
            high0, low0 = _product(_MULTIPLIERS[0], c0)
            high1, low1 = _product(_MULTIPLIERS[1], c2)
            c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
            k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    return c0, c1, c2, c3


def _product(multiplier: np.uint32, word: Any) -> tuple[Any, Any]:
    """High and low word of a product. By halves of 16 bits: JAX has no 64-bit integers by default."""
    m_high, m_low = multiplier >> _16, multiplier & _HALF
    w_high, w_low = word >> _16, word & _HALF
    middle = m_high * w_low + (m_low * w_low >> _16)
    other = m_low * w_high + (middle & _HALF)
    return m_high * w_high + (middle >> _16) + (other >> _16), multiplier * word


def candidate_normals(seed: Any, block: Any, indices: Any, num_dimensions: int, xp: ModuleType = np) -> Any:
    """Standard normals of candidates of a block, float32 [n, num_dimensions], each a function of its own index alone.

    seed, block: unsigned 32-bit numbers, traced or not.  indices: uint32 [n].  Fewer dimensions are the first of more.
    """
    indices = xp.asarray(indices, dtype=xp.uint32)[:, None]
    groups = xp.arange(-(-num_dimensions // 8), dtype=xp.uint32)[None, :]
    zero = xp.zeros_like(indices)
    words = xp.stack(xp.broadcast_arrays(*philox((indices, groups, zero, zero), (seed, block), xp)), axis=-1)
    return normals_of_words(words, xp).reshape(indices.shape[0], 8 * groups.shape[1])[:, :num_dimensions]


def normals_of_words(words: Any, xp: ModuleType = np) -> Any:
    """Eight standard normals of four random words: uint32 [..., 4] → float32 [..., 8], the low half of a word first."""
    halves = xp.stack([words & _HALF, words >> _16], axis=-1).reshape(*words.shape[:-1], 8)
    return xp.asarray(normal_quantiles())[halves.astype(xp.int32)]

"""Integer frequency tables: what the range coder codes with, made from the probabilities of a trained model.

Tables are made once, in float64 on the host, and saved with the model. They are never recomputed when decoding: floats of two
machines may differ in the last bit, and one wrong entry garbles a stream without an exception.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import constriction
import numpy as np

PRECISION = 16
TOTAL = 1 << PRECISION
# Entries of the largest table: with more, the one count that each entry has at least would take a good part of the total.
MAX_SIZE = TOTAL // 4
TAIL_MASS = 1 / TOTAL
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

# Frequencies of the length l = ⌊log2(distance)⌋ of an escaped symbol, 0 ≤ l ≤ 31: about 2^-(l+1), as in exp-Golomb codes.
ESCAPE_LENGTHS = np.array([2**15 - 15] + [2 ** max(0, 15 - length) for length in range(1, 32)], np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """Frequency tables of runs of consecutive symbols, each with an escape entry for every symbol outside its run.

    first: int32 [t], the smallest symbol of each table.
    sizes: int32 [t], entries of each table, the escape included; from 2 to `MAX_SIZE`.
    frequencies: int32 [sum(sizes)], table after table; entry j < sizes[i] - 1 of table i is symbol first[i] + j, the last is
        the escape. Each is at least 1 and each table sums to 2^16.

    Arrays are copied and read-only. Raises ValueError where they don't make valid tables.
    """

    first: np.ndarray
    sizes: np.ndarray
    frequencies: np.ndarray

    def __post_init__(self):
        for name in ("first", "sizes", "frequencies"):
            array = np.asarray(getattr(self, name))
            if array.ndim != 1 or array.dtype.kind not in "iu":
                raise ValueError(f"tables: {name} must be a vector of integers, got {array.dtype} of shape {array.shape}")
            if array.size and (int(array.min()) < INT32_MIN or int(array.max()) > INT32_MAX):
                raise ValueError(f"tables: {name} must fit int32")
            array = array.astype(np.int32)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.num_tables == 0 or self.first.size != self.num_tables:
            raise ValueError(f"tables: first has {self.first.size} entries and sizes {self.num_tables}; both need one per table")
        if self.sizes.min() < 2 or self.sizes.max() > MAX_SIZE:
            raise ValueError(f"tables: sizes must lie in 2..{MAX_SIZE} (a symbol and the escape at least)")
        if int(self.sizes.sum(dtype=np.int64)) != self.frequencies.size:
            raise ValueError(f"tables: sizes add up to {self.sizes.sum()}, but there are {self.frequencies.size} frequencies")
        if np.any(self.first.astype(np.int64) + self.sizes - 2 > INT32_MAX):
            raise ValueError("tables: the last symbol of every table must fit int32")
        if self.frequencies.min() < 1:
            raise ValueError("tables: every frequency must be at least 1")
        if np.any(np.add.reduceat(self.frequencies.astype(np.int64), self.offsets) != TOTAL):
            raise ValueError(f"tables: the frequencies of every table must add up to 2^{PRECISION}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tables):
            return NotImplemented
        return self is other or all(np.array_equal(a, other.to_arrays()[name]) for name, a in self.to_arrays().items())

    def __reduce__(self):
        return Tables, (self.first, self.sizes, self.frequencies)

    @property
    def num_tables(self) -> int:
        """Number of tables, t."""
        return self.sizes.size

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """int64 [t]: where each table begins in ``frequencies``."""
        return np.cumsum(self.sizes, dtype=np.int64) - self.sizes

    @functools.cached_property
    def models(self) -> list[Any]:
        """Models for the range coder, one per table, made on first use and kept."""
        return [categorical(part) for part in np.split(self.frequencies, self.offsets[1:])]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The three arrays by name, to be saved."""
        return {"first": self.first, "sizes": self.sizes, "frequencies": self.frequencies}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Tables:
        """Tables from what `to_arrays` gave; raises ValueError where an array is missing or not valid."""
        missing = {"first", "sizes", "frequencies"} - set(arrays)
        if missing:
            raise ValueError(f"tables: missing {', '.join(sorted(missing))}")
        return cls(arrays["first"], arrays["sizes"], arrays["frequencies"])


def categorical(frequencies: np.ndarray) -> Any:
    """A constriction model of integer frequencies that sum to 2^16.

    With ``perfect=False`` constriction gives entry j of n the left edge ⌊C_j (2^24 − n) / 2^16⌋ + j out of 2^24, C_j being the
    sum of the frequencies before it. Every product is a dyadic number of under 53 bits, so float64 is exact here.
    """
    return constriction.stream.model.Categorical(np.asarray(frequencies, np.float64), perfect=False)


def frequencies_from_masses(masses: np.ndarray) -> np.ndarray:
    """Integer frequencies that sum to 2^16, at least 1 each, in proportion to probability masses.

    masses: float64 [s], 2 ≤ s ≤ 2^16, not negative; they need not sum to 1.
    Returns int32 [s]. Masses too small for one count get one; the others share the rest by the largest-remainder method,
    earlier entries first among equals. Raises ValueError on masses that are negative, not finite or all zero.
    """
    masses = np.asarray(masses, np.float64)
    if masses.ndim != 1 or not 2 <= masses.size <= TOTAL:
        raise ValueError(f"masses must be a vector of 2 to {TOTAL} entries, got shape {masses.shape}")
    if not np.all(np.isfinite(masses)) or masses.min() < 0 or masses.max() == 0:
        raise ValueError("masses must be finite, not negative and not all zero")
    masses = masses / masses.max()
    small = np.zeros(masses.size, bool)
    while True:
        share = np.where(small, 0.0, masses)
        share *= (TOTAL - int(np.count_nonzero(small))) / share.sum()
        grown = small | (share < 1)
        if np.array_equal(grown, small):
            break
        small = grown
    frequencies = np.where(small, 1, np.floor(share)).astype(np.int32)
    remainder = np.where(small, -1.0, share - np.floor(share))
    frequencies[np.argsort(-remainder, kind="stable")[: TOTAL - int(frequencies.sum())]] += 1
    return frequencies


def tables_from_cdf(cdf: Callable[[np.ndarray], np.ndarray], lower: np.ndarray, upper: np.ndarray) -> Tables:
    """Tables of integer-valued symbols z with mass cdf(z + ½) − cdf(z − ½).

    cdf: float64 [s, t] → float64 [s, t] in NumPy, one column per table, not decreasing in each column.
    lower, upper: integer [t], between which each table must lie. There, a table starts at the largest symbol with a mass of
        less than 2^-16 below it and ends at the smallest with at most 2^-16 above it (found by bisection), but no further than
        `MAX_SIZE` / 2 from the median; the escape gets the mass of both tails. So a dimension that is nearly always 0 has a
        table of one symbol and the escape.
    Raises ValueError on brackets that don't fit and on a cdf that is not finite or not in [0, 1].
    """
    lower, upper = np.asarray(lower, np.int64), np.asarray(upper, np.int64)
    if lower.ndim != 1 or lower.shape != upper.shape or lower.size == 0 or np.any(lower > upper):
        raise ValueError("lower and upper must be vectors of one length, lower <= upper")
    if lower.min() < INT32_MIN or upper.max() > INT32_MAX:
        raise ValueError("lower and upper must fit int32")

    def evaluate(edges: np.ndarray) -> np.ndarray:
        values = np.asarray(cdf(edges))
        if values.shape != edges.shape or values.dtype != np.float64:
            raise ValueError(f"cdf must map float64 {edges.shape} to the same, got {values.dtype} {values.shape}")
        if not np.all(np.isfinite(values)) or values.min() < -1e-9 or values.max() > 1 + 1e-9:
            raise ValueError("cdf must be finite and in [0, 1]")
        return values

    # The smallest symbols z with cdf(z + ½) at these levels or above: the first of the table, the median, and the last.
    levels = np.array([[TAIL_MASS], [0.5], [1 - TAIL_MASS]])
    low, high = np.tile(lower, (3, 1)), np.tile(upper, (3, 1))
    while np.any(low < high):
        middle = (low + high) // 2
        reached = evaluate(middle + 0.5) >= levels
        low, high = np.where(reached, low, np.minimum(middle + 1, high)), np.where(reached, middle, high)
    first, median, last = low
    reach = MAX_SIZE // 2 - 1
    first, last = np.maximum(first, median - reach), np.minimum(last, median + reach)
    sizes = last - first + 2
    offsets = np.cumsum(sizes) - sizes
    masses = np.empty(int(sizes.sum()), np.float64)
    block = max(1, 2**20 // sizes.size)
    for start in range(0, int(sizes.max()) - 1, block):
        steps = np.arange(start, min(start + block, int(sizes.max()) - 1) + 1)[:, None]
        bins = np.diff(evaluate(np.minimum(first + steps, last + 1) - 0.5), axis=0)
        row, column = np.nonzero(steps[:-1] < sizes - 1)
        masses[offsets[column] + steps[row, 0]] = np.maximum(bins[row, column], 0)
    tails = evaluate(np.stack([first - 0.5, last + 0.5]))
    masses[offsets + sizes - 1] = np.clip(tails[0] + 1 - tails[1], 0, 1)
    return Tables(first, sizes, np.concatenate([frequencies_from_masses(part) for part in np.split(masses, offsets[1:])]))


def tables_from_counts(
    symbols: np.ndarray, index: np.ndarray, num_tables: int, expected: Callable[[np.ndarray], np.ndarray] | None = None
) -> Tables:
    """Tables from histograms of training symbols, smoothed towards an expected distribution.

    If table i has n_i symbols, d_i of them distinct, symbol z gets the mass (count(z) + d_i g_i(z)) / (n_i + d_i). Here g_i is
    the expected distribution, and d_i / (n_i + d_i) is Witten and Bell's estimate for the share of unseen symbols.

    Args:
        symbols: int [n].
        index: table of each symbol, int [n], in 0..num_tables-1.
        num_tables: t.
        expected: cumulatives of g, as in `tables_from_cdf`. By default, g_i is the two-sided geometric distribution about the
            median of the table's symbols with their mean absolute deviation, at least ½; without symbols, 1 about 0.

    Returns:
        Tables that end as in `tables_from_cdf`. ValueError on arrays that don't fit.
    """
    symbols, index = np.asarray(symbols, np.int64), np.asarray(index, np.int64)
    if symbols.ndim != 1 or symbols.shape != index.shape:
        raise ValueError(f"symbols and index must be vectors of one length, got shapes {symbols.shape} and {index.shape}")
    if index.size and (index.min() < 0 or index.max() >= num_tables):
        raise ValueError(f"index must lie in 0..{num_tables - 1}")
    counts = np.bincount(index, minlength=num_tables)
    groups = np.split(symbols[np.lexsort((symbols, index))], np.cumsum(counts)[:-1])
    medians = np.array([group[group.size // 2] if group.size else 0 for group in groups])
    distinct = np.array([np.count_nonzero(np.diff(group)) + 1 for group in groups])
    deviations = np.array([np.mean(np.abs(g - m)) if g.size else 1.0 for g, m in zip(groups, medians, strict=True)])
    deviations = np.maximum(deviations, 0.5)
    # E|k| = 2θ / (1 − θ²) for the mass (1 − θ) / (1 + θ) · θ^|k|.
    theta = (np.sqrt(1 + deviations**2) - 1) / deviations

    def cdf(edges: np.ndarray) -> np.ndarray:
        steps = np.floor(edges - medians)
        tail = theta ** np.where(steps < 0, -steps, steps + 1) / (1 + theta)
        likely = np.where(steps < 0, tail, 1 - tail) if expected is None else expected(edges)
        seen = np.stack([np.searchsorted(g, edges[:, i]) for i, g in enumerate(groups)], axis=1)
        return (seen + distinct * likely) / (counts + distinct)

    return tables_from_cdf(cdf, np.full(num_tables, INT32_MIN), np.full(num_tables, INT32_MAX))


def tables_from_columns(symbols: np.ndarray) -> Tables:
    """`tables_from_counts` of training symbols [n, t], one table per column; some columns at a time, to bound memory."""
    parts = []
    for start in range(0, symbols.shape[1], 64):
        columns = symbols[:, start : start + 64]
        index = np.broadcast_to(np.arange(columns.shape[1], dtype=np.int32), columns.shape)
        parts.append(tables_from_counts(columns.ravel(), index.ravel(), columns.shape[1]).to_arrays())
    return Tables(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def entries(tables: Tables, symbols: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(entry int32 [n], escaped bool [n]): the entry of its table that each symbol is coded as, and whether it is the escape."""
    last = tables.sizes[index] - 1
    place = np.subtract(symbols, tables.first[index], dtype=np.int64)
    escaped = (place < 0) | (place >= last)
    return np.where(escaped, last, place).astype(np.int32), escaped


def escape_distances(tables: Tables, symbols: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(above bool [m], distance int64 [m] ≥ 1) of escaped symbols: whether each lies above or below its table, and how far."""
    below = tables.first[index].astype(np.int64) - symbols
    above = below < 0
    return above, np.where(above, -below - (tables.sizes[index] - 2), below)


def escape_lengths(distances: np.ndarray) -> np.ndarray:
    """⌊log2(distance)⌋ of integers 1 ≤ distance < 2^32, int64 [m]."""
    return np.frexp(distances.astype(np.float64))[1].astype(np.int64) - 1


def code_length_bits(tables: Tables, symbols: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Ideal code length of each symbol in bits, float64 [n]; for an escaped one, with the bits of its distance.

    symbols: int [n], anything that fits int32; index: int [n], the table of each.
    """
    symbols, index = np.asarray(symbols, np.int64), np.asarray(index, np.int64)
    entry, escaped = entries(tables, symbols, index)
    bits = PRECISION - np.log2(tables.frequencies[tables.offsets[index] + entry])
    lengths = escape_lengths(escape_distances(tables, symbols[escaped], index[escaped])[1])
    bits[escaped] += 1 + PRECISION - np.log2(ESCAPE_LENGTHS[lengths]) + lengths
    return bits

"""Integers ↔ bytes: a range coder (constriction) with fixed-width symbols and integer tables.

Payload bytes are specified in docs/bitstream.md, to the bit.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np

from vcinr.entropy.tables import (
    ESCAPE_LENGTHS,
    INT32_MAX,
    INT32_MIN,
    Tables,
    categorical,
    code_length_bits,
    entries,
    escape_distances,
    escape_lengths,
)

CHUNK_BITS = 16
BLOCK = 2**22
"""Symbols that are sorted, or held in wider types, at once: both take several times the memory of the symbols."""


class CodingError(ValueError):
    """Symbols that a model cannot code, or bytes that no encoder writes."""


@dataclasses.dataclass(frozen=True)
class RawBits:
    """``count`` symbols in 0..2^bits−1, each coded in ``bits`` bits; 0 ≤ bits ≤ 31."""

    bits: int
    count: int

    def __post_init__(self):
        if not 0 <= self.bits <= 31 or self.count < 0:
            raise ValueError(f"RawBits needs 0 <= bits <= 31 and count >= 0, got bits={self.bits}, count={self.count}")


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Symbols coded by integer tables, any int32 exactly.

    tables: all tables.
    index: number of the table of each symbol, int [n].
    offset: what is subtracted from each symbol before it is coded, int [n], |offset| ≤ 2^30; None for 0.
    """

    tables: Tables
    index: np.ndarray
    offset: np.ndarray | None = None

    def __post_init__(self):
        index = np.asarray(self.index)
        if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
            raise ValueError(f"Table: index must be a vector of integers, got {index.dtype} of shape {index.shape}")
        if index.size and (index.min() < 0 or index.max() >= self.tables.num_tables):
            raise ValueError(f"Table: index must lie in 0..{self.tables.num_tables - 1}, got {index.min()}..{index.max()}")
        object.__setattr__(self, "index", index.astype(np.int32, copy=False))
        if self.offset is not None:
            offset = np.asarray(self.offset)
            if offset.shape != index.shape or offset.dtype.kind not in "iu":
                raise ValueError(f"Table: offset must be integers like index, got {offset.dtype} of shape {offset.shape}")
            if offset.size and max(-int(offset.min()), int(offset.max())) > 2**30:
                raise ValueError("Table: offset must lie within ±2^30")
            object.__setattr__(self, "offset", offset.astype(np.int32, copy=False))


SymbolModel = RawBits | Table


def model_count(model: SymbolModel) -> int:
    """Number of symbols that a model codes."""
    return model.count if isinstance(model, RawBits) else model.index.size


def symbol_bits(model: SymbolModel, symbols: np.ndarray) -> np.ndarray:
    """Ideal code length of each symbol in bits, float64 [n]; symbols: integer [n]."""
    symbols = _checked(model, symbols)
    if isinstance(model, RawBits):
        return np.full(model.count, float(model.bits))
    return code_length_bits(model.tables, _counted(model, symbols), model.index)


class Encoder:
    """Appends arrays of symbols to one range-coded stream."""

    def __init__(self):
        self._coder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: np.ndarray, model: SymbolModel) -> None:
        """Appends symbols, integer [n]. Raises CodingError where they don't fit the model, before anything is coded.

        Symbols of a `Table` are coded table by table, each table's symbols in their given order. Then follow, for all escaped
        symbols in their given order, the sides, the lengths, the low digits and the high digits.
        """
        symbols = _checked(model, symbols)
        if isinstance(model, RawBits):
            for shift, width in _digits(model.bits):
                self._coder.encode((symbols >> shift) & ((1 << width) - 1), _uniform(width))
            return
        tables, index = model.tables, model.index
        symbols = _counted(model, symbols)
        entry, escaped = entries(tables, symbols, index)
        order, runs = _runs(tables, index)
        entry = entry[order]
        for table, start, stop in runs:
            self._coder.encode(entry[start:stop], tables.models[table])
        if not escaped.any():
            return
        above, distances = escape_distances(tables, symbols[escaped], index[escaped])
        lengths = escape_lengths(distances)
        self._coder.encode(above.astype(np.int32), _uniform(1))
        self._coder.encode(lengths.astype(np.int32), _length_model())
        rest = distances - (1 << lengths)
        for shift, chosen, sizes in _rest_digits(lengths):
            digits = (rest[chosen] >> shift) & (sizes - 1)
            self._coder.encode(digits.astype(np.int32), _any_uniform(), sizes.astype(np.int32))

    def finish(self) -> bytes:
        """The shortest bytes that decode to the symbols. The encoder may go on, and finish again."""
        position, (lower, size) = self._coder.pos()
        if (lower, size) == (0, 2**64 - 1):
            return b""
        words = self._coder.get_compressed()
        tail = int.from_bytes(words[position:].astype(">u4").tobytes().ljust(8, b"\0"), "big")
        sealed = int.from_bytes(words[:position].astype(">u4").tobytes(), "big") << 64 | tail
        # Any number in one interval, written with 8 + 4 · position bytes, decodes to these symbols. Constriction picks one less
        # than 2^32 above the interval's lower end, and always writes whole words.
        bottom = sealed - ((tail - lower) & (2**64 - 1))
        for dropped in range(64, -1, -8):
            shortest = -(-bottom >> dropped) << dropped
            if shortest < bottom + size:
                return shortest.to_bytes(4 * position + 8, "big").rstrip(b"\0")
        raise AssertionError("an interval holds its own lower end")


class Decoder:
    """Reads arrays of symbols back from one range-coded stream.

    Any bytes decode to some symbols. They are encoded again on the way (a quarter of the work), so that `finish` can tell
    whether an encoder would write these bytes: none missing, none left over.
    """

    def __init__(self, data: bytes):
        self._data = bytes(data)
        words = np.frombuffer(self._data.ljust(-(-len(self._data) // 4) * 4, b"\0"), ">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)
        self._echo = Encoder()

    def decode(self, model: SymbolModel) -> np.ndarray:
        """The next symbols, int32 [n]. Raises CodingError on bytes that decode to nothing."""
        if isinstance(model, RawBits):
            symbols = np.zeros(model.count, np.int32)
            for shift, width in _digits(model.bits):
                symbols |= self._read(_uniform(width), model.count) << shift
            return symbols
        tables, index = model.tables, model.index
        order, runs = _runs(tables, index)
        symbols, escapes = np.empty(index.size, np.int32), [np.zeros(0, order.dtype)]
        for table, start, stop in runs:
            entry, places = self._read(tables.models[table], stop - start), order[start:stop]
            symbols[places] = entry + tables.first[table]
            escapes.append(places[entry == tables.sizes[table] - 1])
        escaped = np.sort(np.concatenate(escapes))
        if escaped.size:
            symbols[escaped] = self._read_escaped(tables, index[escaped])
        if model.offset is not None:
            for part in _blocks(symbols.size):
                whole = symbols[part] + model.offset[part].astype(np.int64)
                _check_int32(whole)
                symbols[part] = whole
        return symbols

    def _read_escaped(self, tables: Tables, index: np.ndarray) -> np.ndarray:
        """Symbols, int64 [m], outside the tables of these numbers."""
        above = self._read(_uniform(1), index.size) == 1
        lengths = self._read(_length_model(), index.size).astype(np.int64)
        distances = np.left_shift(1, lengths)
        for shift, chosen, sizes in _rest_digits(lengths):
            distances[chosen] += self._read(_any_uniform(), sizes.astype(np.int32)).astype(np.int64) << shift
        first = tables.first[index].astype(np.int64)
        symbols = np.where(above, first + tables.sizes[index] - 2 + distances, first - distances)
        _check_int32(symbols)
        return symbols

    def finish(self) -> None:
        """Raises CodingError where the bytes are not those that encoding the symbols read so far gives."""
        if self._echo.finish() != self._data:
            raise CodingError("the coded bytes do not end where their symbols do")

    def _read(self, model: Any, amount: int | np.ndarray) -> np.ndarray:
        try:
            symbols = self._coder.decode(model, amount)
        except AssertionError as error:  # constriction's word for a point outside every interval
            raise CodingError("the coded bytes are not valid for their tables") from error
        self._echo._coder.encode(symbols, model, *([] if isinstance(amount, int) else [amount]))
        return symbols


def _checked(model: SymbolModel, symbols: np.ndarray) -> np.ndarray:
    """Symbols as int32 [n] that fit the model, or CodingError."""
    symbols = np.asarray(symbols)
    if symbols.shape != (model_count(model),):
        raise CodingError(f"the model is for {model_count(model)} symbols, got an array of shape {symbols.shape}")
    if not symbols.size:
        return symbols.astype(np.int32)
    if symbols.dtype.kind not in "iu":
        raise CodingError(f"symbols must be integers, got {symbols.dtype}")
    low, high = (0, 2**model.bits - 1) if isinstance(model, RawBits) else (INT32_MIN, INT32_MAX)
    if symbols.min() < low or symbols.max() > high:
        raise CodingError(f"symbols must lie in {low}..{high}, got {symbols.min()}..{symbols.max()}")
    return symbols.astype(np.int32, copy=False)


def _check_int32(symbols: np.ndarray) -> None:
    if symbols.size and (symbols.min() < INT32_MIN or symbols.max() > INT32_MAX):
        raise CodingError("a symbol does not fit int32")


def _counted(model: Table, symbols: np.ndarray) -> np.ndarray:
    """Symbols minus their offsets, which is what the tables code. CodingError where they do not fit int32."""
    if model.offset is None:
        return symbols
    left = symbols - model.offset.astype(np.int64)
    if left.size and (left.min() < INT32_MIN or left.max() > INT32_MAX):
        raise CodingError("symbols are too far from their offsets")
    return left.astype(np.int32)


def _runs(tables: Tables, index: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """The permutation that sorts symbols by table, stably, and (table, start, stop) of each table that occurs."""
    counts = np.zeros(tables.num_tables, np.int64)
    for part in _blocks(index.size):
        counts += np.bincount(index[part], minlength=tables.num_tables)
    stops = np.cumsum(counts)
    used = np.flatnonzero(counts)
    # NumPy's stable sort of 16-bit integers is a radix sort, several times faster than that of wider ones.
    narrow = np.uint16 if tables.num_tables <= 2**16 else np.int32
    if index.size <= BLOCK:
        order = np.argsort(index.astype(narrow), kind="stable")
    else:
        order, starts = np.empty(index.size, np.int32), stops - counts
        for part in _blocks(index.size):
            own = np.argsort(index[part].astype(narrow), kind="stable")
            number = np.bincount(index[part], minlength=tables.num_tables)
            place = (starts - np.cumsum(number) + number)[index[part][own]] + np.arange(own.size)
            order[place] = own + part.start
            starts += number
    return order, list(zip(used.tolist(), (stops - counts)[used].tolist(), stops[used].tolist(), strict=True))


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))


def _digits(bits: int) -> list[tuple[int, int]]:
    """(shift, width) of the digits of a number of ``bits`` bits: constriction codes at most 24 bits at a time."""
    return [(shift, min(CHUNK_BITS, bits - shift)) for shift in range(0, bits, CHUNK_BITS)]


def _rest_digits(lengths: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(shift, positions, sizes int64) of the digits of numbers of ``lengths`` bits each, without digits of no bits."""
    digits = []
    for shift in (0, CHUNK_BITS):
        chosen = np.flatnonzero(lengths > shift)
        if chosen.size:
            digits.append((shift, chosen, np.left_shift(1, np.minimum(lengths[chosen] - shift, CHUNK_BITS))))
    return digits


@functools.cache
def _uniform(bits: int) -> Any:
    return constriction.stream.model.Uniform(2**bits)


@functools.cache
def _any_uniform() -> Any:
    return constriction.stream.model.Uniform()


@functools.cache
def _length_model() -> Any:
    return categorical(ESCAPE_LENGTHS)

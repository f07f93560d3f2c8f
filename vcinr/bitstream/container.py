"""The container: one self-describing file format for every codec, specified to the byte in docs/bitstream.md.

It knows fingerprints, shapes, named numbers and payload bytes; nothing of codecs, tables or models.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

MAGIC = b"\xd6\xc3"  # "VC" with the high bits set: neither ASCII nor UTF-8
VERSION = 1
FINGERPRINT_SIZE = 4
CHECKSUM_SIZE = 4
MAX_RANK = 7
MAX_SIGNALS = 2**16
MAX_AXIS = 2**31 - 1
DEFAULT_MAX_PIXELS = 2**26
MAX_BYTES_META = 2**20
"""Bytes of a meta of that type."""
MAX_META_BYTES = {"int": 5, "float32": 4, "bytes": 3 + MAX_BYTES_META}

_RANK, _MANY, _DIFFER, _RESERVED = 0b00000111, 0b00001000, 0b00010000, 0b11100000


class BitstreamError(ValueError):
    """A file that cannot be decoded: damaged, truncated, foreign, hostile, or made with another model."""


@dataclasses.dataclass(frozen=True)
class Peek:
    """What a file tells without its model: format version, fingerprint (4 bytes) and the shape of each signal."""

    version: int
    fingerprint: bytes
    shapes: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Frame:
    """A parsed file. Its symbols are not decoded yet, so nothing vouches for it before `check` has passed.

    fingerprint: 4 bytes of the operating point.   shapes: of each signal.   metas: name → int, float or bytes, of each signal.
    payload: the coded streams.   checksum: as stored.   head: the bytes before the payload, which the checksum covers.
    """

    fingerprint: bytes
    shapes: tuple[tuple[int, ...], ...]
    metas: tuple[Mapping[str, int | float | bytes], ...]
    payload: bytes
    checksum: int
    head: bytes


def head_bytes(
    fingerprint: bytes,
    shapes: Sequence[Sequence[int]],
    metas: Sequence[Mapping[str, int | float | bytes]],
    meta_types: Mapping[str, str],
) -> bytes:
    """Everything before the payload.

    fingerprint: 4 bytes. shapes, metas: one per signal; shapes of one rank in 1..7, every axis at least 1.
    meta_types: name → "int" (must fit int32), "float32" (finite; rounded to the nearest float32) or "bytes" (at most
        `MAX_BYTES_META`), in file order: what the modality declares, then what the codec declares.
    Raises ValueError on what the format cannot hold.
    """
    shapes = [tuple(int(n) for n in shape) for shape in shapes]
    if len(fingerprint) != FINGERPRINT_SIZE:
        raise ValueError(f"a fingerprint has {FINGERPRINT_SIZE} bytes, got {len(fingerprint)}")
    if not 1 <= len(shapes) <= MAX_SIGNALS:
        raise ValueError(f"a file holds 1 to {MAX_SIGNALS} signals, got {len(shapes)}; write several files")
    if len(metas) != len(shapes):
        raise ValueError(f"got {len(shapes)} shapes but {len(metas)} metas; both need one per signal")
    rank = len(shapes[0])
    if not 1 <= rank <= MAX_RANK or any(len(shape) != rank for shape in shapes):
        raise ValueError(f"the signals of a file have one rank in 1..{MAX_RANK}, got shapes {sorted(set(shapes))[:4]}")
    if any(not 1 <= n <= MAX_AXIS for shape in shapes for n in shape):
        raise ValueError(f"every axis of a shape must lie in 1..{MAX_AXIS}")
    many, differ = len(shapes) > 1, len(set(shapes)) > 1
    parts = [MAGIC, bytes([VERSION]), bytes(fingerprint), bytes([rank | many * _MANY | differ * _DIFFER])]
    if many:
        parts.append(_varint(len(shapes)))
    parts += [_varint(n) for shape in (shapes if differ else shapes[:1]) for n in shape]
    for meta in metas:
        if set(meta) != set(meta_types):
            raise ValueError(f"meta has {sorted(meta)}, its types are declared for {sorted(meta_types)}")
        parts += [_META[kind][0](name, meta[name]) for name, kind in meta_types.items()]
    return b"".join(parts)


def max_meta_bytes(meta_types: Mapping[str, str]) -> int:
    """Bytes that metas of these types take at most, for one signal."""
    return sum(MAX_META_BYTES[kind] for kind in meta_types.values())


def write(head: bytes, payload: bytes, checksum: int) -> bytes:
    """The file: head, payload, checksum."""
    return head + payload + struct.pack("<I", checksum)


def checksum(head: bytes, streams: Iterable[np.ndarray]) -> int:
    """CRC-32 (zlib's) over the head, then every decoded symbol as a little-endian int32, in coding order.

    streams: integer arrays [n], in coding order (`vcinr.bitstream.payload.ordered_streams`).
    """
    crc = zlib.crc32(head)
    for symbols in streams:
        crc = zlib.crc32(np.ascontiguousarray(symbols, "<i4"), crc)
    return crc


def check(frame: Frame, streams: Iterable[np.ndarray]) -> None:
    """Raises BitstreamError where the decoded symbols or the head are not what the encoder's checksum covered."""
    if checksum(frame.head, streams) != frame.checksum:
        raise BitstreamError("the checksum does not match: the file is damaged")


def peek(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Peek:
    """Version, fingerprint and shapes, without knowing the codec. Raises BitstreamError as `read` does."""
    fingerprint, shapes, _ = _read_shapes(_Reader(_body(data)), max_pixels)
    return Peek(VERSION, fingerprint, shapes)


def read(data: bytes, meta_types: Mapping[str, str], max_pixels: int = DEFAULT_MAX_PIXELS) -> Frame:
    """Parses a file; only one spelling of each file is accepted.

    meta_types: as in `head_bytes`, those of the modality and codec that the fingerprint (see `peek`) stands for.
    max_pixels: most samples, over all signals, that the file may ask for.
    Raises BitstreamError, one line, on anything else than a whole, well-formed file. Memory is taken in proportion to the
    file and to the number of signals (at most `MAX_SIGNALS`), whatever its header says.
    """
    body = _body(data)
    reader = _Reader(body)
    fingerprint, shapes, num_signals = _read_shapes(reader, max_pixels)
    if num_signals * len(meta_types) > len(body) - reader.position:
        raise BitstreamError(f"the file ends before the meta of its {num_signals} signals")
    metas = tuple({name: _META[kind][1](reader, name) for name, kind in meta_types.items()} for _ in range(num_signals))
    stored = int.from_bytes(data[-CHECKSUM_SIZE:], "little")
    return Frame(fingerprint, shapes, metas, body[reader.position :], stored, body[: reader.position])


def _body(data: bytes) -> bytes:
    """Everything before the checksum of what looks like a file of this format."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"a file's bytes are needed, got {type(data).__name__}")
    data = bytes(data)
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise BitstreamError("not a vcinr file: it does not begin with the magic number")
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise BitstreamError(f"the file has format version {data[len(MAGIC)]}; this vcinr reads version {VERSION}")
    return data[:-CHECKSUM_SIZE]


def _read_shapes(reader: _Reader, max_pixels: int) -> tuple[bytes, tuple[tuple[int, ...], ...], int]:
    reader.take(len(MAGIC) + 1)
    fingerprint = reader.take(FINGERPRINT_SIZE)
    flags = reader.take(1)[0]
    rank, many, differ = flags & _RANK, bool(flags & _MANY), bool(flags & _DIFFER)
    if flags & _RESERVED or rank == 0 or (differ and not many):
        raise BitstreamError(f"the header's flags 0x{flags:02x} have no meaning in format version {VERSION}")
    count = reader.varint("number of signals", MAX_SIGNALS) if many else 1
    if many and count < 2:
        raise BitstreamError(f"the header announces many signals, but counts {count}")
    if differ and count * rank > len(reader.data) - reader.position:
        raise BitstreamError(f"the file ends before the shapes of its {count} signals")
    shapes, total = [], 0
    for _ in range(count if differ else 1):
        shape, size = [], 1
        for _ in range(rank):
            axis = reader.varint("axis of a shape", MAX_AXIS)
            if axis == 0:
                raise BitstreamError("a shape in the header has an axis of length 0")
            shape.append(axis)
            size *= axis
        shapes.append(tuple(shape))
        total += size if differ else size * count
        if total > max_pixels:
            raise BitstreamError(f"the header asks for {total} samples or more; the limit (max_pixels) is {max_pixels}")
    if differ and len(set(shapes)) == 1:
        raise BitstreamError("the header says that shapes differ, but they are all equal")
    return fingerprint, tuple(shapes) if differ else tuple(shapes) * count, count


class _Reader:
    """Reads a head from front to back, never past its end."""

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        if self.position + count > len(self.data):
            raise BitstreamError("the file ends inside its header")
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self, what: str, largest: int) -> int:
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if value > largest or shift > 28:
                raise BitstreamError(f"the header's {what} is larger than {largest}")
            if byte < 0x80:
                break
            shift += 7
        if byte == 0 and shift:
            raise BitstreamError(f"the header's {what} is padded with zeros")
        return value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _write_int(name: str, value: int | float) -> bytes:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not -(2**31) <= value < 2**31:
        raise ValueError(f"meta {name} must be an integer that fits int32, got {value!r}")
    value = int(value)
    return _varint(2 * value if value >= 0 else -2 * value - 1)


def _read_int(reader: _Reader, name: str) -> int:
    value = reader.varint(f"meta {name}", 2**32 - 1)
    return value >> 1 if value % 2 == 0 else -(value >> 1) - 1


def _write_float(name: str, value: int | float) -> bytes:
    with np.errstate(over="ignore"):
        rounded = np.float32(value)
    if not np.isfinite(rounded):
        raise ValueError(f"meta {name} must be finite in float32, got {value!r}")
    return struct.pack("<f", rounded)


def _read_float(reader: _Reader, name: str) -> float:
    (value,) = struct.unpack("<f", reader.take(4))
    if not np.isfinite(value):
        raise BitstreamError(f"meta {name} in the header is not finite")
    return value


def _write_bytes(name: str, value: int | float | bytes) -> bytes:
    if not isinstance(value, bytes) or len(value) > MAX_BYTES_META:
        found = f"{len(value)} of them" if isinstance(value, bytes) else type(value).__name__
        raise ValueError(f"meta {name} must be at most {MAX_BYTES_META} bytes, got {found}")
    return _varint(len(value)) + value


def _read_bytes(reader: _Reader, name: str) -> bytes:
    return reader.take(reader.varint(f"length of meta {name}", MAX_BYTES_META))


_META = {"int": (_write_int, _read_int), "float32": (_write_float, _read_float), "bytes": (_write_bytes, _read_bytes)}

"""What a file keeps of a climate field besides its samples, in few bytes: grid, mask, labels; see docs/bitstream.md."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from vcinr.modalities.climate_field import (
    LATITUDE,
    LONGITUDE,
    NUMBER_TYPES,
    STORED_TYPES,
    Attribute,
    Axis,
    ClimateField,
    Scalar,
    Storage,
)
from vcinr.modalities.climate_grid import check_axes, globe_axes

MAX_TEXT_BYTES = 2**20
"""Of labels before they are deflated."""
AXIS_TYPES = ("float32", "float64", "int16", "int32", "int64")
DENOMINATORS = (1, 10, 100, 1000, 10**4, 10**6, 360, 2880)
"""Of the ends of a regular axis; the last two are for thirds, and for sixteenths of a degree and their like."""
_NAMES = {short: name for name, short in NUMBER_TYPES.items()}
_CYCLIC, _LATITUDES, _LONGITUDES = 1, 2, 4
# What deflate may point to from the first byte on. A part of the format: another text makes other files.
DICTIONARY = (
    b'{"history":"","institution":"European Centre for Medium-Range Weather Forecasts","references":"","source":"",'
    b'"title":"","comment":"","experiment_id":"historical","frequency":"mon","grid_type":"gaussian","realm":"atmos",'
    b'"cell_methods":"time: mean","missing_value":["f4",1e+20],"valid_range":["f4",[0.0,0.0]],"positive":"down","axis":"Z",'
    b'"bounds":"time_bnds","level":[["i4",500],{"units":"millibars","long_name":"pressure_level"}],'
    b'"plev":[["f8",50000.0],{"units":"Pa","standard_name":"air_pressure"}],"height":[["f8",2.0],{"units":"m"}],'
    b'"s":{"time":[["f8",0.0],{"units":"days since 1850-01-01 00:00:00","calendar":"noleap"}],'
    b'"time":[["i4",0],{"units":"hours since 1900-01-01 00:00:00.0","long_name":"time","calendar":"gregorian"}],'
    b'"valid_time":[["i8",0],{"units":"seconds since 1970-01-01","calendar":"proleptic_gregorian"}],'
    b'"y":{"standard_name":"latitude","long_name":"latitude","units":"degrees_north","axis":"Y"},'
    b'"x":{"standard_name":"longitude","long_name":"longitude","units":"degrees_east","axis":"X"},'
    b'"d":["latitude","longitude"],"missing_value":["i2",-32767],"t":["int16",["f8",0.001],["f8",0.0],["i2",-32767]],'
    b'"t":["float32",null,null,["f4",1e+20]],"t":["float64"],"t":["float64",null,null,["f8",NaN]],'
    b'"t":["float32",null,null,["f4",NaN]],"g":{"Conventions":"CF-1.6"},"u":"kg m-2 s-1","u":"m**2 s**-2","u":"degC","u":"Pa",'
    b'"u":"%","u":"m s**-1","u":"m s-1","GRIB_paramId":["i8",167],"GRIB_shortName":"2t","GRIB_units":"K",'
    b'"GRIB_name":"2 metre temperature","a":{"standard_name":"geopotential","long_name":"Geopotential"},'
    b'"a":{"standard_name":"eastward_wind","long_name":"U component of wind"},"long_name":"Total precipitation",'
    b'"a":{"standard_name":"air_pressure_at_mean_sea_level"},"a":{"standard_name":"specific_humidity"},'
    b'"long_name":"sea surface temperature","standard_name":"sea_surface_temperature","a":{"standard_name":"air_temperature",'
    b'"long_name":"2 metre temperature"},"n":"air","n":"pr","n":"tas","n":"sst","n":"msl","n":"tp","n":"z","n":"u","n":"v",'
    b'"n":"t","u":"K"}{"n":"t2m","u":"K","a":{"long_name":"2 metre temperature"}}{"n":"t2m","u":"K"}'
)


def encode_grid(latitudes: np.ndarray, longitudes: np.ndarray, shape: tuple[int, int]) -> bytes:
    """Latitudes and longitudes of a file whose samples have this shape; nothing for those of `globe_axes`."""
    usual = globe_axes(shape)
    flags, records = _CYCLIC * (len(longitudes) == shape[1] + 1), b""
    for flag, axis, default in zip((_LATITUDES, _LONGITUDES), (latitudes, longitudes), usual, strict=True):
        if axis.dtype != default.dtype or not np.array_equal(axis, default):
            flags, records = flags | flag, records + _encode_axis(axis)
    return bytes([flags]) + records if flags else b""


def decode_grid(data: bytes, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `encode_grid`. ValueError for bytes that it does not write, or a grid that is none."""
    reader = _Reader(data)
    flags = reader.take(1)[0] if data else 0
    if data and (flags == 0 or flags >> 3 or (flags & _CYCLIC and not flags & _LONGITUDES)):
        raise ValueError(f"the flags of a grid are not 0x{flags:02x}")
    lengths = (shape[0], shape[1] + (flags & _CYCLIC))
    axes = [
        _decode_axis(reader, length) if flags & flag else default
        for flag, length, default in zip((_LATITUDES, _LONGITUDES), lengths, globe_axes(shape), strict=True)
    ]
    reader.end("grid")
    check_axes(*axes)
    return axes[0], axes[1]


def encode_mask(missing: Bool[np.ndarray, "h w"]) -> bytes:
    """Which samples are missing: runs of equal bits, of the rows or of what differs from the row above; empty for none."""
    if not missing.any():
        return b""
    changed = missing.copy()
    changed[1:] ^= missing[:-1]
    coded = [bytes([kind]) + _deflate(_varints(_runs(bits.ravel()))) for kind, bits in enumerate((missing, changed))]
    return min(coded, key=len)


def decode_mask(data: bytes, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The inverse of `encode_mask`. ValueError for bytes that it does not write, or a mask that leaves nothing."""
    if not data:
        return np.zeros(shape, bool)
    size = shape[0] * shape[1]
    # A run of n samples takes at most n bytes, and the first may be empty.
    runs = _from_varints(_inflate(data[1:], size + 1, "mask"))
    if data[0] > 1 or runs.sum() != size or (runs[1:] == 0).any():
        raise ValueError("the mask is not one of the field's samples")
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape)
    if data[0] == 1:
        bits = np.logical_xor.accumulate(bits, axis=0)
    if bits.all() or not bits.any():
        raise ValueError("a mask leaves some samples and takes some away")
    return bits


def encode_labels(field: ClimateField) -> bytes:
    """Names, units, attributes, further coordinates and storage of a field; empty for those of a bare `ClimateField`."""
    defaults = ClimateField(np.zeros((1, 1), np.float32), np.zeros(1), np.zeros(1))
    names = [axis.name for axis in field.axes]
    parts = {
        "n": field.name if field.name != defaults.name else None,
        "u": field.units or None,
        "a": _attributes(field.attributes) or None,
        "d": names if names != [LATITUDE.name, LONGITUDE.name] else None,
        "s": {name: [_attribute(value), _attributes(own)] for name, (value, own) in field.scalars.items()} or None,
        "g": _attributes(field.about) or None,
        "t": _storage(field.stored_as) if field.stored_as != Storage() else None,
    }
    for key, axis, default in zip("yx", field.axes, (LATITUDE, LONGITUDE), strict=True):
        own = _attributes(axis.attributes)
        parts[key] = own if own != _attributes(default.attributes) else None
    parts = {key: value for key, value in parts.items() if value is not None}
    if not parts:
        return b""
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) > MAX_TEXT_BYTES:
        raise ValueError(f"its attributes take {len(text)} bytes, and {MAX_TEXT_BYTES} fit: --attributes cf keeps the usual ones")
    return _deflate(text, DICTIONARY)


def decode_labels(data: bytes) -> dict[str, Any]:
    """Keywords of `ClimateField` that `encode_labels` has kept. ValueError for bytes that it does not write."""
    if not data:
        return {"storage": Storage()}
    try:
        parts = json.loads(_inflate(data, MAX_TEXT_BYTES, "labels", DICTIONARY).decode())
        return _labels(parts)
    except (RecursionError, TypeError, KeyError, AttributeError, OverflowError, ValueError) as error:
        raise ValueError(f"the labels are not those of a field: {error}") from None


def _labels(parts: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(parts, dict) or not parts.keys() <= set("nuadsgtyx"):
        raise ValueError("they have other parts")
    first, second = parts.get("d", [LATITUDE.name, LONGITUDE.name])
    if not all(isinstance(each, str) for each in (first, second, parts.get("n", ""), parts.get("u", ""))):
        raise ValueError("names and units are text")
    labels: dict[str, Any] = {"storage": _read_storage(parts["t"]) if "t" in parts else Storage()}
    labels |= {name: parts[key] for key, name in (("n", "name"), ("u", "units")) if key in parts}
    for key, name in (("a", "attributes"), ("g", "about")):
        if key in parts:
            labels[name] = _read_attributes(parts[key])
    if "s" in parts:
        labels["scalars"] = {
            name: Scalar(_read_attribute(value), _read_attributes(own)) for name, (value, own) in parts["s"].items()
        }
    attributes = [
        _read_attributes(parts[key]) if key in parts else default.attributes
        for key, default in (("y", LATITUDE), ("x", LONGITUDE))
    ]
    labels["axes"] = (Axis(first, attributes[0]), Axis(second, attributes[1]))
    return labels


def _attributes(attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    return {name: _attribute(value) for name, value in attributes.items()}


def _attribute(value: Attribute) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ["U", value]
    array = np.asarray(value)
    if array.dtype == np.float32:
        # The shortest decimals that are this float32, rather than those of the float64 next to it.
        shortest = [float(str(each)) for each in array.ravel()]
        return ["f4", shortest if array.ndim else shortest[0]]
    return [NUMBER_TYPES[array.dtype.name], array.tolist()]


def _read_attributes(attributes: Any) -> dict[str, Attribute]:
    if not isinstance(attributes, dict):
        raise ValueError("attributes have names")
    return {name: _read_attribute(value) for name, value in attributes.items()}


def _read_attribute(value: Any) -> Attribute:
    if isinstance(value, str):
        return value
    kind, numbers = value
    if kind == "U":
        if not isinstance(numbers, list) or not all(isinstance(each, str) for each in numbers):
            raise ValueError("a list of texts holds texts")
        return numbers
    dtype, flat = np.dtype(_NAMES[kind]), numbers if isinstance(numbers, list) else [numbers]
    wanted = float | int if dtype.kind == "f" else int
    if not all(isinstance(each, wanted) and not isinstance(each, bool) for each in flat):
        raise ValueError(f"{flat[:1]} is no {dtype}")
    with np.errstate(over="ignore"):
        return np.array(numbers, dtype)


def _storage(storage: Storage) -> list[Any]:
    numbers = [storage.scale_factor, storage.add_offset, storage.fill_value]
    parts = [storage.dtype, *(None if each is None else _attribute(np.asarray(each)) for each in numbers)]
    while parts[-1] is None:
        parts.pop()
    return parts


def _read_storage(parts: Any) -> Storage:
    dtype, *numbers = parts
    if dtype not in STORED_TYPES or len(numbers) > 3:
        raise ValueError(f"values are stored as one of {', '.join(STORED_TYPES)}")
    found = [None if each is None else _read_attribute(each) for each in numbers]
    if not all(each is None or (isinstance(each, np.ndarray) and each.ndim == 0) for each in found):
        raise ValueError("scale, offset and fill value are numbers")
    if any(each is not None and each.dtype.kind != "f" for each in found[:2]):
        raise ValueError("scale and offset are floats")
    storage = Storage(dtype, *(None if each is None else each[()] for each in found))
    check_storage(storage)
    return storage


def check_storage(storage: Storage) -> None:
    """ValueError where values cannot be stored so."""
    if storage.dtype not in STORED_TYPES:
        raise ValueError(f"values are stored as one of {', '.join(STORED_TYPES)}, not as {storage.dtype}: convert them")
    for name in ("scale_factor", "add_offset"):
        value = getattr(storage, name)
        if value is not None and not (isinstance(value, np.float32 | np.float64) and np.isfinite(value)):
            raise ValueError(f"{name} is a finite np.float32 or np.float64, not {value!r}")
    if storage.scale_factor is not None and storage.scale_factor == 0:
        raise ValueError("scale_factor is not 0")
    fill = storage.fill_value
    if fill is not None:
        if not isinstance(fill, np.number) or (storage.packed and fill.dtype.kind not in "iu"):
            raise ValueError(f"fill_value is a NumPy number of {storage.dtype}, not {fill!r}")
        if storage.packed and not np.iinfo(storage.dtype).min <= fill <= np.iinfo(storage.dtype).max:
            raise ValueError(f"fill_value {fill!r} is outside of {storage.dtype}")


def _encode_axis(axis: Shaped[np.ndarray, "n"]) -> bytes:
    kind, ends = AXIS_TYPES.index(axis.dtype.name), axis[[0, -1]].astype(np.float64)
    records = []
    for number, denominator in enumerate(DENOMINATORS):
        first, last = (int(each) for each in np.rint(ends * denominator))
        regular = _even(first, last, denominator, len(axis), axis.dtype)
        if np.array_equal(regular, axis):
            return bytes([kind | number << 3]) + _zigzag(first) + _zigzag(last)
        records.append((number, first, last, regular))
    records.append((0, 0, 0, _even(0, 0, 1, len(axis), axis.dtype)))
    coded = []
    for number, first, last, regular in records:
        rest = _deflate(_planes(_bits(axis) - _bits(regular)))
        head = bytes([kind | number << 3 | 1 << 6]) + _zigzag(first) + _zigzag(last)
        coded.append(head + _varints(np.array([len(rest)])) + rest)
    return min(coded, key=len)


def _decode_axis(reader: _Reader, length: int) -> np.ndarray:
    head = reader.take(1)[0]
    if head >> 7 or head & 7 >= len(AXIS_TYPES):
        raise ValueError(f"an axis does not begin with 0x{head:02x}")
    dtype, denominator = np.dtype(AXIS_TYPES[head & 7]), DENOMINATORS[head >> 3 & 7]
    first, last = (_unzigzag(reader.varint()) for _ in range(2))
    if max(abs(first), abs(last)) > 720 * denominator:
        raise ValueError(f"an axis from {first / denominator:g} to {last / denominator:g} is not in degrees")
    axis = _even(first, last, denominator, length, dtype)
    if head >> 6 & 1:
        rest = _inflate(reader.take(reader.varint()), length * dtype.itemsize, "axis")
        if len(rest) != length * dtype.itemsize:
            raise ValueError(f"an axis holds {len(rest)} bytes for {length} places")
        planes = np.frombuffer(rest, np.uint8).reshape(dtype.itemsize, length).T
        axis = (_bits(axis) + np.ascontiguousarray(planes).view(f"<i{dtype.itemsize}")[:, 0]).view(dtype)
    return axis


def _even(first: int, last: int, denominator: int, length: int, dtype: np.dtype) -> np.ndarray:
    """Places from first to last in even steps, in whole numbers up to one division, so that they are equal everywhere."""
    steps = max(length - 1, 1)
    places = (first * steps + np.arange(length) * (last - first)) / np.float64(steps * denominator)
    return (np.rint(places) if dtype.kind == "i" else places).astype(dtype)


def _bits(axis: np.ndarray) -> np.ndarray:
    return axis.view(f"i{axis.dtype.itemsize}")


def _planes(axis: np.ndarray) -> bytes:
    """First bytes, then second bytes and so on, little-endian."""
    ordered = np.ascontiguousarray(axis.astype(axis.dtype.newbyteorder("<")))
    return ordered.view(np.uint8).reshape(len(axis), -1).T.tobytes()


def _runs(bits: Bool[np.ndarray, "n"]) -> np.ndarray:
    """Lengths of runs of equal bits, the first of zeros."""
    edges = np.flatnonzero(np.diff(bits, prepend=False))
    return np.diff(edges, prepend=0, append=len(bits))


def _varints(numbers: np.ndarray) -> bytes:
    """Numbers of at most 35 bits, seven bits a byte, the least significant first."""
    digits = numbers[:, None] >> 7 * np.arange(5) & 127
    lengths = np.maximum(5 - (digits[:, ::-1] != 0).argmax(1) - 5 * (digits == 0).all(1), 1)
    place = np.arange(5)
    more = (place < lengths[:, None] - 1) * 128
    return (digits | more)[place < lengths[:, None]].astype(np.uint8).tobytes()


def _from_varints(data: bytes) -> np.ndarray:
    array = np.frombuffer(data, np.uint8).astype(np.int64)
    ends = np.flatnonzero(array < 128)
    if not len(array) or array[-1] >= 128:
        raise ValueError("a number ends in the middle")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 5 or (array[ends[lengths > 1]] == 0).any():
        raise ValueError("a number is longer than it has to be")
    place = np.arange(len(array)) - np.repeat(starts, lengths)
    return np.add.reduceat((array & 127) << 7 * place, starts)


def _zigzag(number: int) -> bytes:
    return _varints(np.array([2 * number if number >= 0 else -2 * number - 1]))


def _unzigzag(number: int) -> int:
    return number >> 1 if number % 2 == 0 else -(number >> 1) - 1


def _deflate(data: bytes, dictionary: bytes = b"") -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, **_given(dictionary))
    return packer.compress(data) + packer.flush()


def _inflate(data: bytes, limit: int, what: str, dictionary: bytes = b"") -> bytes:
    """At most ``limit`` bytes; memory is taken for no more. ValueError for damaged, longer or unfinished data."""
    unpacker = zlib.decompressobj(-15, **_given(dictionary))
    try:
        found = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(f"the {what} is damaged: {error}") from None
    if len(found) > limit or not unpacker.eof or unpacker.unused_data or unpacker.unconsumed_tail:
        raise ValueError(f"the {what} is longer or shorter than it may be")
    return found


def _given(dictionary: bytes) -> dict[str, bytes]:
    return {"zdict": dictionary} if dictionary else {}


class _Reader:
    """Reads bytes from front to back, never past their end."""

    def __init__(self, data: bytes):
        self.data, self.position = data, 0

    def take(self, count: int) -> bytes:
        if self.position + count > len(self.data):
            raise ValueError("the grid ends in the middle")
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self) -> int:
        start = self.position
        while self.take(1)[0] >= 128:
            pass
        return int(_from_varints(self.data[start : self.position])[0])

    def end(self, what: str) -> None:
        if self.position != len(self.data):
            raise ValueError(f"{len(self.data) - self.position} bytes follow the {what}")

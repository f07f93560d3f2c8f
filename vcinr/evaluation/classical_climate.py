"""What climate fields are stored with today: zfp, and values packed into integers and deflated; measured like any other codec."""

from __future__ import annotations

import importlib.util
import lzma
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vcinr.evaluation.measure import Progress, rate_quality_row

ZFP_TOLERANCES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0001)
"""Operating points of zfp: largest error as a share of the field's range."""
PACKED_BITS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
"""Operating points of packing: bits of the integers."""
PEAK = 2**16 - 1
"""Steps of a field's range that errors are counted in, as of the climate modality: what is smaller counts as lossless."""
INSTALL = "pip install 'vcinr[compare]'"

Fields = Sequence[Any] | np.ndarray
"""Fields float32 or float64 [h, w] of any sizes, in their units, without NaN; or what has such an array as its ``values``."""


def has_zfp() -> bool:
    """Whether zfp's wheel, zfpy, is installed."""
    return importlib.util.find_spec("zfpy") is not None


def has_zstd() -> bool:
    """Whether zstd is at hand, in numcodecs, which comes with zarr."""
    return importlib.util.find_spec("numcodecs") is not None


def encode_zfp(field: np.ndarray, tolerance: float | int) -> bytes:
    """zfp's stream with its full header, of an error of at most ``tolerance``, in the field's unit. ValueError without zfpy."""
    if not has_zfp():
        raise ValueError(f"zfp needs zfpy: {INSTALL}")
    import zfpy

    return zfpy.compress_numpy(np.ascontiguousarray(field), tolerance=tolerance)


def decode_zfp(data: bytes) -> np.ndarray:
    """The field [h, w] of `encode_zfp`."""
    import zfpy

    return zfpy.decompress_numpy(data)


def deflated(data: bytes, method: str) -> bytes:
    """Bytes coded without loss by "zlib" (as NetCDF's deflate), "lzma" or "zstd" at its highest level."""
    if method == "zlib":
        return zlib.compress(data, 9)
    if method == "lzma":
        return lzma.compress(data, lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME)
    if method == "zstd":
        if not has_zstd():
            raise ValueError(f"zstd needs numcodecs: {INSTALL}")
        from numcodecs import Zstd

        return bytes(Zstd(level=22).encode(data))
    raise ValueError(f"methods are zlib, lzma and zstd, not {method!r}")


def inflated(data: bytes, method: str) -> bytes:
    """The inverse of `deflated`."""
    if method == "zlib":
        return zlib.decompress(data)
    if method == "lzma":
        return lzma.decompress(data, lzma.FORMAT_ALONE)
    from numcodecs import Zstd

    return bytes(Zstd().decode(data))


def shuffled(array: np.ndarray) -> bytes:
    """Bytes of an array, first all first ones, then all second ones and so on, as HDF5's shuffle filter orders them."""
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1, array.dtype.itemsize).T.tobytes()


def encode_packed(field: np.ndarray, bits: int, method: str) -> bytes:
    """A field packed linearly into integers of 1 to 16 bits, shuffled and deflated.

    Before them stand offset and scale as float32, which NetCDF would have as ``add_offset`` and ``scale_factor``; integers of 8
    bits or fewer take a byte each, others two, before they are deflated.
    """
    offset = np.float32(field.min())
    scale = np.float32((float(field.max()) - float(offset)) / (2**bits - 1)) or np.float32(1)
    numbers = np.clip(np.rint((field.astype(np.float64) - offset) / scale), 0, 2**bits - 1)
    packed = numbers.astype(np.uint8 if bits <= 8 else np.dtype("<u2"))
    return np.array([offset, scale], "<f4").tobytes() + deflated(shuffled(packed), method)


def decode_packed(data: bytes, shape: tuple[int, int], bits: int, method: str) -> np.ndarray:
    """The field float32 [h, w] of `encode_packed`."""
    offset, scale = np.frombuffer(data[:8], "<f4").astype(np.float64)
    dtype = np.dtype("u1" if bits <= 8 else "<u2")
    planes = np.frombuffer(inflated(data[8:], method), np.uint8).reshape(dtype.itemsize, -1)
    numbers = np.ascontiguousarray(planes.T).view(dtype).reshape(shape)
    return (offset + scale * numbers).astype(np.float32)


def encode_lossless(field: np.ndarray, method: str) -> bytes:
    """A field's floats, shuffled and deflated."""
    return deflated(shuffled(field), method)


def decode_lossless(data: bytes, shape: tuple[int, int], dtype: Any, method: str) -> np.ndarray:
    """The field [h, w] of `encode_lossless`."""
    dtype = np.dtype(dtype)
    planes = np.frombuffer(inflated(data, method), np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(planes.T).view(dtype).reshape(shape)


def measure_zfp(
    fields: Fields,
    dataset: str,
    split: str,
    tolerances: Sequence[float | int] = ZFP_TOLERANCES,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Operating points of zfp in its mode of fixed accuracy: rows as of `vcinr.evaluation.measure.measure`.

    ``quality`` is the tolerance as a share of a field's range; ``rmse`` and ``max_error`` are means over fields, in their units.
    Of a file all is payload. The PSNR's peak is each field's own range, as in the climate modality. Names, units, latitudes and
    longitudes, which the library's files keep in some ten bytes, are not in these files.

    Args:
      fields: raw climate fields, or their values float32 or float64 [h, w], without NaN; ValueError for others.
      dataset, split: names, for the rows.
      tolerances: one row each.
      progress: called after each.
    """

    def through(field: np.ndarray, share: float | int) -> tuple[bytes, np.ndarray]:
        data = encode_zfp(field, share * field_range(field))
        return data, decode_zfp(data)

    return _measure("zfp", through, fields, dataset, split, tolerances, progress)


def measure_packed(
    fields: Fields,
    dataset: str,
    split: str,
    bits: Sequence[int] = PACKED_BITS,
    method: str = "zstd",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Operating points of packing into integers and deflating (`encode_packed`), as `measure_zfp`; ``quality`` is the bits."""

    def through(field: np.ndarray, number: float | int) -> tuple[bytes, np.ndarray]:
        data = encode_packed(field, int(number), method)
        return data, decode_packed(data, field.shape, int(number), method)

    return _measure(f"packed_{method}", through, fields, dataset, split, bits, progress)


def measure_lossless(
    fields: Fields, dataset: str, split: str, method: str = "zstd", progress: Progress | None = None
) -> list[dict[str, Any]]:
    """One row of floats deflated without loss, as `measure_zfp`; ``quality`` is 0."""

    def through(field: np.ndarray, _: float | int) -> tuple[bytes, np.ndarray]:
        data = encode_lossless(field, method)
        return data, decode_lossless(data, field.shape, field.dtype, method)

    return _measure(f"lossless_{method}", through, fields, dataset, split, (0,), progress)


def field_range(field: np.ndarray) -> float:
    """Largest value less the smallest; 1 for a constant field."""
    return float(field.max()) - float(field.min()) or 1.0


def check_fields(fields: Fields) -> list[np.ndarray]:
    """The fields, or a ValueError where one is not float32 or float64 [h, w] without NaN and infinity."""
    fields = [np.asarray(getattr(field, "values", field)) for field in fields]
    for field in fields:
        if field.dtype.name not in ("float32", "float64") or field.ndim != 2 or not field.size:
            found = f"{field.dtype} {list(field.shape)}"
            raise ValueError(f"climate fields are float32 or float64 [h, w], not {found}: pass their values")
        if not np.isfinite(field).all():
            raise ValueError("a field has missing or infinite values, which these formats have no number for: fill them first")
    return fields


def _measure(
    codec: str,
    through: Callable[[np.ndarray, float | int], tuple[bytes, np.ndarray]],
    fields: Fields,
    dataset: str,
    split: str,
    qualities: Sequence[float | int],
    progress: Progress | None,
) -> list[dict[str, Any]]:
    fields = check_fields(fields)
    rows = []
    for point, quality in enumerate(qualities):
        read = [through(field, quality) for field in fields]
        sizes = [len(data) for data, _ in read]
        errors = [found.astype(np.float64) - field for field, (_, found) in zip(fields, read, strict=True)]
        mses = [float(np.mean(error**2)) / field_range(field) ** 2 for field, error in zip(fields, errors, strict=True)]
        row = rate_quality_row(
            codec=codec,
            dataset=dataset,
            split=split,
            point=point,
            samples=[field[..., None] for field in fields],
            peak=PEAK,
            file_bytes=sizes,
            payload_bytes=sizes,
            mses=mses,
            float_mses=mses,
            container_bytes=None,
            estimated_bits=None,
            model_bytes=0,
        )
        rmse = float(np.mean([np.sqrt(np.mean(error**2)) for error in errors]))
        largest = float(np.mean([np.abs(error).max() for error in errors]))
        rows.append(row | {"quality": quality, "rmse": rmse, "max_error": largest})
        if progress is not None:
            progress(f"{codec}: quality {quality:g}", point + 1, len(qualities))
    return rows

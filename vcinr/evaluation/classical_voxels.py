"""What voxels and scanner volumes are stored as today: gzip or LZMA over bits or whole numbers, without loss."""

from __future__ import annotations

import gzip
import lzma
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vcinr.evaluation.measure import MeasurementError, Progress, rate_quality_row
from vcinr.evaluation.metrics import mean_squared_error

LEVEL = 9
_LZMA_FILTERS = [{"id": lzma.FILTER_LZMA1, "preset": LEVEL}]
_SHAPE = struct.Struct("<3H")


def measure_packed_voxels(
    voxels: Sequence[np.ndarray], dataset: str, split: str, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """One row each for gzip and LZMA over packed bits, eight voxels a byte, x fastest; see `measure_lossless`.

    voxels: uint8 [z, y, x, 1] of 0 and 1 each; ValueError for others.
    """
    for grid in voxels:
        if grid.dtype != np.uint8 or grid.max(initial=0) > 1:
            raise ValueError(f"voxels are uint8 of 0 and 1, not {grid.dtype} up to {grid.max(initial=0)}")

    def pack(grid: np.ndarray) -> bytes:
        return np.packbits(grid).tobytes()

    def unpack(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        del dtype
        return np.unpackbits(np.frombuffer(data, np.uint8), count=math.prod(shape)).reshape(shape)

    return measure_lossless(voxels, dataset, split, pack, unpack, lambda grid: 1, progress)


def measure_packed_integers(
    volumes: Sequence[Any], dataset: str, split: str, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """One row each for gzip and LZMA over a volume's whole numbers as they are stored, x fastest; see `measure_lossless`.

    volumes: integers of at most 16 bits, [z, y, x, 1] each, or what has such ``voxels``; ValueError for others. The peak of PSNR
        is each volume's own range.
    """
    volumes = [getattr(volume, "voxels", volume) for volume in volumes]
    for volume in volumes:
        if volume.dtype.kind not in "iu" or volume.dtype.itemsize > 2:
            raise ValueError(f"volumes are whole numbers of 8 or 16 bits, not {volume.dtype}")

    def pack(volume: np.ndarray) -> bytes:
        return volume.astype(volume.dtype.newbyteorder("<")).tobytes()

    def unpack(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)

    return measure_lossless(volumes, dataset, split, pack, unpack, _own_range, progress)


def measure_lossless(
    arrays: Sequence[np.ndarray],
    dataset: str,
    split: str,
    pack: Callable[[np.ndarray], bytes],
    unpack: Callable[[bytes, tuple[int, ...], np.dtype], np.ndarray],
    range_of: Callable[[np.ndarray], float | int],
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Rows as of `vcinr.evaluation.measure.measure`, one for gzip and one for LZMA, from files that were unpacked again.

    A file is the shape, in six bytes, and a gzip file or raw LZMA stream; the payload is what is in it beside headers, whose
    lengths are constant (6 and 18 bytes for gzip, 6 for LZMA). No operating point but one, and no error.

    Args:
      arrays: [z, y, x, 1] each, no axis longer than 65,535; at least one.
      dataset: name, for the rows.
      split: name, for the rows.
      pack: an array's bytes.
      unpack: its inverse, given shape and type.
      range_of: the peak of an array's PSNR.
      progress: called after each row.

    Raises:
      ValueError: no arrays, or of another rank.
      MeasurementError: an array does not come back as it was.
    """
    for array in arrays:
        if array.ndim != 4 or array.shape[-1] != 1 or not 0 < min(array.shape) <= max(array.shape) < 2**16:
            raise ValueError(f"arrays are [z, y, x, 1] with axes of 1 to {2**16 - 1}, not {list(array.shape)}")
    if not len(arrays):
        raise ValueError(f"{dataset} {split} holds no signals: there is nothing to measure")
    rows = []
    for name, (compress, decompress, headers) in _PACKERS.items():
        files = [_SHAPE.pack(*array.shape[:3]) + compress(pack(array)) for array in arrays]
        mses = []
        for array, data in zip(arrays, files, strict=True):
            back = unpack(decompress(data[_SHAPE.size :]), (*_SHAPE.unpack_from(data), 1), array.dtype)
            if back.dtype != array.dtype or not np.array_equal(back, array):
                raise MeasurementError(f"{name}: an array does not come back as it was")
            mses.append(mean_squared_error(array, back, peak=range_of(array)))
        row = rate_quality_row(
            codec=name,
            dataset=dataset,
            split=split,
            point=0,
            samples=arrays,
            file_bytes=[len(data) for data in files],
            payload_bytes=[len(data) - _SHAPE.size - headers for data in files],
            mses=mses,
            float_mses=mses,
            container_bytes=None,
            estimated_bits=None,
            model_bytes=0,
            peak=max(range_of(array) for array in arrays),
        )
        rows.append(row)
        if progress is not None:
            progress(name, len(rows), len(_PACKERS))
    return rows


def _own_range(array: np.ndarray) -> int:
    return max(int(array.max()) - int(array.min()), 1)


_PACKERS = {
    "gzip": (lambda data: gzip.compress(data, LEVEL, mtime=0), gzip.decompress, 18),
    "lzma": (
        lambda data: lzma.compress(data, lzma.FORMAT_RAW, filters=_LZMA_FILTERS),
        lambda data: lzma.decompress(data, lzma.FORMAT_RAW, filters=_LZMA_FILTERS),
        0,
    ),
}
"""Name → (compress, decompress, bytes of headers)."""

"""Voxels: what of space is occupied, uint8 [z, y, x, 1] of 0 and 1."""

from __future__ import annotations

import dataclasses
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.evaluation.metrics import psnr_db
from vcinr.modalities.files.npz import File
from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES, Modality, ReadOption

READ_SUFFIXES = (".npz", ".binvox", ".off")
WRITE_SUFFIXES = (".npz", ".binvox", ".off", ".obj", ".ply")
DEFAULT_RESOLUTION = 32
READ_OPTIONS = (ReadOption("resolution", f"voxels along each axis that a mesh is filled with ({DEFAULT_RESOLUTION})", "N"),)
_SHAPE = struct.Struct("<3H")


def accuracy(original: np.ndarray, decoded: np.ndarray) -> float:
    """Share of voxels that are equal, in [0, 1]."""
    return float(np.mean(original == decoded))


def intersection_over_union(original: np.ndarray, decoded: np.ndarray) -> float:
    """Voxels occupied in both per voxel occupied in either, in [0, 1]; 1 where both are empty."""
    union = np.count_nonzero(original | decoded)
    return float(np.count_nonzero(original & decoded) / union) if union else 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Voxels(Modality):
    """Occupancy on a grid, z upwards; coordinates in the order z, y, x. A file holds nothing besides its voxels.

    Decoded fields are occupied where they are above one half. PSNR is that of the zeros and ones.
    """

    name: str = "voxels"
    coord_dim: int = 3
    channels: int = 1
    peak: float | int = 1
    mirrored_axes: tuple[int, ...] = (1, 2)
    read_suffixes: tuple[str, ...] = READ_SUFFIXES
    write_suffixes: tuple[str, ...] = WRITE_SUFFIXES
    read_options: tuple[ReadOption, ...] = READ_OPTIONS
    references: tuple[str, ...] = ("vcinr.evaluation.classical_voxels:measure_packed_voxels",)

    def check(self, samples: Any) -> None:
        """ValueError that names the mend where this is no uint8 [z, y, x, 1] of 0 and 1."""
        wanted = "voxels are a NumPy array of uint8 [z, y, x, 1], 0 or 1"
        if not isinstance(samples, np.ndarray):
            raise ValueError(f"{wanted}, not {type(samples).__name__}: use np.asarray")
        if samples.ndim == 3:
            mend = "add the axis of channels: voxels[..., None]"
        elif samples.ndim != 4 or samples.shape[-1] != 1:
            mend = "give it four axes, the last of length 1; pass grids one at a time"
        elif 0 in samples.shape:
            mend = "drop it: it has no voxels"
        elif samples.dtype != np.uint8:
            mend = "threshold it: (voxels > 0.5).astype(np.uint8)"
        elif samples.max() > 1:
            mend = f"it holds {samples.max()}: say what is occupied, such as (voxels > 0).astype(np.uint8)"
        else:
            return
        raise ValueError(f"{wanted}, not {samples.dtype} {list(samples.shape)}: {mend}")

    def metrics(self, original: Any, decoded: Any) -> dict[str, float]:
        """``psnr_db`` of zeros and ones, ``accuracy`` and ``iou``."""
        first, second = self.unpack(original)[0], self.unpack(decoded)[0]
        quality = {"psnr_db": float(psnr_db(self.squared_error(first, second)))}
        return {**quality, "accuracy": accuracy(first, second), "iou": intersection_over_union(first, second)}

    def read(self, source: File, *, max_samples: int = DEFAULT_MAX_SAMPLES, resolution: int | str | None = None) -> np.ndarray:
        """The voxels in a file: see `vcinr.modalities.files.voxels.read_voxels`."""
        from vcinr.modalities.files.voxels import read_voxels

        return read_voxels(source, resolution, max_samples)

    def write(self, path: str | os.PathLike, raw: np.ndarray) -> None:
        """Writes voxels as bits, runs, or the mesh of their surface: see `vcinr.modalities.files.voxels.write_voxels`."""
        from vcinr.modalities.files.voxels import write_voxels

        write_voxels(path, raw)

    def check_target(self, path: str | os.PathLike) -> None:
        """ValueError where `write` has no format for this suffix."""
        if Path(path).suffix.lower() not in self.write_suffixes:
            valid = ", ".join(self.write_suffixes)
            raise ValueError(f"{os.fspath(path)}: voxels are written as one of {valid}, the last three of them meshes")

    def to_bytes(self, raw: np.ndarray) -> bytes:
        """Three axes of 16 bits, then the packed bits through zlib. ValueError for an axis longer than 65,535."""
        self.check(raw)
        if max(raw.shape) >= 2**16:
            raise ValueError(f"voxels of {list(raw.shape)} have an axis longer than {2**16 - 1}: cut them")
        return _SHAPE.pack(*raw.shape[:3]) + zlib.compress(np.packbits(raw).tobytes(), 9)

    def from_bytes(self, data: bytes) -> np.ndarray:
        """The voxels of `to_bytes`. ValueError for other bytes."""
        try:
            shape = _SHAPE.unpack_from(data)
            count = math.prod(shape)
            bits = zlib.decompressobj().decompress(data[_SHAPE.size :], (count + 7) // 8 + 1)
        except (struct.error, zlib.error) as error:
            raise ValueError(f"not voxels of a prepared set: {error}") from error
        if not count or len(bits) != (count + 7) // 8:
            raise ValueError("not voxels of a prepared set: their bits do not fill their shape")
        return np.unpackbits(np.frombuffer(bits, np.uint8), count=count).reshape(*shape, 1)

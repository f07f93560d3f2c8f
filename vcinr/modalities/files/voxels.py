"""Voxels from files and back: packed bits (.npz), runs (.binvox), meshes (.off in; .off, .obj, .ply out)."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from vcinr.modalities.files.npz import File, about, npz_bytes, only_array, read_all, read_npz
from vcinr.modalities.files.voxel_meshes import fill_mesh, mesh_text, parse_off, surface
from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES
from vcinr.modalities.voxels import DEFAULT_RESOLUTION, Voxels

MAX_AXIS = 2**16


def read_voxels(source: File, resolution: int | str | None = None, max_samples: int = DEFAULT_MAX_SAMPLES) -> np.ndarray:
    """The voxels in a file, uint8 [z, y, x, 1], told by its first bytes.

    * .npz: ``bits`` and ``shape`` as `write_voxels` writes them, or one array [z, y, x] of 0 and 1 of any type.
    * .binvox: its x, z, y become our axes; where it stood in the world and how large it was is dropped.
    * .off: the inside of the mesh on a cube of ``resolution`` voxels a side, by `vcinr.modalities.files.voxel_meshes.fill_mesh`.

    ValueError, one line that names the file and the mend, for anything else; OSError where it cannot be opened.
    """
    data = read_all(source)
    with about(source):
        if resolution is not None and not data.startswith(b"OFF"):
            raise ValueError("a resolution is for meshes (.off): leave it out")
        if data.startswith(b"PK"):
            return _read_npz(data, max_samples)
        if data.startswith(b"#binvox"):
            return parse_binvox(data, max_samples)[..., None]
        if data.startswith(b"OFF"):
            side = _resolution(resolution, max_samples)
            return fill_mesh(*parse_off(data.decode("ascii", "replace")), side)[..., None]
        raise ValueError("not voxels: .npz, .binvox and .off are read")


def write_voxels(path: str | os.PathLike, raw: np.ndarray) -> None:
    """Writes voxels by suffix: all bits (.npz, .binvox), or the mesh of their surface (.off, .obj, .ply) in units of voxels.

    ValueError for another suffix, other arrays, and a mesh of nothing.
    """
    row = Voxels()
    row.check_target(path)
    row.check(raw)
    grid, suffix = raw[..., 0], Path(path).suffix.lower()
    if suffix == ".npz":
        data = npz_bytes({"bits": np.packbits(grid), "shape": np.array(grid.shape, np.int64)})
    elif suffix == ".binvox":
        data = binvox_bytes(grid)
    else:
        with about(path):
            data = mesh_text(*surface(grid), suffix).encode()
    Path(path).write_bytes(data)


def parse_binvox(data: bytes, max_samples: int = DEFAULT_MAX_SAMPLES) -> np.ndarray:
    """The grid of a .binvox file, uint8 [z, y, x]. ValueError for a damaged one or more than ``max_samples`` voxels."""
    head, mark, body = data.partition(b"\ndata\n")
    sizes = [line.split()[1:] for line in head.split(b"\n") if line.split()[:1] == [b"dim"]]
    if not mark or len(sizes) != 1 or len(sizes[0]) != 3 or not all(word.isdigit() and len(word) < 8 for word in sizes[0]):
        raise ValueError("a damaged .binvox file: its header holds no 'dim' of three whole numbers, or no 'data'")
    shape = tuple(int(word) for word in sizes[0])
    if min(shape) < 1 or max(shape) >= MAX_AXIS or math.prod(shape) > max_samples:
        raise ValueError(f"{list(shape)} voxels are none, or more than the limit of {max_samples}")
    if len(body) % 2:
        raise ValueError("a damaged .binvox file: it ends inside a run")
    values, counts = np.frombuffer(body, np.uint8).reshape(-1, 2).T
    if values.max(initial=0) > 1 or counts.sum(dtype=np.int64) != math.prod(shape):
        raise ValueError("a damaged .binvox file: its runs are not of 0 and 1, or do not fill its grid")
    return np.ascontiguousarray(np.repeat(values, counts).reshape(shape).transpose(1, 2, 0))


def binvox_bytes(grid: np.ndarray) -> bytes:
    """A .binvox file of voxels [z, y, x], in the unit cube: runs of at most 255 along y, then z, then x."""
    values = np.ascontiguousarray(grid.transpose(2, 0, 1))
    head = f"#binvox 1\ndim {' '.join(map(str, values.shape))}\ntranslate 0 0 0\nscale 1\ndata\n"
    flat = values.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(np.append(starts, flat.size))
    pieces = (lengths + 254) // 255
    runs = np.full((pieces.sum(), 2), 255, np.uint8)
    runs[:, 0] = np.repeat(flat[starts], pieces)
    runs[np.cumsum(pieces) - 1, 1] = lengths - 255 * (pieces - 1)
    return head.encode() + runs.tobytes()


def _read_npz(data: bytes, max_samples: int) -> np.ndarray:
    arrays = read_npz(data, max_samples)
    if set(arrays) == {"bits", "shape"}:
        shape = tuple(arrays["shape"].ravel().tolist())
        fits = len(shape) == 3 and all(isinstance(size, int) and 0 < size < MAX_AXIS for size in shape)
        if not fits or math.prod(shape) > max_samples:
            raise ValueError(f"{list(shape)} voxels are no grid of three axes, or more than the limit of {max_samples}")
        bits = arrays["bits"]
        if bits.dtype != np.uint8 or bits.shape != ((math.prod(shape) + 7) // 8,):
            raise ValueError("its bits do not fill its shape: the file is damaged")
        return np.unpackbits(bits, count=math.prod(shape)).reshape(*shape, 1)
    grid = only_array(arrays, "voxels", (3, 4))
    if grid.ndim == 4 and grid.shape[-1] != 1:
        raise ValueError(f"it holds {list(grid.shape)}: write grids one at a time, [z, y, x]")
    if not grid.size or not np.isin(grid, (0, 1)).all():
        raise ValueError("its array is empty, or holds other values than 0 and 1: write (array > threshold)")
    return grid.reshape(*grid.shape[:3], 1).astype(np.uint8)


def _resolution(value: int | str | None, max_samples: int) -> int:
    number = DEFAULT_RESOLUTION if value is None else value
    if not str(number).isdecimal() or not 3 <= int(number) or int(number) ** 3 > max_samples:
        raise ValueError(f"a resolution is a whole number from 3, of at most {max_samples} voxels in all, not {number!r}")
    return int(number)

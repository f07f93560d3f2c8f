"""Arrays of .npz files, read with no more memory than their headers may promise."""

from __future__ import annotations

import contextlib
import io
import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

MAX_MEMBERS = 64
File = str | os.PathLike | io.BufferedIOBase
"""A file by path, or opened for bytes."""


def label(source: File) -> str:
    """What errors call a source."""
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    return str(name) if name else "the file"


def read_all(source: File) -> bytes:
    """The bytes of a file, given by path or opened. OSError where it cannot be opened."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return file.read()
    return source.read()


@contextlib.contextmanager
def about(source: File) -> Iterator[None]:
    """Every ValueError inside names the file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{label(source)}: {error}") from error


def read_npz(data: bytes, max_values: int) -> dict[str, np.ndarray]:
    """Name → array of an .npz file.

    max_values: of each array; a header that promises more is refused before anything is unpacked.
    ValueError, one line, for what is damaged, too large, no .npz file, or holds anything but real numbers.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                raise ValueError(f"{len(members)} arrays are more than {MAX_MEMBERS}: write fewer into one file")
            found = {}
            for member in members:
                with archive.open(member) as file:
                    found[member.filename.removesuffix(".npy")] = _read_array(file, member.filename, max_values)
            return found
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"not an .npz file, or a damaged one: {error}") from error


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An .npz file of these arrays, compressed."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def only_array(arrays: Mapping[str, np.ndarray], key: str, ranks: tuple[int, ...]) -> np.ndarray:
    """The array of that key, or the only one of these ranks. ValueError where there is none, or a choice."""
    fitting = {each: array for each, array in arrays.items() if array.ndim in ranks}
    if key in fitting:
        return fitting[key]
    if len(fitting) != 1:
        shapes = ", ".join(f"{each} {array.dtype} {list(array.shape)}" for each, array in arrays.items()) or "nothing"
        axes = " or ".join(map(str, ranks))
        raise ValueError(f"it holds {shapes}; write one array of {axes} axes with np.savez_compressed(path, {key}=array)")
    return next(iter(fitting.values()))


def _read_array(file: io.BufferedIOBase, name: str, max_values: int) -> np.ndarray:
    try:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = header(file)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{name}: not an array as NumPy writes it: {error}") from error
    count = math.prod(shape)
    if dtype.kind not in "biuf":
        raise ValueError(f"{name}: holds {dtype}, not real numbers: write plain arrays")
    if min(shape, default=0) < 0 or count > max_values:
        raise ValueError(f"{name}: {list(shape)} values are more than the limit of {max_values}")
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize or file.read(1):
        raise ValueError(f"{name}: not as long as its header says: the file is damaged")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

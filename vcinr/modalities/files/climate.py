"""Climate fields from NetCDF, Zarr and .npz files and back; xarray is imported where it is needed."""

from __future__ import annotations

import contextlib
import io
import math
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.modalities.climate_field import ClimateField, restore
from vcinr.modalities.climate_metadata import decode_labels, encode_labels
from vcinr.modalities.files.climate_xarray import (
    LATITUDES,
    LONGITUDES,
    ClimateFileError,
    check_size,
    dataset_of,
    encoding_of,
    field_of,
    native,
    need,
    opened,
    read_dataset,
    stored_values,
    time_axis,
    time_index,
    variable_of,
)
from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES, Source


def read_field(
    source: Source | io.BufferedIOBase,
    variable: str | None = None,
    time: int | str | None = None,
    level: float | int | str | None = None,
    max_samples: int = DEFAULT_MAX_SAMPLES,
) -> ClimateField:
    """One field of a NetCDF file (.nc), a Zarr store (a folder, or a .zip of one), or an .npz file, told apart by content.

    Args:
      source: path, or a file opened for bytes (not of Zarr).
      variable: which of several.
      time: which of several: a number from 0, or from the end where negative; or as much of a date as one alone begins with.
      level: which of several along the one further axis: its value; where that axis has no values, a number from 0.
      max_samples: fields with more are refused before they are read.

    An .npz file has arrays ``latitudes`` and ``longitudes`` (or lat, lon) and variables [latitudes, longitudes] or
    [time, latitudes, longitudes], as `write_field` makes them. Integers without scale and fill value are values as they are.
    Raises ClimateFileError, one line that names the file and the mend; OSError where it cannot be opened.
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", "climate field")
    try:
        with contextlib.ExitStack() as stack:
            kind, found = _kind(source, stack)
            if kind == "npz":
                return _read_npz(found, variable, time, max_samples)
            dataset = stack.enter_context(opened(kind, found))
            return read_dataset(dataset, variable, time, level, max_samples)
    except ClimateFileError as error:
        raise ClimateFileError(f"{name}: {error}") from None
    except (MemoryError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # Readers raise whatever they like on damaged files.
        raise ClimateFileError(f"{name}: damaged, or not as its format wants it: {error}") from error


def write_field(path: str | os.PathLike, field: ClimateField) -> None:
    """Writes a field as .nc (NetCDF 4), .zarr (a folder, Zarr 2), .zip (of such a folder) or .npz, which keep every value.

    Zarr's attributes are JSON, without the types of numbers. ClimateFileError for another suffix, or where there is a folder.
    """
    path, suffix = Path(path), Path(path).suffix.lower()
    if suffix == ".npz":
        path.write_bytes(npz_bytes(field))
    elif suffix in (".nc", ".nc4"):
        need(suffix, "xarray", "netCDF4")
        dataset_of(field).to_netcdf(path, format="NETCDF4", engine="netcdf4", encoding=encoding_of(field))
    elif suffix == ".zarr":
        need(suffix, "xarray", "zarr")
        if path.exists():
            raise ClimateFileError(f"{path}: there is one already: remove it first")
        dataset_of(field).to_zarr(path, mode="w-", zarr_format=2, consolidated=True, encoding=encoding_of(field))
    elif suffix == ".zip":
        with tempfile.TemporaryDirectory() as folder:
            inner = Path(folder) / "field.zarr"
            write_field(inner, field)
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
                for file in sorted(each for each in inner.rglob("*") if each.is_file()):
                    archive.write(file, file.relative_to(inner))
    else:
        raise ClimateFileError(f"{path}: climate fields are written as .nc, .zarr, .zip (of a .zarr) or .npz")


def npz_bytes(field: ClimateField) -> bytes:
    """The .npz file of a field: ``values`` as they are stored, ``latitudes``, ``longitudes``, ``labels`` as in coded files."""
    arrays = {
        "values": stored_values(field),
        "latitudes": field.latitudes,
        "longitudes": field.longitudes,
        "labels": np.frombuffer(encode_labels(field), np.uint8),
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def count_times(path: str | os.PathLike, variable: str | None = None) -> int:
    """Number of fields along time in a file; 1 where it has no such axis. Raises as `read_field`."""
    try:
        with contextlib.ExitStack() as stack:
            kind, found = _kind(path, stack)
            if kind == "npz":
                arrays = stack.enter_context(zipfile.ZipFile(found))
                shape, _ = _header(arrays, _npz_variable(arrays, variable))
                return shape[0] if len(shape) > 2 else 1
            dataset = stack.enter_context(opened(kind, found))
            array = variable_of(dataset, variable)
            axis = time_axis(dataset, array)
            return 1 if axis is None else int(array.sizes[axis])
    except ClimateFileError as error:
        raise ClimateFileError(f"{os.fspath(path)}: {error}") from None


def _kind(source: Source | io.BufferedIOBase, stack: contextlib.ExitStack) -> tuple[str, Any]:
    """What a source holds, by its first bytes, and what its reader takes."""
    if isinstance(source, str | os.PathLike):
        if os.path.isdir(source):
            return "zarr", source
        with open(source, "rb") as file:
            start = file.read(8)
    else:
        start = source.read(8)
        source.seek(0)
    if start[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(source) as archive:
            zarr = any(Path(name).name in (".zgroup", ".zmetadata", "zarr.json") for name in archive.namelist())
        if not zarr:
            return "npz", source
        need(".zarr", "xarray", "zarr")
        if not isinstance(source, str | os.PathLike):
            raise ClimateFileError("a zipped Zarr store is read from its path")
        from zarr.storage import ZipStore

        store = ZipStore(source, mode="r")
        stack.callback(store.close)
        return "zarr", store
    if start[:4] in (b"CDF\x01", b"CDF\x02"):
        return "scipy", source
    if start[:4] == b"CDF\x05" or start == b"\x89HDF\r\n\x1a\n":
        return "netcdf4", source if isinstance(source, str | os.PathLike) else source.read()
    mend = "convert it first, e.g. with cdo -f nc copy IN OUT.nc" if start[:4] == b"GRIB" else "convert it to NetCDF"
    raise ClimateFileError(f"not NetCDF, Zarr or .npz; {mend}")


def _read_npz(source: Source | io.BufferedIOBase, variable: str | None, time: Any, max_samples: int) -> ClimateField:
    with zipfile.ZipFile(source) as archive:
        name = _npz_variable(archive, variable)
        shape, dtype = _header(archive, name)
        if len(shape) not in (2, 3) or dtype.kind not in "iuf":
            raise ClimateFileError(f"{name} is {dtype} {list(shape)}, not numbers [latitudes, longitudes], or [time, …]")
        check_size(shape[-2], shape[-1], max_samples)
        if math.prod(shape) > max(DEFAULT_MAX_SAMPLES, max_samples):
            raise ClimateFileError(f"{name} holds {math.prod(shape)} samples, all of which would be read: make it NetCDF or Zarr")
        if len(shape) == 2 and time is not None:
            raise ClimateFileError(f"{name} has no axis of time: leave --time out")
        index = None if len(shape) == 2 else time_index([], shape[0], time)
        axes = []
        for names, length in ((LATITUDES, shape[-2]), (LONGITUDES, shape[-1])):
            found = [each for each in names if f"{each}.npy" in archive.namelist()]
            if not found or _header(archive, found[0])[0] != (length,):
                raise ClimateFileError(f"there is no array {names[2]} of {length} degrees: save it beside {name}")
            axes.append(_load(archive, found[0]))
        stored = _load(archive, name)
        stored = stored if index is None else stored[index]
        if "labels.npy" in archive.namelist() and name == "values":
            if math.prod(_header(archive, "labels")[0]) > 2**20:
                raise ClimateFileError("its labels are too long")
            labels = decode_labels(_load(archive, "labels").tobytes())
            if labels["storage"].dtype != stored.dtype.name:
                raise ClimateFileError(f"its labels say {labels['storage'].dtype}, but values are {stored.dtype}")
            values = restore(stored, labels["storage"], labels.get("attributes", {}).get("missing_value"))
            return ClimateField(values, *axes, **labels)
    return field_of(stored, {}, latitudes=axes[0], longitudes=axes[1], name=name)


def _npz_variable(archive: zipfile.ZipFile, wanted: str | None) -> str:
    names = [each.removesuffix(".npy") for each in archive.namelist() if each.endswith(".npy")]
    if wanted is not None:
        if wanted not in names:
            raise ClimateFileError(f"there is no array {wanted!r}: it has {', '.join(names)}")
        return wanted
    able = [each for each in names if len(_header(archive, each)[0]) in (2, 3)]
    if len(able) != 1:
        found = f"has the arrays {', '.join(able)}: name one with --variable" if able else "has no array of fields"
        raise ClimateFileError(found)
    return able[0]


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, without reading it. ClimateFileError for objects, which are code."""
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ClimateFileError(f"{name} holds Python objects: save it as an array of numbers")
    return shape, dtype


def _load(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as file:
        return native(np.lib.format.read_array(file, allow_pickle=False))

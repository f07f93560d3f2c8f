"""Climate fields in data sets of xarray: which variable, axis, time and level, and what becomes of attributes."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from vcinr.modalities.climate_field import Axis, ClimateField, Scalar, Storage, attribute_of, restore, store

INSTALL = "pip install 'vcinr[climate]'"
LATITUDES = ("lat", "latitude", "latitudes", "nav_lat")
LONGITUDES = ("lon", "longitude", "longitudes", "nav_lon")
TIMES = ("time", "valid_time", "t", "date")
_STORAGE_KEYS = ("_FillValue", "scale_factor", "add_offset", "units", "coordinates", "grid_mapping", "_Unsigned")


class ClimateFileError(ValueError):
    """A file that is no climate field this package reads or writes; the message names the mend."""


def need(suffix: str, *modules: str) -> None:
    """ClimateFileError where one of these modules is not installed."""
    missing = [module for module in modules if not importlib.util.find_spec(module)]
    if missing:
        raise ClimateFileError(f"{suffix} needs {' and '.join(missing)}: {INSTALL}")


def opened(kind: str, source: Any) -> contextlib.AbstractContextManager:
    """The data set as it is stored: nothing is unpacked, masked or dated.

    kind: "zarr", "netcdf4" or, of NetCDF 3, "scipy".   source: what these engines of xarray take, or bytes of NetCDF 4.
    """
    if kind == "zarr":
        need(".zarr", "xarray", "zarr")
    elif kind == "netcdf4":
        need(".nc", "xarray", "netCDF4")
    else:
        need(".nc", "xarray")
    import xarray

    given: dict[str, Any] = {"engine": kind}
    if isinstance(source, bytes):
        import netCDF4

        source, given = xarray.backends.NetCDF4DataStore(netCDF4.Dataset("memory", memory=source)), {}
    with warnings.catch_warnings():
        # That a store's metadata are not consolidated concerns who wrote it.
        warnings.simplefilter("ignore")
        return xarray.open_dataset(source, decode_cf=False, cache=False, chunks=None, **given)


def read_dataset(dataset: Any, variable: str | None, time: Any, level: Any, max_samples: int) -> ClimateField:
    """The field of a variable, time and level; arguments as of `vcinr.modalities.files.climate.read_field`."""
    array = variable_of(dataset, variable)
    name = str(array.name)
    (latitude, row), (longitude, column) = _axis(dataset, array, LATITUDES), _axis(dataset, array, LONGITUDES)
    along = time_axis(dataset, array)
    chosen: dict[str, int] = {}
    if along is not None:
        chosen[along] = time_index(_dates(dataset, along), array.sizes[along], time)
    elif time is not None:
        raise ClimateFileError(f"{name} has no axis of time: leave --time out")
    others = [str(each) for each in array.dims if each not in (row, column, along) and array.sizes[each] > 1]
    if len(others) > 1:
        raise ClimateFileError(
            f"{name} has the axes {', '.join(others)} besides: take one of each first, e.g. ds.isel({others[0]}=0)"
        )
    if others:
        chosen[others[0]] = _level_index(dataset, others[0], array.sizes[others[0]], level)
    elif level is not None:
        raise ClimateFileError(f"{name} has no axis of levels: leave --level out")
    chosen |= {str(each): 0 for each in array.dims if each not in (row, column, *chosen)}
    height, width = array.sizes[row], array.sizes[column]
    check_size(height, width, max_samples)
    stored = native(array.isel(chosen).transpose(row, column).values)
    scalars = {}
    for each in [*chosen, *str(array.attrs.get("coordinates", "")).split()]:
        if each not in dataset.variables or each in (latitude, longitude, name):
            continue
        coordinate = dataset[each].isel({axis: at for axis, at in chosen.items() if axis in dataset[each].dims})
        value = attribute_of(coordinate.values) if coordinate.ndim == 0 else None
        if value is not None and not isinstance(value, list):
            scalars[each] = Scalar(value, _kept(coordinate.attrs, ("bounds", "_FillValue")))
    left_out = ("bounds", "_FillValue", "scale_factor", "add_offset")
    axes = tuple(Axis(str(each), _kept(dataset[each].attrs, left_out)) for each in (latitude, longitude))
    return field_of(
        stored,
        array.attrs,
        latitudes=_places(dataset[latitude]),
        longitudes=_places(dataset[longitude]),
        name=name,
        axes=axes,
        scalars=scalars,
        about=_kept(dataset.attrs, ()),
    )


def _places(coordinate: Any) -> np.ndarray:
    """Latitudes or longitudes, unpacked where they are packed."""
    if {"scale_factor", "add_offset"} & coordinate.attrs.keys():
        stored = native(coordinate.values)
        return restore(stored, _storage(stored.dtype.name, coordinate.attrs))
    return native(coordinate.values)


def _storage(dtype: str, attributes: Mapping[str, Any]) -> Storage:
    """How numbers of this type are stored, by the attributes of their variable."""
    given = [attribute_of(attributes[key]) if key in attributes else None for key in ("scale_factor", "add_offset", "_FillValue")]
    scale, offset, fill = (None if each is None else np.asarray(each).ravel()[0] for each in given)
    scale, offset = (each if each is None or each.dtype == np.float32 else np.float64(each) for each in (scale, offset))
    return Storage(dtype, scale, offset, fill)


def field_of(stored: np.ndarray, attributes: Mapping[str, Any], **labels: Any) -> ClimateField:
    """The field of stored numbers and the attributes of their variable."""
    attributes = dict(attributes)
    if stored.dtype.kind not in "iuf":
        raise ClimateFileError(f"{labels['name']} holds {stored.dtype}, not numbers: name another with --variable")
    if str(attributes.get("_Unsigned", "")).lower() == "true" and stored.dtype.kind == "i":
        unsigned = np.dtype(f"u{stored.dtype.itemsize}")
        for mark in ("_FillValue", "missing_value"):
            if mark in attributes:
                attributes[mark] = np.asarray(attributes[mark]).astype(stored.dtype).view(unsigned)
        stored = stored.view(unsigned)
    if stored.dtype.name == "float16":
        stored = stored.astype(np.float32)
    storage = _storage(stored.dtype.name, attributes)
    kept = _kept(attributes, _STORAGE_KEYS)
    values = restore(stored, storage, kept.get("missing_value"))
    return ClimateField(values, units=str(attributes.get("units", "")), attributes=kept, storage=storage, **labels)


def variable_of(dataset: Any, name: str | None) -> Any:
    """The variable asked for, or the only one on latitudes and longitudes."""
    if name is not None:
        if name not in dataset.variables:
            raise ClimateFileError(f"there is no variable {name!r}: it has {', '.join(map(str, dataset.variables))}")
        return dataset[name]
    able = []
    for each in dataset.variables:
        with contextlib.suppress(ClimateFileError):
            axes = [_axis(dataset, dataset[each], names)[1] for names in (LATITUDES, LONGITUDES)]
            if axes[0] != axes[1]:
                able.append(str(each))
    if len(able) != 1:
        found = (
            f"has the variables {', '.join(able)}: name one with --variable"
            if able
            else ("has no variable on latitudes and longitudes of one axis each: regrid it, e.g. with cdo remapbil,r360x180")
        )
        raise ClimateFileError(found)
    return dataset[able[0]]


def _axis(dataset: Any, array: Any, names: tuple[str, ...]) -> tuple[str, str]:
    """(coordinate, dimension) of a variable's latitudes or longitudes, by name, unit or standard name."""
    pole = "north" if names is LATITUDES else "east"
    for each in dataset.variables:
        coordinate = dataset.variables[each]
        if coordinate.ndim != 1 or coordinate.dims[0] not in array.dims or each == array.name:
            continue
        units, standard = (str(coordinate.attrs.get(key, "")).lower() for key in ("units", "standard_name"))
        is_unit = units.replace("s_", "_").startswith((f"degree_{pole}", f"degree{pole[0]}"))
        if str(each).lower() in names or is_unit or standard == names[1]:
            return str(each), str(coordinate.dims[0])
    raise ClimateFileError(f"{array.name} has no {names[1]}s of one axis: regrid it, e.g. with cdo remapbil,r360x180")


def time_axis(dataset: Any, array: Any) -> str | None:
    """The dimension of a variable that is time."""
    for each in array.dims:
        attributes = dataset.variables[each].attrs if each in dataset.variables else {}
        if (
            str(each).lower() in TIMES
            or attributes.get("standard_name") == "time"
            or " since " in str(attributes.get("units", ""))
        ):
            return str(each)
    return None


def time_index(dates: list[str], length: int, wanted: int | str | None) -> int:
    """Position of a number or a date among so many times, whose dates are known or none."""
    span = f", from {dates[0]} to {dates[-1]}" if dates else ""
    if wanted is None:
        if length == 1:
            return 0
        raise ClimateFileError(f"holds {length} times{span}: name one with --time, a number from 0 or a date")
    text = str(wanted).strip().replace(" ", "T")
    if text.lstrip("-").isdigit() and text[1:].isdigit() | (len(text) == 1):
        if not -length <= int(text) < length:
            raise ClimateFileError(f"there is no time {text}: it holds {length}, from 0 to {length - 1}")
        return int(text) % length
    found = [index for index, date in enumerate(dates) if date.startswith(text)]
    if len(found) != 1:
        how_many = f"{len(found)} times begin with" if found else "no time begins with"
        raise ClimateFileError(f"{how_many} {text!r}: it holds {length}{span}")
    return found[0]


def _dates(dataset: Any, axis: str) -> list[str]:
    """Times as ISO 8601; none where they are no dates."""
    import xarray

    if axis not in dataset.variables or " since " not in str(dataset.variables[axis].attrs.get("units", "")):
        return []
    alone = xarray.Dataset(coords={axis: dataset.variables[axis].load()})
    try:
        times = xarray.decode_cf(alone)[axis].values
    except (ValueError, OverflowError):
        return []
    if times.dtype.kind == "M":
        return [str(each) for each in np.datetime_as_string(times, unit="s")]
    return [each.isoformat() for each in times]


def _level_index(dataset: Any, axis: str, length: int, wanted: float | int | str | None) -> int:
    """Position of a level's value."""
    values = dataset[axis].values if axis in dataset.variables and dataset.variables[axis].dims == (axis,) else np.arange(length)
    shown = ", ".join(str(each) for each in values[:12]) + (" …" if length > 12 else "")
    if wanted is None:
        raise ClimateFileError(f"holds {length} fields along {axis}: name one of {shown} with --level")
    found = [index for index, value in enumerate(values) if str(value) == str(wanted) or _same(value, wanted)]
    if len(found) != 1:
        raise ClimateFileError(f"{axis} is nowhere {wanted}: it is one of {shown}")
    return found[0]


def _same(value: Any, wanted: float | int | str) -> bool:
    try:
        return math.isclose(float(value), float(wanted), rel_tol=1e-6)
    except (TypeError, ValueError):
        return False


def check_size(height: int, width: int, max_samples: int) -> None:
    """ClimateFileError for a grid without samples, or with more than ``max_samples``."""
    if not height or not width:
        raise ClimateFileError(f"{height}×{width} has no samples")
    if height * width > max_samples:
        raise ClimateFileError(
            f"{height}×{width} samples are more than the limit of {max_samples}; raise --max-pixels if you trust it"
        )


def native(array: np.ndarray) -> np.ndarray:
    """The array in this machine's order of bytes."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _kept(attributes: Mapping[str, Any], left_out: tuple[str, ...]) -> dict[str, Any]:
    found = {str(name): attribute_of(value) for name, value in attributes.items() if name not in left_out}
    return {name: value for name, value in found.items() if value is not None}


def stored_values(field: ClimateField) -> np.ndarray:
    """The numbers [h, w] that a file stores for a field."""
    return store(field.values, field.stored_as, field.attributes.get("missing_value"))


def dataset_of(field: ClimateField) -> Any:
    """What xarray writes: stored numbers, with all that says what they mean."""
    import xarray

    attributes = {"units": field.units} if field.units else {}
    attributes |= field.attributes
    for name in ("scale_factor", "add_offset"):
        if (value := getattr(field.stored_as, name)) is not None:
            attributes[name] = value
    dims = tuple(axis.name for axis in field.axes)
    coords = {
        axis.name: ((axis.name,), values, dict(axis.attributes))
        for axis, values in zip(field.axes, (field.latitudes, field.longitudes), strict=True)
    }
    coords |= {name: ((), np.asarray(value), dict(own)) for name, (value, own) in field.scalars.items()}
    return xarray.Dataset({field.name: (dims, stored_values(field), attributes)}, coords=coords, attrs=dict(field.about))


def encoding_of(field: ClimateField) -> dict[str, dict[str, Any]]:
    """What xarray would otherwise decide of fill values."""
    # xarray would give every float a fill value of NaN.
    none = {name: {"_FillValue": None} for name in (*(axis.name for axis in field.axes), *field.scalars)}
    return {**none, field.name: {"_FillValue": field.stored_as.fill_value}}

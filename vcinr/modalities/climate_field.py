"""A climate field as callers hold it: values on latitudes and longitudes, and what its file says of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

Attribute = str | np.ndarray | list[str]
"""A text, a number or a short list of numbers (0- or 1-dimensional), or a list of texts."""
NUMBER_TYPES = {np.dtype(short).name: short for short in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")}
"""Types of numbers in attributes and files → their short names."""
STORED_TYPES = ("int8", "uint8", "int16", "uint16", "int32", "float32", "float64")


@dataclasses.dataclass(frozen=True)
class Storage:
    """How a file stores values: value = stored · ``scale_factor`` + ``add_offset``, ``fill_value`` where it is missing.

    dtype: one of `STORED_TYPES`.   scale_factor, add_offset: np.float32 or np.float64, not 0; None: 1 and 0.
    fill_value: stored number; None: files of floats hold NaN, and integers are never missing.
    """

    dtype: str = "float32"
    scale_factor: np.floating | None = None
    add_offset: np.floating | None = None
    fill_value: np.number | None = None

    @property
    def packed(self) -> bool:
        """Whether stored numbers are integers."""
        return np.dtype(self.dtype).kind in "iu"

    @property
    def value_type(self) -> str:
        """Type of the values: that of scale and offset, else the smallest float that holds what is stored."""
        given = [str(each.dtype) for each in (self.scale_factor, self.add_offset) if each is not None]
        wide = self.dtype in ("int32", "float64") or "float64" in given
        return "float64" if wide else "float32"


class Axis(NamedTuple):
    """name: of the dimension and its coordinate.   attributes: of the coordinate."""

    name: str
    attributes: Mapping[str, Attribute]


class Scalar(NamedTuple):
    """A coordinate without an axis, such as the time of a field.   value: a number or text.   attributes: its units and so on."""

    value: Attribute
    attributes: Mapping[str, Attribute]


LATITUDE = Axis("lat", {"units": "degrees_north"})
LONGITUDE = Axis("lon", {"units": "degrees_east"})


@dataclasses.dataclass(frozen=True, eq=False)
class ClimateField:
    """One field on latitudes and longitudes.

    Attributes:
        values: float32 or float64 [h, w], NaN where missing, in the field's unit; of ``storage.value_type``.
        latitudes: degrees north [h], in any order.
        longitudes: degrees east [w], in any order; −180 to 180 and 0 to 360 alike.
        name: of the variable.
        units: of the values; "" for none.
        attributes: of the variable, but its units and what ``storage`` says.
        axes: names and attributes of latitudes and longitudes.
        scalars: name → further coordinates, such as time and level.
        about: attributes of the data set.
        storage: how a file stores the values; None: as they are.
    """

    values: np.ndarray
    latitudes: np.ndarray
    longitudes: np.ndarray
    name: str = "field"
    units: str = ""
    attributes: Mapping[str, Attribute] = dataclasses.field(default_factory=dict)
    axes: tuple[Axis, Axis] = (LATITUDE, LONGITUDE)
    scalars: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    about: Mapping[str, Attribute] = dataclasses.field(default_factory=dict)
    storage: Storage | None = None

    @property
    def stored_as(self) -> Storage:
        """``storage``, or that of the values as they are."""
        return Storage(self.values.dtype.name) if self.storage is None else self.storage


KEPT_ATTRIBUTES = ("standard_name", "long_name", "axis", "calendar", "units", "missing_value")


def with_attributes(field: ClimateField, which: str | None) -> ClimateField:
    """The field with "all" of its attributes (None too), those that say what it is ("cf"), or "none" and no further coordinates.

    The variable's name and units, and what says that values are missing, are always kept. ValueError for another word.
    """
    if which in (None, "all"):
        return field
    if which not in ("cf", "none"):
        raise ValueError(f"attributes is 'all', 'cf' or 'none', not {which!r}")

    def chosen(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
        kept = KEPT_ATTRIBUTES if which == "cf" else ("missing_value",)
        return {name: value for name, value in attributes.items() if name in kept}

    axes = tuple(Axis(axis.name, chosen(axis.attributes)) for axis in field.axes) if which == "cf" else (LATITUDE, LONGITUDE)
    scalars = {name: Scalar(value, chosen(attributes)) for name, (value, attributes) in field.scalars.items()}
    return dataclasses.replace(
        field, attributes=chosen(field.attributes), axes=axes, scalars=scalars if which == "cf" else {}, about={}
    )


def attribute_of(value: Any) -> Attribute | None:
    """An attribute as libraries give it → as this package keeps it; None for what is neither text nor numbers."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return str(value)
    array = np.asarray(value)
    if array.ndim == 0 and array.dtype.kind in "USO":
        return attribute_of(array.item()) if isinstance(array.item(), str | bytes) else None
    if array.dtype.kind in "US" and array.ndim == 1:
        return [str(each) for each in array]
    if array.dtype.kind == "b":
        array = array.astype(np.int8)
    if array.dtype.name not in NUMBER_TYPES or array.ndim > 1:
        return None
    return array.astype(array.dtype.newbyteorder("="))


def restore(stored: np.ndarray, storage: Storage, missing: Attribute | None = None) -> np.ndarray:
    """Values of stored numbers.   missing: further stored numbers that mean that a value is missing."""
    absent = np.isnan(stored) if stored.dtype.kind == "f" else np.zeros(stored.shape, bool)
    for mark in (storage.fill_value, missing):
        if mark is not None and not isinstance(mark, str | list):
            absent |= np.isin(stored, np.asarray(mark).astype(np.float64))
    values = stored.astype(storage.value_type)
    if storage.scale_factor is not None:
        values = values * values.dtype.type(storage.scale_factor)
    if storage.add_offset is not None:
        values = values + values.dtype.type(storage.add_offset)
    values[absent] = np.nan
    return values


def can_be_missing(storage: Storage, missing: Attribute | None = None) -> bool:
    """Whether stored numbers can say that a value is missing; ``missing`` as in `restore`."""
    return not storage.packed or storage.fill_value is not None or isinstance(missing, np.ndarray | np.number)


def store(values: np.ndarray, storage: Storage, missing: Attribute | None = None, clip: bool = False) -> np.ndarray:
    """The nearest stored numbers.

    missing: stored number of missing values where ``storage`` has no fill value.   clip: to what the type holds.
    ValueError where a value is missing and has no number, or lies outside the type without ``clip``.
    """
    absent = np.isnan(values)
    kind, fill = np.dtype(storage.dtype), storage.fill_value
    if fill is None and missing is not None and not isinstance(missing, str | list):
        fill = np.asarray(missing).ravel()[0]
    if fill is None and storage.packed and absent.any():
        raise ValueError(f"a value is missing, and {storage.dtype} without a fill value has no number for that")
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float64) - float(storage.add_offset or 0)
        numbers = numbers / float(1 if storage.scale_factor is None else storage.scale_factor)
        numbers[absent] = 0
    if storage.packed:
        limits = np.iinfo(kind)
        numbers = np.rint(numbers)
        if clip:
            numbers = np.clip(numbers, limits.min, limits.max)
            if fill is not None:
                numbers[numbers == float(fill)] += 1 if float(fill) == limits.min else -1
        elif numbers.min() < limits.min or numbers.max() > limits.max:
            raise ValueError(f"values lie outside of what {storage.dtype} holds with this scale_factor and add_offset")
    with np.errstate(over="ignore"):
        stored = numbers.astype(kind)
    if absent.any():
        stored[absent] = np.nan if fill is None else fill
    return stored


def check_labels(field: ClimateField) -> None:
    """ValueError where names, units or attributes are such as no NetCDF file has."""
    names = [field.name, *(axis.name for axis in field.axes), *field.scalars]
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) < 256 or "/" in name or not name.isprintable() or name != name.strip():
            raise ValueError(f"a name is 1 to 255 printable characters without a slash, not {name!r}: rename it")
    if len(set(names)) < len(names):
        raise ValueError(f"variable, axes and further coordinates have names of their own, not {', '.join(names)}: rename one")
    if not isinstance(field.units, str):
        raise ValueError(f"units are text, not {type(field.units).__name__}")
    owners = [field.attributes, field.about, *(axis.attributes for axis in field.axes)]
    for attributes in (*owners, *(each.attributes for each in field.scalars.values())):
        for name, value in attributes.items():
            if not isinstance(name, str) or not 0 < len(name) < 256 or "\0" in name or "/" in name:
                raise ValueError(f"an attribute has a name of 1 to 255 characters without a slash, not {name!r}")
            _check_attribute(name, value)
    for name, (value, _) in field.scalars.items():
        _check_attribute(name, value)
        if isinstance(value, list) or np.ndim(value):
            raise ValueError(f"coordinate {name} has one value, not {value!r}: only latitudes and longitudes have more")
    taken = {"units", "scale_factor", "add_offset", "_FillValue"} & field.attributes.keys()
    if taken:
        raise ValueError(f"{', '.join(sorted(taken))}: say that by units and storage, not by attributes")


def _check_attribute(name: str, value: Attribute) -> None:
    if isinstance(value, str) and "\0" not in value:
        return
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return
    if isinstance(value, np.ndarray | np.generic) and value.ndim <= 1 and value.dtype.name in NUMBER_TYPES:
        return
    raise ValueError(f"attribute {name} is text, NumPy numbers or a list of texts, not {value!r}")

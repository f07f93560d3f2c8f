"""Climate fields: one variable on latitudes and longitudes, the whole globe or a part of it, with its names and units."""

from __future__ import annotations

import dataclasses
import io
import os
from typing import Any

import numpy as np

from vcinr.evaluation.metrics import psnr_db
from vcinr.modalities import climate_metadata as coding
from vcinr.modalities.climate_field import (
    Axis,
    ClimateField,
    Scalar,
    Storage,
    can_be_missing,
    check_labels,
    restore,
    store,
    with_attributes,
)
from vcinr.modalities.climate_grid import canonical_order, cell_areas, check_axes, finer_axis, smooth_fill, sphere_points
from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES, Metadata, Modality, ReadOption, Source

__all__ = ["Axis", "Climate", "ClimateField", "Scalar", "Storage"]

SUFFIXES = (".nc", ".nc4", ".zarr", ".zip", ".npz")
READ_OPTIONS = (
    ReadOption("variable", "the variable to take of several", metavar="NAME"),
    ReadOption("time", "the time to take of several: a number from 0, or a date such as 2020-01-31T06", metavar="TIME"),
    ReadOption("level", "the level to take of several, by its value, such as 500", metavar="LEVEL"),
    ReadOption("attributes", "attributes to keep: all (the default), cf (names, units) or none", metavar="WHICH"),
)
META_TYPES = {"offset": "float32", "scale": "float32", "grid": "bytes", "mask": "bytes", "labels": "bytes"}
RESAMPLED = "resampled"
"""Of metadata that no file has: samples are in the order of their latitudes and longitudes."""
STEPS = 2**16 - 1
"""Steps of a field's range that differences are counted in, as of values packed into 16 bits."""


@dataclasses.dataclass(frozen=True, eq=False)
class Climate(Modality):
    """Fields on the globe, or on a part of it (``globe`` False).

    Samples are the field's values in the range from its own smallest to its own largest, from north to south and from west to
    east, whatever the file's order, in which the field comes back. Where a value is missing (NaN) the sample is made up smoothly
    from those around, with weight 0. All others weigh alike, whatever the area of their cells; `metrics` has both means.

    Of a globe, coordinates are points (x, y, z) on the unit sphere, and samples begin at the smallest longitude from 0 on; a
    repeated meridian is left out and put back. The globe is as large as a patch, which therefore is the whole grid; for tiles of
    a large grid there is the other row, with coordinates (y, x) in the tile. So all patches of a shape share one grid.
    """

    name: str = "climate"
    coord_dim: int = 3
    channels: int = 1
    num_axes: int = 2
    sample_type: str = "float32"
    peak: int = STEPS
    meta_types: Any = dataclasses.field(default_factory=lambda: dict(META_TYPES))
    example_metadata: Any = dataclasses.field(
        default_factory=lambda: {"offset": 0.0, "scale": 1.0, "grid": b"", "mask": b"", "labels": b""}
    )
    read_suffixes: tuple[str, ...] = SUFFIXES
    write_suffixes: tuple[str, ...] = SUFFIXES
    read_options: tuple[ReadOption, ...] = READ_OPTIONS
    references: tuple[str, ...] = (
        "vcinr.evaluation.classical_climate:measure_zfp",
        "vcinr.evaluation.classical_climate:measure_packed",
    )
    globe: bool = True

    def unpack(self, raw: Any) -> tuple[np.ndarray, dict[str, int | float | bytes]]:
        """(samples float32 [h, w, 1] in [0, 1], metadata) of a `ClimateField`. ValueError for what is none, with the mend."""
        check_field(raw)
        rows, columns = self._order(raw.latitudes, raw.longitudes)
        if len(columns) < len(raw.longitudes):
            ends = raw.values[:, [0, -1]]
            if not np.array_equal(ends[:, 0], ends[:, 1], equal_nan=True):
                raise ValueError("the first meridian comes again with other values: drop one, e.g. ds.isel(lon=slice(0, -1))")
        values = raw.values[rows[:, None], columns].astype(np.float64)
        missing = np.isnan(values)
        offset, scale = value_range(values[~missing])
        filled = smooth_fill(values, missing)
        samples = np.clip((filled - offset) / (scale or 1), 0, 1).astype(np.float32)[..., None]
        metadata = {
            "offset": offset,
            "scale": scale,
            "grid": coding.encode_grid(*_ordered(raw), samples.shape[:2]),
            "mask": coding.encode_mask(missing),
            "labels": coding.encode_labels(raw),
        }
        return samples, metadata

    def pack(self, samples: np.ndarray, metadata: Metadata) -> ClimateField:
        """The field: the inverse of `unpack` but for the rounding of float32, and for packed integers on their steps."""
        shape = samples.shape[:2]
        latitudes, longitudes = coding.decode_grid(metadata["grid"], shape)
        labels = coding.decode_labels(metadata["labels"])
        values = metadata["offset"] + metadata["scale"] * samples[..., 0].astype(np.float64)
        values[coding.decode_mask(metadata["mask"], shape)] = np.nan
        rows, columns = np.arange(shape[0]), np.arange(shape[1])
        if not metadata.get(RESAMPLED):
            rows, columns = self._order(latitudes, longitudes)
        whole = np.empty((len(latitudes), len(longitudes)))
        whole[rows[:, None], columns] = values
        if len(columns) < len(longitudes):
            whole[:, -1] = whole[:, 0]
        storage, missing = labels["storage"], labels.get("attributes", {}).get("missing_value")
        if storage.packed:
            whole = restore(store(whole, storage, missing, clip=True), storage, missing)
        return ClimateField(whole.astype(storage.value_type), latitudes, longitudes, **labels)

    def check_metadata(self, metadata: Metadata, shape: tuple[int, ...]) -> None:
        """ValueError for metadata that no field of this shape has: see `vcinr.modalities.climate_metadata`."""
        top = np.float64(metadata["offset"]) + np.float64(metadata["scale"])
        if metadata["scale"] < 0 or not np.isfinite(top) or abs(top) > 2 * float(np.finfo(np.float32).max):
            raise ValueError(f"values from {metadata['offset']:g} on over {metadata['scale']:g} are none")
        coding.decode_mask(metadata["mask"], shape)
        latitudes, longitudes = coding.decode_grid(metadata["grid"], shape)
        _, columns = self._order(latitudes, longitudes)
        if len(columns) != shape[1]:
            raise ValueError(f"{len(longitudes)} longitudes are not those of {shape[1]} columns")
        field = ClimateField(np.zeros((1, 1)), latitudes, longitudes, **coding.decode_labels(metadata["labels"]))
        check_labels(field)
        if metadata["mask"] and not can_be_missing(field.stored_as, field.attributes.get("missing_value")):
            raise ValueError("values are missing, and stored integers have no number for that")

    def weights(self, samples: np.ndarray, metadata: Metadata) -> np.ndarray | None:
        """0 where a value is missing, else 1: float32 [h, w]; None where none is."""
        if not metadata["mask"]:
            return None
        return 1 - coding.decode_mask(metadata["mask"], samples.shape[:2]).astype(np.float32)

    def locate(self, positions: np.ndarray) -> np.ndarray:
        """Points on the unit sphere, of a globe (see `sphere_points`); else the positions themselves."""
        return sphere_points(positions) if self.globe else positions

    def resampled_metadata(self, metadata: Metadata, shape: tuple[int, ...], new: tuple[int, ...]) -> Metadata:
        """Metadata on a new grid over the same extent, from north to south and from west to east; masks go to the nearest sample.

        Cells next to a row at a pole share what there is up to it (see `finer_axis`).
        """
        latitudes, longitudes = coding.decode_grid(metadata["grid"], shape)
        rows, columns = self._order(latitudes, longitudes)
        east = np.unwrap(longitudes[columns].astype(np.float64), period=360)
        axes = finer_axis(latitudes[rows], new[0], 90), finer_axis(east, new[1]).astype(longitudes.dtype)
        nearest = [((np.arange(m) + 0.5) * n / m).astype(int) for n, m in zip(shape, new, strict=True)]
        missing = coding.decode_mask(metadata["mask"], shape)[nearest[0][:, None], nearest[1]]
        # Half a step west of 0 comes first here, and last in the order of a file.
        return {**metadata, "grid": coding.encode_grid(*axes, new), "mask": coding.encode_mask(missing), RESAMPLED: True}

    def metrics(self, original: ClimateField, decoded: ClimateField) -> dict[str, float]:
        """Quality where values are not missing.

        ``psnr_db``: the peak is the original's largest value less its smallest, and 1 for a constant field.
        ``rmse``, ``max_error``: in the field's own unit, which differs between variables.
        ``area_rmse``, ``area_psnr_db``: each sample weighs as the area of its cell, about the cosine of its latitude.
        ValueError where the fields differ in shape, or in what is missing.
        """
        check_field(original)
        check_field(decoded)
        known = ~np.isnan(original.values)
        if original.values.shape != decoded.values.shape or not np.array_equal(known, ~np.isnan(decoded.values)):
            raise ValueError("fields with other samples, or with others missing, have no error: compare those of one grid")
        error = (decoded.values.astype(np.float64) - original.values)[known]
        areas = np.broadcast_to(cell_areas(original.latitudes)[:, None], known.shape)[known]
        values = original.values[known].astype(np.float64)
        square, by_area = np.mean(error**2), np.sum(areas * error**2) / areas.sum()
        peak = float(np.ptp(values)) or 1.0
        return {
            "psnr_db": float(psnr_db(square, peak)),
            "rmse": float(np.sqrt(square)),
            "max_error": float(np.abs(error).max()),
            "area_rmse": float(np.sqrt(by_area)),
            "area_psnr_db": float(psnr_db(by_area, peak)),
        }

    def read(
        self,
        source: Source | io.BufferedIOBase,
        *,
        max_samples: int = DEFAULT_MAX_SAMPLES,
        variable: str | None = None,
        time: int | str | None = None,
        level: float | int | str | None = None,
        attributes: str | None = None,
    ) -> ClimateField:
        """One field of a file: see `vcinr.modalities.files.climate.read_field`."""
        from vcinr.modalities.files.climate import read_field

        return with_attributes(read_field(source, variable, time, level, max_samples), attributes)

    def write(self, path: str | os.PathLike, raw: ClimateField) -> None:
        """Writes a field: see `vcinr.modalities.files.climate.write_field`."""
        from vcinr.modalities.files.climate import write_field

        self.check_target(path)
        check_field(raw)
        write_field(path, raw)

    def to_bytes(self, raw: ClimateField) -> bytes:
        """The field as an .npz file."""
        from vcinr.modalities.files.climate import npz_bytes

        check_field(raw)
        return npz_bytes(raw)

    def _order(self, latitudes: np.ndarray, longitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return canonical_order(latitudes, longitudes, self.globe)


def check_field(raw: Any) -> None:
    """ValueError that names the mend where this is no `ClimateField` that can be coded."""
    if not isinstance(raw, ClimateField):
        raise ValueError(
            f"a climate signal is a vcinr.modalities.climate.ClimateField, not {type(raw).__name__}: "
            "ClimateField(values [h, w], latitudes [h], longitudes [w])"
        )
    values = raw.values
    if not isinstance(values, np.ndarray) or values.ndim != 2 or not values.size:
        what = f"{values.dtype} {list(values.shape)}" if isinstance(values, np.ndarray) else type(values).__name__
        raise ValueError(f"a climate field has values [latitudes, longitudes], not {what}: pass one variable, time and level")
    if values.dtype.name not in ("float32", "float64"):
        raise ValueError(
            f"values are float32 or float64, not {values.dtype}: convert them, and give the packing as storage=Storage(…)"
        )
    for name, axis, length in (("latitudes", raw.latitudes, len(values)), ("longitudes", raw.longitudes, len(values[0]))):
        if not isinstance(axis, np.ndarray) or axis.shape != (length,) or axis.dtype.kind not in "iuf":
            raise ValueError(f"{name} are an array of {length} degrees, one for each: give them as such, or regrid the field")
    check_axes(raw.latitudes, raw.longitudes)
    if np.isinf(values).any():
        raise ValueError("values hold infinity: set it to NaN, which counts as missing")
    if np.isnan(values).all():
        raise ValueError("every value is missing: there is nothing to code; drop the field")
    check_labels(raw)
    coding.check_storage(raw.stored_as)
    if np.isnan(values).any() and not can_be_missing(raw.stored_as, raw.attributes.get("missing_value")):
        raise ValueError(f"values are missing, which {raw.stored_as.dtype} has no number for: give its storage a fill_value")
    if raw.stored_as.value_type != values.dtype.name:
        raise ValueError(f"values of this storage are {raw.stored_as.value_type}, not {values.dtype}: convert them")


def value_range(values: np.ndarray) -> tuple[float, float]:
    """(offset, scale), both exact in float32, so that values [n] lie from offset to offset + scale.

    ValueError where float32 cannot tell the values apart, or does not reach them.
    """
    lowest, highest = float(values.min()), float(values.max())
    if max(abs(lowest), abs(highest), highest - lowest) > float(np.finfo(np.float32).max):
        raise ValueError(f"values from {lowest:g} to {highest:g} are beyond float32: change their unit")
    offset = np.float32(lowest)
    if lowest == highest:
        return float(offset), 0.0
    if float(offset) > lowest:
        offset = np.nextafter(offset, np.float32(-np.inf))
    scale = np.float32(highest - float(offset))
    if float(offset) + float(scale) < highest:
        scale = np.nextafter(scale, np.float32(np.inf))
    if not np.isfinite(offset) or not np.isfinite(scale) or scale < np.finfo(np.float32).tiny:
        raise ValueError(f"values from {lowest:g} to {highest:g} are beyond float32: change their unit")
    if lowest - float(offset) > (highest - lowest) / 64:
        raise ValueError(
            f"values from {lowest!r} to {highest!r} differ by less than float32 can tell: subtract a constant, or store float32"
        )
    return float(offset), float(scale)


def _ordered(raw: ClimateField) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes of a type that files keep."""
    kept = []
    for axis in (raw.latitudes, raw.longitudes):
        native = axis.astype(axis.dtype.newbyteorder("="))
        name = native.dtype.name
        other = {"float16": "float32"}.get(name, "int64" if native.dtype.kind in "iu" else "float64")
        kept.append((native if name in coding.AXIS_TYPES else native.astype(other)) + 0)
    return kept[0], kept[1]

"""Builders of sets of climate fields for tensorflow-datasets: neighbours in time, which are alike, are never on two sides."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vcinr.datasets.builders import SignalBuilder
from vcinr.modalities import MODALITIES
from vcinr.modalities.climate import ClimateField
from vcinr.modalities.climate_grid import globe_axes

FILE_SUFFIXES = (".nc", ".nc4", ".zarr", ".zip", ".npz")
MISC_VARIABLES = {
    "ncep_air_ltm_12x73x144": ("air", "degC"),
    "eraint_z_month0": ("z", "m**2 s**-2"),
    "eraint_u_month0": ("u", "m s**-1"),
    "fc167_tas_month0": ("tas", "K"),
}
"""Arrays of the set of other sizes → name and unit of their variable."""


class BlocksOfTime(SignalBuilder, skip_registration=True):
    """2 m temperature in an .npz file with the arrays ``train`` and ``test`` [n, h, w], in order of time, ``lat`` and ``lon``."""

    NUM_VALIDATION = 0
    GAP = 0

    def signals(self):
        """The last ``NUM_VALIDATION`` of ``train``, all but these and a ``GAP`` before them, and ``test``."""
        with np.load(self.source) as arrays:
            train, test, latitudes, longitudes = (arrays[name] for name in ("train", "test", "lat", "lon"))
        start = len(train) - self.NUM_VALIDATION
        parts = {"train": (0, start - self.GAP), "validation": (start, len(train))}
        splits = {split: [(f"train_{i:05}", train[i]) for i in range(*ends)] for split, ends in parts.items()}
        splits["test"] = [(f"test_{i:05}", values) for i, values in enumerate(test)]
        return {
            split: [(name, ClimateField(values, latitudes, longitudes, "t2m", "K")) for name, values in rows]
            for split, rows in splits.items()
        }


class Era5Region(BlocksOfTime, skip_registration=True):
    """ERA5 temperature at 2 m over Italy, 43×48, every three hours; five days for validation, the day before them left out."""

    modality = "climate_region"
    NUM_VALIDATION = 40
    GAP = 8


class ClimateGlobal(BlocksOfTime, skip_registration=True):
    """Annual means of temperature at 2 m of a climate model on the globe, 46×90; 50 years for validation, 5 before left out."""

    modality = "climate"
    NUM_VALIDATION = 50
    GAP = 5


class ClimateMisc(SignalBuilder, skip_registration=True):
    """Fields on the globe of other sizes and variables, for evaluation alone; from north to south and from 0 eastward."""

    modality = "climate"

    def signals(self):
        """All fields of every array."""
        rows = []
        with np.load(self.source) as arrays:
            for array, (name, units) in MISC_VARIABLES.items():
                latitudes, longitudes = globe_axes(arrays[array].shape[1:])
                for i, values in enumerate(arrays[array]):
                    rows.append((f"{array}_{i:02}", ClimateField(values, latitudes, longitudes, name, units)))
        return {"test": rows}


class Era5(SignalBuilder, skip_registration=True):
    """ERA5 on the globe, or whatever fields: a folder of NetCDF, Zarr and .npz of one variable each, one signal per time."""

    modality = "climate"

    def signals(self):
        """All times of all files in order of their names, in blocks of time: see `time_blocks`."""
        steps = [step for path in field_files(self.source) for step in time_steps(path)]
        return {split: [(step.label, step) for step in block] for split, block in time_blocks(steps).items()}

    def read(self, path: pathlib.Path) -> Any:
        """The field of one time."""
        return MODALITIES[self.modality].read(path, time=path.time)


class TimeStep(type(pathlib.Path())):
    """A file, and which of its times; None where it has no such axis."""

    time: int | None = None

    @property
    def label(self) -> str:
        """The file's name, and the number of the time."""
        return self.stem if self.time is None else f"{self.stem}_{self.time:05}"


def field_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files of fields, and Zarr stores, in a folder and those below it, sorted; hidden ones are left out."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in FILE_SUFFIXES]
    parts = {path: path.relative_to(folder).parts for path in found}
    # What lies in a store is no file of its own.
    alone = [path for path in found if not any(part.endswith(".zarr") for part in parts[path][:-1])]
    return sorted(path for path in alone if not any(part.startswith(".") for part in parts[path]))


def time_steps(path: pathlib.Path) -> list[TimeStep]:
    """The times of a file."""
    from vcinr.modalities.files.climate import count_times

    steps = [TimeStep(path) for _ in range(count_times(path))]
    for number, step in enumerate(steps if len(steps) > 1 else ()):
        step.time = number
    return steps


def time_blocks(steps: Sequence[Any]) -> dict[str, list[Any]]:
    """Train, validation and test as blocks of time in this order: the last two of a tenth each, a fortieth between all left out.

    Fewer than 40 steps leave one out; fewer than 10 are all for test.
    """
    if len(steps) < 10:
        return {"test": list(steps)}
    tenth, gap = len(steps) // 10, max(1, len(steps) // 40)
    test = len(steps) - tenth
    validation = test - gap - tenth
    return {
        "train": list(steps[: validation - gap]),
        "validation": list(steps[validation : test - gap]),
        "test": list(steps[test:]),
    }

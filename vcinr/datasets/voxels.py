"""Builders of sets of voxels for tensorflow-datasets."""

from __future__ import annotations

import pathlib

import numpy as np

from vcinr.datasets.builders import SignalBuilder, side

SIDE = 30
CLASSES = ("bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table", "toilet")
RIM = 3
"""Voxels around every shape that are empty."""


def modelnet10(source: pathlib.Path) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Split → (name, uint8 [30, 30, 30, 1] in the order z, y, x) of ModelNet10's file of packed bits.

    Validation is cut from the training part by `outline`, since many shapes are there in several versions.
    """
    with np.load(source) as arrays:
        parts = {part: (arrays[f"{part}_bits"], arrays[f"y_{part}"]) for part in ("train", "test")}
    splits: dict[str, list[tuple[str, np.ndarray]]] = {"train": [], "validation": [], "test": []}
    for part, (bits, labels) in parts.items():
        grids = np.unpackbits(bits, axis=1, count=SIDE**3).reshape(-1, SIDE, SIDE, SIDE, 1)
        for index, (grid, label) in enumerate(zip(grids.transpose(0, 3, 2, 1, 4), labels, strict=True)):
            voxels = np.ascontiguousarray(grid)
            where = side(outline(voxels)) if part == "train" else part
            splits[where].append((f"{part}_{index:04}_{CLASSES[label]}", voxels))
    return splits


def outline(voxels: np.ndarray) -> str:
    """A name that near-duplicates share: which of 6×6×6 cells are filled to more than a quarter.

    voxels: uint8 [30, 30, 30, 1].
    """
    cell = (SIDE - 2 * RIM) // 6
    inner = voxels[RIM:-RIM, RIM:-RIM, RIM:-RIM, 0].reshape(6, cell, 6, cell, 6, cell)
    return np.packbits(4 * inner.sum(axis=(1, 3, 5), dtype=np.int64) > cell**3).tobytes().hex()


class ModelNet10(SignalBuilder, skip_registration=True):
    """Furniture of ModelNet10 as voxels, 30×30×30, z upwards."""

    modality = "voxels"

    def signals(self):
        """See `modelnet10`."""
        return modelnet10(self.source)

"""Builders of sets of distance fields for tensorflow-datasets, made of voxels as they are prepared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vcinr.datasets.builders import SignalBuilder
from vcinr.datasets.voxels import modelnet10
from vcinr.modalities.distance_field import Distances, signed_distance

AXES = ("above", "front", "side")
"""What one looks along z, y and x from."""


def silhouettes(voxels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(name, bool [a, b]) of the three shadows of voxels uint8 [z, y, x, 1], along z, y and x."""
    return [(name, voxels[..., 0].any(axis=axis)) for axis, name in enumerate(AXES)]


class ModelNet10Distances(SignalBuilder, skip_registration=True):
    """Exact signed distances, in voxels, of the voxels of ModelNet10, 30×30×30; not truncated."""

    modality = "distance_field"

    def signals(self):
        """The shapes and splits of `vcinr.datasets.voxels.modelnet10`, as voxels still: fields are made one at a time."""
        return modelnet10(self.source)

    def shapes(self, name: str, voxels: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """(name, bool) of what the distances of these voxels are taken to."""
        return [(name, voxels[..., 0] > 0)]

    def _generate_examples(self, split: str, signals: list) -> Iterator[tuple[int, dict]]:
        # As a list of few bytes a shape: all fields at once would be half a gigabyte.
        inside = [(each, shape) for name, voxels in signals for each, shape in self.shapes(name, voxels)]
        return super()._generate_examples(split, _Fields(inside))


class Silhouettes(ModelNet10Distances, skip_registration=True):
    """Exact signed distances, in samples, of the three shadows of each shape of ModelNet10, 30×30; not truncated."""

    modality = "distance_field_2d"

    def shapes(self, name: str, voxels: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """The three `silhouettes`."""
        return [(f"{name}_{view}", shape) for view, shape in silhouettes(voxels)]


class _Fields(list):
    """(name, whether inside) whose distances are made as they are gone through."""

    def __iter__(self) -> Iterator[tuple[str, Distances]]:
        for name, inside in super().__iter__():
            yield name, Distances(signed_distance(inside)[..., None])

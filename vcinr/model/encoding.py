"""From signals to codes: what `Model` does when it encodes, in slabs of large signals where patches don't know each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vcinr.codec import Code, EncodeRequest, grid_of
from vcinr.modalities.modality import Metadata
from vcinr.model.decoding import check_whole
from vcinr.signals.patches import to_signal
from vcinr.signals.signal import Grid, Signal

if TYPE_CHECKING:
    from vcinr.model.model import Model

SLAB_SAMPLES = 2**20
"""Samples that are held as floats at a time, where patches are coded one by one."""


def signal_of(model: Model, samples: np.ndarray, metadata: Metadata) -> Signal:
    """Samples, normalised and cut into the codec's patches, with the modality's weights."""
    return _cut(model, samples, model.modality.weights(samples, metadata))


def codes_of(model: Model, signals: Sequence[Any], point: int, request: EncodeRequest) -> tuple[list[Code], list[Grid]]:
    """Symbols and grid of each raw signal. ValueError as for `Model.encode`."""
    row, codec = model.modality, model.codec
    unpacked = [row.unpack(signal) for signal in signals]
    for samples, metadata in unpacked:
        row.check_metadata(metadata, samples.shape[:-1])
    grids = [grid_of(codec, samples.shape[:-1]) for samples, _ in unpacked]
    for grid in grids:
        check_whole(model, grid)
    large = [codec.patches_alone and math.prod(grid.shape) > SLAB_SAMPLES for grid in grids]
    together = [signal_of(model, *each) for each, alone in zip(unpacked, large, strict=True) if not alone]
    found = iter(codec.encode(model.params, together, point, request) if together else [])
    codes = []
    for (samples, metadata), grid, alone in zip(unpacked, grids, large, strict=True):
        code = _in_slabs(model, samples, metadata, grid, point, request) if alone else next(found)
        codes.append(dataclasses.replace(code, metadata=metadata))
    return codes, grids


def _in_slabs(model: Model, samples: np.ndarray, metadata: Metadata, grid: Grid, point: int, request: EncodeRequest) -> Code:
    """The code of a signal whose patches are coded one by one: those of its slabs along the first axis, one after the other."""
    weights = model.modality.weights(samples, metadata)
    parts: list[Code] = []
    slabs = list(_slabs(grid))
    for number, rows in enumerate(slabs):
        if request.progress is not None:
            request.progress("encoding", number, len(slabs))
        signal = _cut(model, samples[rows], None if weights is None else weights[rows])
        parts += model.codec.encode(model.params, [signal], point, dataclasses.replace(request, progress=None))
    return Code({name: np.concatenate([part.streams[name] for part in parts]) for name in model.codec.streams})


def _slabs(grid: Grid) -> Iterator[slice]:
    """Rows of whole patches along the first axis, as many at a time as `SLAB_SAMPLES` allow."""
    per_patch = grid.patch[0] * math.prod(grid.shape[1:])
    step = grid.patch[0] * max(1, SLAB_SAMPLES // per_patch)
    return (slice(start, start + step) for start in range(0, grid.shape[0], step))


def _cut(model: Model, samples: np.ndarray, weights: np.ndarray | None) -> Signal:
    patch = grid_of(model.codec, samples.shape[:-1]).patch
    return to_signal(model.modality.normalise(samples), patch, model.modality.coordinates, weights)

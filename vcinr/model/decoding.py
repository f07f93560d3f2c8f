"""From files to signals: what `Model` does when it decodes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vcinr.bitstream import container
from vcinr.bitstream.container import BitstreamError
from vcinr.codec import Code, num_samples
from vcinr.modalities import Modality
from vcinr.modalities.modality import Metadata
from vcinr.signals.patches import from_values
from vcinr.signals.signal import Grid

if TYPE_CHECKING:
    from vcinr.model.model import Model


def read_each(model: Model, files: Sequence[bytes], max_pixels: int, max_work: int) -> tuple[list[int], list[Code], list[Grid]]:
    """Points, codes and grids of files of one signal each. BitstreamError that names the file where there are several."""
    points, codes, grids = [], [], []
    for i, data in enumerate(files):
        try:
            if (count := len(container.peek(data, max_pixels).shapes)) > 1:
                raise BitstreamError(f"the file holds {count} signals: use Model.decode_together")
            point, (code,), (grid,) = model.read_codes(data, max_pixels, max_work)
        except BitstreamError as error:
            raise error if len(files) == 1 else BitstreamError(f"file {i} of 0 to {len(files) - 1}: {error}") from error
        points.append(point)
        codes.append(code)
        grids.append(grid)
    return points, codes, grids


def with_metadata(modality: Modality, codes: Sequence[Code], frame: container.Frame) -> list[Code]:
    """Codes with the modality's part of what a file says of each signal. BitstreamError where no such signal is."""
    found = [{name: meta[name] for name in modality.meta_types} for meta in frame.metas]
    for metadata, shape in zip(found, frame.shapes, strict=True):
        try:
            modality.check_metadata(metadata, shape)
        except ValueError as error:
            raise BitstreamError(f"the file's metadata are those of no {modality.name}: {error}") from error
    return [dataclasses.replace(code, metadata=metadata) for code, metadata in zip(codes, found, strict=True)]


def values(model: Model, points: Sequence[int], codes: Sequence[Code], grids: Sequence[Grid]) -> list[np.ndarray]:
    """Values of signals in normalised units, float32 [*shape, c]; all of one point in joint batches."""
    whole: list[np.ndarray] = [np.empty(0)] * len(codes)
    for point, chosen in _by_point(points):
        parts = model.codec.synthesise(model.params, point, [codes[i] for i in chosen], [grids[i] for i in chosen])
        for i, part in zip(chosen, parts, strict=True):
            _check_finite(part)
            whole[i] = from_values(part, grids[i])
    return whole


def raw_signals(model: Model, points: Sequence[int], codes: Sequence[Code], grids: Sequence[Grid]) -> list[Any]:
    """Signals as callers hold them."""
    return [model.modality.pack(*each) for each in unpacked_signals(model, points, codes, grids)]


def unpacked_signals(
    model: Model, points: Sequence[int], codes: Sequence[Code], grids: Sequence[Grid]
) -> list[tuple[np.ndarray, Metadata]]:
    """(samples, metadata) of signals; floats, which take several times as much memory, are never held all at once."""
    samples: list[np.ndarray] = [np.empty(0)] * len(codes)
    for point, chosen in _by_point(points):
        own = [grids[i] for i in chosen]
        for number, start, part in model.codec.synthesise_pieces(model.params, point, [codes[i] for i in chosen], own):
            _check_finite(part)
            piece, i = model.denormalise(part), chosen[number]
            if start == 0:
                samples[i] = np.empty((num_samples(grids[i]), *piece.shape[1:]), piece.dtype)
            samples[i][start : start + len(piece)] = piece
    found = []
    for array, code, grid in zip(samples, codes, grids, strict=True):
        patches = array.reshape(grid.num_patches, -1, array.shape[-1])
        found.append((from_values(patches, grid), code.metadata))
    return found


def resampled(
    model: Model,
    data: bytes,
    wish: tuple[float | int | None, Sequence[int] | None, float | int | None],
    max_pixels: int,
    max_work: int,
) -> Any:
    """See `Model.decode_at`. ValueError for a wish that means nothing, BitstreamError as for `Model.decode`."""
    (point,), (code,), (grid,) = read_each(model, [data], max_pixels, max_work)
    row, (scale, shape, rate) = model.modality, wish
    if sum(each is not None for each in wish) != 1:
        raise ValueError("give one of scale, shape and rate")
    if scale is not None:
        if not 0 < scale < math.inf:
            raise ValueError(f"a scale is positive and finite, not {scale}")
        new = tuple(max(1, round(n * scale)) for n in grid.shape)
    else:
        new = tuple(shape) if shape is not None else row.shape_at_rate(code.metadata, grid.shape, rate)
    if len(new) != len(grid.shape) or min(new) < 1:
        raise ValueError(f"the signal's shape is {grid.shape}: give as many axes with at least one sample each, not {new}")
    if math.prod(new) > max(max_pixels, num_samples(grid)):
        raise ValueError(
            f"a grid of shape {new} has more samples than the limit of {max_pixels}; raise max_pixels (--max-pixels)"
        )
    values = model.codec.resample(model.params, point, code, grid, new)
    _check_finite(values)
    return row.pack(model.denormalise(values), row.resampled_metadata(code.metadata, grid.shape, new))


def check_whole(model: Model, grid: Grid) -> None:
    """BitstreamError where fields are of whole signals, and this one is not of the codec's size."""
    if model.codec.continuous and not model.modality.divisible and grid.shape != grid.patch:
        patch, shape = ("×".join(map(str, each)) for each in (grid.patch, grid.shape))
        raise BitstreamError(
            f"this model is for a {model.modality.name} of {patch} samples, not {shape}, and no part of one stands for itself: "
            "resize it, or train a model with this patch"
        )


def at_coordinates(model: Model, data: bytes, coords: np.ndarray, max_pixels: int, max_work: int) -> np.ndarray:
    """See `Model.decode_coordinates`."""
    (point,), (code,), (grid,) = read_each(model, [data], max_pixels, max_work)
    width = model.modality.coordinates((1,) * model.modality.rank).shape[-1]
    if coords.ndim != 2 or not len(coords) or coords.shape[1] != width or not np.isfinite(coords).all():
        raise ValueError(f"coordinates of a {model.modality.name} are finite [n, {width}], not {list(coords.shape)}")
    if len(coords) > max_pixels:
        raise ValueError(f"{len(coords)} coordinates are more than the limit of {max_pixels}; raise max_pixels (--max-pixels)")
    values = model.codec.synthesise_at(model.params, point, code, grid, coords.astype(np.float32))
    _check_finite(values)
    return model.denormalise(values)


def _by_point(points: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Each operating point with the signals of it."""
    return [(point, [i for i, each in enumerate(points) if each == point]) for point in sorted(set(points))]


def _check_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise BitstreamError("the file's symbols decode to values that are not finite: no encoder has written it")

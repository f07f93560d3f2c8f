"""Latitudes and longitudes: the globe's grids, the order of samples, cell areas, points on the unit sphere."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

DEGREES = 360
TOLERANCE = 1e-3
"""Degrees by which a latitude may lie beyond a pole, as rounded ones do."""


def globe_axes(shape: tuple[int, int]) -> tuple[Float32[np.ndarray, "h"], Float32[np.ndarray, "w"]]:
    """Latitudes from north to south and longitudes from 0 eastward of the globe's grid of this shape.

    A grid of w = 2 (h − 1), such as 46 × 90 or 721 × 1440, has rows at both poles; rows of all others are half a step away.
    """
    height, width = shape
    rows = np.arange(height)
    if width == 2 * (height - 1):
        latitudes = 90 - 180 * rows / (height - 1)
    else:
        latitudes = 90 - 180 * (rows + 0.5) / height
    return latitudes.astype(np.float32), (DEGREES * np.arange(width) / width).astype(np.float32)


def sphere_points(positions: Float32[np.ndarray, "n 2"]) -> Float32[np.ndarray, "n 3"]:
    """Points (x, y, z) on the unit sphere of positions (y, x) in [−1, 1] on the whole globe's grid, z towards the north pole.

    The grid extends from pole to pole, so that its first and last rows lie half a step away from them, whatever latitudes a file
    has: no two samples are one point, and grids of any fineness are the same globe.
    """
    latitude, longitude = (positions.astype(np.float64) * (-np.pi / 2, np.pi)).T
    level = np.cos(latitude)
    points = [level * np.cos(longitude + np.pi), level * np.sin(longitude + np.pi), np.sin(latitude)]
    return np.stack(points, axis=-1).astype(np.float32)


def finer_axis(axis: Shaped[np.ndarray, "n"], new: int, limit: float | int = np.inf) -> Shaped[np.ndarray, "m"]:
    """Places of ``new`` cells over the extent of the n cells of an ordered axis, between its own and halfway beyond its ends.

    limit: no place lies beyond ±limit: cells next to a row at a pole share what there is up to it.
    """
    places = axis.astype(np.float64)
    index = np.arange(len(places), dtype=np.float64)
    step = places[[0, -1]] - places[[1, -2]] if len(places) > 1 else np.array([-1.0, 1.0])
    edges = np.clip(places[[0, -1]] + step / 2, -limit, limit)
    keep = [edges[0] != places[0], *[True] * (len(places) - 2), edges[1] != places[-1]][-len(places) :]
    anchors = np.concatenate([[-0.5], index[keep], [len(places) - 0.5]])
    wanted = (np.arange(new) + 0.5) * len(places) / new - 0.5
    found = np.interp(wanted, anchors, np.concatenate([edges[:1], places[keep], edges[1:]]))
    return found.astype(axis.dtype if axis.dtype.kind == "f" else np.float64)


def cell_areas(latitudes: Shaped[np.ndarray, "h"]) -> Float64[np.ndarray, "h"]:
    """Area of a cell at each latitude, as a share of their sum: sines of the bounds halfway between rows, and at the poles.

    On an even grid this is the cosine of the latitude, but for rows at the poles, which are half cells and not nothing.
    """
    order = np.argsort(latitudes)
    ordered = latitudes[order].astype(np.float64)
    if len(ordered) == 1:
        return np.ones(1)
    between = (ordered[1:] + ordered[:-1]) / 2
    first, last = 2 * ordered[0] - between[0], 2 * ordered[-1] - between[-1]
    bounds = np.sin(np.deg2rad(np.clip([first, *between, last], -90, 90)))
    areas = np.empty(len(ordered))
    areas[order] = np.diff(bounds)
    return areas / areas.sum()


def check_axes(latitudes: np.ndarray, longitudes: np.ndarray) -> None:
    """ValueError where these are no latitudes and longitudes in degrees, or one comes twice."""
    for name, axis, limit in (("latitudes", latitudes, 90), ("longitudes", longitudes, 2 * DEGREES)):
        if not np.isfinite(axis).all():
            raise ValueError(f"{name} hold NaN or infinity: give every row and column its place")
        if np.abs(axis).max() > limit + TOLERANCE:
            raise ValueError(f"{name} lie within ±{limit} degrees, not at {axis[np.abs(axis).argmax()]}: convert them to degrees")
        if len(np.unique(axis)) < len(axis):
            raise ValueError(f"{name} come twice: drop the repeated ones")


def is_cyclic(longitudes: Shaped[np.ndarray, "w"]) -> bool:
    """Whether the last longitude is the first one again, once round the globe."""
    turn = abs(float(longitudes[-1]) - float(longitudes[0]))
    return len(longitudes) > 2 and abs(turn - DEGREES) < TOLERANCE


def canonical_order(
    latitudes: Shaped[np.ndarray, "h"], longitudes: Shaped[np.ndarray, "w"], globe: bool
) -> tuple[Int64[np.ndarray, "h"], Int64[np.ndarray, "v"]]:
    """(rows, columns) of a file that make samples: from north to south and from west to east.

    Whole globes begin at the smallest longitude from 0 on, and of a repeated meridian (`is_cyclic`) they have the first alone.
    Other grids begin where they do, also where their longitudes wrap: 350, 355, 0, 5 is in order.
    ValueError for a grid that does not go round the globe where it has to, and for longitudes that come twice.
    """
    rows = np.argsort(-latitudes.astype(np.float64), kind="stable")
    last = len(longitudes) - int(globe and is_cyclic(longitudes))
    degrees = np.round(longitudes[:last].astype(np.float64), 4)
    steps = np.diff(degrees)
    if not globe and (steps > 0).all():
        return rows, np.arange(last)
    if not globe and (steps < 0).all():
        return rows, np.arange(last)[::-1].copy()
    columns = np.argsort(degrees % DEGREES, kind="stable")
    turned = (degrees % DEGREES)[columns]
    gaps = np.diff(turned, append=turned[0] + DEGREES)
    if gaps.min() <= 0:
        raise ValueError("longitudes come twice on the circle: drop the repeated columns, e.g. ds.isel(lon=slice(0, -1))")
    if globe:
        _check_globe(latitudes[rows].astype(np.float64), gaps)
        return rows, columns
    return rows, np.roll(columns, -(int(gaps.argmax()) + 1))


def _check_globe(latitudes: np.ndarray, gaps: np.ndarray) -> None:
    mend = "pass it as a climate_region (--modality climate_region), or fill it up to the whole globe"
    if len(latitudes) < 2 or len(gaps) < 4:
        raise ValueError(f"{len(latitudes)}×{len(gaps)} samples are no grid of the globe: {mend}")
    if gaps.max() > 2 * DEGREES / len(gaps):
        raise ValueError(f"its longitudes leave a gap of {gaps.max():g} degrees, so it does not go round the globe: {mend}")
    between = np.abs(np.diff(latitudes, prepend=90, append=-90)).max()
    if between > 2 * 180 / (len(latitudes) - 1):
        raise ValueError(f"its latitudes leave a gap of {between:g} degrees between the poles, so it is no whole globe: {mend}")


def smooth_fill(values: Float64[np.ndarray, "h w"], missing: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """The values with missing ones filled in from their surroundings: means of 2 × 2, of those again, and so on."""
    if not missing.any():
        return values
    known = ~missing
    height, width = values.shape
    total, count = np.where(known, values, 0.0), known.astype(np.float64)
    if height == 1 and width == 1:
        return total

    def halved(array: np.ndarray) -> np.ndarray:
        padded = np.pad(array, [(0, height % 2), (0, width % 2)])
        return padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2).sum((1, 3))

    sums, counts = halved(total), halved(count)
    coarse = smooth_fill(sums / np.maximum(counts, 1), counts == 0)
    around = np.pad(coarse, 1, mode="edge")
    rows, columns = np.arange(height), np.arange(width)
    near_row, near_column = rows // 2 + 1, columns // 2 + 1
    next_row, next_column = near_row + 2 * (rows % 2) - 1, near_column + 2 * (columns % 2) - 1
    across = 0.75 * around[near_row] + 0.25 * around[next_row]
    filled = 0.75 * across[:, near_column] + 0.25 * across[:, next_column]
    return np.where(known, values, filled)

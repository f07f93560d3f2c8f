"""Coordinates of regular grids."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32


def pixel_grid(shape: tuple[int, ...], start: int = 0, stop: int | None = None) -> Float32[np.ndarray, "n d"]:
    """Half-pixel centres of a regular grid: sample i of m along an axis lies at (2i + 1)/m − 1.

    shape: samples along each axis, e.g. ``(height, width)``.
    start, stop: rows from and to, of all; a part of a large grid takes memory in proportion to itself.
    Returns [prod(shape), len(shape)] inside (−1, 1): rows in row-major order, columns in the order of ``shape`` (y, x).
    Raises ValueError for an empty shape or an axis without samples.
    """
    if not shape or min(shape) < 1:
        raise ValueError(f"a grid needs at least one axis and one sample along each, not shape {tuple(shape)}")
    samples = math.prod(shape)
    index = np.unravel_index(np.arange(start, samples if stop is None else min(stop, samples)), shape)
    return np.stack([((2.0 * i + 1.0) / m - 1.0).astype(np.float32) for i, m in zip(index, shape, strict=True)], axis=-1)

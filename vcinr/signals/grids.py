"""Coordinates of regular grids."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32


def pixel_grid(shape: tuple[int, ...]) -> Float32[np.ndarray, "n d"]:
    """Half-pixel centres of a regular grid: sample i of m along an axis lies at (2i + 1)/m − 1.

    shape: samples along each axis, e.g. ``(height, width)``.
    Returns [prod(shape), len(shape)] inside (−1, 1): rows in row-major order, columns in the order of ``shape`` (y, x).
    Raises ValueError for an empty shape or an axis without samples.
    """
    if not shape or min(shape) < 1:
        raise ValueError(f"a grid needs at least one axis and one sample along each, not shape {tuple(shape)}")
    axes = [((2.0 * np.arange(m) + 1.0) / m - 1.0).astype(np.float32) for m in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape))

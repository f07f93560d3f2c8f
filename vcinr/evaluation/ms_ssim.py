"""Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003)."""

from __future__ import annotations

import numpy as np

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first (the paper's section 3.2)."""
WINDOW, SIGMA = 11, 1.5
SMALLEST_SIDE = WINDOW * 2 ** (len(WEIGHTS) - 1)
"""Of a picture whose coarsest scale still holds a window."""
K1, K2 = 0.01, 0.03


def ms_ssim(one: np.ndarray, other: np.ndarray, peak: float | int) -> float:
    """Mean over channels of the MS-SSIM of two pictures [h, w, c], at most 1; contrasts that are negative count as 0.

    peak: range of the values. ValueError for unequal shapes, or a side under `SMALLEST_SIDE`.
    """
    if one.shape != other.shape or min(one.shape[:2]) < SMALLEST_SIDE:
        raise ValueError(f"MS-SSIM is of two pictures with sides from {SMALLEST_SIDE}, not {one.shape} and {other.shape}")
    x, y = (np.moveaxis(np.asarray(each, np.float64), -1, 0) for each in (one, other))
    result = np.ones(len(x))
    for scale, weight in enumerate(WEIGHTS):
        luminance, contrast = _similarity(x, y, float(peak))
        last = scale + 1 == len(WEIGHTS)
        term = luminance * contrast if last else contrast
        result *= np.maximum(term.mean(axis=(1, 2)), 0.0) ** weight
        if not last:
            x, y = _halved(x), _halved(y)
    return float(result.mean())


def _similarity(x: np.ndarray, y: np.ndarray, peak: float) -> tuple[np.ndarray, np.ndarray]:
    """(luminance, contrast and structure) at every whole window of each channel (Wang et al. 2004, equations 6, 9 and 10)."""
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x, variance_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (variance_x + variance_y + c2)


def _blurred(x: np.ndarray) -> np.ndarray:
    """Gaussian means of whole windows."""
    import scipy.ndimage  # Here, for it takes as long to import as a small picture takes to decode.

    offsets = np.arange(WINDOW) - WINDOW // 2
    kernel = np.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel /= kernel.sum()
    for axis in (1, 2):
        x = scipy.ndimage.correlate1d(x, kernel, axis=axis)
    edge = WINDOW // 2
    return x[:, edge:-edge, edge:-edge]


def _halved(x: np.ndarray) -> np.ndarray:
    """Means of 2 × 2 samples; an odd last row or column is left out."""
    height, width = (n // 2 * 2 for n in x.shape[1:])
    return x[:, :height, :width].reshape(len(x), height // 2, 2, width // 2, 2).mean(axis=(2, 4))

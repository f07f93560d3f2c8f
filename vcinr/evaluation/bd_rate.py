"""Bjøntegaard's measures: one number for the distance between two rate-distortion curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

MIN_POINTS = 4
"""Fewest points of a curve that has a BD measure."""


def bd_rate_percent(reference: Any, test: Any) -> float:
    """Average difference in rate at equal quality, in percent: −20 means that ``test`` needs 20 % fewer bits than ``reference``.

    log10(rate) is interpolated over PSNR and averaged over the qualities that both curves reach: Bjøntegaard, VCEG-M33 (2001),
    but with a monotone piecewise cubic (PCHIP) instead of one polynomial, which overshoots on unevenly spaced points.

    Args:
      reference: (rate, PSNR in dB) pairs, [n, 2] with n ≥ 4, in any order; rates are positive, and quality rises with rate.
      test: the same of the other codec, rates in the same unit.

    Raises:
      ValueError: too few points, quality that does not rise with rate, or no common qualities.
    """
    (rates_r, decibels_r), (rates_t, decibels_t) = _curve(reference, "reference"), _curve(test, "test")
    low, high = max(decibels_r[0], decibels_t[0]), min(decibels_r[-1], decibels_t[-1])
    if not low < high:
        raise ValueError(
            f"curves without common quality have no BD-rate: reference {_span(decibels_r)} dB, test {_span(decibels_t)} dB"
        )
    difference = _mean(decibels_t, rates_t, low, high) - _mean(decibels_r, rates_r, low, high)
    return float(100 * np.expm1(difference * np.log(10)))


def bd_psnr_db(reference: Any, test: Any) -> float:
    """Average difference in quality at equal rate, in dB: positive where ``test`` is better.

    PSNR is interpolated over log10(rate) and averaged over common rates. Arguments and errors as `bd_rate_percent`.
    """
    (rates_r, decibels_r), (rates_t, decibels_t) = _curve(reference, "reference"), _curve(test, "test")
    low, high = max(rates_r[0], rates_t[0]), min(rates_r[-1], rates_t[-1])
    if not low < high:
        raise ValueError(
            f"curves without common rates have no BD-PSNR: reference {_span(10**rates_r)}, test {_span(10**rates_t)}"
        )
    return float(_mean(rates_t, decibels_t, low, high) - _mean(rates_r, decibels_r, low, high))


def psnr_at(points: Any, bpp: float | int) -> float | None:
    """PSNR in dB of a curve at a rate, by a monotone piecewise cubic over log10(rate); None outside the curve's rates.

    Args:
      points: (rate, PSNR in dB) pairs, [n, 2] with n ≥ 2; rates are positive and distinct.
      bpp: the rate, in the unit of the curve's rates, positive.

    Raises:
      ValueError: fewer points, or rates that are not positive.
    """
    rates, decibels = _sorted(points, "curve", 2)
    if not bpp > 0:
        raise ValueError(f"a rate is positive, not {bpp}")
    rate = np.log10(bpp)
    if not rates[0] <= rate <= rates[-1]:
        return None
    return float(PchipInterpolator(rates, decibels)(rate))


def curve_of(rows: Sequence[Any], rate: str = "bpp_file", quality: str = "psnr_db") -> np.ndarray:
    """(rate, quality) pairs [n, 2] of measured rows, by rising rate. ValueError where a row lacks that rate."""
    for row in rows:
        if row.get(rate) is None:
            raise ValueError(f"codec {row['codec']} has no {rate}: compare it at bpp_file or bpp_payload")
    return np.array(sorted((row[rate], row[quality]) for row in rows), np.float64).reshape(-1, 2)


def _sorted(points: Any, name: str, min_points: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"{name}: a curve is (rate, PSNR) pairs [n, 2], not an array of shape {list(points.shape)}")
    if len(points) < min_points:
        raise ValueError(f"{name}: needs at least {min_points} points, has {len(points)}: measure more operating points")
    if not np.isfinite(points).all() or not (points[:, 0] > 0).all():
        raise ValueError(f"{name}: rates must be positive and all numbers finite")
    points = points[np.argsort(points[:, 0], kind="stable")]
    if not (np.diff(points[:, 0]) > 0).all():
        raise ValueError(f"{name}: two points have the same rate: keep the better one")
    return np.log10(points[:, 0]), points[:, 1]


def _curve(points: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    rates, decibels = _sorted(points, name, MIN_POINTS)
    if not (np.diff(decibels) > 0).all():
        raise ValueError(f"{name}: quality does not rise with rate everywhere: drop the points that others beat")
    return rates, decibels


def _mean(x: np.ndarray, y: np.ndarray, low: float, high: float) -> float:
    return float(PchipInterpolator(x, y).integrate(low, high)) / (high - low)


def _span(values: np.ndarray) -> str:
    return f"{values[0]:.2f} to {values[-1]:.2f}"

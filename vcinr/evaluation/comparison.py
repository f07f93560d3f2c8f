"""Compares codecs signal by signal at equal rate.

Two means over signals at equal mean rate can mislead: with one λ for all signals, bits go where they improve quality most; with
one quality for all signals, most bits go to hard signals, and the same codec's mean PSNR is lower by a decibel or more. So each
signal is compared at its own rate with the other codec's rate-distortion curve of the same signal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vcinr.evaluation.bd_rate import MIN_POINTS, bd_rate_percent, psnr_at

Rows = Sequence[Mapping[str, Any]]

MIN_SHARE = 0.95
"""Smallest share of signals that must be comparable at a point of `curve_beside`."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Differences between two codecs, one value per signal that can be compared.

    values: differences in dB or percent, float64 [n].
    indices: index of the signal of each value, int [n].
    num_signals: number of all signals, those that cannot be compared included.
    """

    values: np.ndarray
    indices: np.ndarray
    num_signals: int

    @property
    def mean(self) -> float | None:
        """Mean over the compared signals; None where there are none."""
        return float(np.mean(self.values)) if len(self.values) else None


def has_signals(rows: Rows) -> bool:
    """Whether all rows hold the values of each signal; older records do not."""
    return all("signals" in row for row in rows)


def signal_curves(rows: Rows, rate: str) -> list[np.ndarray]:
    """The (rate, PSNR in dB) curve of each signal, [n, 2] by rising rate, over the operating points of one codec.

    Points are left out where another point has no more rate and no less quality; quality then rises with rate.

    Args:
      rows: measured points of one codec, with ``signals``.
      rate: ``bpp_file`` or ``bpp_payload``; or ``kbps``, which of one signal is ``bpp_file`` in another unit.

    Raises:
      ValueError: rows without values per signal, or rows of different numbers of signals.
    """
    if not rows or not has_signals(rows):
        raise ValueError("these points hold no values per signal: measure them again with python -m experiments.evaluate")
    rate = "bpp_file" if rate == "kbps" else rate
    counts = {len(row["signals"][rate]) for row in rows} | {len(row["signals"]["psnr_db"]) for row in rows}
    if len(counts) > 1:
        raise ValueError(f"points of {sorted(counts)} signals are not of one set: compare points of equal sets")
    rates = np.array([row["signals"][rate] for row in rows], np.float64).T
    decibels = np.array([row["signals"]["psnr_db"] for row in rows], np.float64).T
    return [_front(np.stack(pair, axis=1)) for pair in zip(rates, decibels, strict=True)]


def gains_db(row: Mapping[str, Any], reference: Rows, rate: str) -> Difference:
    """Gain in dB of one measured point over another codec, per signal, at that signal's own rate.

    The other codec's curve of each signal is interpolated by a monotone piecewise cubic over log10(rate). It is never
    extrapolated: signals outside its rates are left out.

    Args:
      row: the measured point.
      reference: all points of the other codec on the same signals.
      rate: ``bpp_file`` or ``bpp_payload``.

    Raises:
      ValueError: as `signal_curves`, and for different numbers of signals.
    """
    own, curves = signal_curves([row], rate), signal_curves(reference, rate)
    _check_equal(own, curves)
    there = [psnr_at(curve, point[0, 0]) if len(curve) > 1 else None for point, curve in zip(own, curves, strict=True)]
    indices = [i for i, decibels in enumerate(there) if decibels is not None]
    return Difference(np.array([own[i][0, 1] - there[i] for i in indices]), np.array(indices, int), len(own))


def bd_rates_percent(reference: Rows, test: Rows, rate: str) -> Difference:
    """BD-rate in percent of each signal (`vcinr.evaluation.bd_rate.bd_rate_percent`), from all points of both codecs.

    Signals are left out where the two curves (see `signal_curves`) have no common quality, or one has fewer than four points.
    Errors as `gains_db`.
    """
    references, tests = signal_curves(reference, rate), signal_curves(test, rate)
    _check_equal(tests, references)
    values, indices = [], []
    for i, (one, other) in enumerate(zip(references, tests, strict=True)):
        common = max(one[0, 1], other[0, 1]) < min(one[-1, 1], other[-1, 1])
        if common and min(len(one), len(other)) >= MIN_POINTS:
            values.append(bd_rate_percent(one, other))
            indices.append(i)
    return Difference(np.array(values), np.array(indices, int), len(tests))


def curve_beside(rows: Rows, reference: Rows, rate: str) -> list[tuple[float, float]]:
    """A curve of the other codec to draw beside ours: at each point of ours, (our mean rate, our mean PSNR − mean of `gains_db`).

    The vertical distance between the two drawn curves is thus the mean over signals of the difference at equal rate. Points where
    less than `MIN_SHARE` of the signals can be compared are left out. Errors as `gains_db`.

    Args:
      rows: our points.
      reference: all points of the other codec on the same signals.
      rate: ``bpp_file`` or ``bpp_payload``.
    """
    points = []
    for row in sorted(rows, key=lambda row: row[rate]):
        gains = gains_db(row, reference, rate)
        if gains.mean is not None and len(gains.values) >= MIN_SHARE * gains.num_signals:
            points.append((float(row[rate]), float(row["psnr_db"]) - gains.mean))
    return points


def _front(points: np.ndarray) -> np.ndarray:
    kept: list[np.ndarray] = []
    # By rising rate; at equal rates the best quality comes first, so that the others are dropped.
    for point in points[np.lexsort((-points[:, 1], points[:, 0]))]:
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return np.array(kept)


def _check_equal(ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} signals cannot be compared with {len(theirs)}: measure both codecs on one set")

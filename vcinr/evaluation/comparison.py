"""Codecs compared signal by signal at equal rate: what a mean over signals at one setting per codec cannot tell.

Two means at equal mean rate need not be of the same kind: at one λ for all signals, bits go where they buy most; at one
quality for all signals, hard signals take most of them, and the same codec's mean PSNR falls by a decibel and more. So each
signal is compared with the other codec's own rate-distortion curve of that very signal, at that signal's rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vcinr.evaluation.bd_rate import MIN_POINTS, bd_rate_percent, psnr_at

Rows = Sequence[Mapping[str, Any]]

MIN_SHARE = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """What was compared: one value per signal for which both codecs have one, and how many signals there are in all.

    values: [n] float64, in dB or percent.   indices: [n] int, the signals that they are of.   num_signals: n and those left out.
    """

    values: np.ndarray
    indices: np.ndarray
    num_signals: int

    @property
    def mean(self) -> float | None:
        """Over the signals compared; None where there are none."""
        return float(np.mean(self.values)) if len(self.values) else None


def has_signals(rows: Rows) -> bool:
    """Whether all rows hold the values of each signal; records from before these were kept do not."""
    return all("signals" in row for row in rows)


def signal_curves(rows: Rows, rate: str) -> list[np.ndarray]:
    """The (rate, PSNR in dB) curve of each signal, [n, 2] by rising rate, over the operating points of one codec.

    Points that another one beats, with no more rate and no less quality, are left out: nobody would choose them, and what is left
    rises.   rows: measured points with ``signals``.   rate: ``bpp_file`` or ``bpp_payload``.
    Raises ValueError for rows without values per signal, or of different sets of signals.
    """
    if not rows or not has_signals(rows):
        raise ValueError("these points hold no values per signal: measure them again with python -m experiments.evaluate")
    counts = {len(row["signals"][rate]) for row in rows} | {len(row["signals"]["psnr_db"]) for row in rows}
    if len(counts) > 1:
        raise ValueError(f"points of {sorted(counts)} signals are not of one set: compare points of equal sets")
    rates = np.array([row["signals"][rate] for row in rows], np.float64).T
    decibels = np.array([row["signals"]["psnr_db"] for row in rows], np.float64).T
    return [_front(np.stack(pair, axis=1)) for pair in zip(rates, decibels, strict=True)]


def gains_db(row: Mapping[str, Any], reference: Rows, rate: str) -> Difference:
    """How far one measured point lies above another codec, per signal at that signal's own rate.

    row: the point.   reference: all points of the other codec on the same signals; its curve of each signal is interpolated by a
    monotone piecewise cubic over log10(rate) and never extrapolated, so a signal outside its rates is left out.
    Raises ValueError as `signal_curves`, and where the two are of different numbers of signals.
    """
    own, curves = signal_curves([row], rate), signal_curves(reference, rate)
    _check_equal(own, curves)
    there = [psnr_at(curve, point[0, 0]) if len(curve) > 1 else None for point, curve in zip(own, curves, strict=True)]
    indices = [i for i, decibels in enumerate(there) if decibels is not None]
    return Difference(np.array([own[i][0, 1] - there[i] for i in indices]), np.array(indices, int), len(own))


def bd_rates_percent(reference: Rows, test: Rows, rate: str) -> Difference:
    """`vcinr.evaluation.bd_rate.bd_rate_percent` of each signal. Arguments and errors as `gains_db`, but for all points of both.

    Left out are signals without common quality, or with fewer than four points that no other beats.
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
    """The other codec at the rates of ours, signal by signal: (our mean rate, our mean PSNR less the mean gain), to be drawn.

    So the vertical distance between the two curves is the mean of the signals' differences at equal rate. Points of ours at which
    less than `MIN_SHARE` of the signals can be compared are left out. Arguments and errors as `bd_rates_percent`.
    """
    points = []
    for row in sorted(rows, key=lambda row: row[rate]):
        gains = gains_db(row, reference, rate)
        if gains.mean is not None and len(gains.values) >= MIN_SHARE * gains.num_signals:
            points.append((float(row[rate]), float(row["psnr_db"]) - gains.mean))
    return points


def _front(points: np.ndarray) -> np.ndarray:
    kept: list[np.ndarray] = []
    # By rising rate; of equal rates the best first, so that the others fall out.
    for point in points[np.lexsort((-points[:, 1], points[:, 0]))]:
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return np.array(kept)


def _check_equal(ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} signals cannot be compared with {len(theirs)}: measure both codecs on one set")

"""Quality of decoded signals: squared error, PSNR, and their means over a set of signals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_squared_error(
    original: np.ndarray,
    decoded: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    lowest: float | int = 0.0,
    peak: float | int | None = None,
) -> float:
    """Weighted mean of the squared error of one signal, over samples and channels; peak 1.

    Args:
      original: integers, which ``lowest`` and ``peak`` map to [0, 1]; or floats in units where values lie in [0, 1]. Floats are
        neither clamped nor rounded here.
      decoded: the same; equal shape.
      weight: one weight per sample, in the shape of the leading axes of ``original``; not negative, not all 0. None: equal.
      lowest: the integer that maps to 0.
      peak: ``lowest`` + ``peak`` maps to 1; without it integers must be uint8, and it is 255.

    Raises:
      ValueError: unequal shapes, no samples, integers other than uint8 without ``peak``, NaN or infinity, or invalid weights.
    """
    original, decoded = np.asarray(original), np.asarray(decoded)
    if original.shape != decoded.shape:
        raise ValueError(f"signals of different shapes have no squared error: {original.shape} and {decoded.shape}")
    if original.size == 0:
        raise ValueError("an empty signal has no squared error: drop it from the set")
    if original.dtype == decoded.dtype and np.issubdtype(original.dtype, np.integer):
        _check_integers(original, peak)
        # Integer differences are exact, so that a lossless signal has an error of exactly 0.
        squared = (original.astype(np.int64) - decoded.astype(np.int64)).astype(np.float64) ** 2 / float(peak or 255) ** 2
    else:
        squared = (_unit(original, lowest, peak) - _unit(decoded, lowest, peak)) ** 2
    if not np.isfinite(squared).all():
        raise ValueError("squared error is not finite: the decoded signal holds NaN or infinity")
    if weight is None:
        return float(squared.mean())
    weight = np.asarray(weight, np.float64)
    if weight.shape != squared.shape[: weight.ndim]:
        raise ValueError(f"weight {weight.shape} must have the shape of the leading axes of the signal {squared.shape}")
    if not (np.isfinite(weight).all() and weight.min() >= 0 and weight.sum() > 0):
        raise ValueError("weights must be finite, not negative and not all zero")
    per_sample = squared.reshape((*weight.shape, -1)).mean(axis=-1)
    return float((weight * per_sample).sum() / weight.sum())


def psnr_db(mse: float | int | np.ndarray, peak: float | int = 1.0) -> float | np.ndarray:
    """Peak signal-to-noise ratio, 10·log10(peak² / mse), in decibels.

    mse: mean squared error, of any shape, at least 0; 0 gives infinity.
    peak: range of the values that the error was measured on, positive.
    """
    mse = np.asarray(mse, np.float64)
    if not (mse >= 0).all():
        raise ValueError(f"a mean squared error is at least 0, not {mse.min()}")
    if not peak > 0:
        raise ValueError(f"the peak of PSNR is positive, not {peak}")
    with np.errstate(divide="ignore"):
        decibels = 10 * np.log10(peak**2 / mse)
    return float(decibels) if decibels.ndim == 0 else decibels


def lossless_psnr_db(num_values: int, peak: float | int = 255) -> float:
    """The finite PSNR that stands for a lossless signal in means: that of one value wrong by one step. 83.0 dB for 32×32×3.

    No lossy signal of this size has a higher PSNR. (Infinity would hide all other signals of a mean, and JSON has none.)

    num_values: samples × channels.
    peak: largest raw value less the lowest.
    """
    return psnr_db(1 / (float(peak) ** 2 * num_values))


def signal_psnr_db(mses: Sequence[float], sizes: Sequence[int], peak: float | int = 255) -> list[float]:
    """PSNR of each signal, at most `lossless_psnr_db` of its size. Arguments as `summarise`."""
    return [min(psnr_db(mse), lossless_psnr_db(size, peak)) for mse, size in zip(mses, sizes, strict=True)]


def summarise(mses: Sequence[float], sizes: Sequence[int], peak: float | int = 255) -> dict[str, float | int]:
    """Means over a set of signals.

    Args:
      mses: mean squared error of each signal, peak 1; at least one.
      sizes: values (samples × channels) of each signal.
      peak: largest raw value less the lowest.

    Returns:
      ``psnr_db``: mean of the signals' PSNRs, each at most `lossless_psnr_db` of its size.
      ``psnr_of_mean_mse_db``: PSNR of the unweighted mean of the errors, at most `lossless_psnr_db` of all signals together.
      ``num_lossless``: number of signals without any error.
    """
    if not len(mses) or len(mses) != len(sizes):
        raise ValueError(f"quality needs as many sizes as errors and at least one signal, not {len(mses)} and {len(sizes)}")
    return {
        "psnr_db": float(np.mean(signal_psnr_db(mses, sizes, peak))),
        "psnr_of_mean_mse_db": float(min(psnr_db(np.mean(mses)), lossless_psnr_db(sum(sizes), peak))),
        "num_lossless": int(sum(mse == 0 for mse in mses)),
    }


def _unit(values: np.ndarray, lowest: float | int, peak: float | int | None) -> np.ndarray:
    if np.issubdtype(values.dtype, np.floating):
        return values.astype(np.float64)
    _check_integers(values, peak)
    return (values.astype(np.float64) - lowest) / (peak or 255.0)


def _check_integers(values: np.ndarray, peak: float | int | None) -> None:
    if not np.issubdtype(values.dtype, np.integer) or (peak is None and values.dtype != np.uint8):
        raise ValueError(
            f"quality is taken of uint8 or of floats in [0, 1], not of {values.dtype}: convert first, or give a peak"
        )

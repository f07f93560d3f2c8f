"""Rate and quality of a model on a set of signals, measured on files that were written and decoded again."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.evaluation.metrics import signal_psnr_db, summarise

Progress = Callable[[str, int, int], None]
"""Called with a description of the current step, steps done and steps in total."""

MAX_ROUNDING_DIFFERENCES = 1e-3
"""Largest share of 8-bit values that may differ, by one step, between container and files; of finer steps more in proportion.
A field's floats depend in their last bits on the rest of the batch, so values halfway between two steps may round either way."""

NO_LIMIT = 2**63
"""No limit on decoding: the files come from this process."""
POINT_STEPS = 100
"""Steps of progress per operating point."""


class MeasurementError(RuntimeError):
    """Files decode to something that contradicts the originals or the container, so no measured number would be valid."""


def measure(
    model: Any,
    signals: Sequence[Any] | np.ndarray,
    dataset: str,
    split: str,
    points: Sequence[int] | None = None,
    progress: Progress | None = None,
    workdir: str | os.PathLike | None = None,
) -> list[dict[str, Any]]:
    """Measures operating points of a model; every number comes from files that were decoded again.

    Args:
      model: a `vcinr.model.model.Model`.
      signals: raw signals of the model's modality, e.g. uint8 [h, w, 3] each; they and the decoded signals are held in memory.
      dataset: name, for the rows.
      split: name, for the rows.
      points: indices into ``model.points``; by default all.
      progress: called at every step of encoding, and after each of the three steps that follow.
      workdir: folder for the checkpoints of codecs that fit for long, so that an interrupted measurement resumes, and operating
        points share equal fits; None for no checkpoints.

    Returns:
      One row per operating point.
        ``file_bytes``, ``payload_bytes``: means over signals, with one file per signal.
        ``bpp_file``: bits of each signal's file per sample (pixel), averaged over signals.
        ``bpp_payload``: the same of the coded symbols alone.
        ``bpp_estimated``: the same of the symbols' code lengths in the tables.
        ``bpp_modelled``: the same of their code lengths in the float entropy model behind the tables, if the codec has one.
        ``bpp_container``: bits of one container of all signals, per sample of all signals.
        ``psnr_db``, ``psnr_of_mean_mse_db``, ``num_lossless``: of whole signals, clamped and rounded to raw values; see
        `vcinr.evaluation.metrics.summarise`.
        ``psnr_float_db``: mean PSNR of the decoded floats, neither clamped nor rounded.
        ``model_bytes``: size of the model's files; 0 where decoding needs none.
        the modality's own measures of quality and units of rate (see `further_measures`), such as ``snr_db`` and ``kbps``.
        ``container_differences``: number of values that differ, by rounding, between container and files.
        ``name``, ``lambda``, ``fingerprint``: of the operating point, where it has them.
        ``signals``: ``bpp_file``, ``bpp_payload`` (5 decimals) and ``psnr_db`` (3 decimals) of each signal, in order.

    Raises:
      ValueError: no signals, a signal of another modality, or an unknown operating point.
      MeasurementError: a decoded signal has another shape or type, or the container decodes to other signals than the files.
    """
    if len(signals) == 0:
        raise ValueError(f"{dataset} {split} holds no signals: there is nothing to measure")
    signals = list(signals)
    unpacked = [model.modality.unpack(signal) for signal in signals]
    chosen = range(len(model.points)) if points is None else points
    for point in chosen:
        if not 0 <= point < len(model.points):
            raise ValueError(f"point {point} does not exist: this model has points 0 to {len(model.points) - 1}")
    rows = []
    for done, point in enumerate(chosen):

        def report(what: str, step: int, point: int = point, done: int = done) -> None:
            if progress is not None:
                progress(f"point {point}: {what}", POINT_STEPS * done + step, POINT_STEPS * len(chosen))

        where = None if workdir is None else Path(workdir)
        rows.append(_measure_point(model, signals, unpacked, dataset, split, point, report, where))
    return rows


def _measure_point(
    model: Any,
    signals: list[Any],
    unpacked: list[tuple[np.ndarray, Mapping[str, Any]]],
    dataset: str,
    split: str,
    point: int,
    report: Callable[[str, int], None],
    workdir: Path | None,
) -> dict[str, Any]:
    encoded = POINT_STEPS - 3

    def encoding(what: str, done: int, total: int) -> None:
        report(what, encoded * done // max(total, 1))

    modality, samples = model.modality, [each for each, _ in unpacked]
    weights = [modality.weights(*each) for each in unpacked]
    files = model.encode_batch(signals, point=point, workdir=workdir, progress=encoding)
    report("files written", encoded)
    # Limits protect from hostile files; these files were written above.
    read = [model.read_codes(data, max_pixels=NO_LIMIT, max_work=NO_LIMIT) for data in files]
    codes, grids = [code for _, (code,), _ in read], [grid for _, _, (grid,) in read]
    (read_as,) = {number for number, _, _ in read}
    floats = model.values_of_codes(read_as, codes, grids)
    decoded = [model.denormalise(values) for values in floats]
    _check_shapes(samples, decoded, "files")
    report("files decoded", encoded + 1)
    container = model.write_codes(read_as, codes, grids)
    unpacked_again = model.decode_samples_together(container, max_pixels=NO_LIMIT, max_work=NO_LIMIT)
    differences = _count_differences(decoded, [each for each, _ in unpacked_again], modality.peak)
    together = [modality.pack(*each) for each in unpacked_again]
    report("container written and decoded", encoded + 2)
    float_mses = [modality.squared_error(*each) for each in zip(samples, floats, weights, strict=True)]
    payload_bytes = [model.payload_bytes(data) for data in files]
    estimated_bits = model.bits_of_codes(read_as, codes, grids)
    modelled_bits = model.codec.modelled_bits(model.params, read_as, codes)
    report("rates and floats measured", encoded + 3)

    mses = [modality.squared_error(*each) for each in zip(samples, decoded, weights, strict=True)]
    row = rate_quality_row(
        codec=model.codec.name,
        dataset=dataset,
        split=split,
        point=point,
        samples=samples,
        peak=modality.peak,
        file_bytes=[len(data) for data in files],
        payload_bytes=payload_bytes,
        mses=mses,
        float_mses=float_mses,
        container_bytes=len(container),
        estimated_bits=estimated_bits,
        model_bytes=int(model.num_bytes) if model.codec.needs_model else 0,
    )
    described = model.points[point]
    extras = {key: described[key] for key in ("name", "lambda", "fingerprint") if described.get(key) is not None}
    if modelled_bits is not None:
        counts = [math.prod(each.shape[:-1]) for each in samples]
        extras["bpp_modelled"] = float(np.mean(np.array(modelled_bits) / counts))
    further = further_measures(modality, signals, together, [len(data) for data in files])
    return row | extras | further | {"container_differences": differences}


def further_measures(
    modality: Any, signals: Sequence[Any], decoded: Sequence[Any], file_bytes: Sequence[int]
) -> dict[str, float | None]:
    """Means over signals of the modality's own measures of quality but PSNR, and of its own units of rate; None: not finite."""
    qualities = [modality.metrics(*pair) for pair in zip(signals, decoded, strict=True)]
    rates = [
        {name: 8 * size / unit for name, unit in modality.rate_units(signal).items()}
        for signal, size in zip(signals, file_bytes, strict=True)
    ]
    found = [{**quality, **rate} for quality, rate in zip(qualities, rates, strict=True)]
    # A measure that some signals have not, such as small pictures, is one of none.
    names = [name for name in found[0] if name != "psnr_db" and all(name in each for each in found)]
    means = {name: float(np.mean([each[name] for each in found])) for name in names}
    return {name: mean if np.isfinite(mean) else None for name, mean in means.items()}


def rate_quality_row(
    *,
    codec: str,
    dataset: str,
    split: str,
    point: int,
    samples: Sequence[np.ndarray],
    file_bytes: Sequence[int],
    payload_bytes: Sequence[int],
    mses: Sequence[float],
    float_mses: Sequence[float],
    container_bytes: int | None,
    estimated_bits: Sequence[float] | None,
    model_bytes: int,
    peak: float | int = 255,
) -> dict[str, Any]:
    """The row of one operating point of any codec, learned or classical; sequences hold one entry per signal.

    Args:
      codec: name, for the row.
      dataset: name, for the row.
      split: name, for the row.
      point: index of the operating point.
      samples: raw samples, [*shape, channels].
      file_bytes: size of each file.
      payload_bytes: size of each file's coded symbols.
      mses: mean squared error of raw values, peak 1.
      float_mses: mean squared error of the decoded floats, peak 1.
      container_bytes: size of one file with all signals; None where the codec has no such file.
      estimated_bits: code length by the entropy model; None where the codec has no such estimate.
      model_bytes: size of the model.
      peak: largest raw value less the lowest.
    """
    counts = np.array([math.prod(each.shape[:-1]) for each in samples], np.float64)
    sizes = [each.size for each in samples]
    bpp_file, bpp_payload = (8 * np.asarray(found) / counts for found in (file_bytes, payload_bytes))
    return {
        "codec": codec,
        "dataset": dataset,
        "split": split,
        "num_signals": len(samples),
        "point": int(point),
        "file_bytes": float(np.mean(file_bytes)),
        "payload_bytes": float(np.mean(payload_bytes)),
        "bpp_file": float(np.mean(bpp_file)),
        "bpp_container": None if container_bytes is None else float(8 * container_bytes / counts.sum()),
        "bpp_payload": float(np.mean(bpp_payload)),
        "bpp_estimated": None if estimated_bits is None else float(np.mean(np.asarray(estimated_bits) / counts)),
        **summarise(mses, sizes, peak),
        "psnr_float_db": summarise(float_mses, sizes, peak)["psnr_db"],
        "model_bytes": model_bytes,
        "signals": {
            "bpp_file": [round(float(bpp), 5) for bpp in bpp_file],
            "bpp_payload": [round(float(bpp), 5) for bpp in bpp_payload],
            "psnr_db": [round(float(decibels), 3) for decibels in signal_psnr_db(mses, sizes, peak)],
        },
    }


def rows_by_codec(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows grouped by ``label``, or ``codec`` without one, in order of first occurrence; each group by rising ``bpp_file``."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row.get("label", row["codec"]), []).append(row)
    return {codec: sorted(points, key=lambda row: (row["bpp_file"], row["point"])) for codec, points in grouped.items()}


def _check_shapes(samples: Sequence[np.ndarray], decoded: Sequence[np.ndarray], source: str) -> None:
    if len(samples) != len(decoded):
        raise MeasurementError(f"{source} decode to {len(decoded)} signals, {len(samples)} were encoded")
    for index, (original, values) in enumerate(zip(samples, decoded, strict=True)):
        values = np.asarray(values)
        if values.shape != original.shape or values.dtype != original.dtype:
            was = f"{original.dtype} {list(original.shape)}"
            raise MeasurementError(f"{source}: signal {index} was {was} and decodes to {values.dtype} {list(values.shape)}")


def _count_differences(decoded: Sequence[np.ndarray], together: Sequence[np.ndarray], peak: float | int) -> int:
    _check_shapes(decoded, together, "the container")
    differences = 0
    for index, (alone, shared) in enumerate(zip(decoded, together, strict=True)):
        if alone.dtype.kind == "f":
            # As whole steps, of which `peak` fill their range; they are not rounded, so less than one is no difference.
            gap = np.floor(peak * np.abs(np.float64(alone) - np.float64(shared))).astype(np.int64)
        else:
            gap = np.abs(alone.astype(np.int64) - np.asarray(shared).astype(np.int64))
        if gap.max() > 1:
            raise MeasurementError(
                f"signal {index} decodes otherwise from the container than from its own file: values differ by {gap.max()} steps"
            )
        differences += int(gap.sum())
    # The finer the steps, the more of them lie within the noise of floats.
    if differences > min(1.0, MAX_ROUNDING_DIFFERENCES * max(1.0, peak / 255)) * sum(alone.size for alone in decoded):
        raise MeasurementError(
            f"{differences} values decode otherwise from the container than from the files: more than rounding explains"
        )
    return differences

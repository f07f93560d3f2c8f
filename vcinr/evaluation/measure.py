"""Rate and quality of a model on a set of signals, from files that were written and read back."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.evaluation.metrics import signal_psnr_db, summarise

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""

# A field's floats depend in their last bits on what else is in the batch, so a value that falls on the edge between two
# 8-bit steps may round either way in a container and in a file of its own.
MAX_ROUNDING_DIFFERENCES = 1e-3

NO_LIMIT = 2**63
POINT_STEPS = 100


class MeasurementError(RuntimeError):
    """What the bytes decode to contradicts itself, so that no number measured from them means anything."""


def measure(
    model: Any,
    signals: Sequence[Any] | np.ndarray,
    dataset: str,
    split: str,
    points: Sequence[int] | None = None,
    progress: Progress | None = None,
    workdir: str | os.PathLike | None = None,
) -> list[dict[str, Any]]:
    """Measures operating points of a model; every number comes from bytes that were decoded.

    model: a `vcinr.model.model.Model`. signals: raw, e.g. uint8 [h, w, 3] each; held in memory together
        with what they decode to.
    dataset, split: names, for the rows. points: indices into ``model.points``, all of them by default.
    progress: called with every step of encoding and after each of the three that follow; a point counts `POINT_STEPS`.
    workdir: where a codec that optimises for long keeps what it has reached, so that an interrupted measurement goes on, and
        points share the fits that they have in common; None for nowhere.

    Returns one row a point. ``file_bytes``, ``payload_bytes``: means per signal, of one file a signal. ``bpp_file``,
    ``bpp_payload`` (coded symbols only) and ``bpp_estimated`` (what the tables say that these symbols cost): each
    signal's bits over its samples (pixels), then averaged over signals. ``bpp_container``: all signals in one file, its bits over
    the samples of all. ``psnr_db`` and ``psnr_of_mean_mse_db``: after clamping and rounding to raw values, whole signals (see
    `vcinr.evaluation.metrics.summarise`). ``psnr_float_db``: mean PSNR of the decoded floats, neither clamped nor rounded.
    ``bpp_modelled``: as ``bpp_estimated``, of the float entropy model that the tables were made from, where a codec has one.
    ``model_bytes``: of the model's files, 0 where decoding needs none. ``container_differences``: values of the container that
    rounded otherwise than in the files. ``name``, ``lambda`` and ``fingerprint`` of the point are passed on where there.
    ``signals``: ``bpp_file``, ``bpp_payload`` and ``psnr_db`` of each signal, in order, rounded to 5, 5 and 3 decimals.

    Raises ValueError for an empty set, what is no signal of the model's modality or an unknown point; `MeasurementError` where a
    decoded signal has the wrong shape, or the container decodes to other signals than the files.
    """
    if len(signals) == 0:
        raise ValueError(f"{dataset} {split} holds no signals: there is nothing to measure")
    signals = list(signals)
    samples = [model.modality.unpack(signal)[0] for signal in signals]
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
        rows.append(_measure_point(model, signals, samples, dataset, split, point, report, where))
    return rows


def _measure_point(
    model: Any,
    signals: list[Any],
    samples: list[np.ndarray],
    dataset: str,
    split: str,
    point: int,
    report: Callable[[str, int], None],
    workdir: Path | None,
) -> dict[str, Any]:
    encoded = POINT_STEPS - 3

    def encoding(what: str, done: int, total: int) -> None:
        report(what, encoded * done // max(total, 1))

    files = model.encode_batch(signals, point=point, workdir=workdir, progress=encoding)
    report("files written", encoded)
    # What we have encoded ourselves needs no protection: the limit is against hostile files.
    floats = model.decode_values_batch(files, max_pixels=NO_LIMIT, max_work=NO_LIMIT)
    decoded = [model.denormalise(values) for values in floats]
    _check_shapes(samples, decoded, "files")
    report("files decoded", encoded + 1)
    container = model.join(files, max_pixels=NO_LIMIT, max_work=NO_LIMIT)
    together = model.decode_together(container, max_pixels=NO_LIMIT, max_work=NO_LIMIT)
    differences = _count_differences(decoded, [model.modality.unpack(signal)[0] for signal in together])
    report("container written and decoded", encoded + 2)
    float_mses = [model.modality.squared_error(*pair) for pair in zip(samples, floats, strict=True)]
    payload_bytes = [model.payload_bytes(data) for data in files]
    estimated_bits = [model.estimated_bits(data) for data in files]
    modelled_bits = model.modelled_bits(files)
    report("rates and floats measured", encoded + 3)

    mses = [model.modality.squared_error(*pair) for pair in zip(samples, decoded, strict=True)]
    row = rate_quality_row(
        codec=model.codec.name,
        dataset=dataset,
        split=split,
        point=point,
        samples=samples,
        peak=model.modality.peak,
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
    return row | extras | {"container_differences": differences}


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
    """One operating point of any codec, learned or classical, from its counts on each signal.

    Sequences hold one entry per signal: samples raw [*shape, channels], errors of peak 1. peak: steps of a raw value. None for
    the container or the estimate where a codec has no such thing: the row then holds None.
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
    """Rows by their ``label``, or else their ``codec``, in order of first occurrence; each group by rising `bpp_file`."""
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


def _count_differences(decoded: Sequence[np.ndarray], together: Sequence[np.ndarray]) -> int:
    _check_shapes(decoded, together, "the container")
    differences = 0
    for index, (alone, shared) in enumerate(zip(decoded, together, strict=True)):
        gap = np.abs(alone.astype(np.int64) - np.asarray(shared).astype(np.int64))
        if gap.max() > 1:
            raise MeasurementError(
                f"signal {index} decodes otherwise from the container than from its own file, by up to {gap.max()} steps"
            )
        differences += int(gap.sum())
    if differences > MAX_ROUNDING_DIFFERENCES * sum(alone.size for alone in decoded):
        raise MeasurementError(
            f"{differences} values decode otherwise from the container than from the files: more than rounding explains"
        )
    return differences

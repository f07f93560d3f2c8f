"""Rate and quality of a model on a set of signals, from files that were written and read back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.evaluation.metrics import mean_squared_error, signal_psnr_db, summarise

Pictures = Sequence[np.ndarray] | np.ndarray
"""Pictures uint8 [h, w, 3] of any sizes, or an array of equal ones [n, h, w, 3]."""

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
    pictures: Pictures,
    dataset: str,
    split: str,
    points: Sequence[int] | None = None,
    progress: Progress | None = None,
    workdir: str | os.PathLike | None = None,
) -> list[dict[str, Any]]:
    """Measures operating points of a model; every number comes from bytes that were decoded.

    model: a `vcinr.model.model.Model`. pictures: uint8 [h, w, 3] each, held in memory together with what they decode to.
    dataset, split: names, for the rows. points: indices into ``model.points``, all of them by default.
    progress: called with every step of encoding and after each of the three that follow; a point counts `POINT_STEPS`.
    workdir: where a codec that optimises for long keeps what it has reached, so that an interrupted measurement goes on, and
        points share the fits that they have in common; None for nowhere.

    Returns one row a point. ``file_bytes``, ``payload_bytes``: means per signal, of one file a signal. ``bpp_file``,
    ``bpp_payload`` (coded symbols only) and ``bpp_estimated`` (what the tables say that these symbols cost): each
    signal's bits over its pixels, then averaged over signals. ``bpp_container``: all signals in one file, its bits over the
    pixels of all. ``psnr_db`` and ``psnr_of_mean_mse_db``: after clamping and rounding to 8 bits, whole signals (see
    `vcinr.evaluation.metrics.summarise`). ``psnr_float_db``: mean PSNR of the decoded floats, neither clamped nor rounded.
    ``bpp_modelled``: as ``bpp_estimated``, of the float entropy model that the tables were made from, where a codec has one.
    ``model_bytes``: of the model's files, 0 where decoding needs none. ``container_differences``: 8-bit values of the container
    that rounded otherwise than in the files. ``name``, ``lambda`` and ``fingerprint`` of the point are passed on where there.
    ``signals``: ``bpp_file``, ``bpp_payload`` and ``psnr_db`` of each signal, in order, rounded to 5, 5 and 3 decimals.

    Raises ValueError for an empty set, an array that is no picture or an unknown point; `MeasurementError` where a decoded
    picture has the wrong shape, or the container decodes to other pictures than the files.
    """
    if len(pictures) == 0:
        raise ValueError(f"{dataset} {split} holds no pictures: there is nothing to measure")
    pictures = [check_picture(picture) for picture in pictures]
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
        rows.append(_measure_point(model, pictures, dataset, split, point, report, where))
    return rows


def _measure_point(
    model: Any,
    pictures: list[np.ndarray],
    dataset: str,
    split: str,
    point: int,
    report: Callable[[str, int], None],
    workdir: Path | None,
) -> dict[str, Any]:
    encoded = POINT_STEPS - 3

    def encoding(what: str, done: int, total: int) -> None:
        report(what, encoded * done // max(total, 1))

    files = model.encode_batch(pictures, point=point, workdir=workdir, progress=encoding)
    report("files written", encoded)
    # What we have encoded ourselves needs no protection: the limit is against hostile files.
    floats = model.decode_values_batch(files, max_pixels=NO_LIMIT, max_work=NO_LIMIT)
    decoded = [model.denormalise(values) for values in floats]
    _check_shapes(pictures, decoded, "files")
    report("files decoded", encoded + 1)
    container = model.join(files, max_pixels=NO_LIMIT, max_work=NO_LIMIT)
    together = model.decode_together(container, max_pixels=NO_LIMIT, max_work=NO_LIMIT)
    differences = _count_differences(decoded, together)
    report("container written and decoded", encoded + 2)
    float_mses = [mean_squared_error(picture, values) for picture, values in zip(pictures, floats, strict=True)]
    payload_bytes = [model.payload_bytes(data) for data in files]
    estimated_bits = [model.estimated_bits(data) for data in files]
    modelled_bits = model.modelled_bits(files)
    report("rates and floats measured", encoded + 3)

    mses = [mean_squared_error(picture, values) for picture, values in zip(pictures, decoded, strict=True)]
    row = rate_quality_row(
        codec=model.codec.name,
        dataset=dataset,
        split=split,
        point=point,
        pictures=pictures,
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
        pixels = [picture.shape[0] * picture.shape[1] for picture in pictures]
        extras["bpp_modelled"] = float(np.mean(np.array(modelled_bits) / pixels))
    return row | extras | {"container_differences": differences}


def rate_quality_row(
    *,
    codec: str,
    dataset: str,
    split: str,
    point: int,
    pictures: Sequence[np.ndarray],
    file_bytes: Sequence[int],
    payload_bytes: Sequence[int],
    mses: Sequence[float],
    float_mses: Sequence[float],
    container_bytes: int | None,
    estimated_bits: Sequence[float] | None,
    model_bytes: int,
) -> dict[str, Any]:
    """One operating point of any codec, learned or classical, from its counts on each signal.

    Sequences hold one entry a signal; errors have peak 1. None for the container or the estimate where a codec has no such
    thing: the row then holds None.
    """
    pixels = np.array([picture.shape[0] * picture.shape[1] for picture in pictures], np.float64)
    sizes = [picture.size for picture in pictures]
    bpp_file, bpp_payload = (8 * np.asarray(counts) / pixels for counts in (file_bytes, payload_bytes))
    return {
        "codec": codec,
        "dataset": dataset,
        "split": split,
        "num_signals": len(pictures),
        "point": int(point),
        "file_bytes": float(np.mean(file_bytes)),
        "payload_bytes": float(np.mean(payload_bytes)),
        "bpp_file": float(np.mean(bpp_file)),
        "bpp_container": None if container_bytes is None else float(8 * container_bytes / pixels.sum()),
        "bpp_payload": float(np.mean(bpp_payload)),
        "bpp_estimated": None if estimated_bits is None else float(np.mean(np.asarray(estimated_bits) / pixels)),
        **summarise(mses, sizes),
        "psnr_float_db": summarise(float_mses, sizes)["psnr_db"],
        "model_bytes": model_bytes,
        "signals": {
            "bpp_file": [round(float(bpp), 5) for bpp in bpp_file],
            "bpp_payload": [round(float(bpp), 5) for bpp in bpp_payload],
            "psnr_db": [round(float(decibels), 3) for decibels in signal_psnr_db(mses, sizes)],
        },
    }


def check_picture(picture: Any) -> np.ndarray:
    """The picture as an array, or a ValueError where it is not uint8 [h, w, 3]."""
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3 or picture.size == 0:
        raise ValueError(
            f"pictures are measured as uint8 [h, w, 3], not {picture.dtype} {list(picture.shape)}: "
            "read them with vcinr.modalities.picture_files.read_image"
        )
    return picture


def rows_by_codec(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by their ``label``, or else their ``codec``, in order of first occurrence; each group by rising `bpp_file`."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row.get("label", row["codec"]), []).append(row)
    return {codec: sorted(points, key=lambda row: (row["bpp_file"], row["point"])) for codec, points in grouped.items()}


def _check_shapes(pictures: Sequence[np.ndarray], decoded: Sequence[np.ndarray], source: str) -> None:
    if len(pictures) != len(decoded):
        raise MeasurementError(f"{source} decode to {len(decoded)} pictures, {len(pictures)} were encoded")
    for index, (picture, values) in enumerate(zip(pictures, decoded, strict=True)):
        values = np.asarray(values)
        if values.shape != picture.shape or values.dtype != np.uint8:
            raise MeasurementError(
                f"{source}: picture {index} was uint8 {list(picture.shape)} and decodes to {values.dtype} {list(values.shape)}"
            )


def _count_differences(decoded: Sequence[np.ndarray], together: Sequence[np.ndarray]) -> int:
    _check_shapes(decoded, together, "the container")
    differences = 0
    for index, (alone, shared) in enumerate(zip(decoded, together, strict=True)):
        gap = np.abs(alone.astype(np.int16) - np.asarray(shared).astype(np.int16))
        if gap.max() > 1:
            raise MeasurementError(
                f"picture {index} decodes otherwise from the container than from its own file, by up to {gap.max()} of 255"
            )
        differences += int(gap.sum())
    if differences > MAX_ROUNDING_DIFFERENCES * sum(alone.size for alone in decoded):
        raise MeasurementError(
            f"{differences} values decode otherwise from the container than from the files: more than rounding explains"
        )
    return differences

"""Choosing an operating point for signals, by rate or by quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vcinr.bitstream.limits import NO_LIMIT
from vcinr.codec import QUICKEST, EncodeRequest

if TYPE_CHECKING:
    from vcinr.model.model import Model


def default_point(model: Model) -> int:
    """The middle point. ValueError for a codec that searches: its points are networks, whose best depends on the signal."""
    count = len(model.points)
    if model.codec.searches and count > 1:
        raise ValueError(f"which of {count} networks? give bpp, psnr_db or point")
    return count // 2


def choose_point(
    model: Model,
    signals: Sequence[Any],
    bpp: float | None = None,
    psnr_db: float | None = None,
    request: EncodeRequest = QUICKEST,
) -> int:
    """The operating point for signals in one file: the best within ``bpp``, or the cheapest that reaches ``psnr_db``.

    signals: raw, as `Model.encode` takes them; at least one.
    bpp: bits of the whole file per sample.   psnr_db: mean PSNR of the signals.
    Every point is tried; but a codec that ``searches``, whose points are in order of size, chooses by its own search within
    ``bpp``, and for ``psnr_db`` tries them only until one reaches it.
    ValueError where none fits, naming the nearest, and unless exactly one of the two is given.
    """
    if (bpp is None) == (psnr_db is None):
        raise ValueError("choose by bpp or by psnr_db, one of the two")
    searches = model.codec.searches
    if searches and bpp is not None:
        return min(model.codec.choose_point(model.params, model.signal(each), bpp, request) for each in signals)
    options = {"workdir": request.workdir, "progress": request.progress}
    tried = []
    for point in range(len(model.points)):
        data = model.encode_together(signals, point, request.effort, **options)
        decoded = model.decode_together(data, NO_LIMIT, NO_LIMIT)
        quality = np.mean([model.modality.metrics(*pair)["psnr_db"] for pair in zip(signals, decoded, strict=True)])
        samples = sum(math.prod(model.modality.unpack(each)[0].shape[:-1]) for each in decoded)
        tried.append((8.0 * len(data) / samples, float(quality), point))
        if searches and quality >= psnr_db:
            return point
    if bpp is not None:
        fitting = [row for row in tried if row[0] <= bpp]
        if not fitting:
            raise ValueError(f"no operating point fits {bpp:g} bpp; the cheapest takes {min(tried)[0]:.4f}")
        return max(fitting, key=lambda row: row[1])[2]
    fitting = [row for row in tried if row[1] >= psnr_db]
    if not fitting:
        raise ValueError(f"no operating point reaches {psnr_db:g} dB; the best has {max(row[1] for row in tried):.2f}")
    return min(fitting)[2]

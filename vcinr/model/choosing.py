"""Choosing an operating point for one signal, by rate or by quality."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np

from vcinr.stage import Progress

if TYPE_CHECKING:
    from vcinr.model.model import Model


def choose_point(
    model: Model,
    array: np.ndarray,
    bpp: float | None = None,
    psnr_db: float | None = None,
    effort: int = 0,
    *,
    workdir: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> int:
    """The operating point for one signal: the best within ``bpp``, or the cheapest that reaches ``psnr_db``.

    Rates are those of whole files. Every point is tried on the signal itself; but a codec with a search of its own (its
    ``choose_point``), whose points are in order of size, chooses by that within ``bpp``, and for ``psnr_db`` tries them only
    until one reaches it. ValueError where none fits, naming the nearest.
    """
    if (bpp is None) == (psnr_db is None):
        raise ValueError("choose by bpp or by psnr_db, one of the two")
    searches = hasattr(model.codec, "choose_point")
    if searches and bpp is not None:
        where = None if workdir is None else os.fspath(workdir)
        return model.codec.choose_point(model.params, model.signal(array), bpp, workdir=where, progress=progress)
    tried = []
    for point in range(len(model.points)):
        data = model.encode(array, point, effort, workdir=workdir, progress=progress)
        decoded = model.decode(data, max_pixels=2**63)
        error = np.mean(np.square(decoded.astype(np.float64) - np.asarray(array)))
        quality = 10.0 * math.log10(model.modality.peak**2 / error) if error > 0 else math.inf
        tried.append((8.0 * len(data) / math.prod(decoded.shape[:-1]), quality, point))
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

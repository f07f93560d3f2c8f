"""How well decoded radiance fields show what their files were never made from: views from other cameras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vcinr.evaluation.metrics import mean_squared_error, signal_psnr_db

NO_LIMIT = 2**63
"""No limit on decoding: the files come from this process."""


def measure_novel_views(model: Any, scenes: Sequence[Any], point: int) -> dict[str, Any]:
    """Quality of a model's files from the cameras of its rig and from others; files are written and decoded.

    Args:
      model: a `vcinr.model.model.Model` of a radiance field.
      scenes: each with ``views``, which are encoded, and ``held_out``, views from other cameras; see
        `vcinr.modalities.radiance_field.Scene`.
      point: operating point.

    Returns:
      ``psnr_db`` of the rig's views and ``novel_psnr_db`` of the others, means over scenes of whole scenes' PSNR; ``bpp_file``;
      ``signals``: the three of each scene, in order.

    Raises:
      ValueError: no scenes, or one without held-out views.
    """
    if not len(scenes) or any(getattr(scene, "held_out", None) is None for scene in scenes):
        raise ValueError("every scene needs views from other cameras, as those of the test split of the set scenes have")
    found: dict[str, list[float]] = {"bpp_file": [], "psnr_db": [], "novel_psnr_db": []}
    for scene in scenes:
        data = model.encode(scene.views, point)
        seen = model.decode_coordinates(data, scene.held_out.rays(), NO_LIMIT, NO_LIMIT)
        pairs = {
            "psnr_db": (scene.views, model.decode(data, NO_LIMIT, NO_LIMIT)),
            "novel_psnr_db": (scene.held_out.images, seen.reshape(scene.held_out.images.shape)),
        }
        found["bpp_file"].append(8 * len(data) / (scene.views.size // scene.views.shape[-1]))
        for name, (original, decoded) in pairs.items():
            error = mean_squared_error(original, decoded, lowest=0, peak=255)
            found[name].append(float(signal_psnr_db([error], [original.size], 255)[0]))
    return {**{name: float(np.mean(each)) for name, each in found.items()}, "signals": found}

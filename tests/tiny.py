"""A model small enough to be written down, and how far two pictures are apart."""

import numpy as np

from vcinr.codecs.klt import KLT, KLTConfig
from vcinr.model.model import make_model


def hand_made(step=2 / 255, **about):
    """A ``klt`` of two components on 2×2 patches, grey level and left-to-right, written down as integers."""
    left, right = [1, 1, 1], [-1, -1, -1]
    point = {
        "step": np.float32(step),
        "tables": {
            "first": np.array([-2, -1], np.int32),
            "sizes": np.array([5, 3], np.int32),
            "frequencies": np.array([8000, 16000, 24000, 16000, 1536, 20000, 45000, 536], np.int32),
        },
    }
    params = {
        "mean": np.full(12, 128 / 255, np.float32),
        "basis": np.array([left + left + left + left, left + right + left + right], np.float32),
        "points": {"0": point},
    }
    return make_model(KLT(KLTConfig(patch=(2, 2), num_components=2, steps=(2.0,))), params, {"about": "by hand"}, **about)


def psnr(one, other):
    """Of 8-bit pictures, in decibels; 138 where they are equal."""
    return 10 * np.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9))

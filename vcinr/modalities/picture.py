"""Modalities: how a raw array becomes values that a field can fit, and back. One row a modality."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Modality:
    """One kind of signal.

    name: its key in `MODALITIES`.
    coord_dim, channels: coordinates and values of a sample.
    normalise: raw array [*shape, channels] → float32 in [0, 1], each sample by itself (training normalises patches, encoding
        whole signals); a wrong array is a ValueError that names the mend.
    denormalise: float [..., channels] → raw; what lies outside the raw range is clipped.
    peak: largest raw value less the smallest, the peak of PSNR in raw units (255 for 8-bit pictures).
    common_grid: whether all patches lie on the same coordinates, so that they have principal components.
    """

    name: str
    coord_dim: int
    channels: int
    normalise: Callable[[Any], np.ndarray]
    denormalise: Callable[[Any], np.ndarray]
    peak: float
    common_grid: bool = True


def _normalise_picture(array: Any) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"a picture is a NumPy array of uint8 [height, width, 3], not {type(array).__name__}: use np.asarray")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 1):
        mend = "repeat the grey channel: np.repeat(grey.reshape(h, w, 1), 3, axis=-1)"
    elif array.ndim == 3 and array.shape[-1] == 4:
        mend = "composite it over a background, as vcinr.modalities.picture_files.read_image does"
    elif array.ndim == 3 and array.shape[0] == 3 and array.shape[-1] != 3:
        mend = "put channels last: np.moveaxis(picture, 0, -1)"
    elif array.ndim == 4:
        mend = "pass pictures one at a time"
    elif array.ndim != 3 or array.shape[-1] != 3:
        mend = "give it three axes, the last of length 3"
    elif 0 in array.shape:
        mend = "drop it: it has no pixels"
    elif array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    elif np.issubdtype(array.dtype, np.floating):
        mend = "scale it to 0..255, then np.round(picture).astype(np.uint8)"
    else:
        mend = "scale it to 0..255 and convert with .astype(np.uint8)"
    raise ValueError(f"a picture is uint8 [height, width, 3], not {array.dtype} {list(array.shape)}: {mend}")


def _denormalise_picture(values: Any) -> np.ndarray:
    values = np.asarray(values)
    if np.isnan(values).any():
        raise ValueError("a picture with NaN has no 8-bit values: the field that made it has diverged")
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


MODALITIES: dict[str, Modality] = {
    "picture": Modality(
        name="picture",
        coord_dim=2,
        channels=3,
        normalise=_normalise_picture,
        denormalise=_denormalise_picture,
        peak=255.0,
    ),
}
"""Name → row. A new one is a new entry, made before a codec of that modality is; see docs/extending.md."""

"""Rate-distortion curves from the literature, as data, each with its source and its definition of rate."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json

from vcinr.config import nearest

# The data lie in the folder ``published`` beside this module.
_FOLDER = importlib.resources.files("vcinr.evaluation").joinpath("published")


@dataclasses.dataclass(frozen=True)
class Curve:
    """One published rate-distortion curve.

    codec: name in `available`.
    dataset: name in `available`.
    points: (rate, quality) pairs by rising rate, as published.
    source: repository and file, or paper and table, from which the numbers were taken.
    rate_kind: what the source counts as rate. Few count the bytes of a file, and different kinds are not comparable.
    unit_rate: "bpp" (bits per pixel or grid point) or "kbps".
    unit_quality: "psnr_db".
    exact: True for tabulated numbers, False for numbers read off a plot.
    average: what a point is the mean of: PSNRs or squared errors, with one setting or one rate for all signals; empty where the
        source does not say. Means at equal quality, at one λ and at equal rate differ by a decibel or more.
    description: the source's own remarks.
    split: part of the data set, where the source says.
    """

    codec: str
    dataset: str
    points: tuple[tuple[float, float], ...]
    source: str
    rate_kind: str
    unit_rate: str
    unit_quality: str
    exact: bool
    average: str = ""
    description: str = ""
    split: str = ""


@functools.cache
def available() -> tuple[tuple[str, str], ...]:
    """All (codec, dataset) pairs that `load` knows, sorted."""
    names = (entry.name.removesuffix(".json") for entry in _FOLDER.iterdir() if entry.name.endswith(".json"))
    return tuple(sorted((codec, dataset) for codec, _, dataset in (name.rpartition("_") for name in names)))


def load(codec: str, dataset: str) -> Curve:
    """The published curve of a codec on a data set. ValueError for an unknown one, which names the nearest."""
    if (codec, dataset) not in available():
        raise ValueError(_unknown(codec, dataset))
    data = json.loads(_FOLDER.joinpath(f"{codec}_{dataset}.json").read_text(encoding="utf-8"))
    return Curve(**data | {"points": tuple((float(rate), float(quality)) for rate, quality in data["points"])})


def _unknown(codec: str, dataset: str) -> str:
    codecs = sorted({c for c, d in available() if d == dataset})
    if not codecs:
        return f"no published curve on {dataset!r}{nearest(dataset, sorted({d for _, d in available()}))}"
    return f"no published curve of {codec!r} on {dataset}{nearest(codec, codecs)}"

"""The models that are taken apart, their data, and what a part of the study is."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import data
from vcinr.datasets.sources import PatchSource
from vcinr.modalities.examples import normalise_batch
from vcinr.model.model import Model


def held_out(model: Model, count: int) -> np.ndarray:
    """At most ``count`` validation patches [m, n, c] of a model's data, evenly spaced."""
    codec = model.codec
    source = data.patches(ConfigDict(model.info["config"]), "validation").with_patch(codec.patch)
    found = source.all_patches(np.random.default_rng(0), 1)
    return normalise_batch(codec.modality, np.stack(data.evenly_spaced(found, count)))


def training_patches(model: Model) -> PatchSource:
    """The patches that a model was trained on."""
    return data.patches(ConfigDict(model.info["config"]), "train").with_patch(model.codec.patch)


def label(name: str) -> str:
    """What tables call a model: its name, or that of the run whose folder it is."""
    path = Path(name)
    return path.parent.name if path.name == "model" else path.name


@dataclasses.dataclass(frozen=True)
class Part:
    """One question.

    title, about, columns: of the study; ``about`` is formatted with the options of the command line.
    options: names of those that the recorded command gives.
    rows: (options, path of the record) → (rows, names of pictures beside the record).
    """

    title: str
    about: str
    columns: tuple[str, ...]
    options: tuple[str, ...]
    rows: Callable[[argparse.Namespace, str], tuple[list[list[Any]], list[str]]]


def of_each_model(rows: Callable[[str, argparse.Namespace], list[list[Any]]]) -> Callable[..., tuple[list[list[Any]], list[str]]]:
    """`Part.rows` from the rows of one model."""
    return lambda options, record: ([row for name in options.model for row in rows(name, options)], [])

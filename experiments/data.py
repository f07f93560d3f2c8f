"""From a config's `data` to signals and patch sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs.base import codec_of
from vcinr.datasets.catalogue import load_split
from vcinr.datasets.sources import PatchSource, Samples
from vcinr.modalities import MODALITIES


def signals(config: ConfigDict, split: str) -> Sequence[Any]:
    """The raw signals of the config's "train", "validation" or "test" split, e.g. uint8 [h, w, 3] each."""
    data, modality = config.data, codec_of(config).modality
    name = data.test_name if split == "test" and data.test_name else data.name
    options = {}
    if name == "folder":
        given = {option.name: data.get(option.name) or None for option in MODALITIES[modality].read_options}
        options = {"path": data.path, "modality": modality, **given}
    found = load_split(name, data[split], data.data_dir or None, **options)
    if split != "test":
        return found
    if data.test_tiles:
        found = [tile for picture in found for tile in tiles(picture, data.test_tiles)]
    return evenly_spaced(found, data.test_limit) if data.test_limit else found


def evenly_spaced(found: Sequence[Any], count: int) -> Sequence[Any]:
    """At most ``count`` elements, evenly spaced over the sequence, so that they represent all of it."""
    if len(found) <= count:
        return found
    return [found[i] for i in np.linspace(0, len(found) - 1, count).round().astype(int)]


def patches(config: ConfigDict, split: str) -> PatchSource:
    """Source of random patches of the "train" or the "validation" split; the latter's are not mirrored."""
    codec = codec_of(config)
    modality = MODALITIES[codec.modality]
    flips = modality.mirrored_axes if config.data.flips and split == "train" else ()
    samples = Samples(signals(config, split), modality)
    if codec.continuous and not modality.divisible and samples[0].shape[:-1] != codec.training_patch:
        raise ValueError(f"a patch of a {modality.name} is a whole signal: set patch to {samples[0].shape[:-1]}")
    return PatchSource(samples, codec.training_patch, flips=flips)


def tiles(picture: np.ndarray, side: int) -> list[np.ndarray]:
    """Whole side × side tiles of a picture, row by row; remainders at the right and the bottom are dropped."""
    rows, columns = picture.shape[0] // side, picture.shape[1] // side
    return [picture[i * side : (i + 1) * side, j * side : (j + 1) * side] for i in range(rows) for j in range(columns)]

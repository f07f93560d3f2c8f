"""Builders of sets of video for tensorflow-datasets: no source of a training clip is in validation or test."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np

from vcinr.datasets.builders import SignalBuilder, side, signal_files
from vcinr.modalities import MODALITIES
from vcinr.modalities.video import Clip

# By source: the people in asl_* are in one room, before one camera.
CLIP_SPLITS = {
    "train": ("asl", "bigbuckbunny", "bikes", "bottle_detection", "car_detection"),
    "validation": ("one_by_one_person_detection",),
    "test": ("carphone_pristine", "cockatoo"),
}
NOMINAL_RATE = 25
"""Frames per second; the clips do not say theirs."""
UCF101_FRAMES = 24
"""What RECOMBINER takes of each video."""
UCF101_TEST_GROUPS = range(1, 8)
"""Groups of the test part of the first of UCF-101's own three splits."""


class Clips(SignalBuilder, skip_registration=True):
    """Clips of 24 frames at 128x128, from lightly compressed video: faces, machines, animals, people, an animation."""

    modality = "video"

    def signals(self):
        """See `CLIP_SPLITS`."""
        with np.load(self.source) as arrays:
            clips = {name: Clip(arrays[name], NOMINAL_RATE) for name in sorted(arrays.files)}
        known = {source: split for split, sources in CLIP_SPLITS.items() for source in sources}
        splits: dict[str, list[tuple[str, Clip]]] = {split: [] for split in CLIP_SPLITS}
        for name, clip in clips.items():
            source = clip_source(name)
            if source not in known:
                raise ValueError(f"{self.source}: {name} is of no known source: add {source!r} to one of CLIP_SPLITS")
            splits[known[source]].append((name, clip))
        return splits


class Ucf101(SignalBuilder, skip_registration=True):
    """The first frames of UCF-101's videos, 320x240, from folders CLASS/v_CLASS_gGROUP_cCLIP.avi as they are published."""

    modality = "video"

    def signals(self):
        """Test is UCF-101's own of split 1; validation is cut by a hash of class and group, whose clips are of one recording."""
        splits: dict[str, list[tuple[str, pathlib.Path]]] = {"train": [], "validation": [], "test": []}
        for path in signal_files(self.source, self.modality):
            found = re.fullmatch(r"v_(\w+_g(\d+))_c\d+", path.stem)
            if found is None:
                raise ValueError(f"{path}: not named as in UCF-101, v_CLASS_gGROUP_cCLIP.avi; take it away")
            split = "test" if int(found[2]) in UCF101_TEST_GROUPS else side(found[1])
            splits[split].append((path.stem, path))
        return splits

    def read(self, path: pathlib.Path) -> Any:
        """The first `UCF101_FRAMES` of a video."""
        return MODALITIES[self.modality].read(path, frames=UCF101_FRAMES)


def clip_source(name: str) -> str:
    """What a clip was cut from, of a name such as carphone_pristine_0."""
    return "asl" if name.startswith("asl_") else re.sub(r"_\d+$", "", name)

"""Builders of sets of sound for tensorflow-datasets: no recording of a speaker in training is in validation."""

from __future__ import annotations

import pathlib
from typing import Any

from vcinr.datasets.builders import SignalBuilder, side, signal_files
from vcinr.modalities import MODALITIES

FIRST_SECONDS = 3
"""What COIN++, VC-INR and COMBINER+ take of each utterance of LibriSpeech."""


class Speech(SignalBuilder, skip_registration=True):
    """Read speech of LibriSpeech, 16 kHz, one utterance a speaker."""

    modality = "sound"
    seconds: float | int | None = None
    """Of each recording, from its start; None for all of it."""

    def signals(self):
        """The folder ``train``, split by a hash of the speaker, and the folder ``test``."""
        return _by_speaker([self.source / "train"], self.source / "test")

    def read(self, path: pathlib.Path) -> Any:
        """The recording in a file, or its first seconds."""
        return MODALITIES[self.modality].read(path, seconds=self.seconds)


class Speech3s(Speech, skip_registration=True):
    """The first three seconds of read speech of LibriSpeech, 16 kHz, one utterance a speaker."""

    seconds = FIRST_SECONDS


class LibriSpeech(Speech, skip_registration=True):
    """LibriSpeech as it is published: folders PART/SPEAKER/CHAPTER/*.flac, 16 kHz."""

    def signals(self):
        """The parts train-*, split by a hash of the speaker, and test-clean."""
        return _by_speaker(sorted(self.source.glob("train-*")), self.source / "test-clean")


class LibriSpeech3s(LibriSpeech, skip_registration=True):
    """The first three seconds of each utterance of LibriSpeech as it is published, 16 kHz."""

    seconds = FIRST_SECONDS


def _by_speaker(train: list[pathlib.Path], test: pathlib.Path) -> dict[str, list[tuple[str, pathlib.Path]]]:
    """Split → (name, file) of recordings that are named SPEAKER-CHAPTER-UTTERANCE."""
    splits: dict[str, list[tuple[str, pathlib.Path]]] = {"train": [], "validation": [], "test": []}
    for path in (path for folder in train for path in signal_files(folder, "sound")):
        splits[side(path.stem.split("-")[0])].append((path.stem, path))
    splits["test"] = [(path.stem, path) for path in signal_files(test, "sound")]
    return splits

"""tensorflow-datasets builders of our own: they write array_record files and need no TensorFlow.

Importing this module imports tensorflow-datasets; `vcinr.datasets.catalogue` does so only when a set is used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import track

from vcinr.modalities import MODALITIES

# Whole pictures of scikit-image's wheel, split by picture. The motorcycle is a stereo pair, so both halves are on one side.
DEMO_SPLITS = {
    "train": ("astronaut.png", "motorcycle_left.png", "motorcycle_right.png", "ihc.png"),
    "validation": ("rocket.jpg",),
    "test": ("coffee.png", "chelsea.png"),
}
# The demo's test pictures, in other clothes: nothing trained on photos may have seen them.
PHOTOS_LEFT_OUT = ("imageio_coffee.png", "imageio_chelsea.png")
VALIDATION_PERCENT = 10


def demo_folder() -> pathlib.Path:
    """Folder of the pictures in scikit-image's wheel, found without importing it."""
    spec = importlib.util.find_spec("skimage")
    return pathlib.Path(spec.origin).parent / "data" if spec else pathlib.Path("skimage/data")


def feature_of(modality: str) -> str:
    """Key of the stored signal in an example of our own sets."""
    return "image" if modality == "picture" else "signal"


def side(name: str) -> str:
    """The split, train or validation, of a picture by a hash of its name without suffix: adding pictures moves no other."""
    digest = hashlib.sha256(name.encode()).digest()
    return "validation" if int.from_bytes(digest[:8], "big") % 100 < VALIDATION_PERCENT else "train"


def signal_files(folder: pathlib.Path, modality: str = "picture") -> list[pathlib.Path]:
    """Signals in a folder and the folders below it, by suffix, sorted; hidden files and folders are left out."""
    suffixes = MODALITIES[modality].read_suffixes
    found = [path for path in folder.rglob("*") if path.suffix.lower() in suffixes]
    # A signal may be a folder of files, such as those of Zarr, none of which is a signal of its own.
    folders = {path for path in found if path.is_dir()}
    files = (path for path in found if not folders.intersection(path.parents))
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


class SignalBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Signals without loss, as their modality stores them, with their names, in the order in which `signals` yields them.

    source: where the signals come from; only needed to prepare. progress: whether a progress bar is shown while preparing.
    """

    VERSION = tfds.core.Version("1.0.0")
    modality = "picture"

    def __init__(self, *, source: pathlib.Path | None = None, progress: bool = False, **kwargs):
        self.source = source
        self.progress = progress
        super().__init__(file_format="array_record", **kwargs)

    def signals(self) -> dict[str, Iterable[tuple[str, pathlib.Path | np.ndarray]]]:
        """Split → (name, file or raw signal) of each signal; empty splits are not written."""
        raise NotImplementedError

    def read(self, path: pathlib.Path) -> Any:
        """The raw signal in a file."""
        return MODALITIES[self.modality].read(path)

    def _info(self) -> tfds.core.DatasetInfo:
        # Pictures are a feature of their own, so that their sets are of use outside this library.
        stored = tfds.features.Text()
        if self.modality == "picture":
            stored = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        features = {feature_of(self.modality): stored, "name": tfds.features.Text()}
        # Unshuffled, so that signal i of a split is the same everywhere.
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        splits = {split: list(signals) for split, signals in self.signals().items()}
        return {split: self._generate_examples(split, signals) for split, signals in splits.items() if signals}

    def _generate_examples(self, split: str, signals: list) -> Iterator[tuple[int, dict]]:
        console = Console(stderr=True)
        feature, modality = feature_of(self.modality), MODALITIES[self.modality]
        for index, (name, item) in enumerate(track(signals, f"{self.name} {split}", console=console, disable=not self.progress)):
            raw = self.read(item) if isinstance(item, pathlib.Path) else item
            yield index, {feature: modality.to_bytes(raw), "name": name}

    def _log_download_bytes(self) -> None:
        """Nothing is downloaded."""

    def _log_download_done(self) -> None:
        """`vcinr.datasets.catalogue.prepare` tells the caller."""


class Demo(SignalBuilder, skip_registration=True):
    """Colour photographs of scikit-image's wheel."""

    def signals(self):
        """See `DEMO_SPLITS`."""
        return {split: [(name, self.source / name) for name in names] for split, names in DEMO_SPLITS.items()}


class ArrayBuilder(SignalBuilder, skip_registration=True):
    """Pictures of an .npz file with the arrays ``x_train`` and ``x_test``, uint8 [n, h, w, 3]."""

    NUM_TRAIN = 0

    def signals(self):
        """The first ``NUM_TRAIN`` of ``x_train``, the rest of it, and ``x_test``."""
        with np.load(self.source) as arrays:
            train, test = arrays["x_train"], arrays["x_test"]
        splits = {"train": train[: self.NUM_TRAIN], "validation": train[self.NUM_TRAIN :], "test": test}
        return {split: [(f"{split}_{i:05}", picture) for i, picture in enumerate(rows)] for split, rows in splits.items()}


class Cifar10Small(ArrayBuilder, skip_registration=True):
    """Part of CIFAR-10, 32x32 pictures."""

    NUM_TRAIN = 4500


class Faces(ArrayBuilder, skip_registration=True):
    """Part of CelebA, 64x64 pictures; for non-commercial research."""

    NUM_TRAIN = 1800


class Kodak(SignalBuilder, skip_registration=True):
    """The 24 Kodak photographs, for evaluation only."""

    def signals(self):
        """kodim01 to kodim24."""
        return {"test": [(path.stem, path) for path in sorted(self.source.glob("kodim*.png"))]}


class Photos(SignalBuilder, skip_registration=True):
    """Lossless colour photographs for training."""

    def signals(self):
        """Split by a hash of the file name."""
        return _by_side(self.source, [path for path in signal_files(self.source) if path.name not in PHOTOS_LEFT_OUT])


class Folder(SignalBuilder, skip_registration=True):
    """Signals of one's own, from a folder.

    modality: key of `MODALITIES`.   options: of its reader, those that are given; see ``read_options``.
    """

    def __init__(self, *, source: pathlib.Path, modality: str = "picture", **kwargs):
        self.modality = modality
        known = {option.name: None if option.metavar else False for option in MODALITIES[modality].read_options}
        self._options = {name: kwargs.pop(name, default) for name, default in known.items()}
        stamp = hashlib.sha256(repr(sorted(self._options.items())).encode())
        # Another signal, or another way to read it, makes another dataset: a stale one is never read.
        for path in signal_files(source, modality):
            stat = path.stat()
            stamp.update(f"{path.relative_to(source).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        config = tfds.core.BuilderConfig(name=f"{modality}s_{stamp.hexdigest()[:16]}", version=self.VERSION)
        super().__init__(source=source, config=config, **kwargs)

    def signals(self):
        """Split by a hash of the file name."""
        return _by_side(self.source, signal_files(self.source, self.modality))

    def read(self, path: pathlib.Path) -> Any:
        """The raw signal in a file, by the folder's options."""
        return MODALITIES[self.modality].read(path, **self._options)


def _by_side(folder: pathlib.Path, files: list[pathlib.Path]) -> dict[str, list[tuple[str, pathlib.Path]]]:
    splits: dict[str, list[tuple[str, pathlib.Path]]] = {"train": [], "validation": []}
    for path in files:
        name = path.relative_to(folder).with_suffix("").as_posix()
        splits[side(name)].append((name, path))
    return splits

"""Datasets by name, through tensorflow-datasets and without TensorFlow: prepared once, then read lazily."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import logging
import os
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vcinr.config import nearest
from vcinr.datasets.table import DATA_VARIABLE, DATASETS, Dataset
from vcinr.modalities import MODALITIES

DATASETS_DIR_VARIABLE = "VCINR_DATASETS_DIR"
PREPARE = "python -m experiments.prepare"


class DatasetMissing(FileNotFoundError):
    """A dataset that is not prepared, or cannot be; the message names the commands that mend it."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What `prepare` made or found: the folder, signals in each of our splits, and whether it was there already."""

    name: str
    folder: str
    counts: Mapping[str, int]
    already: bool


class Signals(Sequence[Any]):
    """A split as a lazy sequence: signal i is read and decoded when it is asked for, raw, e.g. uint8 [h, w, 3]."""

    def __init__(self, examples: Sequence[Mapping[str, Any]], feature: str, modality: str = "picture"):
        self._examples = examples
        self._feature = feature
        self.modality = modality

    def __len__(self) -> int:
        """Number of signals."""
        return len(self._examples)

    def __getitem__(self, index):
        """Signal at an index, counted from the end where negative; a list of signals for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"signal {index} of {len(self)}")
        return MODALITIES[self.modality].from_bytes(self._examples[int(position)][self._feature])


def prepare(
    name: str, data_dir: str | None = None, *, manual_dir: str | None = None, progress: bool = False, **options: Any
) -> Prepared:
    """Write a dataset as array_record files, once; a prepared one is left alone.

    data_dir: where prepared sets live; by default $VCINR_DATASETS_DIR, then tensorflow-datasets' own rule.
    manual_dir: folder with files of a stock set that were downloaded by hand (``cifar-10-binary.tar.gz``).
    options: of the ``folder`` set: path; modality, "picture" by default; and what its reader takes (background, eight_bit).
    Raises DatasetMissing where the source, or TensorFlow for a stock set, is missing; ValueError for an unknown name or option.
    """
    place = _Place(dataset(name), data_dir, options)
    if (builder := place.prepared()) is not None:
        return Prepared(name, str(builder.data_path), place.counts(builder), already=True)
    if place.row.stock:
        if importlib.util.find_spec("tensorflow") is None:
            raise place.missing("preparing a stock dataset needs TensorFlow, this once")
        try:
            _prepare_stock(place.row, place.data_dir, manual_dir, progress)
        except Exception as error:  # Whatever a download, a checksum or an archive may raise.
            reason = f"dataset {name!r}: preparing it failed ({type(error).__name__}: {error})"
            mend = f"{place.command} --manual_dir DIR  # the folder that holds its files, downloaded by hand"
            raise DatasetMissing(f"{reason}; run\n    {mend}") from error
        builder = place.prepared()
    else:
        builder = place.own_builder(progress)
        with _quiet(progress=False):
            if not any(builder.signals().values()):
                raise place.missing(f"there is no {builder.modality} in {place.source}")
            builder.download_and_prepare()
    return Prepared(name, str(builder.data_path), place.counts(builder), already=False)


def load_split(name: str, split: str, data_dir: str | None = None, **options: Any) -> Signals:
    """One split of a prepared dataset, lazily, in an order that is the same everywhere.

    data_dir, options: as in `prepare`.
    Raises DatasetMissing where it is not prepared or has no picture in this split; ValueError for an unknown name, split or
    option.
    """
    row = dataset(name)
    if split not in row.splits:
        raise ValueError(f"unknown split of {name!r}: {split!r}{nearest(split, row.splits)}")
    place = _Place(row, data_dir, options)
    builder = place.prepared()
    if builder is None:
        raise place.missing("it is not prepared")
    expression = _present(row.splits[split], builder)
    if not expression:
        raise DatasetMissing(
            f"dataset {name!r} in {builder.data_path} has no picture in its split {split!r}: {place.counts(builder)}"
        )
    import tensorflow_datasets as tfds

    # `Signals` decodes the one that it is asked for.
    features = builder.info.features.items()
    decoders = {key: tfds.decode.SkipDecoding() for key, feature in features if isinstance(feature, tfds.features.Image)}
    with _quiet(progress=False):
        source = builder.as_data_source(split=expression, decoders=decoders)
        return Signals(source, place.feature, place.modality)


def dataset(name: str) -> Dataset:
    """The row of that name; ValueError with the nearest and all valid names where there is none."""
    if name not in DATASETS:
        raise ValueError(f"unknown dataset: {name!r}{nearest(name, DATASETS)}")
    return DATASETS[name]


class _Place:
    """A row together with where its prepared files are and what they are made from."""

    def __init__(self, row: Dataset, data_dir: str | None, options: Mapping[str, Any]):
        self.row = row
        self.data_dir = data_dir or os.environ.get(DATASETS_DIR_VARIABLE) or None
        self.options = {key: value for key, value in options.items() if value not in (None, False)}
        self.modality = self.options.get("modality", row.modality)
        if self.modality == "picture":
            self.options.pop("modality", None)
        if self.modality not in MODALITIES:
            raise ValueError(f"unknown modality {self.modality!r}{nearest(self.modality, MODALITIES)}")
        readers = [option.name for option in MODALITIES[self.modality].read_options]
        valid = ("path", "modality", *readers) if row.name == "folder" else ()
        for key in self.options:
            if not valid:
                raise ValueError(f"dataset {row.name!r} takes no option {key!r}; only 'folder' does")
            if key not in valid:
                raise ValueError(f"unknown option of 'folder': {key!r}{nearest(key, valid)}")
        if row.name == "folder" and "path" not in self.options:
            raise ValueError("dataset 'folder' needs path=…, the folder that holds the signals")

    @property
    def feature(self) -> str:
        """Key of the stored signal in an example."""
        from vcinr.datasets.builders import feature_of

        return self.row.feature if self.row.stock else feature_of(self.modality)

    @property
    def source(self) -> pathlib.Path | None:
        """File or folder that preparing reads; None where the environment does not say."""
        if self.row.name == "demo":
            from vcinr.datasets.builders import demo_folder

            return demo_folder()
        if self.row.name == "folder":
            return pathlib.Path(self.options["path"])
        root = os.environ.get(DATA_VARIABLE)
        return pathlib.Path(root) / self.row.source if root else None

    @property
    def command(self) -> str:
        """The command that prepares this set here."""
        words = [PREPARE, self.row.name]
        if self.data_dir and self.data_dir != os.environ.get(DATASETS_DIR_VARIABLE):
            words += ["--data_dir", shlex.quote(str(self.data_dir))]
        for key, value in self.options.items():
            words += [f"--{key}"] if value is True else [f"--{key}", shlex.quote(str(value))]
        return " ".join(words)

    def missing(self, reason: str) -> DatasetMissing:
        """The error that names what to install or export, and the command that prepares this set here."""
        commands = [command for command in (self.row.environment, self.command) if command]
        return DatasetMissing("\n    ".join([f"dataset {self.row.name!r}: {reason}; run", *commands]))

    def own_builder(self, progress: bool):
        """Builder of one of our own sets whose source is there."""
        source = self.source
        if source is None:
            raise self.missing(f"${DATA_VARIABLE} is not set")
        if not source.exists():
            raise self.missing(f"there is no {source}")
        return self._builder(source, progress)

    def prepared(self):
        """Builder of the prepared set, or None. Our own sets but ``folder`` need no source for it."""
        with _quiet(progress=False):
            if self.row.stock:
                return self._stock_builder()
            builder = self.own_builder(False) if self.row.name == "folder" else self._builder(None, False)
            return builder if builder.is_prepared() else None

    def counts(self, builder) -> dict[str, int]:
        """Signals in each of our splits."""
        present = {split: _present(expression, builder) for split, expression in self.row.splits.items()}
        return {split: builder.info.splits[found].num_examples if found else 0 for split, found in present.items()}

    def _builder(self, source: pathlib.Path | None, progress: bool):
        module, builder = self.row.builder.split(":")
        options = {key: value for key, value in self.options.items() if key != "path"}
        with _quiet(progress=False):
            return getattr(importlib.import_module(f"vcinr.datasets.{module}"), builder)(
                source=source, progress=progress, data_dir=self.data_dir, **options
            )

    def _stock_builder(self):
        from tensorflow_datasets.core import read_only_builder, registered
        from tensorflow_datasets.core.file_adapters import FileFormat

        try:
            # From the files alone: the catalogue's own code may need TensorFlow.
            builder = read_only_builder.builder_from_files(self.row.stock, data_dir=self.data_dir)
        except registered.DatasetNotFoundError:
            return None
        if FileFormat.ARRAY_RECORD not in builder.info.available_file_formats():
            found = builder.info.file_format.value
            raise self.missing(f"{builder.data_path} holds {found} files, which need TensorFlow to read; move them away, then")
        return builder


def _prepare_stock(row: Dataset, data_dir: str | None, manual_dir: str | None, progress: bool) -> None:
    import tensorflow_datasets as tfds

    with _quiet(progress=progress):
        builder = tfds.builder(row.stock, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir))


def _present(expression: str, builder) -> str:
    """The parts of a split expression that were written: a split without pictures is not."""
    return "+".join(part for part in expression.split("+") if part.split("[")[0] in builder.info.splits)


@contextlib.contextmanager
def _quiet(progress: bool) -> Iterator[None]:
    """Neither tensorflow-datasets' warnings nor, unless asked for, its progress bars; both are as before afterwards."""
    from tensorflow_datasets.core.utils import tqdm_utils

    logger, shown = logging.getLogger("absl"), tqdm_utils._active
    level = logger.level
    logger.setLevel(logging.ERROR)
    tqdm_utils.display_progress_bar(progress)
    try:
        yield
    finally:
        logger.setLevel(level)
        tqdm_utils.display_progress_bar(shown)

"""`vcinr decode`: files to signals."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vcinr
from vcinr.bitstream import container
from vcinr.bitstream.container import BitstreamError
from vcinr.cli.files import about, in_groups, pairs, read_coded
from vcinr.cli.progress import progress
from vcinr.cli.starting import start_jax
from vcinr.modalities import MODALITIES, Modality


def run(options: argparse.Namespace) -> None:
    """`vcinr decode IN OUT.png`, or `vcinr decode FILES… --out DIR`."""
    named = options.out is None and len(options.paths) == 2
    # Before anything heavy is imported: what is no file of ours is refused at once, then what no signal is written as.
    peeks = {source: _peek(source, options.max_pixels) for source in (options.paths[:1] if named else options.paths)}
    if named:
        _check_suffix(options.paths[1])
    start_jax()
    models = _Models(options.model)

    def suffix_of(source: str) -> str:
        modality = models.of(source, peeks[source]).modality
        if not modality.write_suffixes:
            raise ValueError(f"{source}: it holds a {modality.name}, which is not written to files")
        return modality.write_suffixes[0]

    files = pairs(options.paths, options.out, suffix_of)
    if named:
        models.of(files[0][0], peeks[files[0][0]]).modality.check_target(files[0][1])

    def read() -> Iterator[tuple]:
        for source, target in files:
            data, peek = read_coded(source), peeks[source]
            yield models.of(source, peek), sum(map(math.prod, peek.shapes)), (source, target, data)

    with progress("decoding", len(files)) as (advance, _):
        for model, group in in_groups(read()):
            _decode_group(model, group, options)
            advance(len(group))


class _Models:
    """The models of files: the one that is named, or those found by fingerprint."""

    def __init__(self, name: str | None):
        self.named = None if name is None else vcinr.load(name)
        self.found: list[vcinr.Model] = []

    def of(self, source: str, peek: container.Peek) -> vcinr.Model:
        """The model of a file; of one that is named, it is told by decoding whether it is that."""
        from vcinr.model.finding import find_by_fingerprint

        if self.named is not None:
            return self.named
        for model in self.found:
            if peek.fingerprint in model.fingerprints:
                return model
        with about(source):
            self.found.append(find_by_fingerprint(peek.fingerprint))
        return self.found[-1]


def _peek(source: str, max_pixels: int) -> container.Peek:
    with about(source):
        return container.peek(read_coded(source), max_pixels)


def _check_suffix(target: str) -> None:
    """ValueError for a suffix that no modality writes."""
    able: list[Modality] = [each for each in MODALITIES.values() if each.write_suffixes]
    if not any(Path(target).suffix.lower() in each.write_suffixes for each in able):
        able[0].check_target(target)


def _decode_group(model: vcinr.Model, group: list, options: argparse.Namespace) -> None:
    max_pixels, max_work = options.max_pixels, options.max_work
    if options.poses is not None:
        coords, raw_of = model.modality.read_coordinates(options.poses, max_samples=max_pixels)
        for source, target, data in group:
            with about(source):
                raw = raw_of(model.decode_coordinates(data, coords, max_pixels, max_work))
            _write(model.modality, target, raw)
        return
    grid = {"scale": options.scale, "shape": options.shape, "rate": options.rate}
    if any(value is not None for value in grid.values()):
        if not model.codec.continuous:
            print(f"{model.codec.name} has no field between its samples: they are interpolated", file=sys.stderr)
        for source, target, data in group:
            with about(source):
                raw = model.decode_at(data, **grid, max_pixels=max_pixels, max_work=max_work)
            _write(model.modality, target, raw)
        return
    try:
        signals = model.decode_batch([data for _, _, data in group], max_pixels, max_work)
    except (BitstreamError, MemoryError):
        # One by one, to name the file that is wrong, or to take less memory.
        signals = []
        for source, _, data in group:
            with about(source):
                signals.append(model.decode(data, max_pixels, max_work))
    for (_, target, _), raw in zip(group, signals, strict=True):
        _write(model.modality, target, raw)


def _write(modality: Modality, path: str, raw: Any) -> None:
    """Writes a signal's file or folder, whole from the first moment on."""
    from vcinr.trees import write_atomically

    parent = Path(path).absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that a folder need not be copied.
    with tempfile.TemporaryDirectory(dir=parent, prefix=".vcinr-") as folder:
        scratch = Path(folder) / f"signal{Path(path).suffix}"
        modality.write(scratch, raw)
        if scratch.is_dir():
            if Path(path).exists():
                raise ValueError(f"{path} exists: remove it first, or choose another output")
            scratch.replace(path)
        else:
            write_atomically(path, scratch.read_bytes())

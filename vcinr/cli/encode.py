"""`vcinr encode`: signals to files."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import vcinr
from vcinr.bitstream.limits import NO_LIMIT
from vcinr.cli.files import GROUP_SAMPLES, about, check_overwritten, in_groups, pairs, read_coded
from vcinr.cli.progress import progress
from vcinr.cli.starting import start_jax
from vcinr.modalities import MODALITIES, Modality

SUFFIX = ".vcinr"
DEFAULT_MODELS = {"picture": "photo", "sound": "speech", "climate_region": "temperature"}
"""Modality → the bundled model that encodes its signals where none is named."""


def run(options: argparse.Namespace) -> None:
    """`vcinr encode IN OUT`, or `vcinr encode FILES… --out DIR`."""
    files = pairs(options.paths, options.out, lambda source: SUFFIX)
    for _, target in files:
        check_overwritten(target)
    modality = _modality(options)
    signals = _read(files, modality, options)
    # Before anything heavy is imported: what is no signal is refused at once.
    signals = itertools.chain([next(signals)], signals)
    start_jax()
    model = _load(options.model, modality)
    if options.point is None and options.bpp is None and options.psnr is None:
        if model.codec.searches and len(model.points) > 1:
            raise ValueError(f"which of {len(model.points)} networks? give --bpp, --psnr or --point (see vcinr models NAME)")
        options.point = model.default_point

    def chosen(report: Callable) -> Iterator[tuple]:
        for source, target, raw in signals:
            point = options.point
            with about(source):
                shape = modality.unpack(raw)[0].shape[:-1]
                model.check_size([shape], options.max_pixels)
                if options.bpp is not None or options.psnr is not None:
                    wanted = (options.bpp, options.psnr, options.effort)
                    point = model.choose_point(raw, *wanted, workdir=options.workdir, progress=report)
            # Signals that are fitted whole come one by one: each file is there when its fit is, and the fit is that of --psnr.
            yield point, math.prod(shape) if model.codec.patch else GROUP_SAMPLES, (source, target, raw)

    with progress("encoding", len(files)) as (advance, report):
        for point, group in in_groups(chosen(report)):
            _encode_group(model, point, group, options, report)
            advance(len(group))


def _modality(options: argparse.Namespace) -> Modality:
    """The kind of signal that the model named is of; without one, or of one that is built in, what --modality says, else the
    first file's suffix."""
    from vcinr.model.places import ABOUT, locate, read_about

    folder = None if options.model is None else locate(options.model)
    if folder is None:
        if options.modality is not None:
            return MODALITIES[options.modality]
        suffix = Path(options.paths[0]).suffix.lower()
        return next((each for each in MODALITIES.values() if suffix in each.read_suffixes), next(iter(MODALITIES.values())))
    config = read_about(folder).get("config")
    name = config.get("modality", "picture") if isinstance(config, dict) else None
    if name not in MODALITIES:
        raise ValueError(f"{folder / ABOUT} is of the modality {name!r}: valid are {', '.join(MODALITIES)}")
    if options.modality not in (None, name):
        raise ValueError(f"{options.model} is a model of a {name}, not of a {options.modality}: leave --modality out")
    return MODALITIES[name]


def _read(files: list[tuple[str, str]], modality: Modality, options: argparse.Namespace) -> Iterator[tuple[str, str, Any]]:
    taken = {option.name for option in modality.read_options}
    known = {option.name: getattr(options, option.name) for each in MODALITIES.values() for option in each.read_options}
    given = {name: value for name, value in known.items() if value not in (None, False)}
    for name in sorted(given.keys() - taken):
        raise ValueError(f"--{name.replace('_', '-')} says nothing of a {modality.name}, which this model is for: leave it out")
    for source, target in files:
        yield source, target, modality.read(source, max_samples=options.max_pixels, **given)


def _encode_group(model: vcinr.Model, point: int, group: list, options: argparse.Namespace, report: Callable) -> None:
    from vcinr.trees import write_atomically

    signals = [raw for _, _, raw in group]
    with about(group[0][0]) if len(group) == 1 else contextlib.nullcontext():
        codes, grids = model.make_codes(signals, point, options.effort, workdir=options.workdir, progress=report)
    sizes = []
    for (_, target, _), code, grid in zip(group, codes, grids, strict=True):
        data = model.write_codes(point, [code], [grid])
        write_atomically(target, data)
        sizes.append(len(data))
    qualities = _verify(model, group, codes, options.max_pixels) if options.verify else [""] * len(group)
    for (source, target, _), grid, size, quality in zip(group, grids, sizes, qualities, strict=True):
        print(f"{source} → {target}: {size} bytes, {8 * size / math.prod(grid.shape):.4f} bpp{quality}")


def _verify(model: vcinr.Model, group: list, codes: list, max_pixels: int) -> list[str]:
    """Reads the files back from disk; their PSNR. ValueError where one holds other symbols than were coded."""
    import numpy as np

    from vcinr.evaluation.metrics import psnr_db
    from vcinr.model.decoding import unpacked_signals

    points, grids = [], []
    for (_, target, _), code in zip(group, codes, strict=True):
        with about(target):
            point, (read,), (grid,) = model.read_codes(read_coded(target), max_pixels, NO_LIMIT)
            if not all(np.array_equal(read.streams[name], code.streams[name]) for name in model.codec.streams):
                raise ValueError("it reads back as other symbols than were coded")
        points.append(point)
        grids.append(grid)
    qualities = []
    for (_, _, raw), (decoded, _) in zip(group, unpacked_signals(model, points, codes, grids), strict=True):
        samples, metadata = model.modality.unpack(raw)
        error = model.modality.squared_error(samples, decoded, model.modality.weights(samples, metadata))
        qualities.append(f", symbols equal, {psnr_db(error):.2f} dB")
    return qualities


def _load(name: str | None, modality: Modality) -> vcinr.Model:
    """The model of that name; without one the modality's bundled one, and where that is not installed the only one at hand."""
    from vcinr.model.finding import built_in_names
    from vcinr.model.places import SEARCH_VARIABLE, bundled, model_folders

    if name is not None:
        return vcinr.load(name, modality.name)
    default = DEFAULT_MODELS.get(modality.name)
    if default is not None and (folder := bundled(default)) is not None:
        return vcinr.load(folder)
    found = model_folders()
    alone = vcinr.load(found[0]) if len(found) == 1 else None
    if alone is None or alone.modality is not modality:
        hand = f"at hand: {', '.join(map(str, found))}" if found else f"none is at hand, and {SEARCH_VARIABLE} names none"
        lacks = f"{default!r}, the default, is not installed" if default else f"none of a {modality.name} is bundled"
        mend = "install a vcinr that bundles it, give --model DIR" if default else "give --model DIR"
        raise ValueError(f"which model? {lacks} ({hand}): {mend}, or one that needs no folder: {', '.join(built_in_names())}")
    return alone

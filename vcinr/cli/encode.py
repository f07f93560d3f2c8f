"""`vcinr encode`: pictures to files."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Iterator

import vcinr
from vcinr.bitstream.limits import NO_LIMIT
from vcinr.cli.files import GROUP_PIXELS, about, check_overwritten, in_groups, pairs, read_coded
from vcinr.cli.progress import progress
from vcinr.cli.starting import start_jax

SUFFIX = ".vcinr"
DEFAULT_MODEL = "photo"
"""Bundled, for pictures of any size."""


def run(options: argparse.Namespace) -> None:
    """`vcinr encode IN OUT`, or `vcinr encode FILES… --out DIR`."""
    from vcinr.modalities.picture_files import read_image

    files = pairs(options.paths, options.out, SUFFIX)
    for _, target in files:
        check_overwritten(target)
    start_jax()
    model = default_model() if options.model is None else vcinr.load(options.model)
    if options.point is None and options.bpp is None and options.psnr is None:
        if model.codec.searches and len(model.points) > 1:
            raise ValueError(f"which of {len(model.points)} networks? give --bpp, --psnr or --point (see vcinr models NAME)")
        options.point = model.default_point

    def read(report: Callable) -> Iterator[tuple]:
        for source, target in files:
            picture = read_image(source, options.background, options.eight_bit, options.max_pixels)
            point = options.point
            with about(source):
                model.check_size([picture.shape[:2]], options.max_pixels)
                if options.bpp is not None or options.psnr is not None:
                    wanted = (options.bpp, options.psnr, options.effort)
                    point = model.choose_point(picture, *wanted, workdir=options.workdir, progress=report)
            # Signals that are fitted whole come one by one: each file is there when its fit is, and the fit is that of --psnr.
            size = math.prod(picture.shape[:2]) if model.codec.patch else GROUP_PIXELS
            yield point, size, (source, target, picture)

    with progress("encoding", len(files)) as (advance, report):
        for point, group in in_groups(read(report)):
            _encode_group(model, point, group, options, report)
            advance(len(group))


def _encode_group(model: vcinr.Model, point: int, group: list, options: argparse.Namespace, report: Callable) -> None:
    from vcinr.trees import write_atomically

    pictures = [picture for _, _, picture in group]
    with about(group[0][0]) if len(group) == 1 else contextlib.nullcontext():
        codes, grids = model.make_codes(pictures, point, options.effort, workdir=options.workdir, progress=report)
    sizes = []
    for (_, target, _), code, grid in zip(group, codes, grids, strict=True):
        data = model.write_codes(point, [code], [grid])
        write_atomically(target, data)
        sizes.append(len(data))
    qualities = _verify(model, group, codes, options.max_pixels) if options.verify else [""] * len(group)
    for (source, target, picture), size, quality in zip(group, sizes, qualities, strict=True):
        print(f"{source} → {target}: {size} bytes, {8 * size / math.prod(picture.shape[:2]):.4f} bpp{quality}")


def _verify(model: vcinr.Model, group: list, codes: list, max_pixels: int) -> list[str]:
    """Reads the files back from disk; their PSNR. ValueError where one holds other symbols than were coded."""
    import numpy as np

    from vcinr.evaluation.metrics import mean_squared_error, psnr_db

    written = []
    for (_, target, _), code in zip(group, codes, strict=True):
        with about(target):
            written.append(read_coded(target))
            _, (read,), _ = model.read_codes(written[-1], max_pixels, NO_LIMIT)
            if not all(np.array_equal(read.streams[name], code.streams[name]) for name in model.codec.streams):
                raise ValueError("it reads back as other symbols than were coded")
    decoded = model.decode_batch(written, max_pixels, NO_LIMIT)
    return [
        f", symbols equal, {psnr_db(mean_squared_error(picture, other)):.2f} dB"
        for (_, _, picture), other in zip(group, decoded, strict=True)
    ]


def default_model() -> vcinr.Model:
    """The bundled model for pictures, and where it is not installed the only one that is at hand."""
    from vcinr.model.finding import built_in_names
    from vcinr.model.places import SEARCH_VARIABLE, bundled, model_folders

    found = model_folders()
    if (default := bundled(DEFAULT_MODEL)) is None and len(found) != 1:
        hand = f"at hand: {', '.join(map(str, found))}" if found else f"none is at hand, and {SEARCH_VARIABLE} names none"
        raise ValueError(
            f"which model? {DEFAULT_MODEL!r}, the default, is not installed ({hand}): install a vcinr that bundles it, "
            f"give --model DIR, or one that needs no folder: {', '.join(built_in_names())}"
        )
    return vcinr.load(default or found[0])

"""`vcinr decode`: files to pictures."""

from __future__ import annotations

import argparse
import math
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


def run(options: argparse.Namespace) -> None:
    """`vcinr decode IN OUT.png`, or `vcinr decode FILES… --out DIR`."""
    from vcinr.modalities.picture_files import LOSSLESS_SUFFIXES
    from vcinr.model.finding import find_by_fingerprint

    files = pairs(options.paths, options.out, ".png")
    for _, target in files:
        if Path(target).suffix.lower() not in LOSSLESS_SUFFIXES:
            raise ValueError(f"{target}: pictures are written as one of {', '.join(LOSSLESS_SUFFIXES)}, which keep every value")
    start_jax()
    models = [vcinr.load(options.model)] if options.model is not None else []

    def read() -> Iterator[tuple]:
        for source, target in files:
            with about(source):
                data = read_coded(source)
                peek = container.peek(data, options.max_pixels)
                able = [model for model in models if options.model is not None or peek.fingerprint in model.fingerprints]
                if not able:
                    able = [find_by_fingerprint(peek.fingerprint)]
                    models.extend(able)
            yield able[0], sum(map(math.prod, peek.shapes)), (source, target, data)

    with progress("decoding", len(files)) as (advance, _):
        for model, group in in_groups(read()):
            _decode_group(model, group, options.max_pixels, options.max_work)
            advance(len(group))


def _decode_group(model: vcinr.Model, group: list, max_pixels: int, max_work: int) -> None:
    try:
        pictures = model.decode_batch([data for _, _, data in group], max_pixels, max_work)
    except (BitstreamError, MemoryError):
        # One by one, to name the file that is wrong, or to take less memory.
        pictures = []
        for source, _, data in group:
            with about(source):
                pictures.append(model.decode(data, max_pixels, max_work))
    for (_, target, _), picture in zip(group, pictures, strict=True):
        _write_picture(target, picture)


def _write_picture(path: str, picture: Any) -> None:
    """Writes a picture that is whole from the first moment on."""
    from vcinr.modalities.picture_files import write_image
    from vcinr.trees import write_atomically

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / f"picture{Path(path).suffix}"
        write_image(scratch, picture)
        write_atomically(path, scratch.read_bytes())

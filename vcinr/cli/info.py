"""`vcinr info`: what a file says of itself."""

from __future__ import annotations

import argparse
import contextlib
import math

from vcinr.bitstream import container
from vcinr.cli.files import about, read_coded


def known(fingerprint: bytes) -> str | None:
    """The kind of signal and the model of a fingerprint, of models at hand, read without JAX; None where it is none of theirs."""
    from vcinr.model.places import ModelError, model_folders, read_about

    for folder in model_folders():
        with contextlib.suppress(ModelError):
            info = read_about(folder)
            if any(point["fingerprint"] == fingerprint.hex() for point in info["points"]):
                modality = info.get("config", {}).get("modality", "picture")
                return f"{modality} (model {folder.name})"
    return None


def run(options: argparse.Namespace) -> None:
    """`vcinr info FILE`: what a file says of itself, no model needed."""
    with about(options.path):
        data = read_coded(options.path)
        peek = container.peek(data, options.max_pixels)
    shapes = ", ".join("×".join(map(str, shape)) for shape in peek.shapes[:4]) + (", …" if len(peek.shapes) > 4 else "")
    print(f"format version {peek.version}")
    print(f"fingerprint    {peek.fingerprint.hex()}")
    if (found := known(peek.fingerprint)) is not None:
        print(f"holds          {found}")
    print(f"signals        {len(peek.shapes)} ({shapes})")
    print(f"size           {len(data)} bytes, {8 * len(data) / sum(map(math.prod, peek.shapes)):.4f} bpp")

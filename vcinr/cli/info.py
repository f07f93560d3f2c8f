"""`vcinr info`: what a file says of itself."""

from __future__ import annotations

import argparse
import math

from vcinr.bitstream import container
from vcinr.cli.files import about, read_coded


def run(options: argparse.Namespace) -> None:
    """`vcinr info FILE`: what a file says of itself, no model needed."""
    with about(options.path):
        data = read_coded(options.path)
        peek = container.peek(data, options.max_pixels)
    shapes = ", ".join("×".join(map(str, shape)) for shape in peek.shapes[:4]) + (", …" if len(peek.shapes) > 4 else "")
    print(f"format version {peek.version}")
    print(f"fingerprint    {peek.fingerprint.hex()}")
    print(f"signals        {len(peek.shapes)} ({shapes})")
    print(f"size           {len(data)} bytes, {8 * len(data) / sum(map(math.prod, peek.shapes)):.4f} bpp")

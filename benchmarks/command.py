"""Wall time of the whole `vcinr encode` process, with an empty compilation cache and with a filled one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks.subjects import pictures
from benchmarks.timing import paired_times, ratio
from vcinr.modalities import MODALITIES
from vcinr.model.model import Model

HEIGHT, WIDTH = 256, 384


def compare(model: Model, repeats: int) -> Table:
    """Wall time of a process that encodes one picture, with an empty and with a filled cache, and of one that only imports."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save(folder / "model")
        MODALITIES["picture"].write(folder / "picture.png", pictures(1, HEIGHT, WIDTH)[0])

        def start(cache: str, *arguments: str) -> None:
            subprocess.run(
                [sys.executable, *arguments], env={**os.environ, "VCINR_CACHE": cache}, check=True, capture_output=True
            )

        def encode(cache: str) -> None:
            arguments = ("encode", str(folder / "picture.png"), str(folder / "picture.vcinr"), "--model", str(folder / "model"))
            start(cache, "-m", "vcinr", *arguments)

        def cold() -> None:
            with tempfile.TemporaryDirectory(dir=folder) as empty:
                encode(empty)

        filled = str(folder / "filled")
        encode(filled)
        work = {
            "cold: empty cache": cold,
            "warm: filled cache": lambda: encode(filled),
            "imports alone": lambda: start("", "-c", "import vcinr.model.finding, vcinr.modalities.files.picture"),
        }
        times = paired_times(work, repeats, warm_up=False)
    table = Table("process", "s", "of warm", title=f"`vcinr encode` of one {HEIGHT}×{WIDTH} picture", title_justify="left")
    for label, seconds in times.items():
        table.add_row(label, f"{np.median(seconds):.2f}", ratio(seconds, times["warm: filled cache"]))
    return table

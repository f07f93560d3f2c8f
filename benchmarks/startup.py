"""CPU time of whole commands on one small signal, beside that of importing JAX: `python -m benchmarks.startup`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.subjects import pictures
from benchmarks.timing import ratio
from vcinr.modalities import MODALITIES

SIGNALS = {"photo": (300, 500), "tiny": (32, 32)}
"""Bundled model → height and width of the picture that it codes."""
YARDSTICK = "import jax"


def cpu_seconds(*arguments: str, cache: str, expected: int = 0) -> float:
    """User and system time of one Python process. RuntimeError where it ends with another status than ``expected``."""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    environment |= {"VCINR_CACHE": cache}
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != expected:
        raise RuntimeError(f"python {' '.join(arguments)} ended with status {process.returncode}, not {expected}")
    return usage.ru_utime + usage.ru_stime


def compare(repeats: int) -> Table:
    """Commands in turn, with a filled compilation cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.png").write_text("no picture")
        work = {YARDSTICK: (["-c", "import jax"], 0)}
        for model, (height, width) in SIGNALS.items():
            raw, coded, decoded = (str(folder / f"{model}{suffix}") for suffix in (".png", ".vcinr", "_decoded.png"))
            MODALITIES["picture"].write(raw, pictures(1, height, width)[0])
            size = f"{height}×{width}, {model}"
            work[f"vcinr encode ({size})"] = (["-m", "vcinr", "encode", raw, coded, "--model", model], 0)
            work[f"vcinr decode ({size})"] = (["-m", "vcinr", "decode", coded, decoded], 0)
        work["vcinr encode (no picture)"] = (["-m", "vcinr", "encode", str(folder / "text.png"), str(folder / "no.vcinr")], 1)
        work["vcinr decode (no file of ours)"] = (["-m", "vcinr", "decode", str(folder / "text.png"), str(folder / "no.png")], 1)

        def run(label: str) -> float:
            arguments, expected = work[label]
            return cpu_seconds(*arguments, cache=str(folder / "cache"), expected=expected)

        for label in work:
            run(label)  # Fills the cache.
        rounds = np.array([[run(label) for label in work] for _ in range(repeats)])
    table = Table("process", "CPU s", f"of {YARDSTICK}", title="Commands, warm", title_justify="left")
    for label, seconds in zip(work, rounds.T, strict=True):
        table.add_row(label, f"{np.median(seconds):.2f}", ratio(seconds, rounds[:, 0]))
    return table


if __name__ == "__main__":
    Console().print(compare(5), highlight=False)

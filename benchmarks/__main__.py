"""Prints all benchmarks: medians, and ratios over paired runs.

    python -m benchmarks [--quick]        (what `make bench` runs)

Takes about 3 minutes on two idle cores; with ``--quick``, smaller sizes, fewer repeats and no ablations, well under one.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import coder, command, layout, meta_step, samples, startup, throughput
from benchmarks.subjects import untrained_model, vc_inr_config
from vcinr.provenance import environment


def machine() -> str:
    """One line about the machine and versions that the numbers were measured with."""
    about = environment()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{model}, {about['cpu_count']} cores{load}; {about['device_count']} × {about['device_kind']}; "
        f"jax {about['jax']}, Python {about['python']}"
    )


def sections(quick: bool) -> Iterator[tuple[str, Callable[[], Table]]]:
    """(name of the subject, function that measures it), in order."""
    config = vc_inr_config(num_layers=2, width=32, patch=16) if quick else vc_inr_config()
    repeats = 5 if quick else 9
    yield "the range coder", lambda: coder.compare(10**5 if quick else 10**6, repeats)
    yield "a meta-training step", lambda: meta_step.compare(config, repeats, ablations=not quick)
    yield "layouts of narrow fields", lambda: layout.compare((8, 64) if quick else (8, 16, 32, 64), repeats)
    model = untrained_model(config)
    yield "encoding and decoding", lambda: throughput.compare(model, (1, 32) if quick else (1, 8, 32, 128), repeats)
    yield "decoding of samples", lambda: samples.compare(repeats)
    yield "`vcinr encode`", lambda: command.compare(model, 1 if quick else 3)
    yield "commands of the bundled models", lambda: startup.compare(1 if quick else 5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed, memory and rate overhead, as ratios.")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer repeats, no ablations")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    progress = Console(stderr=True)
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(machine(), highlight=False)
    console.print("Medians; ratios: median (minimum to maximum) over paired runs.\n", highlight=False)
    for what, measure in sections(options.quick):
        with progress.status(f"measuring {what} …"):
            table = measure()
        console.print(table, highlight=False)
        console.print()
    console.print(f"{time.monotonic() - started:.0f} s in all", highlight=False)


if __name__ == "__main__":
    main()

"""Measures a trained model on its test split, from files written and read back, beside classical codecs.

    python -m experiments.evaluate --workdir=DIR --out=DIR/rd.json [--no-classical] [--limit=N] [--record=docs/results/NAME.json]

Writes a JSON list, one object an operating point; with --record also a file with the run's provenance, for `make results`. Where
encoding fits each signal for long, the same command goes on where it was interrupted (from WORKDIR/encodings).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from experiments import data
from vcinr.datasets.catalogue import DatasetMissing
from vcinr.devices import use_cpu_cores
from vcinr.evaluation.classical import measure_jpeg, measure_jpeg2000
from vcinr.evaluation.measure import measure
from vcinr.model.finding import load
from vcinr.provenance import provenance
from vcinr.report.page import print_table, save_run
from vcinr.training.progress import Progress
from vcinr.trees import write_atomically


def evaluate(workdir: str | Path, classical: bool = True, limit: int = 0) -> list[dict]:
    """Rows of the model in ``workdir/model`` on its config's test split, then of the classical codecs."""
    model = load(Path(workdir) / "model")
    config = ConfigDict(model.info["config"])
    jax.config.update("jax_default_matmul_precision", "float32")
    if limit:
        config.data.test_limit = limit
    pictures = list(data.pictures(config, "test"))
    name = config.data.test_name or config.data.name
    with Progress() as bar:
        encodings = Path(workdir) / "encodings"
        rows = measure(model, pictures, name, config.data.test, progress=bar.report, workdir=encodings)
    if classical:
        rows += measure_jpeg(pictures, name, config.data.test) + measure_jpeg2000(pictures, name, config.data.test)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, writes and prints; returns the exit status, 1 where the model or its data set is missing, or a fit fails.

    The time of a record is that of training and of this measurement, each since its last start.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.evaluate", description="Measures a trained model.")
    parser.add_argument("--workdir", required=True, help="where experiments.train wrote its model")
    parser.add_argument("--out", required=True, help="the JSON file to write")
    parser.add_argument(
        "--classical", action=argparse.BooleanOptionalAction, default=True, help="JPEG and JPEG 2000 on the same pictures"
    )
    parser.add_argument("--record", default="", help="also write the points with their provenance to this file")
    parser.add_argument("--notes", default="", help="what a reader of the record must know")
    parser.add_argument("--limit", type=int, default=0, help="signals to measure; 0 for what the config says")
    options = parser.parse_args(arguments)
    use_cpu_cores()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("vcinr").setLevel(logging.INFO)
    started, source = time.time(), provenance()
    try:
        rows = evaluate(options.workdir, options.classical, options.limit)
    except DatasetMissing as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    write_atomically(options.out, (json.dumps(rows, indent=1) + "\n").encode())
    print_table(rows)
    if options.record:
        info = load(Path(options.workdir) / "model").info
        chosen = ("" if options.classical else " --no-classical") + (f" --limit={options.limit}" if options.limit else "")
        command = f"{info['command']}; python -m experiments.evaluate --workdir=DIR --out=DIR/rd.json{chosen}"
        duration_s = info["duration_s"] + time.time() - started
        trained = info["starts"][-1]["git_revision"] if info.get("starts") else None
        save_run(options.record, rows, info["config_name"], command, duration_s, options.notes, source, trained)
    return 0


if __name__ == "__main__":
    sys.exit(main())

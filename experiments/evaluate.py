"""Measures a trained model and classical codecs on the model's test split, on files that were decoded again.

    python -m experiments.evaluate --workdir=DIR --out=DIR/rd.json [--no-classical] [--limit=N] [--record=docs/results/NAME.json]
    python -m experiments.evaluate --model=photo --out=rd.json

Writes a JSON list with one object per operating point, which holds means and each signal's rate and quality; with --record also
a file with the run's provenance, for `make results`. For codecs that fit each signal for long, an interrupted measurement with
--workdir resumes from WORKDIR/encodings.
"""

from __future__ import annotations

import argparse
import importlib
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
from vcinr.evaluation.measure import measure
from vcinr.model.finding import load
from vcinr.provenance import provenance
from vcinr.report.records import points_json, save_run
from vcinr.report.tables import print_table
from vcinr.training.progress import ProgressBar
from vcinr.trees import write_atomically


def evaluate(workdir: str | Path, classical: bool = True, limit: int = 0, name: str = "") -> list[dict]:
    """Rows of a model on its config's test split, then of the classical codecs of its modality.

    Args:
      workdir: of a run of `experiments.train`; its model is measured, and fits are kept in its folder ``encodings``.
      classical: whether to measure what people use today too, such as JPEG: the modality's ``references``.
      limit: number of test signals; 0: as the config says.
      name: a model to measure instead, such as ``photo``; ``workdir`` is not used then.
    """
    model = load(name or Path(workdir) / "model")
    config = ConfigDict(model.info["config"])
    jax.config.update("jax_default_matmul_precision", "float32")
    if limit:
        config.data.test_limit = limit
    found = list(data.signals(config, "test"))
    dataset, split = config.data.test_name or config.data.name, config.data.test
    with ProgressBar() as bar:
        encodings = None if name else Path(workdir) / "encodings"
        rows = measure(model, found, dataset, split, progress=bar.report, workdir=encodings)
    for name in model.modality.references if classical else ():
        module, function = name.split(":")
        rows += getattr(importlib.import_module(module), function)(found, dataset, split)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, writes and prints; returns the exit status, 1 where the model or its data set is missing, or a fit fails.

    The duration in a record counts this measurement since its last start, and with --workdir the training.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.evaluate", description="Measures a trained model.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", default="", help="where experiments.train wrote its model")
    source.add_argument("--model", default="", help="a model to measure instead, such as photo (see `vcinr models`)")
    parser.add_argument("--out", required=True, help="the JSON file to write")
    parser.add_argument(
        "--classical", action=argparse.BooleanOptionalAction, default=True, help="what people use today on the same signals"
    )
    parser.add_argument("--record", default="", help="also write the points with their provenance to this file")
    parser.add_argument("--notes", default="", help="remarks for readers of the record")
    parser.add_argument("--limit", type=int, default=0, help="number of signals to measure; 0: as the config says")
    options = parser.parse_args(arguments)
    use_cpu_cores()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("vcinr").setLevel(logging.INFO)
    started, began = time.time(), provenance()
    try:
        rows = evaluate(options.workdir, options.classical, options.limit, options.model)
    except DatasetMissing as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    write_atomically(options.out, f"{points_json(rows)}\n".encode())
    print_table(rows)
    if options.record:
        info = load(options.model or Path(options.workdir) / "model").info
        chosen = ("" if options.classical else " --no-classical") + (f" --limit={options.limit}" if options.limit else "")
        if options.model:
            command, training_s = f"python -m experiments.evaluate --model={options.model} --out=rd.json{chosen}", 0.0
        else:
            command = f"{info['command']}; python -m experiments.evaluate --workdir=DIR --out=DIR/rd.json{chosen}"
            training_s = info["duration_s"]
        trained = info["starts"][-1]["git_revision"] if info.get("starts") else None
        duration_s = training_s + time.time() - started
        save_run(options.record, rows, info["config_name"], command, duration_s, options.notes, began, trained)
    return 0


if __name__ == "__main__":
    sys.exit(main())

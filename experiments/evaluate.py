"""Measures a trained model on its test split, from files written and read back, beside classical codecs.

    python -m experiments.evaluate --workdir=DIR --out=DIR/rd.json [--noclassical] [--limit=N]

Writes a JSON list, one object an operating point.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from experiments import data
from vcinr.evaluation.classical import measure_jpeg, measure_jpeg2000
from vcinr.evaluation.measure import measure
from vcinr.evaluation.report import print_table
from vcinr.model import load
from vcinr.trees import write_atomically

_WORKDIR = flags.DEFINE_string("workdir", None, "Where experiments.train wrote its model.")
_OUT = flags.DEFINE_string("out", None, "The JSON file to write.")
_CLASSICAL = flags.DEFINE_bool("classical", True, "Measure JPEG and JPEG2000 on the same pictures.")
_LIMIT = flags.DEFINE_integer("limit", 0, "Signals to measure; 0 for what the config says.")


def evaluate(workdir: str | Path, classical: bool = True, limit: int = 0) -> list[dict]:
    """Rows of the model in ``workdir/model`` on its config's test split, then of the classical codecs."""
    model = load(Path(workdir) / "model")
    config = ConfigDict(model.info["config"])
    jax.config.update("jax_default_matmul_precision", "float32")
    if limit:
        config.data.test_limit = limit
    pictures = list(data.pictures(config, "test"))
    name = config.data.test_name or config.data.name
    rows = measure(model, pictures, name, config.data.test)
    if classical:
        rows += measure_jpeg(pictures, name, config.data.test) + measure_jpeg2000(pictures, name, config.data.test)
    return rows


def main(argv):
    """Command line; see the module."""
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        raise app.UsageError(f"unexpected {' '.join(argv[1:])}")
    rows = evaluate(_WORKDIR.value, _CLASSICAL.value, _LIMIT.value)
    write_atomically(_OUT.value, (json.dumps(rows, indent=1) + "\n").encode())
    print_table(rows)


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "out"])
    app.run(main)

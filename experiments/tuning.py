"""What going on end to end buys a contextual codec: the same steps with nothing more tuned, with learned steps, with the field.

    python -m experiments.tuning --workdir=DIR --floor=KLT [--num-steps=600] [--record=FILE]

DIR is a finished run of `experiments.train` whose config has ``compression="contextual"``, KLT one of the codec `klt` on the same
data. Every arm begins where the stage ``context`` ended; pictures are of the validation split. Writes a study that `make results`
renders.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import data
from experiments.command_line import run_study
from experiments.parts import Arm, Curve, columns, curve_of, floor_curve, latents, row_of
from vcinr.codecs.codec import TrainingConfig
from vcinr.devices import use_cpu_cores
from vcinr.evaluation.bd_rate import psnr_at
from vcinr.evaluation.studies import save_study, study_table
from vcinr.model import Model, load, make_model
from vcinr.provenance import provenance
from vcinr.training.loop import run_stage
from vcinr.trees import load_tree

ARMS = {"networks alone": "nothing", "and steps": "steps", "and steps and field": "field"}
"""Names of the table → `ContextualConfig.tuned`."""


def tuned_model(model: Model, tuned: str, training: TrainingConfig, context: Any, crops: Any, workdir: Path) -> Model:
    """A model that goes on from what the stage ``context`` ended in."""
    contextual = dataclasses.replace(model.codec.config.contextual, end_to_end=training, tuned=tuned)
    codec = dataclasses.replace(model.codec, config=dataclasses.replace(model.codec.config, contextual=contextual))
    params = context
    for index, stage in enumerate(codec.stages()):
        if stage.name in ("end_to_end", "tables"):
            params = run_stage(stage, params, crops, seed=0, workdir=workdir, index=index)
    return make_model(codec, params, model.info, precision=model.precision)


def study(options: argparse.Namespace) -> str:
    """Trains and measures all arms; writes the study and returns its table."""
    started, run = time.time(), provenance()
    workdir = Path(options.workdir)
    model = load(workdir / "model")
    begun = workdir / "context" / "finished.safetensors"
    context = load_tree(begun)
    # Named after all that its arms depend on: finished ones are not trained again.
    folder = workdir / f"tuning_{options.num_steps}_{options.lr:g}_{hashlib.sha256(begun.read_bytes()).hexdigest()[:12]}"
    config = ConfigDict(model.info["config"])
    crops = data.patches(config, "train")
    pictures = data.evenly_spaced(data.pictures(config, "validation"), options.pictures)
    own = model.codec.config.contextual.training
    training = dataclasses.replace(own, num_steps=options.num_steps, lr=options.lr, average_decay=0.99, eval_every=0)
    floor = floor_curve(load(Path(options.floor) / "model"), pictures, "validation")
    rows: list[list[Any]] = []
    before: Curve | None = None
    for name, tuned in {"trained on latents": None, **ARMS}.items():
        arm = model
        if tuned is not None:
            arm = tuned_model(model, tuned, training, context, crops, folder / tuned)
        curve, seconds = curve_of(arm, Arm("all"), np.zeros(0), latents(arm, pictures), pictures)
        rows.append(row_of(name, curve, floor, before, options.rates, seconds))
        print(study_table({"columns": columns(options.rates), "rows": rows[-1:]}), f"{time.time() - started:.0f} s", flush=True)
        before = curve if before is None or tuned == "nothing" else before
    klt = [["klt", *(psnr_at(floor, rate) for rate in options.rates), 0.0, 0.0, None, None]]
    about = (
        f"{len(pictures)} pictures of the validation split of {config.data.name}. The model of {model.info['config_name']}, and "
        f"its networks trained for {options.num_steps} steps more, at {options.lr:g}, on random crops from pixels to pixels: "
        "alone; with every point's steps; with these, the field and its step sizes, through the inner loop. Columns as in the "
        "study of parts; bought: of the first arm over the model, of the others over the first arm."
    )
    saved = save_study(
        options.record,
        title=f"What tuning end to end buys: {config.data.name}",
        about=about,
        columns=columns(options.rates),
        rows=klt + rows,
        command=f"{model.info['command']}; python -m experiments.tuning --workdir=DIR --floor=KLT "
        f"--num-steps={options.num_steps} --lr={options.lr:g} --pictures={options.pictures}",
        duration_s=time.time() - started,
        notes=options.notes,
        source=run,
    )
    return study_table(saved)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status is 1 where the data or the model are missing."""
    parser = argparse.ArgumentParser(prog="python -m experiments.tuning", description="What tuning end to end buys.")
    parser.add_argument("--workdir", required=True, help="where experiments.train wrote a contextual model")
    parser.add_argument("--floor", required=True, help="where experiments.train wrote a klt model of the same data")
    parser.add_argument("--num-steps", type=int, default=600, help="of every arm (%(default)s)")
    parser.add_argument("--lr", type=float, default=5e-4, help="peak rate of every arm (%(default)s)")
    parser.add_argument("--pictures", type=int, default=256, help="validation pictures, evenly spaced (%(default)s)")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="bpp of the table's columns")
    parser.add_argument("--record", default="docs/results/studies/tuning.json", help="the file to write (%(default)s)")
    parser.add_argument("--notes", default="", help="what came out")
    options = parser.parse_args(arguments)
    use_cpu_cores()
    return run_study(study, options, FileNotFoundError)


if __name__ == "__main__":
    sys.exit(main())

"""Trains a codec and writes its model.

    python -m experiments.train --config=configs/vc_inr.py:cifar10_small --workdir=DIR [--config.meta.num_steps=2000 …]

The same command resumes an interrupted run. DIR/model is the trained model.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from configs.base import check_key, codec_of
from experiments import data
from vcinr.datasets.catalogue import DatasetMissing
from vcinr.devices import initialise_distributed, use_cpu_cores
from vcinr.evaluation.measure import measure
from vcinr.model.model import Model, make_model
from vcinr.stage import Stage
from vcinr.training.optimisers import make_schedule
from vcinr.training.run import describe, record_start
from vcinr.training.run import train as train_stages

_CONFIG = config_flags.DEFINE_config_file("config", None, "e.g. configs/vc_inr.py:demo", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, logs and the model go.")
_COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0, for several processes.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "Processes in the run.", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", 0, "This process.", lower_bound=0)

VALIDATION_SIGNALS = 32


def train(config: ConfigDict, workdir: str | Path, quiet: bool = False, options: Sequence[str] = ()) -> Model:
    """Trains all stages of the config's codec in ``workdir``, resuming where a run stopped, and writes ``workdir/model``.

    The model's points hold their rate and quality on at most 32 validation patches, except for codecs that take signals whole,
    whose fits take long. Codecs without stages need no data here.

    Args:
      config: see `configs.base.make_config`.
      workdir: folder of checkpoints, logs and the model.
      quiet: print no progress.
      options: of the command line, kept in the model's info; ``duration_s`` there counts from the last start only.
    """
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)
    started = time.time()
    codec = codec_of(config)
    if codec.stages():
        params = train_stages(
            codec,
            data.patches(config, "train"),
            seed=config.seed,
            workdir=workdir,
            validation=data.patches(config, "validation"),
            config_json=config.to_json(),
            quiet=quiet,
        )
    else:
        if jax.process_index() == 0:
            record_start(Path(workdir), describe(codec, config.seed, config.to_json()))
        params = codec.init(jax.random.key(config.seed))
    info = {
        "config": config.to_dict(),
        "config_name": next((option.split("=", 1)[1] for option in options if option.startswith("--config=")), ""),
        "command": shlex.join(["python", "-m", "experiments.train", *options, "--workdir=DIR"]),
        "duration_s": round(time.time() - started, 1),
        "starts": json.loads((Path(workdir) / "started.json").read_text())["starts"],
    }
    model = make_model(codec, params, info, precision=config.model_precision)
    if codec.patch:
        held_out = data.patches(config, "validation").all_patches(np.random.default_rng(0), 1, VALIDATION_SIGNALS)
        # Patches come without the metadata of the signals that they are of.
        signals = [model.modality.pack(patch, model.modality.example_metadata) for patch in held_out]
        rows = measure(model, signals, config.data.name, "validation")
        for i, (point, row) in enumerate(zip(model.points, rows, strict=True)):
            point |= {"bpp": round(row["bpp_container"], 4), "psnr_db": round(row["psnr_db"], 3)}
            if "lambda" in params["points"][str(i)]:
                point["lambda"] = round(float(params["points"][str(i)]["lambda"]), 8)
    if jax.process_index() == 0:
        model.save(Path(workdir) / "model")
    return model


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, but an unknown --config.KEY ends in one line that names the nearest key instead of in a traceback."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError):
        words = " ".join(argv)
        config = flags.FLAGS["config"].parser.parse(re.search(r" --?config[= ](\S+)", words)[1])
        try:
            for path in re.findall(r" --?(?:no)?config\.([\w.]+)", words):
                check_key(config, path)
        except ValueError as error:
            sys.exit(str(error))
        raise


def batch_sizes(config: Mapping[str, Any]) -> list[int]:
    """The batch sizes of all trainings in a config."""
    nested = [size for value in config.values() if isinstance(value, Mapping) for size in batch_sizes(value)]
    return [config["batch_size"], *nested] if "batch_size" in config else nested


def given_options() -> list[str]:
    """The config and its overrides in a canonical spelling."""
    flag = flags.FLAGS["config"]
    overrides = config_flags.get_override_values(flag)
    return [
        f"--config={config_flags.get_config_filename(flag)}",
        *(f"--config.{key}={value}" for key, value in overrides.items()),
    ]


def main(argv):
    """Command line; see the module."""
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        raise app.UsageError(f"unexpected {' '.join(argv[1:])}: options are --config.KEY=VALUE")
    try:
        if _NUM_PROCESSES.value == 1:
            use_cpu_cores(batch_sizes(_CONFIG.value.to_dict()))
        for stage in codec_of(_CONFIG.value).stages():
            if isinstance(stage, Stage):
                make_schedule(stage.training)  # Reports errors in any stage's config before the first stage is trained.
    except (OSError, ValueError) as error:  # OSError: there is no such file
        sys.exit(f"--config: {error}")
    if _NUM_PROCESSES.value > 1:
        initialise_distributed(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    try:
        model = train(_CONFIG.value, _WORKDIR.value, options=given_options())
    except DatasetMissing as error:
        sys.exit(str(error))
    except ValueError as error:
        sys.exit(" ".join(str(error).split()))
    for point in model.points:
        measured = f": {point['bpp']:.3f} bpp, {point['psnr_db']:.2f} dB on validation patches" if "bpp" in point else ""
        print(f"point {point['name']}{measured}")
    print(f"model: {Path(_WORKDIR.value) / 'model'}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)

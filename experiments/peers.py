"""The latent codecs on equal terms: as many training examples for each, at one batch size, with its paper's inner steps.

    python -m experiments.peers --workdir=DIR [--examples=12096] [--record=docs/results/studies/peers.json]

Trains the demo of COIN++, Functa, MSCN in both forms, MetaSparseINR and VC-INR in its published form on tiles of photographs,
with these changed: training examples, batch size, random coordinates per step. Whether a codec trains its field in one stage or
in four, the examples of all are counted. Then it measures each on held-out tiles, beside the KLT. Each finished codec is kept in
DIR and not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import coinpp, functa, klt, meta_sparse_inr, mscn, vc_inr
from configs.base import codec_of
from experiments import data
from experiments.command_line import run_study
from experiments.sparsity import finished, squared_error
from experiments.train import train
from vcinr.batching import map_batches
from vcinr.codecs.latent_codec import LatentCodec
from vcinr.datasets.catalogue import prepare
from vcinr.devices import use_cpu_cores
from vcinr.evaluation.measure import measure
from vcinr.evaluation.metrics import psnr_db
from vcinr.modalities.examples import normalise_batch
from vcinr.model.model import Model
from vcinr.provenance import provenance
from vcinr.report.studies import save_study, study_table
from vcinr.stage import Stage

BATCH = 16
COORDINATES = 256
PEERS = {
    "COIN++": (coinpp, "demo"),
    "Functa": (functa, "demo"),
    "MSCN, structured": (mscn, "structured_demo"),
    "MSCN, unstructured": (mscn, "unstructured_demo"),
    "MetaSparseINR": (meta_sparse_inr, "demo"),
    "VC-INR, published form": (vc_inr, "demo_gates"),
}
COLUMNS = (
    "codec",
    "training examples",
    "batch size",
    "inner steps",
    "in encoding",
    "numbers coded",
    "PSNR dB before quantisation",
    "`bpp_payload`",
    "PSNR dB",
    "CPU s",
)


def peer(name: str, examples: int) -> ConfigDict:
    """The config of one of `PEERS`, its field trained on ``examples`` patches; ValueError unless a multiple of nine batches.

    Stages share the steps as in the demos: five ninths with random gates and four under the pattern in MSCN; a third before
    pruning and two ninths in each of three rounds in MetaSparseINR.
    """
    steps, rest = divmod(examples, BATCH)
    if rest or steps % 9 or not steps:
        raise ValueError(f"{examples} examples are no multiple of {9 * BATCH}, nine batches: the stages could not share them")
    file, variant = PEERS[name]
    config = file.get_config(variant)
    shares = {"meta": steps}
    if config.codec.startswith("mscn"):
        shares = {"sparsify": 5 * steps // 9, "meta": 4 * steps // 9}
    elif config.codec == "meta_sparse_inr":
        shares = {"meta": steps // 3, "retrain": 2 * steps // 9}
    for stage, share in shares.items():
        training = config[stage]
        quiet = {"eval_every": 0, "checkpoint_every": 0, "warmup_steps": min(training.warmup_steps, share // 5)}
        training.update({"num_steps": share, "batch_size": BATCH, **quiet})
    config.adaptation.subset = COORDINATES
    return config


def field_examples(codec: LatentCodec) -> int:
    """Training examples of all stages of a codec's field."""
    trainings = [stage.training for stage in codec.field_stages() if isinstance(stage, Stage)]
    return sum(training.num_steps * training.batch_size for training in trainings)


def adapted_psnr_db(model: Model, tiles: Sequence[np.ndarray]) -> float:
    """Mean PSNR of tiles as large as a patch after adaptation, before quantisation and without rounding to 8 bits."""
    codec = model.codec
    trained = jax.tree.map(np.asarray, {**codec.encoder_params(model.params), **codec.decoder_params(model.params)})
    values = normalise_batch(codec.modality, np.stack(tiles))
    return float(np.mean(psnr_db(map_batches(squared_error, codec, trained, (values,), codec.config.encode_batch))))


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains one codec and measures it on the test tiles."""
    started, tiles = time.process_time(), list(data.signals(config, "test"))
    model = train(config, workdir)
    seconds = time.process_time() - started
    points = measure(model, tiles, config.data.name, config.data.test)
    of_field = {}
    if isinstance(model.codec, LatentCodec):
        of_field = {"numbers": model.codec.num_coded(model.params), "adapted_db": adapted_psnr_db(model, tiles)}
    return {"points": [[row["bpp_payload"], row["psnr_db"]] for row in points], "cpu_s": seconds, **of_field}


def row_of(name: str, config: ConfigDict, found: dict[str, Any]) -> list[Any]:
    """One row of the table."""
    rates, qualities = zip(*found["points"], strict=True)
    points = (", ".join(f"{bpp:.3f}" for bpp in rates), ", ".join(f"{quality:.2f}" for quality in qualities))
    if "numbers" not in found:
        return [name, *[None] * 6, *points, round(found["cpu_s"])]
    a = config.adaptation
    about = (field_examples(codec_of(config)), BATCH, a.num_steps, a.encode_steps or a.num_steps)
    return [name, *about, found["numbers"], found["adapted_db"], *points, round(found["cpu_s"])]


def study(options: argparse.Namespace) -> str:
    """Runs what is not finished yet, writes the study and returns its table."""
    source, workdir, seconds = provenance(), Path(options.workdir), 0.0
    workdir.mkdir(parents=True, exist_ok=True)
    prepare("demo")
    configs = {name: peer(name, options.examples) for name in PEERS} | {"KLT (linear floor)": klt.get_config("demo")}
    rows = []
    for name, config in configs.items():
        folder = name.lower().replace(", ", "_").replace(" ", "_")
        settings = json.loads(config.to_json())
        found = finished(workdir / f"{folder}.json", settings, lambda c=config, f=folder: run(c, workdir / f))
        rows.append(row_of(name, config, found))
        seconds += found["cpu_s"]
        print(*rows[-1], sep="; ", flush=True)
    saved = save_study(
        options.record,
        title="The latent codecs on equal terms",
        about=(
            f"{options.examples:,} training examples (32×32 patches of photographs) in batches of {BATCH} for the field of every "
            f"codec, all stages counted, {COORDINATES} random coordinates of each patch per step; as many inner steps as in its "
            "paper, their sizes fixed or learned as there, other settings of its demo; one seed. Measured on 64 held-out tiles, "
            "files read back. Numbers coded: per tile. First step sizes are multiples of 1/λ_max but for Functa's. VC-INR trains "
            "its bottleneck besides, 250 steps per λ; the others' quantisers need no training. The principal components take "
            "6,000 patches."
        ),
        columns=COLUMNS,
        rows=rows,
        command=f"python -m experiments.peers --workdir=DIR --examples={options.examples}",
        source=source,
        duration_s=seconds,
        notes=options.notes,
    )
    return study_table(saved)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status is 1 where the workdir has other settings."""
    parser = argparse.ArgumentParser(prog="python -m experiments.peers", description="The latent codecs on equal terms.")
    parser.add_argument("--workdir", required=True, help="folder of the trainings")
    parser.add_argument("--examples", type=int, default=12_096, help="training examples of every codec (%(default)s)")
    parser.add_argument("--record", default="docs/results/studies/peers.json", help="the file to write (%(default)s)")
    parser.add_argument("--notes", default="", help="remarks for readers of the record")
    options = parser.parse_args(arguments)
    use_cpu_cores([BATCH])
    return run_study(study, options)


if __name__ == "__main__":
    sys.exit(main())

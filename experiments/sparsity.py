"""Do learned gates beat pruning and dense latents at equal numbers of coded entries and optimiser steps? On faces.

    python -m experiments.prepare faces
    python -m experiments.sparsity --part=unstructured --workdir=DIR        MSCN against MetaSparseINR, on updates of all weights
    python -m experiments.sparsity --part=structured --workdir=DIR          MSCN against Functa, on shifts

All methods of a part train for equal numbers of steps with equal batches (Schwarz and Teh 2022, sections 5.1 and 5.2, at a size
for CPUs), then adapt to every test face. PSNR is of the whole face, before quantisation, with the fixed sparsity pattern. Each
finished run is kept as a JSON file in DIR/PART and not repeated. Prints a table, and writes it to
docs/results/studies/sparsity_PART.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.command_line import run_study
from vcinr.adaptation.meta_learning import AdaptationConfig
from vcinr.batching import map_batches
from vcinr.codecs.functa import Functa, FunctaConfig
from vcinr.codecs.latent_codec import LatentCodec
from vcinr.codecs.meta_sparse_inr import MetaSparseINR, MetaSparseINRConfig
from vcinr.codecs.mscn import MSCNConfig, MSCNStructured, MSCNUnstructured, StructuredConfig
from vcinr.datasets.catalogue import load_split
from vcinr.datasets.sources import PatchSource
from vcinr.evaluation.metrics import psnr_db
from vcinr.fields.field import FieldConfig
from vcinr.provenance import git_revision, provenance
from vcinr.report.studies import save_study, study_table
from vcinr.sparsity.gates import GateConfig
from vcinr.stage import Stage, TrainingConfig
from vcinr.training.run import train
from vcinr.trees import write_atomically

PATCH = (64, 64)
COORDINATES = 512
BATCH = 4
WEIGHTS = FieldConfig(modulation="weight_update", num_layers=4, width=64)
SHIFTS = FieldConfig(modulation="shifts", num_layers=6, width=64)
WEIGHT_LR, SHIFT_LR = 1e-3, 2e-4
# The learning rate of the log step sizes, in multiples of those above.
WEIGHT_STEP_RATE, SHIFT_STEP_RATE = 10.0, 20.0
GATED_SHARE = 0.6
ROUNDS = 4


def inner(num_steps: int, step_sizes: str, initial_step: float, step_rate: float) -> AdaptationConfig:
    """The inner loop, on random coordinates in training."""
    settings = {"step_rate": step_rate, "learn_start": False, "subset": COORDINATES}
    return AdaptationConfig(num_steps, step_sizes=step_sizes, initial_step=initial_step, **settings)


def inner_of_weights(step_sizes: str) -> AdaptationConfig:
    """Two steps. Fixed step sizes start smaller: 1/λ_max becomes too large as θ changes, and nothing would correct it."""
    return inner(2, step_sizes, 1.0 if step_sizes == "learned" else 0.3, WEIGHT_STEP_RATE)


def inner_of_shifts(step_sizes: str) -> AdaptationConfig:
    """Three steps with small initial sizes, because the curvature grows as θ is trained."""
    return inner(3, step_sizes, 0.1, SHIFT_STEP_RATE)


def steps_of(num_steps: int, lr: float, final: float = 0.02) -> TrainingConfig:
    """A training of ``num_steps`` outer steps. Pruning and closing gates raise the error, so the check for collapse is off."""
    warmup, decay = min(20, num_steps // 5), 0.99
    settings = {"warmup_steps": warmup, "average_decay": decay, "final_lr_fraction": final, "checkpoint_every": 0}
    return TrainingConfig(num_steps, BATCH, lr=lr, collapse_db=0.0, **settings)


def gated_steps(steps: int, lr: float) -> dict[str, TrainingConfig]:
    """Both trainings of an MSCN: with random gates, then with the pattern of those that stay open."""
    gated = round(GATED_SHARE * steps)
    return {"sparsify": steps_of(gated, lr, 0.3), "meta": steps_of(steps - gated, lr)}


def meta_sparse_inr(entries: int, steps: int, step_sizes: str) -> LatentCodec:
    """Two fifths of the steps before any pruning, the others in rounds of pruning and retraining."""
    round_steps = 3 * steps // 5 // ROUNDS
    biases = sum(fan_out for _, fan_out in WEIGHTS.sizes())
    return MetaSparseINR(
        MetaSparseINRConfig(
            patch=PATCH,
            field=WEIGHTS,
            adaptation=inner_of_weights(step_sizes),
            target=(entries - biases) / (WEIGHTS.latent_size() - biases),
            rounds=ROUNDS,
            meta=steps_of(steps - ROUNDS * round_steps, WEIGHT_LR, 0.3),
            retrain=steps_of(round_steps, WEIGHT_LR, 0.1),
        )
    )


def mscn_unstructured(entries: int, steps: int, step_sizes: str) -> LatentCodec:
    """Gates on the update of every weight."""
    return MSCNUnstructured(
        MSCNConfig(
            patch=PATCH,
            field=WEIGHTS,
            adaptation=inner_of_weights(step_sizes),
            gates=GateConfig(target=entries / WEIGHTS.latent_size()),
            **gated_steps(steps, WEIGHT_LR),
        )
    )


def mscn_structured(entries: int, steps: int, step_sizes: str) -> LatentCodec:
    """Gates on the shift of every unit."""
    return MSCNStructured(
        StructuredConfig(
            patch=PATCH,
            field=SHIFTS,
            adaptation=inner_of_shifts(step_sizes),
            gates=GateConfig(apply="modulation", target=entries / SHIFTS.latent_size()),
            **gated_steps(steps, SHIFT_LR),
        )
    )


def functa(entries: int, steps: int, step_sizes: str) -> LatentCodec:
    """A latent of ``entries`` numbers, from which a linear map makes all shifts."""
    field = dataclasses.replace(SHIFTS, modulation="latent_shifts", latent_dim=entries)
    return Functa(FunctaConfig(patch=PATCH, field=field, adaptation=inner_of_shifts(step_sizes), meta=steps_of(steps, SHIFT_LR)))


Method = tuple[Callable[[int, int, str], LatentCodec], str]


@dataclasses.dataclass(frozen=True)
class Part:
    """One comparison.

    title: of the study.
    sizes: numbers of coded entries.
    methods: name → (function of entries, steps and step sizes that makes the codec; step sizes). The others are compared with the
        first.
    """

    title: str
    sizes: tuple[int, ...]
    methods: dict[str, Method]


PARTS = {
    "unstructured": Part(
        "Sparse updates of all weights: MSCN against MetaSparseINR",
        (1024, 2048, 4096),
        {
            "MetaSparseINR": (meta_sparse_inr, "fixed"),
            "MetaSparseINR, Meta-SGD": (meta_sparse_inr, "learned"),
            "MSCN, fixed steps": (mscn_unstructured, "fixed"),
            "MSCN, Meta-SGD": (mscn_unstructured, "learned"),
        },
    ),
    "structured": Part(
        "Sparse shifts: MSCN against Functa",
        (32, 64, 128),
        {"Functa": (functa, "learned"), "MSCN": (mscn_structured, "learned")},
    ),
}


@dataclasses.dataclass(frozen=True)
class FieldOnly:
    """A codec for `vcinr.training` with the stages of its field only, without those of its compression."""

    codec: LatentCodec

    @property
    def name(self) -> str:
        return self.codec.name

    @property
    def config(self) -> Any:
        return self.codec.config

    @property
    def modality(self) -> str:
        return self.codec.modality

    @property
    def patch(self) -> tuple[int, ...]:
        return self.codec.patch

    def init(self, key: jax.Array) -> dict[str, Any]:
        return self.codec.init(key)

    def stages(self) -> tuple[Stage, ...]:
        return self.codec.field_stages()


def squared_error(codec: LatentCodec, params: Any, values: jax.Array) -> jax.Array:
    """MSE of the field adapted to one face, at all coordinates."""
    return codec.distortion(params, codec.adapt(params, values), values)


def run(codec: LatentCodec, seed: int, faces: PatchSource, test: np.ndarray, workdir: Path) -> dict[str, Any]:
    """Trains one codec and measures it: number of coded entries, PSNR of every test face in dB, seconds.

    Args:
      codec: to be trained.
      seed: of the training.
      faces: training set.
      test: faces, float32 [m, n, 3] in [0, 1].
      workdir: folder of the training.
    """
    started = time.time()
    params = train(FieldOnly(codec), faces, seed=seed, workdir=workdir)
    trained = {**codec.encoder_params(params), **codec.decoder_params(params)}
    error = map_batches(squared_error, codec, trained, (test,), codec.config.encode_batch)
    return {"coded": codec.num_coded(params), "psnr_db": psnr_db(error).tolist(), "seconds": round(time.time() - started, 1)}


def finished(path: Path, settings: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of ``make()``, or of the file if it exists. ValueError where the file was made with other settings."""
    if path.exists():
        row = json.loads(path.read_text())
        if row["settings"] != settings:
            raise ValueError(f"{path} was made with other settings: give this study a workdir of its own")
        return row
    row = {"settings": settings, "revision": git_revision(), **make()}
    write_atomically(path, (json.dumps(row) + "\n").encode())
    return row


def summary(part: Part, sizes: Sequence[int], means: dict[tuple[str, int], np.ndarray]) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows) of the table: mean PSNR ± standard deviation over seeds, and paired differences ± their standard error.

    Args:
      part: the comparison.
      sizes: numbers of coded entries.
      means: (method, size) → mean PSNR over the test faces in dB, one value per seed.
    """
    first, *others = [method for method in part.methods if (method, sizes[0]) in means]
    columns = ["coded entries", first, *(name for method in others for name in (method, f"Δ to {first}"))]

    def spread(values: np.ndarray) -> float:
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    rows = []
    for size in sizes:
        base = means[first, size]
        row = [size, f"{base.mean():.2f} ± {spread(base):.2f}"]
        for method in others:
            values = means[method, size]
            gain = values - base
            row += [
                f"{values.mean():.2f} ± {spread(values):.2f}",
                f"{gain.mean():+.2f} ± {spread(gain) / len(gain) ** 0.5:.2f}",
            ]
        rows.append(row)
    return columns, rows


def study(options: argparse.Namespace) -> str:
    """Runs what is not finished yet, writes the study and returns its table."""
    part = PARTS[options.part]
    workdir = Path(options.workdir) / options.part
    workdir.mkdir(parents=True, exist_ok=True)
    # Many runs share compiled programs.
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    faces = PatchSource(load_split("faces", "train"), PATCH)
    held_out = np.stack(list(load_split("faces", "test")))[: options.limit or None]
    test = held_out.reshape(len(held_out), -1, 3).astype(np.float32) / 255.0
    sizes = options.sizes or part.sizes
    means: dict[tuple[str, int], np.ndarray] = {}
    seconds, coded = 0.0, {}
    source = provenance()
    # Seed by seed, so that an interrupted study has complete tables of fewer seeds.
    runs = [(seed, size, method) for seed in range(options.seeds) for size in sizes for method in part.methods]
    for number, (seed, size, method) in enumerate(runs, start=1):
        make, step_sizes = part.methods[method]
        codec = make(size, options.steps, step_sizes)
        name = f"{method.lower().replace(', ', '_').replace(' ', '_')}_{size}_seed{seed}"
        settings = {"faces": len(test), "config": json.loads(json.dumps(dataclasses.asdict(codec.config)))}
        row = finished(workdir / f"{name}.json", settings, partial(run, codec, seed, faces, test, workdir / "training" / name))
        mean = float(np.mean(row["psnr_db"]))
        print(f"{number}/{len(runs)} {name}: {row['coded']} coded, {mean:.2f} dB, {row['seconds']:.0f} s", flush=True)
        means[method, size] = np.append(means.get((method, size), []), mean)
        seconds += row["seconds"]
        coded[method, size] = row["coded"]
    columns, rows = summary(part, sizes, means)
    mean_colour = float(np.mean(psnr_db(np.mean(np.square(test - test.mean(axis=1, keepdims=True)), axis=(1, 2)))))
    fewer = sorted({f"{method} {found} of {size}" for (method, size), found in coded.items() if found != size})
    found = save_study(
        options.record or f"docs/results/studies/sparsity_{options.part}.json",
        title=part.title,
        about=(
            f"PSNR in dB, mean over {len(test)} held-out faces at 64×64, before quantisation; mean ± standard deviation over "
            f"{options.seeds} seeds; Δ: mean of the paired differences ± its standard error. Every method trained for "
            f"{options.steps} steps of {BATCH} faces, {COORDINATES} random coordinates each. Every face's own mean colour: "
            f"{mean_colour:.2f} dB."
        ),
        columns=columns,
        rows=rows,
        command=(
            f"python -m experiments.sparsity --part={options.part} --workdir=DIR --steps={options.steps} --seeds={options.seeds} "
            f"--sizes {' '.join(map(str, sizes))}"
        ),
        source=source,
        duration_s=seconds,
        notes=f"Numbers of coded entries that differ from their row: {'; '.join(fewer)}." if fewer else "",
    )
    return study_table(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a part and prints its table; the exit status is 1 where the faces are missing or the workdir has other settings."""
    parser = argparse.ArgumentParser(prog="python -m experiments.sparsity", description="Sparse fields at equal coded entries.")
    parser.add_argument("--part", required=True, choices=sorted(PARTS), help="which comparison")
    parser.add_argument("--workdir", required=True, help="folder of the runs, which resume there")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, … (%(default)s)")
    parser.add_argument("--steps", type=int, default=400, help="outer steps of every method (%(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", help="coded entries (the part's own)")
    parser.add_argument("--limit", type=int, default=0, help="test faces, 0 for all 200 (%(default)s)")
    parser.add_argument("--record", default="", help="the JSON file to write (docs/results/studies/sparsity_PART.json)")
    return run_study(study, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

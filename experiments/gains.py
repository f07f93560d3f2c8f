"""What a field gains over the KLT with as many components, by arm: how latents are found, and what the gates look like.

    python -m experiments.gains --workdir=DIR [--dataset=cifar10_small] [--latent=64] [--seconds=60] [--seeds=3] [--record=FILE]

    python -m experiments.gains --models analysis_photo gates_photo analysis_tiny gates_tiny [--record=FILE]

Every arm is trained for as much CPU time, plain start, then measured on validation patches before quantisation: with the latents
that its own adaptation finds, and after Gauss–Newton steps from there. A finished arm and seed is kept in DIR and not run again.
With --models, trained models are measured in the same way, each against the KLT of its own training patches.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.command_line import run_study
from experiments.data import evenly_spaced
from experiments.peers import field_examples
from experiments.sparsity import FieldOnly, finished, squared_error
from vcinr.adaptation.warm_start import components
from vcinr.batching import map_batches
from vcinr.codecs.latent_codec import PROJECTED, LatentCodec
from vcinr.codecs.vc_inr import VCINR, VCINRConfig
from vcinr.config import build_config
from vcinr.datasets.catalogue import load_split
from vcinr.datasets.sources import PatchSource, Samples
from vcinr.devices import use_cpu_cores
from vcinr.evaluation.metrics import psnr_db
from vcinr.modalities import MODALITIES
from vcinr.modalities.examples import normalise_batch
from vcinr.model.finding import load
from vcinr.model.places import ModelError
from vcinr.provenance import provenance
from vcinr.report.studies import save_study, study_table
from vcinr.training.run import train

PATCH = (32, 32)
BASE = {
    "patch": PATCH,
    "field": {"num_layers": 5, "width": 64, "rank": 4, "hyper_width": 128, "hyper_depth": 2},
    "adaptation": {"num_steps": 3, "initial_step": 0.5, "subset": 256, "step_rate": 10.0},
    "meta": {"batch_size": 16, "lr": 1e-3, "final_lr_fraction": 0.01, "eval_every": 0, "checkpoint_every": 0},
    "encode_batch": 16,
}
ANALYSIS = {"amortised": {"enabled": True}}
ARMS: dict[str, dict[str, Any]] = {
    "inner loop, 3 steps (published)": {},
    "inner loop, 6 steps": {"adaptation": {"num_steps": 6}},
    "inner loop, 3 steps, first layer gated": {"field": {"gate_first": True}},
    "linear head from the KLT, gates, inner loop": {
        "field": {"linear_head": True, "last_width": 128},
        "adaptation": {"initial_step": 0.2},
        "warm_start": {"enabled": True, "training": {"num_steps": 400, "batch_size": 8, "lr": 3e-3, "checkpoint_every": 0}},
    },
    "analysis": ANALYSIS,
    "analysis, shifts for gates": {**ANALYSIS, "field": {"modulation": "latent_shifts"}},
    "analysis, shifts for gates, gentle": {
        **ANALYSIS,
        "field": {"modulation": "latent_shifts", "projection_gain": 0.1},
        "meta": {"lr": 3e-4},
    },
    "analysis, rank 8": {**ANALYSIS, "field": {"rank": 8}},
    "analysis, first layer gated": {**ANALYSIS, "field": {"gate_first": True}},
    "analysis, three layers": {**ANALYSIS, "field": {"num_layers": 3}},
    "analysis, width 96": {**ANALYSIS, "field": {"width": 96}},
}
CALIBRATION = (30, 150)
"""Steps of the two short trainings whose difference is the CPU time of a step, compilation left out."""


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Nested overrides of ``first`` by ``second``."""
    both = {k: merged(first[k], v) if isinstance(v, dict) and isinstance(first.get(k), dict) else v for k, v in second.items()}
    return {**first, **both}


def codec_of(arm: str, latent: int, steps: int) -> VCINR:
    """The codec of an arm with this latent size, its field trained for ``steps`` steps."""
    sized = {"field": {"latent_dim": latent}, "meta": {"num_steps": steps, "warmup_steps": min(300, steps // 10)}}
    return VCINR(build_config(VCINRConfig, merged(merged(BASE, ARMS[arm]), sized), "vc_inr"))


def field_of(codec: LatentCodec, patches: PatchSource, seed: int, workdir: Path) -> tuple[dict[str, Any], float]:
    """(parameters, CPU seconds) of training the field."""
    started = time.process_time()
    params = train(FieldOnly(codec), patches, seed=seed, workdir=workdir, quiet=True)
    return params, time.process_time() - started


def steps_for(made: Callable[[int], LatentCodec], seconds: float, patches: PatchSource) -> dict[str, int]:
    """Steps that the codec ``made(steps)`` makes in ``seconds`` of CPU time."""
    spent = []
    for steps in CALIBRATION:
        with tempfile.TemporaryDirectory() as folder:
            # A first run of the same length compiles.
            field_of(made(steps), patches, 0, Path(folder) / "first")
            spent.append(field_of(made(steps), patches, 0, Path(folder) / "second")[1])
    return {"steps": max(40, round(seconds * (CALIBRATION[1] - CALIBRATION[0]) / max(spent[1] - spent[0], 1e-3)))}


def measured(codec: LatentCodec, params: Any, values: np.ndarray, projection_steps: int) -> list[float]:
    """PSNR in dB of each patch after the codec's own adaptation and as many Gauss–Newton steps."""
    adaptation = dataclasses.replace(codec.config.adaptation, projection_steps=projection_steps)
    projected = dataclasses.replace(codec, config=dataclasses.replace(codec.config, adaptation=adaptation))
    trained = {**projected.encoder_params(params), **projected.decoder_params(params)}
    return psnr_db(map_batches(squared_error, projected, trained, (values,), codec.config.encode_batch)).tolist()


def run(codec: LatentCodec, projection: int, seed: int, patches: PatchSource, values: np.ndarray) -> dict[str, Any]:
    """Trains a codec's field and measures it, projected too where its latent can be."""
    with tempfile.TemporaryDirectory() as folder:
        params, seconds = field_of(codec, patches, seed, Path(folder))
    steps = {"own": 0, **({"projected": projection} if codec.config.field.modulation in PROJECTED else {})}
    found = {name: measured(codec, params, values, count) for name, count in steps.items()}
    return {**found, "cpu_s": round(seconds, 1), "examples": field_examples(codec)}


def klt_psnr_db(train_values: np.ndarray, values: np.ndarray, latent: int) -> np.ndarray:
    """PSNR in dB of patches [m, n, c] from their first ``latent`` principal coefficients."""
    found = components(train_values, latent)
    centred = (values - found["mean"]).reshape(len(values), -1)
    basis = found["basis"].reshape(latent, -1)
    return psnr_db(np.mean(np.square(centred - centred @ basis.T @ basis), axis=1))


def gain(quality: np.ndarray, floor: np.ndarray) -> str:
    """Mean difference of qualities [seeds, patches] and a floor [patches], ± standard error over patches, and over seeds."""
    difference = quality - floor
    over_patches = np.std(difference.mean(0), ddof=1) / len(floor) ** 0.5
    shown = f"{difference.mean():+.2f} ± {over_patches:.2f}"
    return shown if len(difference) < 2 else f"{shown} ± {np.std(difference.mean(1), ddof=1) / len(difference) ** 0.5:.2f}"


def patches_and_floor(
    dataset: str, count: int, latent: int, patch: tuple[int, ...] = PATCH
) -> tuple[PatchSource, np.ndarray, np.ndarray]:
    """(training patches, values of ``count`` validation patches, what ``latent`` principal components make of these in dB)."""
    modality = MODALITIES["picture"]
    patches = PatchSource(Samples(load_split(dataset, "train"), modality), patch, flips=modality.mirrored_axes)
    held_out = PatchSource(Samples(load_split(dataset, "validation"), modality), patch)
    rng = np.random.default_rng(0)
    values = normalise_batch("picture", np.stack(evenly_spaced(held_out.all_patches(rng, 1, 10**6), count)))
    return patches, values, klt_psnr_db(normalise_batch("picture", patches.all_patches(rng, 2, 20_000)), values, latent)


def study_of_models(options: argparse.Namespace) -> str:
    """Measures trained models, writes the study and returns its table."""
    rows, source, started = [], provenance(), time.time()
    for name in options.models:
        model = load(name)
        dataset, latent = model.info["config"]["data"]["name"], model.codec.num_coded(model.params)
        _, values, floor = patches_and_floor(dataset, options.patches, latent, model.codec.patch)
        found = (np.array([measured(model.codec, model.params, values, n)]) for n in (0, 1, 2, options.projection))
        patch = "×".join(map(str, model.codec.patch))
        shown = Path(name).resolve().parent.name if Path(name).is_dir() else name
        rows.append([shown, dataset, patch, latent, floor.mean(), *(gain(quality, floor) for quality in found)])
    found = save_study(
        options.record or "docs/results/studies/gains_models.json",
        title="Trained fields against the KLT with as many components",
        about=(
            f"PSNR in dB before quantisation, mean over {options.patches} validation patches of the set that each model was "
            f"trained on, against the principal components of the same training patches; one seed. Own: the latents of the "
            f"inner loop or of the analysis. Projected: so many damped Gauss–Newton steps from there. ± standard error over "
            f"patches."
        ),
        columns=[
            *("model", "data", "patch", "numbers per patch", "KLT, PSNR dB", "own, over the KLT, dB"),
            *(f"projected {n}, over the KLT, dB" for n in (1, 2, options.projection)),
        ],
        rows=rows,
        command=(
            f"python -m experiments.gains --models {' '.join('RUN/model' if Path(m).is_dir() else m for m in options.models)} "
            f"--patches={options.patches}"
        ),
        source=source,
        duration_s=time.time() - started,
        notes=options.notes,
    )
    return study_table(found)


def study(options: argparse.Namespace) -> str:
    """Runs what is not finished yet, writes the study and returns its table."""
    if options.models:
        return study_of_models(options)
    if not options.workdir:
        raise ValueError("name a folder for the runs with --workdir, or trained models with --models")
    workdir = Path(options.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    patches, values, floor = patches_and_floor(options.dataset, options.patches, options.latent)
    rows, source, total = [], provenance(), 0.0
    for arm in options.arms or ARMS:
        name = "".join(c if c.isalnum() else "_" for c in arm)
        budget = {"arm": merged(BASE, ARMS[arm]), "latent": options.latent, "seconds": options.seconds, "data": options.dataset}
        budget = json.loads(json.dumps(budget))
        calibrate = partial(steps_for, partial(codec_of, arm, options.latent), options.seconds, patches)
        calibrated = finished(workdir / f"{name}_steps.json", budget, calibrate)
        results = []
        for seed in itertools.count():
            kept = workdir / f"{name}_{seed}.json"
            if seed >= options.seeds and not kept.exists():
                break
            settings = {**budget, "steps": calibrated["steps"], "projection": options.projection, "patches": len(values)}
            codec = codec_of(arm, options.latent, calibrated["steps"])
            make = partial(run, codec, options.projection, seed, patches, values)
            results.append(finished(kept, settings, make))
            means = {key: float(np.mean(results[-1][key]) - floor.mean()) for key in ("own", "projected")}
            print(f"{arm}, seed {seed}: {means['own']:+.2f} dB, projected {means['projected']:+.2f} dB", flush=True)
        own, projected = (np.array([result[key] for result in results]) for key in ("own", "projected"))
        seconds = float(np.mean([result["cpu_s"] for result in results]))
        total += sum(result["cpu_s"] for result in results)
        rows.append(
            [arm, len(results), results[0]["examples"], f"{seconds:.0f}", own.mean(), gain(own, floor), gain(projected, floor)]
        )
    found = save_study(
        options.record or f"docs/results/studies/gains_{options.dataset}_{options.latent}.json",
        title=f"Fields against the KLT at {options.latent} numbers per 32×32 patch: {options.dataset}",
        about=(
            f"PSNR in dB before quantisation, mean over {len(values)} validation patches and the seeds, against "
            f"{options.latent} principal components of the same training patches ({floor.mean():.2f} dB). Every arm: 5 sine "
            f"layers of 64 units, rank 4, a plain start and {options.seconds:g} s of CPU for its field unless its name says "
            f"otherwise (compilation and a warm start come on top: column CPU s), batches of 16, 256 random coordinates each. "
            f"Projected: {options.projection} damped Gauss–Newton steps from the arm's own latent. ± standard error over "
            f"patches, ± over seeds."
        ),
        columns=["arm", "seeds", "training examples", "CPU s", "PSNR dB", "over the KLT, dB", "projected, over the KLT, dB"],
        rows=rows,
        command=(
            f"python -m experiments.gains --workdir=DIR --dataset={options.dataset} --latent={options.latent} "
            f"--seconds={options.seconds:g} --seeds={options.seeds} --projection={options.projection}"
            f"{''.join([' --arms', *(f' {arm!r}' for arm in options.arms)]) if options.arms else ''}"
        ),
        source=source,
        duration_s=total,
        notes=options.notes,
    )
    return study_table(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the study and prints its table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.gains", description="Fields against the KLT, arm by arm.")
    parser.add_argument("--workdir", default="", help="folder of the runs, which resume there")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="trained models to measure instead of training arms")
    parser.add_argument("--dataset", default="cifar10_small", help="a prepared set of pictures (%(default)s)")
    parser.add_argument("--latent", type=int, default=64, help="numbers per patch (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU time of each training (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, …; more that are finished count too (%(default)s)")
    parser.add_argument("--projection", type=int, default=8, help="Gauss–Newton steps (%(default)s)")
    parser.add_argument("--patches", type=int, default=96, help="validation patches (%(default)s)")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), metavar="ARM", help="some of the arms (all)")
    parser.add_argument("--record", default="", help="the JSON file to write (docs/results/studies/gains_DATASET_LATENT.json)")
    parser.add_argument("--notes", default="", help="what came out")
    options = parser.parse_args(arguments)
    use_cpu_cores()
    return run_study(study, options, ModelError)


if __name__ == "__main__":
    raise SystemExit(main())

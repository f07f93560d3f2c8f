"""What each part of COMBINER and COMBINER+ is worth: the thesis's findings asked again, arm by arm, at one β.

    python -m experiments.variational --workdir=DIR [--dataset=cifar10_small] [--pictures=16] [--seeds=1] [--record=FILE]

Every arm differs from its family's first by what its name says. Arms that differ in encoding alone share a trained model. A
finished arm and seed is kept in DIR and not run again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs.combiner import CODING, QUICK
from configs.combiner_plus import CODING_PLUS, QUICK_PLUS, SMALL
from experiments.command_line import run_study
from experiments.data import evenly_spaced
from experiments.gains import merged
from experiments.sparsity import finished
from vcinr.codec import Code
from vcinr.codecs import make_codec
from vcinr.datasets.catalogue import load_split
from vcinr.datasets.sources import PatchSource, Samples
from vcinr.devices import use_cpu_cores
from vcinr.evaluation.metrics import psnr_db
from vcinr.modalities import MODALITIES
from vcinr.model.model import Model, make_model
from vcinr.posterior.gaussians import NATS_PER_BIT
from vcinr.provenance import provenance
from vcinr.report.studies import save_study, study_table
from vcinr.training.run import train

BETA = 1e-5
STEPS = {"training": {"num_steps": 1200}, "num_patches": 256}
FAMILIES: dict[str, dict[str, Any]] = {
    "combiner": {"betas": (BETA,), "prior": merged(QUICK, STEPS), "coding": {**CODING, "num_steps": 600}},
    "combiner_plus": {**SMALL, "betas": (BETA,), "prior": merged(QUICK_PLUS, STEPS), "coding": {**CODING_PLUS, "num_steps": 600}},
}
"""The first arm of each family: a codec's config."""

ARMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "COMBINER": ("combiner", {}, {}),
    "COMBINER, no fine-tuning": ("combiner", {}, {"coding": {"fine_tune_steps": 0}}),
    "COMBINER, minimal random coding": ("combiner", {}, {"coding": {"method": "minimal_random"}}),
    "COMBINER, t = 2 bits": ("combiner", {}, {"coding": {"extra_bits": 2}}),
    "COMBINER, posteriors start at the prior": ("combiner", {}, {"start": "prior"}),
    "COMBINER, start at the prior, twice the steps": ("combiner", {}, {"start": "prior", "coding": {"num_steps": 1200}}),
    "COMBINER, start at the prior, four times the steps": ("combiner", {}, {"start": "prior", "coding": {"num_steps": 2400}}),
    "COMBINER, one Gaussian a layer": ("combiner", {"prior": {"per_layer": True}}, {}),
    "COMBINER, prior from 16 pictures": ("combiner", {"prior": {"num_patches": 16, "training": {"batch_size": 16}}}, {}),
    "COMBINER, prior from 64 pictures": ("combiner", {"prior": {"num_patches": 64}}, {}),
    "COMBINER+": ("combiner_plus", {}, {}),
    "COMBINER+, no fine-tuning": ("combiner_plus", {}, {"coding": {"fine_tune_steps": 0}}),
    "COMBINER+, 5 samples": ("combiner_plus", {}, {"coding": {"num_samples": 5}}),
    "COMBINER+, 10 samples": ("combiner_plus", {}, {"coding": {"num_samples": 10}}),
    "COMBINER+, posteriors start at the prior": ("combiner_plus", {}, {"start": "prior"}),
    "COMBINER+, start at the prior, twice the steps": ("combiner_plus", {}, {"start": "prior", "coding": {"num_steps": 1200}}),
    "COMBINER+, start at the prior, four times the steps": (
        "combiner_plus",
        {},
        {"start": "prior", "coding": {"num_steps": 2400}},
    ),
    "COMBINER+, no linear transform": ("combiner_plus", {"transform": False}, {}),
    "COMBINER+, no linear transform, a fifth of the step size": (
        "combiner_plus",
        {"transform": False, "prior": {"lr": 2e-3}},
        {"coding": {"lr": 1e-3}},
    ),
    "COMBINER+, no positional encoding": ("combiner_plus", {"positional": {"channels": 0}, "field": {"num_frequencies": 8}}, {}),
    "COMBINER+, 12 patches a picture, blocks mix patches": ("combiner_plus", {}, {"whole": True}),
    "COMBINER+, 12 patches a picture, each its own blocks": ("combiner_plus", {}, {"whole": True, "coding": {"permute": False}}),
}
"""Arm → (family, what its training differs in, what its encoding differs in).

``start`` in the last: "prior" for posteriors that start there. ``whole``: trained on photos, measured on crops of Kodak, of
several patches.
"""

CROP = (96, 128)
"""Samples of these crops along each axis."""


def config_of(arm: str, encoding: bool = True) -> dict[str, Any]:
    """The codec's config of an arm; without ``encoding`` that of its training alone."""
    family, training, coding = ARMS[arm]
    changed = merged(FAMILIES[family], training)
    return (
        merged(changed, {key: value for key, value in coding.items() if key not in ("start", "whole")}) if encoding else changed
    )


def model_of(arm: str, dataset: str, seed: int, workdir: Path) -> tuple[Model, float]:
    """(trained model of an arm, CPU seconds of its training); equal trainings are done once and resume."""
    family = ARMS[arm][0]
    config = config_of(arm, encoding=False)
    whole = "whole" in ARMS[arm][2]
    alike = lambda each: ARMS[each][0] == family and ("whole" in ARMS[each][2]) == whole
    first = next(each for each in ARMS if alike(each) and config_of(each, encoding=False) == config)
    folder = workdir / f"{''.join(c if c.isalnum() else '_' for c in first)}_{seed}"
    codec = make_codec(family, {**config, "seed": seed})
    modality = MODALITIES["picture"]
    patches = PatchSource(Samples(load_split(dataset, "train"), modality), codec.patch, flips=modality.mirrored_axes)
    started = time.process_time()
    params = train(codec, patches, seed=seed, workdir=folder, quiet=True)
    spent = finished(folder / "cpu.json", {}, lambda: {"cpu_s": round(time.process_time() - started, 1)})["cpu_s"]
    return make_model(codec, params, {}), spent


def run(arm: str, dataset: str, pictures: Sequence[np.ndarray], seed: int, workdir: Path) -> dict[str, Any]:
    """Trains one arm with one seed, unless that is done, and encodes the pictures; per picture bits in the payload and dB."""
    trained, training_s = model_of(arm, dataset, seed, workdir)
    family, _, coding = ARMS[arm]
    codec = make_codec(family, {**config_of(arm), "seed": seed})
    params = trained.params
    if coding.get("start") == "prior":
        point = {key: value for key, value in params["points"]["0"].items() if key != "start"}
        params = {**params, "points": {"0": point}}
    signals = [trained.signal(picture) for picture in pictures]
    started = time.process_time()
    errors, bits, divergences = np.zeros(len(signals)), np.zeros(len(signals)), []
    for places, coded in codec.coded(params, signals, 0):
        codes = [Code({"indices": row.ravel()}) for row in coded.indices]
        grids = [signals[i].grid for i in places]
        for i, values in zip(places, codec.synthesise(params, 0, codes, grids), strict=True):
            errors[i] = np.mean(np.square(np.clip(values, 0, 1) - signals[i].values))
        bits[places] = coded.indices[0].size * codec.config.coding.index_bits
        divergences.append(coded.divergences.ravel())
    spent = time.process_time() - started
    return {
        "psnr_db": psnr_db(errors).tolist(),
        "bits": bits.tolist(),
        "error": errors.tolist(),
        "patches": signals[0].grid.num_patches,
        "divergence_bits": float(np.concatenate(divergences).mean()),
        "training_cpu_s": training_s,
        "cpu_s": round(spent, 1),
    }


def cost_db(results: Sequence[dict[str, Any]]) -> np.ndarray:
    """−10 log10(MSE + β R) of each picture, mean over seeds; R in nats per patch. Higher is better."""
    costs = [np.array(r["error"]) + BETA * NATS_PER_BIT * np.array(r["bits"]) / r.get("patches", 1) for r in results]
    return np.mean([-10 * np.log10(cost) for cost in costs], axis=0)


def middle(picture: np.ndarray) -> np.ndarray:
    """The `CROP` in the middle of a picture."""
    top, left = ((n - k) // 2 for n, k in zip(picture.shape, CROP, strict=False))
    return picture[top : top + CROP[0], left : left + CROP[1]]


def study(options: argparse.Namespace) -> str:
    """Runs what is not finished yet, writes the study and returns its table."""
    workdir = Path(options.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    held_out = Samples(load_split(options.dataset, "test"), MODALITIES["picture"])
    pictures = evenly_spaced(held_out, options.pictures)
    whole = []
    if any("whole" in ARMS[arm][2] for arm in options.arms or ARMS):
        kodak = Samples(load_split("kodak", "test"), MODALITIES["picture"])
        whole = [middle(picture) for picture in evenly_spaced(kodak, max(1, options.pictures // 4))]
    rows, source, total = [], provenance(), 0.0
    first: dict[tuple[str, bool], np.ndarray] = {}
    for arm in options.arms or ARMS:
        family, large = ARMS[arm][0], "whole" in ARMS[arm][2]
        chosen, dataset = (whole, "photos") if large else (pictures, options.dataset)
        settings = json.loads(json.dumps({"config": config_of(arm), "pictures": len(chosen), "data": dataset}))
        name = "".join(c if c.isalnum() else "_" for c in arm)
        results = [
            finished(workdir / f"{name}_{seed}.json", settings, partial(run, arm, dataset, chosen, seed, workdir))
            for seed in range(options.seeds)
        ]
        quality = np.mean([r["psnr_db"] for r in results], axis=0)
        cost = cost_db(results)
        base = first.setdefault((family, large), cost)
        gain = cost - base
        spread = "–" if gain is base or not gain.any() else f"{gain.mean():+.2f} ± {np.std(gain, ddof=1) / len(gain) ** 0.5:.2f}"
        total += sum(r["cpu_s"] for r in results)
        bpp = float(np.mean([r["bits"] for r in results])) / chosen[0][..., 0].size
        rows.append([arm, f"{bpp:.3f}", f"{quality.mean():.2f}", spread, f"{results[0]['cpu_s']:.0f}"])
        print(" ".join(map(str, rows[-1])), flush=True)
    found = save_study(
        options.record or "docs/results/studies/variational.json",
        title="COMBINER and COMBINER+ without their parts",
        about=(
            f"{len(pictures)} test pictures of {options.dataset}, {options.seeds} seed(s), β = {BETA:g}; priors of 1,200 steps "
            f"of 32 patches on 256 training patches (mirror images count) unless the arm says otherwise. bpp: the blocks' bits "
            f"alone. Cost: −10 log10(MSE + β R) with R in nats, which is what posteriors and priors minimise, against the first "
            f"arm of the family on the same pictures, ± standard error over pictures. Encode: CPU seconds for all pictures with "
            f"compilation."
        ),
        columns=["arm", "bpp", "PSNR dB", "cost against the first, dB", "encode, CPU s"],
        rows=rows,
        command=(
            f"python -m experiments.variational --workdir=DIR --dataset={options.dataset} --pictures={options.pictures} "
            f"--seeds={options.seeds}" + (f" --arms {shlex.join(options.arms)}" if options.arms else "")
        ),
        source=source,
        duration_s=total,
        notes=options.notes,
    )
    return study_table(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the study and prints its table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.variational", description="COMBINER without its parts.")
    parser.add_argument("--workdir", required=True, help="folder of the runs, which resume there")
    parser.add_argument("--dataset", default="cifar10_small", help="a prepared set of pictures (%(default)s)")
    parser.add_argument("--pictures", type=int, default=16, help="test pictures (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, … (%(default)s)")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), metavar="ARM", help="some of the arms (all)")
    parser.add_argument("--record", default="", help="the JSON file to write (docs/results/studies/variational.json)")
    parser.add_argument("--notes", default="", help="what came out")
    options = parser.parse_args(arguments)
    use_cpu_cores()
    return run_study(study, options)


if __name__ == "__main__":
    raise SystemExit(main())

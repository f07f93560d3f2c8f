"""What does a field's non-linearity in the latent buy beyond a linear head? Gates, shifts and others, at equal time.

    python -m experiments.prepare cifar10_small
    python -m experiments.prepare photos
    python -m experiments.beyond_linear --workdir=DIR [--seeds 3] [--seconds 15]

All arms have a linear head and begin, neutral, from one warm start a seed: principal components, which are the best that a head
alone can do on the training patches. Each is then meta-trained for equal processor time (compilation aside) on batches drawn in
the same order, and adapts to every validation picture. Differences are paired. A finished run lies as one JSON file in DIR and
is not done again. Ends with a table, and with docs/results/studies/beyond_linear.json. Ten minutes on one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.stats

from experiments.beyond_linear_arms import (
    EXTRA,
    HELD_BATCH,
    ORACLE_PICTURES,
    ORACLE_STEPS,
    SIDE,
    Arm,
    Data,
    FirstLayerGates,
    HeadNetwork,
    Mixed,
    Warm,
    begin,
    error,
    meta_train,
    oracle_error,
    rates,
)
from experiments.command_line import run_study
from vcinr.evaluation.studies import save_study, study_table
from vcinr.provenance import git_revision, provenance
from vcinr.trees import write_atomically

NOTES = (
    "Trained through the inner loop alone, gates as published and shifts buy nothing here: they end within two hundredths of a "
    "decibel of the linear head, at other rates too. Their trunk is evaluated anew for every patch and inner step, so that they "
    "make a quarter of its outer steps or fewer; days of training are another matter. What helps is where the inner loop begins "
    "and how the time is spent: gates that are first fitted at the principal coefficients, where a step costs no inner loop and "
    "takes more patches, do gain. More still gains a network of the latent that predicts the components which the latent leaves "
    "out, on features that all signals share; without held latents it gains less, and with half of its patches from photographs, "
    "too. Further inner steps, half as long as the first at the start, add hundredths of a decibel at most."
)

LINEAR = "linear head"
GATES = (("modulation", "low_rank_gates"),)

ARMS = (
    Arm(LINEAR),
    Arm("shifts", (("modulation", "latent_shifts"),)),
    Arm("gates", GATES),
    Arm("head network, projected", (), HeadNetwork, batch=64, projected=True),
)
"""Those that every seed has; differences are to the first."""

VARIANTS = (
    Arm("head network", (), HeadNetwork, batch=64),
    Arm("head network, projected, photos too", (), HeadNetwork, batch=64, projected=True, data=("cifar10_small", "photos")),
    Arm("gates, three times the rate", GATES, rate=3e-3),
    Arm("shifts, a third of the rate", (("modulation", "latent_shifts"),), rate=3e-4),
    Arm("gates, projected", GATES, projected=True),
    Arm("gates, rank 8", (*GATES, ("rank", 8))),
    Arm("gates, first layer too", GATES, FirstLayerGates),
    Arm("gates, 6 inner steps", GATES, inner_steps=6),
    Arm("gates, photos too", GATES, data=("cifar10_small", "photos")),
    Arm("gates, 5 layers", (*GATES, ("num_layers", 5))),
)
"""Those of the first seed alone."""


def run(arm: Arm, options: argparse.Namespace, data: Data, seed: int, warm: Warm) -> dict[str, Any]:
    """Trains and measures one arm: PSNR of every picture after adaptation and, of some, after further steps; at the start for the
    linear head, and of its principal components themselves."""
    config = arm.config(options)
    task, trained = (arm, config), begin(arm, config, warm, jax.random.key(seed))
    source = Mixed([data.sources[name] for name in arm.data])
    before = {}
    if arm.name == LINEAR:
        klt = data.linear_psnr(warm, config.field.latent_dim).tolist()
        before = {"klt_db": klt, "start_db": data.psnr(error, task, trained, len(data.held_out))}
    began = time.process_time()
    trained, steps = meta_train(task, trained, rates(arm, warm, trained), source, seconds=options.seconds, seed=seed)
    return {
        **before,
        "psnr_db": data.psnr(error, task, trained, len(data.held_out)),
        "oracle_db": data.psnr(oracle_error, task, trained, ORACLE_PICTURES),
        "steps": steps,
        "seconds": time.process_time() - began,
    }


def finished(path: Path, settings: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``make`` found, from the file where it is there. ValueError where that was found with other settings."""
    settings = json.loads(json.dumps(settings))
    if path.exists():
        row = json.loads(path.read_text())
        if row["settings"] != settings:
            raise ValueError(f"{path} was made with other settings: give this study a workdir of its own")
        return row
    row = {"settings": settings, "revision": git_revision(), **make()}
    write_atomically(path, (json.dumps(row) + "\n").encode())
    return row


def interval(differences: np.ndarray) -> tuple[float, float]:
    """(mean, half the width of its 95 % confidence interval) of differences [n], by Student's t."""
    n = len(differences)
    half = scipy.stats.t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return float(np.mean(differences)), float(half)


COLUMNS = ("arm", "seeds", "outer steps", "PSNR", "Δ to linear head", "Δ of each seed", f"{ORACLE_STEPS} more inner steps")


def summary(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[Any]]:
    """Rows of the table; found: arm → what `run` gave for seeds 0, 1, …, the linear head among them."""
    rows = []
    for name, runs in found.items():
        levels = np.array([run["psnr_db"] for run in runs])
        gains = levels - np.array([run["psnr_db"] for run in found[LINEAR][: len(runs)]])
        mean, half = interval(gains.mean(0))
        further = np.mean([np.mean(np.subtract(run["oracle_db"], run["psnr_db"][: len(run["oracle_db"])])) for run in runs])
        rows.append(
            [
                name,
                len(runs),
                round(float(np.mean([run["steps"] for run in runs]))),
                float(levels.mean()),
                "–" if name == LINEAR else f"{mean:+.3f} ± {half:.3f}",
                "–" if name == LINEAR else ", ".join(f"{gain:+.3f}" for gain in gains.mean(1)),
                f"{further:+.3f}",
            ]
        )
    return rows


def study(options: argparse.Namespace) -> str:
    """Does all runs that are missing, writes the study and returns its table."""
    source, workdir = provenance(), Path(options.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    # Seeds share their programs.
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    arms = [arm for arm in ARMS + VARIANTS if not options.arms or arm.name in (LINEAR, *options.arms)]
    data = Data.load(sorted({name for arm in arms for name in arm.data}), options.pictures)
    runs = [(arm, seed) for seed in range(options.seeds) for arm in arms if arm in ARMS]
    runs += [(arm, 0) for arm in arms if arm in VARIANTS]
    warm_of = functools.cache(partial(data.warm, options=options))
    found: dict[str, list[dict[str, Any]]] = {}
    for number, (arm, seed) in enumerate(runs, start=1):
        name = f"{arm.name.replace(', ', '_').replace(' ', '_')}_seed{seed}"
        given = ("latent", "last_width", "warm_steps", "seconds", "pictures")
        about = {field.name: getattr(arm, field.name) for field in dataclasses.fields(arm) if field.name != "module"}
        settings = {**{key: getattr(options, key) for key in given}, "arm": about}
        start = partial(warm_of, arm.config(options).field.num_layers, seed)
        row = finished(workdir / f"{name}.json", settings, lambda a=arm, s=seed, w=start: run(a, options, data, s, w()))
        print(f"{number}/{len(runs)} {name}: {np.mean(row['psnr_db']):.3f} dB, {row['steps']} steps", flush=True)
        found.setdefault(arm.name, []).append(row)
    linear = found[LINEAR]
    below = max(float(np.mean(row["klt_db"]) - np.mean(row["start_db"])) for row in linear)
    saved = save_study(
        options.record,
        title="Beyond the linear head: what modulations buy at equal time",
        about=(
            f"{len(data.held_out)} validation pictures of cifar10_small in tiles of {SIDE}×{SIDE}, latent {options.latent} each, "
            f"{len(linear)} seeds; PSNR in dB of whole pictures, of floats, before quantisation. Every arm begins from the warm "
            f"start of its seed (principal components: {np.mean(linear[0]['klt_db']):.2f} dB; starts at most {below:.3f} dB "
            f"below) and is meta-trained for {options.seconds:g} s of processor time on one core, in batches of {ARMS[0].batch} "
            f"patches, head networks of {ARMS[-1].batch}. Head network: a residual network of φ predicts the next {EXTRA} "
            "components, and the trunk is the same for every signal. Projected: the inner loop begins at the principal "
            f"coefficients, and half of the time goes to batches of {HELD_BATCH} with latents held there. Δ: paired over "
            "pictures, mean over seeds ± half the width of its 95 % confidence interval over pictures. The last column: what "
            f"{ORACLE_STEPS} more gradient steps on the latent add, on {len(linear[0]['oracle_db'])} pictures."
        ),
        columns=COLUMNS,
        rows=summary(found),
        command=command(options),
        duration_s=sum(row["seconds"] for rows in found.values() for row in rows),
        notes=NOTES,
        source=source,
    )
    return study_table(saved)


def command(options: argparse.Namespace) -> str:
    """What was run, without the names of this machine's files."""
    given = {name: value for name, value in vars(options).items() if name not in ("workdir", "record", "arms")}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    words += ["--arms", *(f'"{arm}"' for arm in options.arms)] if options.arms else []
    return " ".join(["python -m experiments.beyond_linear --workdir=DIR", *words])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status is 1 where data are missing, a setting makes no sense or an arm diverges."""
    parser = argparse.ArgumentParser(prog="python -m experiments.beyond_linear", description="Modulations beyond a linear head.")
    parser.add_argument("--workdir", required=True, help="where runs go, and are found again")
    parser.add_argument("--seeds", type=int, default=3, help="of the first four arms (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="processor time of each meta-training (%(default)s)")
    parser.add_argument("--latent", type=int, default=8, help="numbers a tile (%(default)s)")
    parser.add_argument("--last-width", type=int, default=64, help="units of the last sine layer (%(default)s)")
    parser.add_argument("--warm-steps", type=int, default=300, help="of the trunk's fit (%(default)s)")
    parser.add_argument("--pictures", type=int, default=250, help="validation pictures, 0 for all (%(default)s)")
    parser.add_argument("--arms", nargs="+", default=(), help="only these, and the linear head")
    parser.add_argument("--record", default="docs/results/studies/beyond_linear.json", help="the file to write (%(default)s)")
    return run_study(study, parser.parse_args(arguments), RuntimeError)


if __name__ == "__main__":
    sys.exit(main())

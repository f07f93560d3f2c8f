"""What more numbers per patch buy, by how they act on the field: gates, shifts and sparse shifts, at equal CPU time.

    python -m experiments.latent_sizes --workdir=DIR [--sizes 64 128 256] [--seconds 5 10 20 40] [--longer 80 160] [--record=FILE]

Every point of a learning curve is a training of its own, as long as its CPU time, so that each has run down its learning rate.
The first method at the first size is trained for longer too, and its gain over the KLT is fitted against the training examples
and extrapolated. All is measured before quantisation, on validation patches of CIFAR-10, in decibels over as many principal
components. A finished training is kept in DIR and not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments import gains
from experiments.command_line import run_study
from experiments.sparsity import finished
from vcinr.codecs import make_codec
from vcinr.codecs.latent_codec import LatentCodec
from vcinr.devices import use_cpu_cores
from vcinr.fields.field import FieldConfig
from vcinr.provenance import provenance
from vcinr.report.studies import save_study, study_table

DATASET = "cifar10_small"
DRAWS = 500
LATE = 4
"""Trainings, the longest ones, through which the line in log N goes: early on, gains grow faster."""
POWERS = tuple(np.linspace(0.1, 2.0, 20))
"""Powers of N among which the one that fits best is taken."""


def sparse_shifts(numbers: int, steps: int) -> LatentCodec:
    """As many open shifts: structured MSCN with its demo's settings, five ninths of the steps with random gates."""
    field, gated = {"modulation": "shifts", "num_layers": 5, "width": 64}, 5 * steps // 9
    training = {"batch_size": 16, "lr": 3e-4, "warmup_steps": min(20, steps // 10), "eval_every": 0, "checkpoint_every": 0}
    settings = {
        "field": field,
        "adaptation": {"num_steps": 3, "initial_step": 0.1, "subset": 256, "step_rate": 20.0},
        "gates": {"apply": "modulation", "target": numbers / FieldConfig(**field).latent_size()},
        "sparsify": {**training, "num_steps": gated, "final_lr_fraction": 0.3, "collapse_db": 0.0},
        "meta": {**training, "num_steps": steps - gated, "final_lr_fraction": 0.02, "collapse_db": 0.0},
        "encode_batch": 16,
    }
    return make_codec("mscn_structured", settings)


METHODS: dict[str, Callable[[int, int], LatentCodec]] = {
    "low-rank gates, analysis": partial(gains.codec_of, "analysis"),
    "linear shifts, analysis": partial(gains.codec_of, "analysis, shifts for gates, gentle"),
    "sparse shifts, inner loop (MSCN)": sparse_shifts,
}
"""Method → function of numbers per patch and training steps that makes its codec."""

COLUMNS = ("method", "numbers", "CPU s", "training examples", "PSNR dB", "over the KLT, dB", "projected, over the KLT, dB")

Curve = Sequence[Mapping[str, Any]]
"""Results of `experiments.gains.run`, by rising CPU time."""


def fitted(log_examples: np.ndarray, mean_db: np.ndarray, powers: Sequence[float], target_db: float) -> tuple[Any, np.ndarray]:
    """(("slope", "ceiling", "examples"), fitted values) of the best of a + b log₁₀ N (power 0) and a − b (N / N₀)^−power."""
    fits = []
    for power in powers:
        x = log_examples if power == 0.0 else -(10.0 ** (-power * (log_examples - log_examples[0])))
        slope = np.mean((x - x.mean()) * mean_db) / np.var(x)
        offset = mean_db.mean() - slope * x.mean()
        at = (target_db - offset) / slope if slope > 0.0 else np.inf
        if power > 0.0:
            at = log_examples[0] - np.log10(-at) / power if at < 0.0 else np.inf
        ceiling = np.inf if power == 0.0 else offset
        found = (float(slope), float(ceiling), float(10.0**at) if at < 300.0 else np.inf)
        fits.append((np.sum(np.square(slope * x + offset - mean_db)), found, slope * x + offset))
    return min(fits, key=lambda fit: fit[0])[1:]


def extrapolated(
    examples: Sequence[int], gain_db: Float[np.ndarray, "t m"], target_db: float, powers: Sequence[float] = (0.0,)
) -> dict[str, tuple[float, float, float]]:
    """(value, and an interval of 95 %) of what a fit to gains of trainings on N examples says of more examples.

    A gain that is linear in log N, power 0, is a power law of the mean squared error in N. ``gain_db``: one row per training, one
    column per patch. The interval draws the patches, then the residuals of the fit, anew.

    Returns:
      "slope" b in dB, per tenfold N where the power is 0; "ceiling" in dB; "examples" N at which the fit reaches ``target_db``,
      infinite where it never does.
    """
    log_examples, rng = np.log10(np.asarray(examples, np.float64)), np.random.default_rng(0)
    found, draws = fitted(log_examples, gain_db.mean(1), powers, target_db)[0], []
    # Residuals are smaller than errors by the degrees of freedom that went into the fit.
    freedom = max(len(examples) - (2 if len(powers) == 1 else 3), 1)
    for _ in range(DRAWS):
        mean = gain_db[:, rng.integers(gain_db.shape[1], size=gain_db.shape[1])].mean(1)
        line = fitted(log_examples, mean, powers, target_db)[1]
        residuals = (mean - line) * np.sqrt(len(examples) / freedom)
        draws.append(fitted(log_examples, line + rng.choice(residuals, len(examples)), powers, target_db)[0])
    low, high = np.quantile(np.array(draws), (0.025, 0.975), axis=0, method="nearest")
    return {key: tuple(map(float, row)) for key, *row in zip(("slope", "ceiling", "examples"), found, low, high, strict=True)}


def best(result: Mapping[str, Any]) -> np.ndarray:
    """PSNR in dB of each patch, projected where the latent can be."""
    return np.array(result.get("projected", result["own"]))


def row_of(method: str, numbers: int, seconds: Sequence[float], curve: Curve, floor: np.ndarray) -> list[Any]:
    """One row of the table: a learning curve, value by value."""

    def over(key: str) -> str | None:
        means = (np.mean(np.array(result[key]) - floor) for result in curve if key in result)
        return ", ".join(f"{mean:+.2f}" for mean in means) or None

    examples = ", ".join(f"{result['examples']:,}" for result in curve)
    spent = ", ".join(f"{each:g}" for each in seconds)
    return [method, numbers, spent, examples, float(best(curve[-1]).mean()), over("own"), over("projected")]


def plot(path: Path, curves: Mapping[tuple[str, int], Curve], floors: Mapping[int, np.ndarray], budgets: Sequence[float]) -> None:
    """Draws quality against numbers per patch after equal time, and gains over the KLT against training examples."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = list(floors)
    left.plot(sizes, [floors[size].mean() for size in sizes], color="black", linestyle="--", marker="_", label="KLT")
    for colour, method in zip(("C0", "C1", "C2"), METHODS, strict=True):
        after = {size: curves[method, size][len(budgets) - 1] for size in sizes}
        left.plot(sizes, [best(after[size]).mean() for size in sizes], color=colour, marker="o", label=method)
        for style, size in zip(("-", "--", ":"), sizes, strict=False):
            curve = curves[method, size]
            over = [np.mean(best(result) - floors[size]) for result in curve]
            right.plot([result["examples"] for result in curve], over, style, color=colour, marker=".", label=f"{method}, {size}")
    right.axhline(0.0, color="black", linewidth=0.8)
    left.set(xscale="log", xlabel="numbers per 32×32 patch", ylabel=f"PSNR dB after {budgets[-1]:g} CPU s")
    left.set_xticks(sizes, [str(size) for size in sizes])
    left.minorticks_off()
    right.set(xscale="log", xlabel="training examples", ylabel="PSNR over the KLT, dB")
    left.legend(fontsize=8)
    right.legend(fontsize=6)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def needed(curve: Curve, floor: np.ndarray, name: str, target_db: float) -> str:
    """What the longest learning curve says of more examples, in words."""
    examples, over = [result["examples"] for result in curve], np.stack([best(result) - floor for result in curve])
    line = extrapolated(examples[-LATE:], over[-LATE:], target_db)
    curved = extrapolated(examples, over, target_db, POWERS)
    slope, ceiling, by_line, by_power = (
        f"{value:{how}} (95 %: {low:{how}} to {high:{how}})"
        for (value, low, high), how in (
            (line["slope"], "+.2f"),
            (curved["ceiling"], "+.2f"),
            (line["examples"], ".1e"),
            (curved["examples"], ".1e"),
        )
    )
    return (
        f"Projected gain of {name} against training examples N. A line in log N, which is a power law of the squared error, "
        f"through its last {LATE} trainings: {slope} dB per tenfold N, and {target_db:+g} dB at N = {by_line}. A power law of "
        f"the gain with a ceiling, through all {len(curve)} trainings: ceiling {ceiling} dB, and {target_db:+g} dB at N = "
        f"{by_power}; inf: never. Intervals draw patches and residuals of the fit anew."
    )


def study(options: argparse.Namespace) -> str:
    """Runs what is not finished yet, writes the study with its figure and returns its table."""
    workdir, source, started = Path(options.workdir), provenance(), time.process_time()
    workdir.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    curves, rows, floors, total = {}, [], {}, 0.0
    for size in options.sizes:
        patches, values, floors[size] = gains.patches_and_floor(DATASET, options.patches, size)
        for method, make in METHODS.items():
            name = f"{''.join(c if c.isalnum() else '_' for c in method)}_{size}"
            codec = json.loads(json.dumps({"codec": repr(make(size, 1000).config)}))
            calibrate = partial(gains.steps_for, partial(make, size), 100.0, patches)
            steps = finished(workdir / f"{name}_steps.json", codec, calibrate)["steps"]
            first = (method, size) == (next(iter(METHODS)), options.sizes[0])
            budgets = [*options.seconds, *(options.longer if first else [])]
            curve = []
            for seconds in budgets:
                trained = make(size, max(40, round(steps * seconds / 100.0)))
                settings = {**codec, "steps": steps, "projection": options.projection, "patches": len(values)}
                measure = partial(gains.run, trained, options.projection, 0, patches, values)
                curve.append(finished(workdir / f"{name}_{seconds:g}.json", settings, measure))
            curves[method, size] = curve
            rows.append(row_of(method, size, budgets, curve, floors[size]))
            total += sum(result["cpu_s"] for result in curve)
            print(*rows[-1], sep="; ", flush=True)
    record = Path(options.record)
    plot(record.with_suffix(".png"), curves, floors, options.seconds)
    method, size = next(iter(METHODS)), options.sizes[0]
    outlook = needed(curves[method, size], floors[size], f"{method} with {size} numbers", options.target)
    components = ", ".join(f"{floors[size].mean():.2f} dB with {size}" for size in options.sizes)
    found = save_study(
        record,
        title="Numbers per patch: gates, shifts and sparse shifts over the KLT",
        about=(
            f"PSNR in dB before quantisation, mean over {options.patches} validation patches of {DATASET}, one seed, 5 sine "
            f"layers of 64 units. The same number of principal components of the training patches gives {components}. Every CPU "
            f"time is a training of its own from a plain start (compilation left out), batches of 16, 256 random coordinates "
            f"each; gains are in the order of the times. PSNR: after the longest, projected where there is projection: "
            f"{options.projection} damped Gauss–Newton steps from the analysis; sparse shifts have none. Linear shifts "
            f"are those of COIN++, behind the same analysis. MSCN has the learning rates and the inner loop of its demo."
        ),
        columns=COLUMNS,
        rows=rows,
        command=(
            f"python -m experiments.latent_sizes --workdir=DIR --sizes {' '.join(map(str, options.sizes))} "
            f"--seconds {' '.join(f'{each:g}' for each in options.seconds)} "
            f"--longer {' '.join(f'{each:g}' for each in options.longer)} --patches={options.patches}"
        ),
        source=source,
        duration_s=max(total, time.process_time() - started),
        notes=f"{outlook} {options.notes}".strip(),
        figures=[record.with_suffix(".png").name],
    )
    return study_table(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the study and prints its table; the exit status is 1 where data are missing or DIR has other settings."""
    parser = argparse.ArgumentParser(prog="python -m experiments.latent_sizes", description="Numbers per patch, by method.")
    parser.add_argument("--workdir", required=True, help="folder of the runs, which resume there")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256], help="numbers per patch (64 128 256)")
    parser.add_argument("--seconds", type=float, nargs="+", default=[5, 10, 20, 40], help="CPU times (5 10 20 40)")
    parser.add_argument("--longer", type=float, nargs="*", default=[80, 160], help="more of the first method's (80 160)")
    parser.add_argument("--projection", type=int, default=8, help="Gauss–Newton steps (%(default)s)")
    parser.add_argument("--patches", type=int, default=96, help="validation patches (%(default)s)")
    parser.add_argument("--target", type=float, default=1.0, help="gain in dB to extrapolate to (%(default)s)")
    parser.add_argument("--record", default="docs/results/studies/latent_sizes.json", help="the file to write (%(default)s)")
    parser.add_argument("--notes", default="", help="what came out")
    options = parser.parse_args(arguments)
    use_cpu_cores()
    return run_study(study, options)


if __name__ == "__main__":
    raise SystemExit(main())

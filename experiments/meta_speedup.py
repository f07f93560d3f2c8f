"""How many steps does a meta-learned start save? Strümpler et al. 2022, meta-learned against basic, to equal quality.

    python -m experiments.prepare demo
    python -m experiments.meta_speedup --workdir=DIR [--data demo] [--tiles 32] [--pictures 100] [--seeds 3] [--steps 1500]

The same network, pictures, optimiser and penalty: one fit from a random start, and one from meta-learned weights after their
three inner steps, which count. A second basic fit has the rate that serves random starts best on validation pictures. The paper
finds a tenth of the steps. Prints a table, and writes it and the curves to docs/results/studies/meta_speedup.json and .png.
Five to six minutes on two cores.
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
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.command_line import run_study
from experiments.data import evenly_spaced, tiles
from vcinr.adaptation.long_fit import OptimiserSpec, overfit
from vcinr.adaptation.meta_learning import AdaptationConfig
from vcinr.codecs.strumpler_meta import StrumplerMeta, StrumplerMetaConfig, base_weights, first_updates
from vcinr.codecs.whole_signals import SignalBatch, batches_of_equal_shape
from vcinr.datasets.catalogue import load_split
from vcinr.datasets.sources import PatchSource
from vcinr.evaluation.metrics import psnr_db
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig
from vcinr.provenance import provenance
from vcinr.report.studies import save_study, study_table
from vcinr.signals.patches import to_signal
from vcinr.stage import TrainingConfig
from vcinr.training.run import train
from vcinr.weights import coding as weight_coding
from vcinr.weights.coding import Batch, FitConfig

EVERY = 10
"""Steps between two points of a curve."""

TUNING_PICTURES = 32
"""Validation pictures, at most, that the basic codec's own rate is chosen on."""

GREYS = ("tab:grey", "black")


def curve_loss(config: FitConfig, shared: Any, update: Any, data: Any, step: Any) -> tuple[jax.Array, jax.Array]:
    """(MSE, which curves show; MSE + λ Σ|Δ|, which is minimised)."""
    error = weight_coding.signal_error(config, shared, update, data)
    return error, weight_coding.fit_loss(config, shared, update, data, step)


def curves(fit: FitConfig, batch: Batch, updates: Any, lr: float, steps: int) -> np.ndarray:
    """PSNR in dB [pictures, 1 + steps / `EVERY`] of the best so far, after as many updates as `updates_seen` says."""
    start = weight_coding.signal_errors(fit, batch, updates)
    options = {"chunk_steps": EVERY, "labels": batch.labels}
    found = overfit(curve_loss, fit, batch.shared, updates, batch.data, OptimiserSpec(lr), steps, **options)
    return psnr_db(np.column_stack([start, found.losses]))


def updates_seen(num_points: int) -> np.ndarray:
    """Updates that each point of a curve has seen: a fit that `EVERY` steps were asked of has seen the result of all but its
    last update, and only at the very end that one, too."""
    at = np.arange(num_points) * EVERY
    at[1:-1] -= 1
    return at


def steps_to(levels: np.ndarray, curve: np.ndarray, wanted: float) -> float:
    """The step, between points of a rising curve [n] at ``levels`` [n], where it first reaches ``wanted``; inf where never."""
    if curve[-1] < wanted:
        return float("inf")
    after = int(np.argmax(curve >= wanted))
    if after == 0:
        return float(levels[0])
    share = (wanted - curve[after - 1]) / (curve[after] - curve[after - 1])
    return float(levels[after - 1] + share * (levels[after] - levels[after - 1]))


def held_out(options: argparse.Namespace, split: str, count: int) -> SignalBatch:
    """``count`` pictures of a split as one batch, evenly spaced over the set; fewer of "validation" where it has no more."""
    pictures = list(load_split(options.data, split))
    if options.tiles:
        pictures = [tile for picture in pictures for tile in tiles(picture, options.tiles)]
    if split == "validation":
        count = min(count, len(pictures))
    if not 0 < count <= len(pictures):
        raise ValueError(f"{options.data} has {len(pictures)} {split} pictures of this size, not {count}")
    chosen = evenly_spaced(pictures, count)
    signals = [to_signal(picture.astype(np.float32) / np.float32(255), picture.shape[:2]) for picture in chosen]
    batches = batches_of_equal_shape(signals, 2**31)
    if len(batches) > 1:
        raise ValueError(f"the {split} pictures of {options.data} differ in shape: cut them with --tiles")
    return batches[0]


def codec_of(options: argparse.Namespace, side: tuple[int, ...]) -> StrumplerMeta:
    """The meta-learned codec; the basic one's network is the same."""
    field = FieldConfig(
        num_layers=options.layers,
        width=options.width,
        modulation="weight_update",
        encoding="nerf",
        num_frequencies=options.frequencies,
    )
    meta = TrainingConfig(options.meta_steps, 16, lr=options.meta_lr)
    return StrumplerMeta(StrumplerMetaConfig(side, field=field, adaptation=AdaptationConfig(learn_start=False), meta=meta))


def basic_curves(options: argparse.Namespace, codec: StrumplerMeta, seed: int, signals: SignalBatch, lr: float) -> np.ndarray:
    """Curves [pictures, points] from a random start at a rate."""
    field = codec.config.field
    plain = siren.flatten(siren.init_layers(jax.random.key(seed), field.sizes(), field.omega_0))
    batch = weight_coding.make_batch(field, jnp.zeros_like(plain), signals, "basic")
    starts = jnp.tile(plain, (len(signals.indices), 1))
    return curves(FitConfig(field, options.l1), batch, starts, lr, options.steps)


def meta_curves(options: argparse.Namespace, seed: int, signals: SignalBatch, source: PatchSource) -> np.ndarray:
    """Curves [pictures, points] from meta-learned weights, which are learned first.

    ValueError where the workdir holds weights that were learned from other data or otherwise.
    """
    codec = codec_of(options, source.patch)
    c = codec.config
    data = json.dumps({"data": options.data, "tiles": options.tiles})
    params = train(codec, source, seed=seed, workdir=Path(options.workdir) / f"seed{seed}", config_json=data)
    batch = weight_coding.make_batch(c.field, base_weights(c, params["shared"]), signals, "meta")
    return curves(FitConfig(c.field, options.l1), batch, first_updates(c, params, signals), options.lr, options.steps)


def best_basic_lr(options: argparse.Namespace, codec: StrumplerMeta) -> tuple[float, dict[float, float]]:
    """(the rate at which random starts end at the highest PSNR on validation pictures, that PSNR at each rate)."""
    signals = held_out(options, "validation", TUNING_PICTURES)
    rates = dict.fromkeys((options.lr, *options.basic_lrs))
    ends = {lr: float(basic_curves(options, codec, 0, signals, lr)[:, -1].mean()) for lr in rates}
    return max(ends, key=ends.__getitem__), ends


def summary(options: argparse.Namespace, basic: np.ndarray, meta: np.ndarray, inner: int) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows); basic, meta: curves [seeds, pictures, points]; inner: steps before the meta-learned curve begins."""
    at = updates_seen(basic.shape[-1])
    rows = []
    for point in sorted({int(options.steps * share) // EVERY for share in (0.05, 0.1, 0.25, 0.5, 1.0)} - {0}):
        steps = int(at[point])
        wanted = basic[:, :, point].mean(1)
        reached = np.array([steps_to(at, curve.mean(0), level) for curve, level in zip(meta, wanted, strict=True)]) + inner
        shares = [
            (steps_to(at, learned, plain[point]) + inner) / steps
            for of_seed in zip(basic, meta, strict=True)
            for plain, learned in zip(*of_seed, strict=True)
        ]
        gain = (meta[:, :, point] - basic[:, :, point]).mean(1)
        rows.append(
            [
                steps,
                _spread(wanted),
                _spread(reached, 0) if np.isfinite(reached).all() else f"over {options.steps}",
                f"{np.mean(reached) / steps:.3f}" if np.isfinite(reached).all() else "–",
                f"{np.median(shares):.3f}",
                f"{100 * np.mean(np.isfinite(shares)):.0f} %",
                _spread(gain),
            ]
        )
    columns = [
        "steps, basic",
        "PSNR",
        "steps to it, meta",
        "share",
        "median share a picture",
        "pictures that reach it",
        "gain at equal steps",
    ]
    return columns, rows


def _spread(values: np.ndarray, digits: int = 2) -> str:
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def plot(path: Path, basic: dict[float, np.ndarray], meta: np.ndarray, lr: float, inner: int) -> None:
    """Mean curves, a thin line a seed, over a logarithm of the steps; basic: those of each rate, ``lr`` that of ``meta``."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    shown = [(f"basic, {each:g}", rows, 0, colour) for (each, rows), colour in zip(basic.items(), GREYS, strict=False)]
    for name, rows, first, colour in (*shown, (f"meta-learned, {lr:g}", meta, inner, "tab:blue")):
        at = updates_seen(rows.shape[-1]) + first
        for seed, curve in enumerate(rows.mean(1)):
            axes.plot(at[at > 0], curve[at > 0], color=colour, linewidth=1.0, label=name if seed == 0 else None)
    axes.set(xscale="log", xlabel="steps", ylabel="PSNR of floats, dB, mean over pictures")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def study(options: argparse.Namespace) -> str:
    """Trains, fits, compares; writes the study and its figure, and returns the table."""
    started, run = time.time(), provenance()
    if options.steps % EVERY:
        raise ValueError(f"--steps must be a multiple of {EVERY}, not {options.steps}")
    signals = held_out(options, "test", options.pictures)
    side = (options.tiles,) * 2 if options.tiles else load_split(options.data, "train")[0].shape[:2]
    source = PatchSource(load_split(options.data, "train"), side)
    codec = codec_of(options, side)
    say = lambda what: print(f"{what}; {time.time() - started:.0f} s", flush=True)
    seeds = range(options.seeds)
    meta = np.stack([meta_curves(options, seed, signals, source) for seed in seeds])
    say(f"meta-learned: {meta[:, :, -1].mean():.2f} dB after {options.steps} steps")
    best_lr, tuned = best_basic_lr(options, codec)
    ends = ", ".join(f"{lr:g}: {level:.2f} dB" for lr, level in tuned.items())
    say(f"basic on validation pictures: {ends}")
    basic = {}
    for lr in dict.fromkeys((options.lr, best_lr)):
        basic[lr] = np.stack([basic_curves(options, codec, seed, signals, lr) for seed in seeds])
        say(f"basic at {lr:g}: {basic[lr][:, :, -1].mean():.2f} dB")
    inner = codec.config.adaptation.num_steps
    rows = []
    for lr, of_rate in basic.items():
        columns, found = summary(options, of_rate, meta, inner)
        rows += [[f"{lr:g}", *row] for row in found]
    record = Path(options.record)
    plot(record.with_suffix(".png"), basic, meta, options.lr, inner)
    saved = save_study(
        record,
        title="Steps to equal quality: meta-learned against basic Strümpler",
        about=(
            f"{meta.shape[1]} held-out pictures of {options.data}, {'×'.join(map(str, side))}, {options.seeds} seeds; networks "
            f"of {options.layers} × {options.width} sine units, {siren.num_weights(codec.config.field.sizes())} weights; an L1 "
            f"penalty of {options.l1:g} for both. Adam at {options.lr:g} for meta-learned; for basic at that rate and at the "
            f"one where its fits of validation pictures end best ({ends}). θ₀ was learned in {options.meta_steps} outer steps of "
            f"16 crops; its {inner} inner steps count. PSNR in dB of floats, the best so far, mean over pictures ± "
            "standard deviation over seeds. Share: steps of meta-learned over those of basic, of the mean curves and of single "
            "pictures (median)."
        ),
        columns=["lr, basic", *columns],
        rows=rows,
        command=command(options),
        duration_s=time.time() - started,
        notes="Strümpler et al. 2022 report a tenth of the steps: 2,500 for what takes 25,000 from a random start.",
        figures=[record.with_suffix(".png").name],
        source=run,
    )
    return study_table(saved)


def command(options: argparse.Namespace) -> str:
    """What was run, without the names of this machine's files."""
    given = {name: value for name, value in vars(options).items() if name not in ("workdir", "record", "basic_lrs")}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    rates = " ".join(f"{lr:g}" for lr in options.basic_lrs)
    return " ".join(["python -m experiments.meta_speedup --workdir=DIR", *words, "--basic-lrs", rates])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status is 1 where data are missing or a setting makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m experiments.meta_speedup", description="What a meta-learned start saves.")
    parser.add_argument("--workdir", required=True, help="where meta-training goes, and is found again")
    parser.add_argument("--data", default="demo", help="a prepared data set (%(default)s)")
    parser.add_argument("--tiles", type=int, default=32, help="cut pictures into tiles of this side; 0 for whole (%(default)s)")
    parser.add_argument("--pictures", type=int, default=100, help="held-out pictures (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=1500, help="of each fit (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="of each fit (%(default)s)")
    rates = "rates that the basic fit's own is chosen from, besides --lr (0.001 0.002 0.004)"
    parser.add_argument("--basic-lrs", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3], help=rates)
    parser.add_argument("--l1", type=float, default=1e-6, help="of each fit (%(default)s)")
    parser.add_argument("--layers", type=int, default=3, help="sine layers (%(default)s)")
    parser.add_argument("--width", type=int, default=10, help="units of each (%(default)s)")
    parser.add_argument("--frequencies", type=int, default=4, help="of the encoding (%(default)s)")
    parser.add_argument("--meta-steps", type=int, default=800, help="outer steps (%(default)s)")
    parser.add_argument("--meta-lr", type=float, default=2e-3, help="of the outer steps (%(default)s)")
    parser.add_argument("--record", default="docs/results/studies/meta_speedup.json", help="the file to write (%(default)s)")
    return run_study(study, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

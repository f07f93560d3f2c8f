"""How many steps does a meta-learned start save? Strümpler et al. 2022, meta-learned against basic, to equal quality.

    python -m experiments.prepare demo
    python -m experiments.meta_speedup --workdir=DIR [--data demo] [--tiles 32] [--pictures 100] [--seeds 3] [--steps 1500]

Two fits of the same network to the same pictures, with the same optimiser and penalty: one from a random start, one from
meta-learned weights after three inner steps, which count as steps. A third fit, from a random start, has the learning rate that
is best for random starts on validation pictures. The paper needs a tenth of the steps. Prints a table, and writes it and the
curves to docs/results/studies/meta_speedup.json and .png. Five to six minutes on two cores.
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
from vcinr.weights.fit import Batch, FitConfig, fit_loss, make_batch, signal_error, signal_errors
from vcinr.weights.signal_batches import SignalBatch, batches_of_equal_shape

EVERY = 10
"""Steps between two points of a curve."""

TUNING_PICTURES = 32
"""Largest number of validation pictures on which the basic codec's learning rate is chosen."""

GREYS = ("tab:grey", "black")


def curve_loss(config: FitConfig, shared: Any, update: Any, data: Any, step: Any) -> tuple[jax.Array, jax.Array]:
    """(MSE, which curves show; MSE + λ Σ|Δ|, which the fit minimises)."""
    error = signal_error(config, shared, update, data)
    return error, fit_loss(config, shared, update, data, step)


def curves(fit: FitConfig, batch: Batch, updates: Any, lr: float, steps: int) -> np.ndarray:
    """Best PSNR so far in dB, [pictures, 1 + steps / `EVERY`]; `updates_seen` counts the updates before each point."""
    start = signal_errors(fit, batch, updates)
    options = {"chunk_steps": EVERY, "labels": batch.labels}
    found = overfit(curve_loss, fit, batch.shared, updates, batch.data, OptimiserSpec(lr), steps, **options)
    return psnr_db(np.column_stack([start, found.losses]))


def updates_seen(length: int) -> np.ndarray:
    """Number of updates before each point of a curve of this length.

    A loss is evaluated before its step's update. After a chunk of `EVERY` steps the last update has thus not been evaluated yet;
    the fit evaluates it only at its very end.
    """
    at = np.arange(length) * EVERY
    at[1:-1] -= 1
    return at


def steps_to(steps: np.ndarray, curve: np.ndarray, wanted: float) -> float:
    """The step, interpolated, where a rising curve [n], given at ``steps`` [n], first reaches ``wanted``; inf where never."""
    if curve[-1] < wanted:
        return float("inf")
    after = int(np.argmax(curve >= wanted))
    if after == 0:
        return float(steps[0])
    share = (wanted - curve[after - 1]) / (curve[after] - curve[after - 1])
    return float(steps[after - 1] + share * (steps[after] - steps[after - 1]))


def held_out(options: argparse.Namespace, split: str, count: int) -> SignalBatch:
    """``count`` pictures of a split as one batch, evenly spaced over the set; of "validation" as many as there are, if fewer."""
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
    """The meta-learned codec; the basic codec has the same network."""
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
    """Curves [pictures, points] from a random start with learning rate ``lr``."""
    field = codec.config.field
    plain = siren.flatten(siren.init_layers(jax.random.key(seed), field.sizes(), field.omega_0))
    batch = make_batch(field, jnp.zeros_like(plain), signals, "basic")
    starts = jnp.tile(plain, (len(signals.indices), 1))
    return curves(FitConfig(field, options.l1), batch, starts, lr, options.steps)


def meta_curves(options: argparse.Namespace, seed: int, signals: SignalBatch, source: PatchSource) -> np.ndarray:
    """Curves [pictures, points] from meta-learned weights; trains these first.

    ValueError where the workdir holds weights that were trained on other data or with other settings.
    """
    codec = codec_of(options, source.patch)
    c = codec.config
    data = json.dumps({"data": options.data, "tiles": options.tiles})
    params = train(codec, source, seed=seed, workdir=Path(options.workdir) / f"seed{seed}", config_json=data)
    batch = make_batch(c.field, base_weights(c, params["shared"]), signals, "meta")
    return curves(FitConfig(c.field, options.l1), batch, first_updates(c, params, signals), options.lr, options.steps)


def best_basic_lr(options: argparse.Namespace, codec: StrumplerMeta) -> tuple[float, dict[float, float]]:
    """(learning rate with the highest final PSNR of random starts on validation pictures, final PSNR at each learning rate)."""
    signals = held_out(options, "validation", TUNING_PICTURES)
    rates = dict.fromkeys((options.lr, *options.basic_lrs))
    ends = {lr: float(basic_curves(options, codec, 0, signals, lr)[:, -1].mean()) for lr in rates}
    return max(ends, key=ends.__getitem__), ends


def summary(options: argparse.Namespace, basic: np.ndarray, meta: np.ndarray, inner: int) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows) of the table.

    Args:
      options: of the command line.
      basic: curves [seeds, pictures, points].
      meta: the same, of meta-learned weights.
      inner: inner steps before the meta-learned curve begins.
    """
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
        "median share per picture",
        "pictures that reach it",
        "gain at equal steps",
    ]
    return columns, rows


def _spread(values: np.ndarray, digits: int = 2) -> str:
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def plot(path: Path, basic: dict[float, np.ndarray], meta: np.ndarray, lr: float, inner: int) -> None:
    """Plots mean curves over the steps, on a logarithmic axis, one line per seed.

    Args:
      path: of the PNG file.
      basic: learning rate → curves.
      meta: curves of meta-learned weights.
      lr: learning rate of ``meta``.
      inner: inner steps before the meta-learned curve begins.
    """
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
            f"penalty of {options.l1:g} for both. Adam at {options.lr:g} for meta-learned; for basic at that learning rate, and "
            f"at the one with the highest final PSNR on validation pictures ({ends}). θ₀ was learned in {options.meta_steps} "
            f"outer steps of 16 crops; its {inner} inner steps count. PSNR in dB of floats, the best so far, mean over pictures "
            "± standard deviation over seeds. Share: steps of meta-learned over those of basic, of the mean curves and of single "
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
    """The command line, without file names of this machine."""
    given = {name: value for name, value in vars(options).items() if name not in ("workdir", "record", "basic_lrs")}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    rates = " ".join(f"{lr:g}" for lr in options.basic_lrs)
    return " ".join(["python -m experiments.meta_speedup --workdir=DIR", *words, "--basic-lrs", rates])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status is 1 where data are missing or a setting is invalid."""
    parser = argparse.ArgumentParser(prog="python -m experiments.meta_speedup", description="What a meta-learned start saves.")
    parser.add_argument("--workdir", required=True, help="folder of the meta-training, which resumes there")
    parser.add_argument("--data", default="demo", help="a prepared data set (%(default)s)")
    parser.add_argument("--tiles", type=int, default=32, help="cut pictures into tiles of this side; 0 for whole (%(default)s)")
    parser.add_argument("--pictures", type=int, default=100, help="held-out pictures (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="random starts (%(default)s)")
    parser.add_argument("--steps", type=int, default=1500, help="steps of each fit (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate of each fit (%(default)s)")
    rates = "candidates for the basic fit's own learning rate, besides --lr (0.001 0.002 0.004)"
    parser.add_argument("--basic-lrs", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3], help=rates)
    parser.add_argument("--l1", type=float, default=1e-6, help="L1 penalty of each fit (%(default)s)")
    parser.add_argument("--layers", type=int, default=3, help="sine layers (%(default)s)")
    parser.add_argument("--width", type=int, default=10, help="units of each (%(default)s)")
    parser.add_argument("--frequencies", type=int, default=4, help="frequencies of the encoding (%(default)s)")
    parser.add_argument("--meta-steps", type=int, default=800, help="outer steps (%(default)s)")
    parser.add_argument("--meta-lr", type=float, default=2e-3, help="learning rate of the outer steps (%(default)s)")
    parser.add_argument("--record", default="docs/results/studies/meta_speedup.json", help="the file to write (%(default)s)")
    return run_study(study, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

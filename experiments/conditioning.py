"""What a well-conditioned start and inner problem buy: plain, warm-started, and warm-started and scaled training at equal time.

    python -m experiments.prepare cifar10_small
    python -m experiments.conditioning [--seconds 9] [--seeds 3] [--side 8] [--latent 16] [--width 32]

Learning curves of VC-INR's meta-training on crops of CIFAR-10: validation PSNR after so many seconds of one core's time, those of
the warm start included, those of compiling and of measuring not. Every arm's outer rate falls to its end over the same seconds.
Prints a table, and writes it and the curves to docs/results/studies/conditioning.json and .png.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from experiments.command_line import run_study
from vcinr.codecs.codec import ExampleSource, Stage
from vcinr.codecs.meta_learning import AdaptationConfig
from vcinr.codecs.vc_inr import VCINR, VCINRConfig
from vcinr.codecs.warm_start import WarmStartConfig
from vcinr.evaluation.studies import save_study, study_table
from vcinr.fields.field import FieldConfig
from vcinr.provenance import provenance
from vcinr.signals.datasets import load_split
from vcinr.signals.sources import PatchSource

BATCH = 16
VALIDATION = 256
AVERAGE_DECAY = 0.98
POINTS = 8
"""Measurements of a curve after its start."""

NOTES = (
    "Nothing here lifts a warm-started field above its start. Neither rates scaled by fan-in nor the running reference gain on "
    "relative rates and the reference of the start: all end a few hundredths of a decibel under where they began, though above "
    "plain training. Why: the components are the optimum of all that is linear in the latent, so that there θ's gradient is "
    "noise: those of two batches agree at a plain start and hardly at a warm one, and Adam makes full steps of either. Only the "
    "gates could gain, and they do not within this time. In single runs that no command repeats, what lost decibels at higher "
    "rates was the trunk (the head is solved for just its features), hardly the head, and not the gates; hence fan-in rates "
    "that move sine layers by phases. A quarter of the coordinates: the running reference keeps each inner step stable on its "
    "draw and yet ends further down, since training answers the draw's spectrum, which is broad, where that of all coordinates "
    "is nearly flat. Relative to the draw's largest eigenvalue the learned steps grow severalfold, too far for all coordinates; "
    "relative to the start's they shrink; and with fixed steps a single run ended no better. What is trained on a subset does "
    "not suit all coordinates under either reference: train on all of them, in chunks where memory is short."
)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train.  fit_share: when the warm start ends, as a share of the seconds; 0 for none.  lr, rates, reference,
    initial_step: of meta-training.  quarter: whether its steps draw a quarter of the coordinates."""

    name: str
    lr: float
    rates: str
    reference: str = "start"
    fit_share: float = 0.0
    initial_step: float = 1.0
    quarter: bool = False


ARMS = (
    Arm("plain", 1e-3, "plain", initial_step=0.5),
    Arm("warm start", 1e-3, "relative", fit_share=0.25),
    Arm("warm start, scaled", 1e-2, "fan_in", "running", fit_share=0.25),
    Arm("warm start, scaled, reference of the start", 1e-2, "fan_in", fit_share=0.25),
    Arm("a quarter of the coordinates, reference of the start", 1e-2, "fan_in", fit_share=0.25, quarter=True),
    Arm("a quarter of the coordinates, running reference", 1e-2, "fan_in", "running", fit_share=0.25, quarter=True),
)


def codec_of(options: argparse.Namespace, arm: Arm) -> VCINR:
    """The codec of an arm; all have one field."""
    field = FieldConfig(
        num_layers=3,
        width=options.width,
        last_width=options.last_width,
        latent_dim=options.latent,
        linear_head=True,
        hyper_width=2 * options.width,
    )
    subset = options.side**2 // 4 if arm.quarter else 0
    adaptation = AdaptationConfig(initial_step=arm.initial_step, reference=arm.reference, subset=subset)
    warm_start = WarmStartConfig(enabled=arm.fit_share > 0, num_patches=options.patches, offsets_per_picture=1)
    return VCINR(VCINRConfig((options.side,) * 2, field=field, adaptation=adaptation, warm_start=warm_start, rates=arm.rates))


class Clock:
    """Seconds of this process's own work, on however many cores: on one core they are those of an idle machine."""

    def __init__(self):
        self.seconds = 0.0

    def run(self, work: Callable[[], Any]) -> Any:
        """What ``work`` returns, its time counted."""
        begun = time.process_time()
        result = jax.block_until_ready(work())
        self.seconds += time.process_time() - begun
        return result


Step = Callable[..., tuple[Any, Any, Any]]


def make_step(stage: Stage) -> Step:
    """One update by Adam, compiled once for all rates and seeds:
    (trained, state, average, frozen, examples, key, lr, multipliers) → (trained, state, average)."""
    optimiser = adam()

    def mean_loss(trained, frozen, examples, key):
        keys = jax.random.split(key, len(jax.tree.leaves(examples)[0]))
        return jnp.mean(jax.vmap(stage.loss, (None, None, 0, 0))(trained, frozen, examples, keys)[0])

    @jax.jit
    def step(trained, state, average, frozen, examples, key, lr, multipliers):
        gradient = jax.grad(mean_loss)(trained, frozen, examples, key)
        updates, state = optimiser.update(gradient, state)
        trained = jax.tree.map(lambda x, u, m: x - lr * m * u, trained, updates, multipliers)
        average = jax.tree.map(lambda a, x: AVERAGE_DECAY * a + (1 - AVERAGE_DECAY) * x, average, trained)
        return trained, state, average

    return step


def adam() -> optax.GradientTransformation:
    """Adam behind a clip of the global norm, before any rate."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())


def rate(share: float) -> float:
    """Of the peak, after a share of the seconds: a rise over the first twentieth, then a cosine to a fiftieth."""
    return min(1.0, 0.05 + share / 0.05) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * min(share, 1.0))))


def agreement(step: Step, stage: Stage, trained: Any, source: ExampleSource, pairs: int = 8) -> float:
    """Cosine between the gradients of two batches, mean over the arrays of θ and over pairs: 1 without noise, 0 for nothing else.

    Adam's first moment after one update is the gradient, but for a factor.
    """
    trained = jax.tree.map(jnp.asarray, trained)
    still = jax.tree.map(jnp.zeros_like, stage_multipliers(stage, trained))

    def gradient(number):
        batch = source.batch(np.random.default_rng([2**20, number]), BATCH)
        after = step(trained, adam().init(trained), trained, {}, batch, jax.random.key(number), jnp.float32(0), still)
        return jax.tree.leaves(after[1][1].mu["shared"])

    def cosine(a, b):
        return jnp.vdot(a, b) / jnp.maximum(jnp.linalg.norm(a) * jnp.linalg.norm(b), 1e-30)

    found = [[cosine(*each) for each in zip(gradient(2 * i), gradient(2 * i + 1), strict=True)] for i in range(pairs)]
    return float(np.mean(found))


def stage_multipliers(stage: Stage, trained: Any) -> Any:
    """A float32 a leaf."""
    return jax.tree.map(jnp.float32, stage.lr_multipliers(trained))


def optimise(
    step: Step,
    stage: Stage,
    params: Mapping[str, Any],
    trained: Any,
    source: ExampleSource,
    lr: float,
    seed: int,
    clock: Clock,
    until: float,
    measure: Callable[[Any], None] | None = None,
) -> tuple[Any, int]:
    """(the average of what is trained, steps) when the clock shows ``until`` seconds; ``measure`` sees the average on the way."""
    trained = jax.tree.map(jnp.asarray, trained)
    multipliers = stage_multipliers(stage, trained)
    frozen, key = jax.tree.map(jnp.asarray, stage.frozen(params)), jax.random.key(seed)
    batch = lambda i: source.batch(np.random.default_rng([seed, i]), BATCH)
    carried = (trained, adam().init(trained), trained)
    step(*carried, frozen, batch(0), key, jnp.float32(0), multipliers)
    begun, count = clock.seconds, 0
    due = list(np.linspace(begun, until, POINTS + 1)[1:])
    while clock.seconds < until:
        now = jnp.float32(lr * rate((clock.seconds - begun) / (until - begun)))
        work = lambda i=count, now=now, carried=carried: step(
            *carried, frozen, batch(i), jax.random.fold_in(key, i), now, multipliers
        )
        carried, count = clock.run(work), count + 1
        if due and clock.seconds >= due[0]:
            due = [at for at in due if at > clock.seconds]
            if measure is not None:
                measure(carried[2])
    return carried[2], count


@dataclasses.dataclass(frozen=True)
class Curve:
    """points: [p, 2], seconds and validation PSNR in dB.  steps: of meta-training.  agreement: see `agreement`, at its start."""

    points: np.ndarray
    steps: int
    agreement: float


class Bench:
    """Training and measuring, compiled once for all arms and seeds that differ in rates and starts alone."""

    def __init__(self, train: PatchSource, held_out: PatchSource):
        self.train = train
        self.held_out = held_out
        self._compiled: dict[Any, Any] = {}

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._compiled:
            self._compiled[key] = make()
        return self._compiled[key]

    def curve(self, codec: VCINR, arm: Arm, seconds: float, seed: int) -> Curve:
        """The curve of an arm with a seed."""
        clock, params = Clock(), jax.device_get(codec.init(jax.random.key(seed)))
        *before, meta = codec.field_stages()
        for stage in before:
            source = clock.run(lambda stage=stage, params=params: stage.examples(params, self.train))
            found = clock.run(lambda stage=stage, params=params, source=source: stage.init(None, params, source))
            if stage.loss is not None:
                step = self._once(stage.name, lambda stage=stage: make_step(stage))
                until = max(clock.seconds, arm.fit_share * seconds)
                found, _ = optimise(step, stage, params, found, source, stage.training.lr, seed, clock, until)
            params = stage.finish(params, found)
        adaptation = codec.config.adaptation
        step = self._once(("meta", adaptation.reference, adaptation.subset), lambda: make_step(meta))
        evaluate = self._once(("evaluate", adaptation.reference), lambda: make_measure(meta))
        values = meta.examples(params, self.held_out).batch(np.random.default_rng(0), VALIDATION)["values"]
        source = meta.examples(params, self.train)
        trained = meta.init(jax.random.key(seed), params, source)
        points = []
        measure = lambda average: points.append((clock.seconds, float(evaluate(average, values))))
        measure(trained)
        agreed = agreement(step, meta, trained, source)
        _, count = optimise(step, meta, params, trained, source, arm.lr, seed, clock, seconds, measure)
        return Curve(np.array(points), count, agreed)


def make_measure(stage: Stage) -> Callable[[Any, np.ndarray], jax.Array]:
    """Mean PSNR in dB of patches [b, n, c] after the inner loop, on all their coordinates."""

    def psnr(trained, values):
        return stage.evaluate(trained, {}, {"values": values}, None)[1]["psnr_db"]

    return jax.jit(lambda trained, values: jnp.mean(jax.lax.map(lambda y: psnr(trained, y), values, batch_size=32)))


def summary(curves: Mapping[str, Sequence[Curve]], seconds: float) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows) of arms' curves, one a seed. PSNR is interpolated between measurements."""
    shares = (0.5, 0.75, 1.0)
    rows = []
    for name, of_seeds in curves.items():
        starts = np.array([curve.points[0] for curve in of_seeds])
        cells = []
        for share in shares:
            at = np.array([np.interp(share * seconds, *curve.points.T) for curve in of_seeds])
            cells.append("–" if share * seconds < starts[:, 0].max() else spread(at))
        gain = spread(np.array([curve.points[-1, 1] - curve.points[0, 1] for curve in of_seeds]))
        agreed = spread(np.array([curve.agreement for curve in of_seeds]))
        steps = f"{np.mean([curve.steps for curve in of_seeds]):.0f}"
        rows.append([name, spread(starts[:, 0], 1), spread(starts[:, 1]), agreed, *cells, gain, steps])
    at = [f"{share * seconds:g} s" for share in shares]
    return ["training", "begins at, s", "there, dB", "gradients agree", *at, "gain", "steps"], rows


def spread(values: np.ndarray, digits: int = 2) -> str:
    """Mean ± standard deviation."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def plot(path: Path, curves: Mapping[str, Sequence[Curve]]) -> None:
    """A thin line a seed."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, (name, of_seeds) in enumerate(curves.items()):
        for seed, curve in enumerate(of_seeds):
            axes.plot(*curve.points.T, color=f"C{number}", linewidth=1.0, label=name if seed == 0 else None)
    axes.set(xlabel="seconds of one core", ylabel="validation PSNR of floats, dB")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def floor_db(bench: Bench, codec: VCINR) -> float:
    """Mean validation PSNR in dB of the components themselves, as many as the latent has numbers."""
    stage = codec.field_stages()[0]
    found = stage.init(None, {}, stage.examples({}, bench.train))
    patches = codec.field_stages()[-1].examples({}, bench.held_out).batch(np.random.default_rng(0), VALIDATION)["values"]
    basis = found["basis"].reshape(len(found["basis"]), -1)
    centred = patches.reshape(len(patches), -1) - found["mean"].reshape(-1)
    return float(np.mean(-10 * np.log10(np.mean((centred - centred @ basis.T @ basis) ** 2, axis=1))))


def study(options: argparse.Namespace) -> str:
    """Trains all arms; writes the study and its figure, and returns the table."""
    began, run = time.time(), provenance()
    if options.side < 2 or options.seconds <= 0 or options.seeds < 1:
        raise ValueError("--side must be at least 2, --seconds positive and --seeds at least 1")
    side = (options.side,) * 2
    bench = Bench(
        PatchSource(load_split(options.data, "train"), side),
        PatchSource(load_split(options.data, "validation"), side, flips=False),
    )
    curves: dict[str, list[Curve]] = {arm.name: [] for arm in ARMS}
    for seed in range(options.seeds):
        for arm in ARMS:
            curve = bench.curve(codec_of(options, arm), arm, options.seconds, seed)
            curves[arm.name].append(curve)
            ends = f"{curve.points[0, 1]:.2f} → {curve.points[-1, 1]:.2f} dB, {curve.steps} steps"
            print(f"seed {seed}, {arm.name}: {ends}; {time.time() - began:.0f} s", flush=True)
    floor = floor_db(bench, codec_of(options, dataclasses.replace(ARMS[0], fit_share=0.1)))
    columns, rows = summary(curves, options.seconds)
    rows.append([f"the {options.latent} components themselves", "–", f"{floor:.2f}", *["–"] * 6])
    record = Path(options.record)
    plot(record.with_suffix(".png"), curves)
    rates = "; ".join(f"{arm.name}: {arm.rates} {arm.lr:g}" for arm in ARMS)
    saved = save_study(
        record,
        title="A well-conditioned start and inner problem",
        about=(
            f"VC-INR's field (3 sine layers, {options.width} wide, the last {options.last_width}; latent {options.latent}, gates "
            f"and a linear head) on {options.side}×{options.side} crops of {options.data}; {VALIDATION} validation crops, after "
            f"{AdaptationConfig().num_steps} inner steps on all coordinates, before quantisation. {options.seeds} seeds, mean ± "
            "standard deviation. Seconds are of the process's own work on one core: the warm start's and meta-training's, "
            f"without compiling and measuring; rates end their decay at {options.seconds:g} s in every arm. Batches of {BATCH}, "
            f"parameters averaged. Peak rates: {rates}; the plain and the relative one are those of the configs, that of fan_in "
            "is of a few runs of one seed on validation crops. A curve begins where meta-training does; “gain” is what that adds."
        ),
        columns=columns,
        rows=rows,
        command=command(options),
        duration_s=time.time() - began,
        notes=NOTES,
        figures=[record.with_suffix(".png").name],
        source=run,
    )
    return study_table(saved)


def command(options: argparse.Namespace) -> str:
    """What was run, without the names of this machine's files."""
    given = {name: value for name, value in vars(options).items() if name != "record"}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    return " ".join(["python -m experiments.conditioning", *words])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status is 1 where data are missing or a setting makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m experiments.conditioning", description="Starts and rates at equal time.")
    parser.add_argument("--data", default="cifar10_small", help="a prepared data set (%(default)s)")
    parser.add_argument("--seconds", type=float, default=9.0, help="of one core, for each arm and seed (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--side", type=int, default=8, help="of a crop (%(default)s)")
    parser.add_argument("--latent", type=int, default=16, help="numbers of the latent (%(default)s)")
    parser.add_argument("--width", type=int, default=32, help="of the sine layers (%(default)s)")
    parser.add_argument("--last-width", type=int, default=48, help="of the last one (%(default)s)")
    parser.add_argument("--patches", type=int, default=8000, help="of the components, at most (%(default)s)")
    parser.add_argument("--record", default="docs/results/studies/conditioning.json", help="the file to write (%(default)s)")
    return run_study(study, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

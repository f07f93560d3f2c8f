"""Looks into trained models of COMBINER and COMBINER+: pictures like the thesis's figures 3.7 to 3.9 and 4.8 to 4.10.

    python -m experiments.posteriors --model=RUN/model [--pictures=8] [--draws=200] [--record=FILE]

One picture per question, beside a table of what can be counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.command_line import run_study
from experiments.data import evenly_spaced
from vcinr.codec import Code, EncodeRequest
from vcinr.codecs.combiner import Combiner
from vcinr.datasets.catalogue import load_split
from vcinr.devices import use_cpu_cores
from vcinr.fields import siren
from vcinr.model.finding import load
from vcinr.model.model import Model
from vcinr.posterior.gaussians import NATS_PER_BIT, Gaussian, from_tree, kl_nats, positive
from vcinr.posterior.partition import Partition
from vcinr.posterior.prior_learning import first_posterior
from vcinr.posterior.progressive_coding import Coded
from vcinr.provenance import provenance
from vcinr.report.studies import save_study, study_table

PRUNED_BITS = 0.05
"""A unit whose incoming weights cost less than this in all carries nothing."""


SHOWN_DIMENSIONS = 100
"""Rows and columns of A that are drawn; the thesis shows as many."""


def signals_of(model: Model, count: int) -> list[Any]:
    """Test signals of the model's own data."""
    data = model.info["config"]["data"]
    raw = evenly_spaced(load_split(data["test_name"] or data["name"], data["test"]), count)
    return [model.signal(each) for each in raw]


def coded(model: Model, signals: Sequence[Any], point: int, request: EncodeRequest) -> Coded:
    """What `Combiner.coded` gives for signals of one shape, in one batch: each gets random numbers of its own."""
    together = dataclasses.replace(model.codec.config, batch_samples=sum(signal.values[..., 0].size for signal in signals))
    ((_, found),) = type(model.codec)(together).coded(model.params, signals, point, request)
    return found


def divergence_by_part(model: Model, point: int, found: Coded) -> dict[str, float]:
    """Bits per patch that blocks spend on weights (h) and on the positional latent (z); a block's bits go to its dimensions in
    proportion to the divergence that the mean deviation of training posteriors alone gives them."""
    codec: Combiner = model.codec
    own = model.params["points"][str(point)]
    partition = Partition.from_arrays(own["blocks"])
    prior = Gaussian(**own["prior"])
    training = Gaussian(own["start"]["mean"], np.asarray(positive(own["start"]["raw_scale"])))
    share = np.asarray(kl_nats(Gaussian(prior.mean, training.scale), prior)) / NATS_PER_BIT
    weights = np.zeros(2)
    for block in range(partition.num_blocks):
        members = partition.members(block)
        bits = float(found.divergences[:, :, block].mean())
        inside = share[members] / max(share[members].sum(), 1e-9)
        on_weights = inside[members < codec.network.num_weights].sum()
        weights += bits * np.array([on_weights, inside.sum() - on_weights])
    return {"h": float(weights[0]), "z": float(weights[1])}


def draw_layer(path: Path, model: Model, point: int, values: np.ndarray) -> int:
    """Figure 3.7: mean and deviation of the second layer's prior, two predicted posteriors, their divergences. Units pruned."""
    codec: Combiner = model.codec
    own = model.params["points"][str(point)]
    sizes = codec.network.sizes()
    prior = Gaussian(**own["prior"])
    start = first_posterior(own, values[:2])
    posteriors = [
        from_tree({"mean": mean, "raw_scale": raw}) for mean, raw in zip(start["mean"], start["raw_scale"], strict=True)
    ]
    divergences = [np.asarray(kl_nats(q, prior)) / NATS_PER_BIT for q in posteriors]
    layer = lambda vector: np.asarray(siren.unflatten(np.asarray(vector)[: codec.network.num_weights], sizes)[1][0])
    shown = {"prior: mean": prior.mean, "prior: deviation": prior.scale}
    for i, (q, kl) in enumerate(zip(posteriors, divergences, strict=True)):
        shown |= {f"picture {i + 1}: mean": q.mean, f"picture {i + 1}: bits": kl}
    figure = Figure(figsize=(12, 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, vector) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        image = axes.imshow(layer(vector), cmap="viridis" if "mean" not in name else "RdBu")
        axes.set_title(name, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        figure.colorbar(image, ax=axes, shrink=0.7)
    figure.savefig(path, dpi=110)
    return int(np.sum(layer(np.mean(divergences, axis=0)).sum(0) < PRUNED_BITS))


def draw_coding(path: Path, traces: dict[str, np.ndarray]) -> None:
    """Figure 3.8: quality of the random network while its blocks are coded, with and without fine-tuning."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, trace in traces.items():
        axes.plot(np.arange(trace.shape[1]), -10 * np.log10(trace.mean(0)), label=name)
    axes.set_xlabel("blocks coded")
    axes.set_ylabel("PSNR of the mean error, dB")
    axes.legend()
    figure.savefig(path, dpi=110)


def samples_of(model: Model, signal: Any, point: int, draws: int) -> np.ndarray:
    """The decoded vectors of so many codings of one signal, each with a fit and random numbers of its own: [draws, size]."""
    found = coded(model, [signal] * draws, point, EncodeRequest(key=jax.random.key(1)))
    codes = [Code({"indices": row.ravel()}) for row in found.indices]
    return np.stack([model.codec.sample(model.params, point, code, signal.grid)[0] for code in codes])


def correlations(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of every column of the one [draws, m] with every column of the other [draws, n]: [m, n]; 0 where one does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.corrcoef(left.T, right.T)[: left.shape[1], left.shape[1] :])


def dependence(samples: np.ndarray, partition: Partition) -> float:
    """Figure 3.9 in a number: mean |correlation| between the last block's samples and the first's, less that of shuffled draws.

    0 for a factorized posterior; fine-tuning brings dependence back.
    """
    first, last = (samples[:, partition.members(block)] for block in (0, partition.num_blocks - 1))
    order = np.random.default_rng(0).permutation(len(samples))
    return float(np.abs(correlations(first, last)).mean() - np.abs(correlations(first[order], last)).mean())


def draw_pair(path: Path, samples: dict[str, np.ndarray], partition: Partition) -> dict[str, float]:
    """Figure 3.9: samples of two entries, one of the first block and one of the last; their correlation.

    The pair is that of the greatest correlation over the first half of the first samples; the other half is shown, or what is
    greatest by chance would look like a finding.
    """
    first, last = partition.members(0), partition.members(partition.num_blocks - 1)
    half = len(next(iter(samples.values()))) // 2
    chosen = np.abs(correlations(*(next(iter(samples.values()))[:half, own] for own in (first, last))))
    i, j = (own[k] for own, k in zip((first, last), np.unravel_index(np.argmax(chosen), chosen.shape), strict=True))
    figure = Figure(figsize=(6, 3), layout="constrained")
    FigureCanvasAgg(figure)
    found = {}
    for axes, (name, rows) in zip(figure.subplots(1, len(samples), squeeze=False)[0], samples.items(), strict=True):
        left, right = rows[half:, i], rows[half:, j]
        found[name] = float(correlations(left[:, None], right[:, None])[0, 0])
        axes.plot(left, right, ".", markersize=3)
        axes.set_title(f"{name}: correlation {found[name]:+.2f}", fontsize=8)
    figure.savefig(path, dpi=110)
    return found


def draw_shares(path: Path, betas: Sequence[float], parts: Sequence[dict[str, float]]) -> None:
    """Figure 4.10: percent of the bits on h and on z at each operating point."""
    figure = Figure(figsize=(4, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes, below = figure.subplots(), np.zeros(len(parts))
    for name in ("h", "z"):
        share = np.array([100 * part[name] / sum(part.values()) for part in parts])
        axes.bar([f"{beta:g}" for beta in betas], share, bottom=below, label=name)
        below += share
    axes.set_xlabel("β")
    axes.set_ylabel("% of the bits")
    axes.legend()
    figure.savefig(path, dpi=110)


def draw_transform(path: Path, model: Model) -> None:
    """Figure 4.8: magnitude of A of the second layer at each operating point, `SHOWN_DIMENSIONS` random rows and columns."""
    count = len(model.points)
    figure = Figure(figsize=(3 * count, 3), layout="constrained")
    FigureCanvasAgg(figure)
    for point, axes in enumerate(figure.subplots(1, count, squeeze=False)[0]):
        matrix = np.abs(np.asarray(model.params["points"][str(point)]["shared"]["transform_1"]))
        shown = np.sort(np.random.default_rng(0).permutation(len(matrix))[:SHOWN_DIMENSIONS])
        axes.imshow(np.log10(matrix[np.ix_(shown, shown)] + 1e-6), cmap="magma", vmin=-4, vmax=-1)
        axes.set_title(f"β = {model.codec.config.betas[point]:g}", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(path, dpi=110)


def draw_encoding(path: Path, model: Model, signal: Any, point: int, found: Coded) -> None:
    """Figure 4.9: channels of the positional encoding of one signal."""
    own = model.params["points"][str(point)]["shared"]
    v = model.codec.sample(model.params, point, Code({"indices": found.indices[0].ravel()}), signal.grid)
    features = np.asarray(model.codec.network.features(own, v, signal.grid.counts))[0]
    channels = features.reshape(*signal.grid.patch, -1)
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    FigureCanvasAgg(figure)
    shown = figure.subplots(2, 8)
    for i, axes in enumerate(shown.ravel()):
        if i < channels.shape[-1]:
            axes.imshow(channels[..., i], cmap="gray")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(path, dpi=110)


def study(options: argparse.Namespace) -> str:
    """Draws all pictures, writes the table and returns it."""
    source, started = provenance(), time.time()
    model = load(options.model)
    codec: Combiner = model.codec
    plus = codec.name == "combiner_plus"
    signals = signals_of(model, options.pictures)
    record = Path(options.record or f"docs/results/studies/posteriors_{codec.name}.json")
    record.parent.mkdir(parents=True, exist_ok=True)
    picture = lambda name: record.with_name(f"{record.stem}_{name}.png")
    values = np.concatenate([np.asarray(signal.values) for signal in signals])
    rows, figures, shares = [], [], []
    plain = type(codec)(_without_tuning(codec.config))
    untuned = Model(plain, model.params, model.points, model.info, model.precision)
    for point, beta in enumerate(codec.config.betas):
        found = coded(model, signals, point, EncodeRequest())
        others = coded(untuned, signals, point, EncodeRequest())
        pruned = draw_layer(picture(f"layer_{point}"), model, point, values) if not plus else "–"
        parts = divergence_by_part(model, point, found)
        shares.append(parts)
        gain = 10 * np.log10(others.trace[:, -1].mean() / found.trace[:, -1].mean())
        rows.append([f"{beta:g}", found.indices.shape[2], f"{parts['h']:.0f}", f"{parts['z']:.0f}", pruned, f"{gain:+.2f}"])
        if point + 1 == len(codec.config.betas):
            draw_coding(picture("coding"), {"fine-tuned": found.trace, "not fine-tuned": others.trace})
            figures.append(picture("coding").name)
            if plus and codec.config.positional.channels:
                draw_encoding(picture("encoding"), model, signals[0], point, found)
                figures.append(picture("encoding").name)
        if not plus:
            figures.append(picture(f"layer_{point}").name)
    if plus and codec.config.transform:
        draw_transform(picture("transform"), model)
        figures.append(picture("transform").name)
    if plus and codec.config.positional.channels:
        draw_shares(picture("shares"), codec.config.betas, shares)
        figures.append(picture("shares").name)
    notes = options.notes
    if options.draws:
        partition = Partition.from_arrays(model.params["points"]["0"]["blocks"])
        draws = {"fine-tuned": model, "not fine-tuned": untuned}
        samples = {name: samples_of(each, signals[0], 0, options.draws) for name, each in draws.items()}
        above = {name: dependence(each, partition) for name, each in samples.items()}
        pair = draw_pair(picture("pair"), samples, partition)
        figures.append(picture("pair").name)
        notes = (
            f"Mean |correlation| between the samples of the first and the last block over {options.draws} codings of one "
            f"picture, above that of shuffled ones, at the first point: {above['fine-tuned']:+.3f} with fine-tuning, "
            f"{above['not fine-tuned']:+.3f} without; of the pair that is drawn, chosen on one half of the codings and shown on "
            f"the other, {pair['fine-tuned']:+.2f} and {pair['not fine-tuned']:+.2f}. {notes}"
        )
    found = save_study(
        record,
        title=f"Inside {codec.name}",
        about=(
            f"{len(signals)} test signals. Bits on h and z: mean over signals, per patch; a block's divergence is shared out by "
            f"the training posteriors' deviations. Units: of the second layer, whose incoming weights cost less than "
            f"{PRUNED_BITS} bits in two pictures' predicted posteriors. Fine-tuning: of the random network before its last "
            f"block, in dB."
        ),
        columns=["β", "blocks", "bits on h", "bits on z", "units pruned", "fine-tuning, dB"],
        rows=rows,
        command=f"python -m experiments.posteriors --model=RUN/model --pictures={options.pictures} --draws={options.draws}",
        source=source,
        duration_s=time.time() - started,
        notes=notes.strip(),
        figures=figures,
    )
    return study_table(found)


def _without_tuning(config: Any) -> Any:
    return dataclasses.replace(config, coding=dataclasses.replace(config.coding, fine_tune_steps=0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the study and prints its table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.posteriors", description="A look into COMBINER's posteriors.")
    parser.add_argument("--model", required=True, help="name, or folder that holds a model")
    parser.add_argument("--pictures", type=int, default=8, help="test signals (%(default)s)")
    parser.add_argument("--draws", type=int, default=200, help="codings of one signal for the correlation; 0: none (%(default)s)")
    parser.add_argument("--record", default="", help="the JSON file to write (docs/results/studies/posteriors_CODEC.json)")
    parser.add_argument("--notes", default="", help="what came out")
    options = parser.parse_args(arguments)
    use_cpu_cores()
    return run_study(study, options)


if __name__ == "__main__":
    raise SystemExit(main())

"""What do AdaRound and retraining on the grid gain over rounding to the nearest? On one picture, at several bit depths.

    python -m experiments.adaround [--picture FILE] [--crop 96] [--width 24] [--bits 8 7 6 5] [--seeds 3]

Networks of Strümpler et al. 2022 are fitted to a square from the middle of a picture (by default scikit-image's astronaut), one
network per seed. Each is rounded to the nearest levels and by AdaRound, then retrained on the grid. Prints a table, and writes it
to docs/results/studies/adaround.json. Two to three minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from skimage.data import astronaut

from experiments.command_line import run_study
from vcinr.adaptation.long_fit import OptimiserSpec
from vcinr.entropy.range_coder import symbol_bits
from vcinr.evaluation.metrics import psnr_db
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig
from vcinr.modalities.files.picture import read_image
from vcinr.provenance import provenance
from vcinr.report.studies import save_study, study_table
from vcinr.signals.patches import to_signal
from vcinr.weights import coding as weight_coding
from vcinr.weights.adaround import AdaRoundConfig
from vcinr.weights.coding import WeightCodingConfig
from vcinr.weights.fit import Batch, FitConfig, fit_weights, make_batch, signal_errors
from vcinr.weights.grid import per_weight
from vcinr.weights.retraining import RetrainingConfig, num_flipped, retrain_weights
from vcinr.weights.signal_batches import batches_of_equal_shape

COLUMNS = (
    "bits",
    "layer error, AdaRound / nearest",
    "PSNR float",
    "nearest",
    "AdaRound",
    "+ retraining",
    "bytes nearest",
    "bytes retrained",
    "% AdaRound rounds otherwise",
    "% retraining flips",
    "% flips at 1e-6",
)
PUBLISHED_RATE = 1e-6
"""Learning rate of the paper's retraining, in units of the weights."""


def square(picture: np.ndarray, side: int) -> np.ndarray:
    """The middle side × side of a picture, smaller where the picture is."""
    top, left = (max(0, (n - side) // 2) for n in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def fitted(fit: FitConfig, picture: np.ndarray, seeds: int, steps: int) -> tuple[Batch, np.ndarray]:
    """(batch, weights [seeds, p]) of one picture uint8 [h, w, 3], fitted from ``seeds`` random starts."""
    signal = to_signal(picture.astype(np.float32) / np.float32(255), picture.shape[:2])
    (signals,) = batches_of_equal_shape([signal] * seeds, 2**31)
    field = fit.field
    starts = [siren.flatten(siren.init_layers(jax.random.key(seed), field.sizes(), field.omega_0)) for seed in range(seeds)]
    batch = make_batch(field, jnp.zeros_like(starts[0]), signals, "adaround")
    found = fit_weights(fit, batch, jnp.stack(starts), OptimiserSpec(2e-3, "cosine", 0.02), steps)
    return batch, found.params


def stream_bytes(field: FieldConfig, levels: np.ndarray, steps: np.ndarray) -> float:
    """Ideal code length in bytes of one signal's streams: step sizes, table parameters, weights."""
    code, decoded, bits = weight_coding.make_code(field, levels, steps, {}), {}, 0.0
    for name in weight_coding.STREAMS:
        bits += float(symbol_bits(weight_coding.symbol_model(field, decoded, name), code.streams[name]).sum())
        decoded[name] = code.streams[name]
    return bits / 8


def measured(coding: WeightCodingConfig, fit: FitConfig, batch: Batch, weights: np.ndarray, bits: int) -> dict[str, np.ndarray]:
    """Every column of `COLUMNS` after ``bits``, with one value per seed."""
    found = weight_coding.quantise_weights(coding, fit, batch, weights, bits)
    steps, nearest, rounding, retrained = found.steps, found.nearest, found.rounding, found.levels
    unit = per_weight(fit.field, steps)
    # In units of the smallest step size, so in tensors with larger steps this rate is even higher than the paper's.
    published = RetrainingConfig(coding.retraining.num_steps, PUBLISHED_RATE / float(steps.min()))
    barely = retrain_weights(published, fit, batch, rounding.hard, steps, bits)
    psnr = lambda levels: psnr_db(signal_errors(fit, batch, levels * unit))
    size = lambda levels: np.array([stream_bytes(fit.field, *row) for row in zip(levels, steps, strict=True)])
    share = lambda before, after: 100.0 * num_flipped(before, after) / weights.shape[1]
    values = (
        np.exp(np.mean(np.log(rounding.error / rounding.nearest_error), axis=1)),
        psnr_db(signal_errors(fit, batch, weights)),
        *(psnr(nearest), psnr(rounding.hard), psnr(retrained)),
        *(size(nearest), size(retrained)),
        share(nearest, rounding.hard),
        100.0 * found.flipped / weights.shape[1],
        share(rounding.hard, barely),
    )
    return dict(zip(COLUMNS[1:], values, strict=True))


def cells(bits: int, found: dict[str, np.ndarray]) -> list[Any]:
    """A row of the table: mean ± standard deviation over seeds."""
    digits = {"bytes nearest": 0, "bytes retrained": 0}

    def cell(name: str, values: np.ndarray) -> str:
        deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
        return f"{np.mean(values):.{digits.get(name, 2)}f} ± {deviation:.{digits.get(name, 2)}f}"

    return [bits, *(cell(name, found[name]) for name in COLUMNS[1:])]


def command(options: argparse.Namespace) -> str:
    """The command line, without file names of this machine."""
    given = {name.replace("_", "-"): value for name, value in vars(options).items() if name not in ("picture", "record", "bits")}
    words = [f"--{name}={value}" for name, value in given.items()] + (["--picture=FILE"] if options.picture else [])
    return " ".join(["python -m experiments.adaround", *words, "--bits", *map(str, options.bits)])


def study(options: argparse.Namespace) -> str:
    """Fits, rounds, measures; writes the study and returns its table."""
    started, source = time.time(), provenance()
    picture = square(read_image(options.picture) if options.picture else astronaut(), options.crop)
    field = FieldConfig(
        num_layers=options.layers, width=options.width, modulation="none", encoding="nerf", num_frequencies=options.frequencies
    )
    fit = FitConfig(field, l1=options.l1)
    adaround = AdaRoundConfig(num_steps=options.adaround_steps)
    coding = WeightCodingConfig(adaround, RetrainingConfig(num_steps=options.retraining_steps))
    batch, weights = fitted(fit, picture, options.seeds, options.steps)
    print(f"fitted: {np.mean(psnr_db(signal_errors(fit, batch, weights))):.2f} dB, {time.time() - started:.0f} s", flush=True)
    rows = []
    for bits in options.bits:
        found = measured(coding, fit, batch, weights, bits)
        rows.append(cells(bits, found))
        print(f"{bits} bits, {time.time() - started:.0f} s", flush=True)
    height, width = picture.shape[:2]
    found = save_study(
        options.record,
        title="AdaRound, then retraining on the grid",
        about=(
            f"Networks of {options.layers} × {options.width} sine units, {options.frequencies} frequencies, {weights.shape[1]} "
            f"weights, fitted in {options.steps} steps to {height}×{width} of one picture; AdaRound {options.adaround_steps} "
            f"steps per layer, retraining {options.retraining_steps}. Layer error: of each layer's output, on inputs through the "
            "layers rounded before it, geometric mean over layers. PSNR in dB of floats. Bytes: step sizes, tables and weights. "
            "Retraining as in the codec: from the nearest levels where these give a better picture than AdaRound's. "
            "Flips: of the whole levels that retraining began with. "
            "Flips at 1e-6: retraining from the rounded weights with a learning rate of 1e-6 in units of the weights. "
            f"Mean ± standard deviation over {options.seeds} random starts."
        ),
        columns=COLUMNS,
        rows=rows,
        command=command(options),
        duration_s=time.time() - started,
        source=source,
    )
    return study_table(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status is 1 where the picture cannot be read or a setting is invalid."""
    parser = argparse.ArgumentParser(prog="python -m experiments.adaround", description="Rounding and retraining, on a picture.")
    parser.add_argument("--picture", default="", help="a picture file (scikit-image's astronaut)")
    parser.add_argument("--crop", type=int, default=96, help="side of the square from its middle (%(default)s)")
    parser.add_argument("--layers", type=int, default=3, help="sine layers (%(default)s)")
    parser.add_argument("--width", type=int, default=24, help="units of each (%(default)s)")
    parser.add_argument("--frequencies", type=int, default=10, help="frequencies of the encoding (%(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="steps of the fit (%(default)s)")
    parser.add_argument("--l1", type=float, default=2.5e-6, help="weight of the sum of absolute weights (%(default)s)")
    parser.add_argument("--adaround-steps", type=int, default=1000, help="steps of AdaRound per layer (%(default)s)")
    parser.add_argument("--retraining-steps", type=int, default=300, help="steps of retraining (%(default)s)")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 7, 6, 5], help="bit depths of the grids (8 7 6 5)")
    parser.add_argument("--seeds", type=int, default=3, help="random starts (%(default)s)")
    parser.add_argument("--record", default="docs/results/studies/adaround.json", help="the JSON file to write (%(default)s)")
    return run_study(study, parser.parse_args(arguments), FileNotFoundError)


if __name__ == "__main__":
    sys.exit(main())

"""What each part of `contextual_inr` buys over the linear floor, at equal bytes, on the test split of its config.

    python -m experiments.parts --workdir=DIR --floor=KLT [--pictures=128] [--record=FILE]

DIR is a run of `experiments.train` of the codec `contextual_inr`, KLT one of the codec `klt` on the same data. Writes a study
that `make results` renders.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import data
from experiments.command_line import run_study
from vcinr.batching import patch_rows, per_signal
from vcinr.bitstream.payload import stream_bits
from vcinr.codec import Code
from vcinr.context.compression import ContextualCompression
from vcinr.context.integer_prior import count_tables
from vcinr.context.lattice import differences
from vcinr.context.order import Order, coarsest_lattice, streams_of, symbols_of
from vcinr.context.training import latent_crops
from vcinr.devices import use_cpu_cores
from vcinr.entropy.tables import code_length_bits, tables_from_columns
from vcinr.evaluation.bd_rate import bd_psnr_db, bd_rate_percent, psnr_at
from vcinr.evaluation.measure import measure
from vcinr.modalities import MODALITIES
from vcinr.model.finding import load
from vcinr.model.model import Model
from vcinr.provenance import provenance
from vcinr.report.studies import save_study, study_table
from vcinr.signals.patches import from_values, to_signal
from vcinr.signals.signal import Grid
from vcinr.stage import Params

Curve = list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Arm:
    """A codec with some of its parts: ``context`` or static tables; ``lattices`` or differences for the first group, of symbols
    rounded to nearest; ``rounding``; ``synthesis`` or none; ``effort``."""

    name: str
    context: bool = True
    lattices: bool = True
    rounding: str = "rate_distortion"
    synthesis: bool = True
    effort: int = 0


ARMS = (
    Arm("field and steps, static tables", context=False, rounding="nearest", synthesis=False),
    Arm("+ context prior, of all groups but the first", lattices=False, rounding="nearest", synthesis=False),
    Arm("+ of the first, in lattices", rounding="nearest", synthesis=False),
    Arm("+ rate–distortion rounding", synthesis=False),
    Arm("+ synthesis from the neighbours"),
    Arm("+ effort 1", effort=1),
    Arm("+ effort 2", effort=2),
    Arm("+ effort 3", effort=3),
)


def with_rounding(model: Model, rounding: str) -> ContextualCompression:
    """The model's compression, its encoder rounding otherwise."""
    return ContextualCompression(dataclasses.replace(model.codec.config.compression, rounding=rounding))


def without_synthesis(params: Params) -> Params:
    """Parameters whose synthesis is the identity."""
    silent = {name: np.zeros_like(params["synthesis"][name]) for name in ("out", "offset", "linear")}
    return {**params, "synthesis": {**params["synthesis"], **silent}}


def with_tables(params: Params, point: int, tables: Any) -> Params:
    """Parameters with other tables at a point."""
    points = params["points"]
    return {**params, "points": {**points, str(point): {**points[str(point)], "tables": tables}}}


def latents(model: Model, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Latents [*counts, k] of each picture."""
    normalise = MODALITIES[model.codec.modality].normalise
    signals = [to_signal(normalise(picture), model.codec.patch) for picture in pictures]
    values, _ = patch_rows(signals)
    found = model.codec.adapt_all(model.params, values)
    return [
        part.reshape(*s.grid.counts, -1) for part, s in zip(per_signal(found, [s.grid for s in signals]), signals, strict=True)
    ]


def context_bits(model: Model, params: Params, point: int, grid: Grid, code: Code, later: bool) -> float:
    """Bits of a signal by the context prior; of ``later`` groups alone or of all."""
    order = model.codec.config.compression.order
    first = {"first", *(step.stream for step in order.lattice_steps)} if later else set()
    bits = stream_bits(model.codec, params, point, grid, code)
    return sum(number for name, number in bits.items() if name not in first)


def as_differences(order: Order, symbols: np.ndarray) -> np.ndarray:
    """The first group of symbols [*counts, k] as it would be coded without lattices, [patches, size]."""
    return differences(symbols[..., : order.ends[0]]).reshape(-1, order.ends[0])


def static_bits(training: np.ndarray, symbols: np.ndarray) -> float:
    """Bits of symbols [p, n] by one table per column, counted on training symbols."""
    tables = tables_from_columns(training)
    return float(code_length_bits(tables, symbols.ravel(), np.tile(np.arange(symbols.shape[1]), len(symbols))).sum())


def measure_arm(
    model: Model, arm: Arm, point: int, training: np.ndarray, found: Sequence[np.ndarray], pictures: Sequence[np.ndarray]
) -> tuple[float, float, float]:
    """(bpp of the tables, mean PSNR in dB of 8-bit pictures, seconds of rounding a picture) at a point."""
    compression, params = with_rounding(model, arm.rounding), model.params
    own = params["points"][str(point)]

    def z_of(latent: np.ndarray) -> np.ndarray:
        return (latent - params["latent_mean"]) / own["step"]

    order = compression.config.order
    if arm.rounding == "nearest":
        symbols = np.rint(z_of(training)).astype(np.int32)
        if arm.context:
            first = coarsest_lattice(order, symbols, len(model.codec.patch))
            params = with_tables(params, point, count_tables(order, params["network"], point, symbols, first))
    params = params if arm.synthesis else without_synthesis(params)
    grids = [Grid(picture.shape[:-1], model.codec.patch) for picture in pictures]
    started = time.time()
    rows = [z_of(latent).reshape(grid.num_patches, -1) for latent, grid in zip(found, grids, strict=True)]
    codes = compression.code(params, point, rows, grids, arm.effort)
    seconds = (time.time() - started) / len(pictures)
    if arm.context:
        later = not arm.lattices
        bits = sum(context_bits(model, params, point, grid, code, later) for grid, code in zip(grids, codes, strict=True))
        if later:
            whole = [symbols_of(order, grid.counts, code.streams) for grid, code in zip(grids, codes, strict=True)]
            bits += static_bits(*(np.concatenate([as_differences(order, one) for one in some]) for some in (symbols, whole)))
    else:
        flat = np.concatenate([np.rint(row) for row in rows]).astype(np.int64)
        bits = static_bits(symbols.reshape(-1, symbols.shape[-1]), flat)
        codes = [
            Code(streams_of(order, np.rint(row).astype(np.int32).reshape(*grid.counts, -1)))
            for row, grid in zip(rows, grids, strict=True)
        ]
    values = model.codec.synthesise(params, point, codes, grids)
    decoded = [model.denormalise(from_values(part, grid)) for part, grid in zip(values, grids, strict=True)]
    errors = [np.mean(np.square(a.astype(np.float64) - b)) for a, b in zip(decoded, pictures, strict=True)]
    pixels = sum(picture.shape[0] * picture.shape[1] for picture in pictures)
    return float(bits) / pixels, float(np.mean(10 * np.log10(255.0**2 / np.array(errors)))), seconds


def curve_of(
    model: Model, arm: Arm, training: np.ndarray, found: Sequence[np.ndarray], pictures: Sequence[np.ndarray]
) -> tuple[Curve, float]:
    """((bpp of the tables, dB) of each point, seconds of rounding a picture) of an arm; see `measure_arm`."""
    measured = [measure_arm(model, arm, point, training, found, pictures) for point in range(len(model.points))]
    return [(bpp, quality) for bpp, quality, _ in measured], float(np.mean([seconds for *_, seconds in measured]))


def floor_curve(model: Model, pictures: Sequence[np.ndarray], split: str = "test") -> Curve:
    """(bpp of the tables, dB) of another model's points on the same pictures."""
    rows = measure(model, pictures, "floor", split)
    return [(row["bpp_estimated"], row["psnr_db"]) for row in rows]


def row_of(name: str, curve: Curve, floor: Curve, before: Curve | None, rates: Sequence[float], seconds: float) -> list[Any]:
    """A row of the table: dB at fixed rates, then over the floor and over the arm before."""
    at = [psnr_at(curve, rate) for rate in rates]
    gained = None if before is None else bd_psnr_db(before, curve)
    return [name, *at, bd_psnr_db(floor, curve), bd_rate_percent(floor, curve), gained, round(seconds, 3)]


def study(options: argparse.Namespace) -> str:
    """Measures all arms; writes the study and returns its table."""
    started, run = time.time(), provenance()
    model = load(Path(options.workdir) / "model")
    config = ConfigDict(model.info["config"])
    config.data.test_limit = options.pictures
    pictures = list(data.signals(config, "test"))
    counted = dataclasses.replace(
        model.codec.config.compression, num_latents=model.codec.config.compression.num_counted, offsets_per_picture=1
    )
    training = latent_crops(model.codec, counted, model.params, data.patches(config, "train")).arrays["latent"]
    found = latents(model, pictures)
    floor = floor_curve(load(Path(options.floor) / "model"), pictures)
    rows = [["klt", *(psnr_at(floor, rate) for rate in options.rates), 0.0, 0.0, None, None]]
    before = None
    for arm in ARMS:
        curve, seconds = curve_of(model, arm, training, found, pictures)
        rows.append(row_of(arm.name, curve, floor, before, options.rates, seconds))
        print(study_table({"columns": columns(options.rates), "rows": rows[-1:]}), f"{time.time() - started:.0f} s", flush=True)
        before = curve
    about = (
        f"{len(pictures)} pictures of the test split of {config.data.test_name or config.data.name}, one trained model "
        f"({model.info['config_name']}) with its parts switched off and tables counted anew; rates are "
        "the tables' estimates, without the header; PSNR in dB of 8-bit pictures, mean over pictures. Over klt: mean "
        "over the rates that both curves have; bought: the same over the row above. s: rounding and refining a picture, encoder."
    )
    saved = save_study(
        options.record,
        title=f"What each part buys over the linear floor: {config.data.test_name or config.data.name}",
        about=about,
        columns=columns(options.rates),
        rows=rows,
        command=f"{model.info['command']}; python -m experiments.parts --workdir=DIR --floor=KLT "
        f"--pictures={options.pictures} --rates {' '.join(f'{rate:g}' for rate in options.rates)}",
        duration_s=time.time() - started,
        notes=options.notes,
        source=run,
    )
    return study_table(saved)


def columns(rates: Sequence[float]) -> list[str]:
    """Of the table."""
    return ["", *(f"{rate:g} bpp" for rate in rates), "over klt, dB", "over klt, % rate", "bought, dB", "s a picture"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status is 1 where the data or the model are missing."""
    parser = argparse.ArgumentParser(prog="python -m experiments.parts", description="What each part of a codec buys.")
    parser.add_argument("--workdir", required=True, help="where experiments.train wrote a contextual model")
    parser.add_argument("--floor", required=True, help="where experiments.train wrote a klt model of the same data")
    parser.add_argument("--pictures", type=int, default=128, help="test pictures, evenly spaced; 0 for all (%(default)s)")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="bpp of the table's columns")
    parser.add_argument("--record", default="docs/results/studies/parts.json", help="the file to write (%(default)s)")
    parser.add_argument("--notes", default="", help="what came out")
    options = parser.parse_args(arguments)
    use_cpu_cores()
    return run_study(study, options)


if __name__ == "__main__":
    sys.exit(main())

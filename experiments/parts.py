"""What each part of `contextual_inr` buys over the linear floor, at equal bytes, on the test split of its config.

    python -m experiments.parts --model=tiny --floor=KLT [--control=MATRIX] [--pictures=128] [--record=FILE]

The model is one of `contextual_inr`. KLT is a run of `experiments.train` of the codec `klt` on the same data; MATRIX one of
`experiments.klt_matrix`, which has an exact matrix where the model has a field, and so tells what the field buys. Writes a study
that `make results` renders.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import data
from experiments.command_line import run_study
from experiments.klt_matrix import deviation_from_matrix, register
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


WITHOUT_EFFORT = tuple(arm for arm in ARMS if not arm.effort)
"""The arms that are measured of the control too."""
COMPARED = ("over klt, dB", "over klt, % rate", "bought, dB", "over the field, dB", "CPU s a picture")
ABOUT = """{count} pictures of the test split of {name}, one trained model ({config}) with its parts switched off and tables
counted anew; rates are the tables' estimates, without the header; PSNR in dB of 8-bit pictures, mean over pictures. Over klt:
mean over the rates that both curves have; bought: the same over the row above. CPU s: rounding and refining a picture,
encoder."""
ABOUT_CONTROL = """Rows of the matrix: the KLT's own in the field's place, as many components of patches of the same size,
with prior and synthesis trained as the model's, on the same crops, in as many steps, with the same seed; over the field: as
before, over the row of the model with the same parts. The model's field is itself near that matrix: no component is further
than {distance:.2g} from its own, whose length is 1, and no entry of the Gram matrix further than {gram:.2g} from that of an
orthonormal basis."""


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
    """(bpp of the tables, mean PSNR in dB of 8-bit pictures, CPU seconds of rounding a picture) at a point."""
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
    started = time.process_time()
    rows = [z_of(latent).reshape(grid.num_patches, -1) for latent, grid in zip(found, grids, strict=True)]
    codes = compression.code(params, point, rows, grids, arm.effort)
    seconds = (time.process_time() - started) / len(pictures)
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
    """((bpp of the tables, dB) of each point, CPU seconds of rounding a picture) of an arm; see `measure_arm`."""
    measured = [measure_arm(model, arm, point, training, found, pictures) for point in range(len(model.points))]
    return [(bpp, quality) for bpp, quality, _ in measured], float(np.mean([seconds for *_, seconds in measured]))


def floor_curve(model: Model, pictures: Sequence[np.ndarray], split: str = "test") -> Curve:
    """(bpp of the tables, dB) of another model's points on the same pictures."""
    rows = measure(model, pictures, "floor", split)
    return [(row["bpp_estimated"], row["psnr_db"]) for row in rows]


def row_of(
    name: str,
    curve: Curve,
    floor: Curve,
    before: Curve | None,
    rates: Sequence[float],
    seconds: float,
    field: Curve | None = None,
) -> list[Any]:
    """A row of the table: dB at fixed rates, then over the floor, over the arm before, and over the same arm of the field."""
    at = [psnr_at(curve, rate) for rate in rates]
    over = [None if other is None else bd_psnr_db(other, curve) for other in (before, field)]
    return [name, *at, bd_psnr_db(floor, curve), bd_rate_percent(floor, curve), *over, round(seconds, 3)]


def training_latents(model: Model, config: ConfigDict) -> np.ndarray:
    """Latents [b, *counts, k] of as many training crops as the model's tables were counted on."""
    compression = model.codec.config.compression
    counted = dataclasses.replace(compression, num_latents=compression.num_counted, offsets_per_picture=1)
    return latent_crops(model.codec, counted, model.params, data.patches(config, "train")).arrays["latent"]


def measured_arms(model: Model, arms: Sequence[Arm], pictures: Sequence[np.ndarray]) -> Iterator[tuple[Arm, Curve, float]]:
    """Each arm of a model with its `curve_of`."""
    training, found = training_latents(model, ConfigDict(model.info["config"])), latents(model, pictures)
    for arm in arms:
        yield arm, *curve_of(model, arm, training, found, pictures)


def study(options: argparse.Namespace) -> str:
    """Measures all arms; writes the study and returns its table."""
    started, run = time.time(), provenance()
    model = load(options.model)
    config = ConfigDict(model.info["config"])
    config.data.test_limit = options.pictures
    pictures = list(data.signals(config, "test"))
    floor = floor_curve(load(Path(options.floor) / "model"), pictures)
    rows = [["klt", *(psnr_at(floor, rate) for rate in options.rates), 0.0, 0.0, None, None, None]]
    field: dict[Arm, Curve] = {}

    def add(*row: Any) -> None:
        rows.append(row_of(*row))
        print(study_table({"columns": columns(options.rates), "rows": rows[-1:]}), f"{time.time() - started:.0f} s", flush=True)

    before = None
    for arm, curve, seconds in measured_arms(model, ARMS, pictures):
        add(arm.name, curve, floor, before, options.rates, seconds)
        before = field[arm] = curve
    name = config.data.test_name or config.data.name
    about = _one_line(ABOUT).format(count=len(pictures), name=name, config=model.info["config_name"])
    commands = [model.info["command"]]
    if options.control:
        register()
        control = load(Path(options.control) / "model")
        before = None
        for arm, curve, seconds in measured_arms(control, WITHOUT_EFFORT, pictures):
            add(f"matrix: {arm.name}", curve, floor, before, options.rates, seconds, field[arm])
            before = curve
        gram, distance = deviation_from_matrix(model, control)
        about += " " + _one_line(ABOUT_CONTROL).format(gram=gram, distance=distance)
        commands.append(f"python -m experiments.klt_matrix --like={Path(options.model).name} --workdir=MATRIX")
    given = f"--model={Path(options.model).name} --floor=KLT{' --control=MATRIX' * bool(options.control)}"
    rates = " ".join(f"{rate:g}" for rate in options.rates)
    commands.append(f"python -m experiments.parts {given} --pictures={options.pictures} --rates {rates}")
    saved = save_study(
        options.record,
        title=f"What each part buys over the linear floor: {name}",
        about=about,
        columns=columns(options.rates),
        rows=rows,
        command="; ".join(commands),
        duration_s=time.time() - started,
        notes=options.notes,
        source=run,
    )
    return study_table(saved)


def columns(rates: Sequence[float]) -> list[str]:
    """Of the table."""
    return ["", *(f"{rate:g} bpp" for rate in rates), *COMPARED]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status is 1 where the data or the model are missing."""
    parser = argparse.ArgumentParser(prog="python -m experiments.parts", description="What each part of a codec buys.")
    parser.add_argument("--model", default="tiny", help="a model of contextual_inr: its folder or name (%(default)s)")
    parser.add_argument("--floor", required=True, help="where experiments.train wrote a klt model of the same data")
    parser.add_argument("--control", help="where experiments.klt_matrix wrote the control of the model")
    parser.add_argument("--pictures", type=int, default=128, help="test pictures, evenly spaced; 0 for all (%(default)s)")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="bpp of the table's columns")
    parser.add_argument("--record", default="docs/results/studies/parts.json", help="the file to write (%(default)s)")
    parser.add_argument("--notes", default="", help="what came out")
    options = parser.parse_args(arguments)
    use_cpu_cores()
    return run_study(study, options)


if __name__ == "__main__":
    sys.exit(main())

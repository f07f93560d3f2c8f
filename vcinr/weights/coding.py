"""All weights of a network into a file: fitted, rounded by AdaRound, retrained on the grid, coded with tables of the file's own.

The way of Strümpler et al. 2022, section 3, for every codec whose file pays for one number per weight: the weights themselves,
or their change from weights that the decoder has.

    fit ──▶ step sizes ──▶ AdaRound ──▶ retraining ──▶ symbols and tables
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vcinr.adaptation.long_fit import OptimiserSpec
from vcinr.batching import whole_symbols
from vcinr.codec import Code
from vcinr.entropy.parametric_tables import PARAMETER_BITS, fit_parameters, tables_from_parameters
from vcinr.entropy.range_coder import RawBits, SymbolModel, Table
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig
from vcinr.weights.adaround import AdaRoundConfig
from vcinr.weights.fit import Batch, FitConfig, fit_weights, signal_errors
from vcinr.weights.grid import bfloat16_above, from_bfloat16, grid_steps, on_grid, per_weight, tensor_index
from vcinr.weights.retraining import RetrainingConfig, flips_in_words, num_flipped, retrain_weights
from vcinr.weights.rounding import Rounding, round_weights
from vcinr.weights.signal_batches import Report

_log = logging.getLogger(__name__)

STREAMS = ("steps", "tables", "weights")
"""Step sizes as bfloat16 and table parameters, one per tensor; then one symbol per weight, in the order of `siren.flatten`."""

MAX_WEIGHTS = 2**20
"""A file that asks for more is refused; the decoder's work is at most so many multiplications per sample."""


@dataclasses.dataclass(frozen=True)
class WeightCodingConfig:
    """How fitted weights are rounded.

    adaround: see `AdaRoundConfig`.
    retraining: see `RetrainingConfig`.
    num_coordinates: number of coordinates on which AdaRound measures layers; 0: all.
    """

    adaround: AdaRoundConfig = AdaRoundConfig()
    retraining: RetrainingConfig = RetrainingConfig()
    num_coordinates: int = 2**14

    def __post_init__(self):
        if self.num_coordinates < 0:
            raise ValueError(f"num_coordinates must be at least 0, not {self.num_coordinates}")


class Quantised(NamedTuple):
    """Weights of b signals on their grids.

    levels: whole, float32 [b, p].
    steps: step size of each tensor, float32 [b, t], bfloat16 in value.
    nearest: the nearest whole levels, [b, p].
    rounding: what AdaRound made of them.
    flipped: how many levels of each signal retraining changed, [b].
    """

    levels: np.ndarray
    steps: np.ndarray
    nearest: np.ndarray
    rounding: Rounding
    flipped: np.ndarray


def encode_batch(
    config: WeightCodingConfig,
    fit: FitConfig,
    batch: Batch,
    updates: Any,
    optimiser: OptimiserSpec,
    num_steps: int,
    bits: int,
    *,
    meta: Mapping[str, int | float],
    workdir: str | None = None,
    report: Report = lambda what: None,
) -> list[Code]:
    """Codes of a batch of signals.

    Args:
      config: rounding and retraining.
      fit: the network and its loss.
      batch: b signals.
      updates: where fits start, [b, p].
      optimiser: of the fits.
      num_steps: of the fits.
      bits: per weight, 2 to 16.
      meta: of each code.
      workdir: where fits and retraining keep checkpoints; None: nowhere.
      report: what each part reports its progress to.
    """
    fitted = fit_weights(fit, batch, updates, optimiser, num_steps, workdir=workdir, progress=report("fitting"))
    found = quantise_weights(config, fit, batch, fitted.params, bits, workdir=workdir, report=report)
    return [make_code(fit.field, *row, meta) for row in zip(found.levels, found.steps, strict=True)]


def quantise_weights(
    config: WeightCodingConfig,
    fit: FitConfig,
    batch: Batch,
    updates: np.ndarray,
    bits: int,
    *,
    workdir: str | None = None,
    report: Report = lambda what: None,
) -> Quantised:
    """Fitted updates [b, p] onto symmetric grids of ``bits`` bits, one step size per tensor: AdaRound, then retraining.

    AdaRound looks at layers, not at the signal. Where the nearest levels happen to serve a signal better, retraining starts from
    these, so that nothing ends above the error of nearest rounding. How many levels retraining changed is logged at INFO.
    """
    if (rounding_progress := report("rounding")) is not None:
        rounding_progress(batch.name, 0, 1)
    steps = grid_steps(updates, fit.field, bits)
    rounding = round_weights(config.adaround, fit, batch, updates, steps, bits, config.num_coordinates)
    exact = updates / per_weight(fit.field, steps)
    nearest = np.asarray(on_grid(exact, bits))
    errors = [signal_errors(fit, batch, levels * per_weight(fit.field, steps)) for levels in (nearest, rounding.hard)]
    keep = (errors[0] < errors[1])[:, None]
    hard, soft = np.where(keep, nearest, rounding.hard), np.where(keep, exact, rounding.soft)
    if rounding_progress is not None:
        rounding_progress(batch.name, 1, 1)
    options = {"workdir": workdir, "progress": report("retraining")}
    levels = retrain_weights(config.retraining, fit, batch, soft, steps, bits, **options)
    found = Quantised(levels, steps, nearest, rounding, num_flipped(hard, levels))
    _log.info("%s, %d bits: %s", batch.name, bits, flips_in_words(found.flipped, levels.shape[1]))
    return found


def make_code(field: FieldConfig, levels: np.ndarray, steps: np.ndarray, meta: Mapping[str, int | float]) -> Code:
    """The code of one signal's whole levels [p] and step sizes [t]; its tables are those of the fewest bits."""
    symbols, tensor = whole_symbols(levels), tensor_index(tuple(field.sizes()))
    parameters = fit_parameters(symbols, tensor, len(steps))
    return Code({"steps": bfloat16_above(steps).astype(np.int32), "tables": parameters, "weights": symbols}, meta)


def check_size(field: FieldConfig) -> None:
    """ValueError for a network of more than `MAX_WEIGHTS` weights."""
    if siren.num_weights(field.sizes()) > MAX_WEIGHTS:
        raise ValueError(f"the network has {siren.num_weights(field.sizes())} weights; the limit is {MAX_WEIGHTS}")


def symbol_model(field: FieldConfig, decoded: Mapping[str, np.ndarray], name: str) -> SymbolModel:
    """How a stream of `STREAMS` is coded. ValueError for step sizes that no encoder writes."""
    sizes = field.sizes()
    if name != "weights":
        return RawBits(16 if name == "steps" else PARAMETER_BITS, 2 * len(sizes))
    from_bfloat16(decoded["steps"])
    return Table(tables_from_parameters(decoded["tables"]), tensor_index(tuple(sizes)))


def decoded_weights(field: FieldConfig, code: Code) -> np.ndarray:
    """The update that a code holds, float32 [p]."""
    with np.errstate(over="ignore"):
        return code.streams["weights"].astype(np.float32) * per_weight(field, from_bfloat16(code.streams["steps"]))

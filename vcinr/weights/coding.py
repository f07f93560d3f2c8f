"""All weights of a network into a file: fitted, rounded by AdaRound, retrained on the grid, coded with tables of the file's own.

The way of Strümpler et al. 2022, section 3, for every codec whose file pays for one number a weight: the weights themselves, or
their change from weights that the decoder has. So every layer is σ(x (W₀ + ΔW) + b₀ + Δb), W₀ and b₀ fixed and maybe zero, and
everything here is done to ΔW and Δb alone (section 3.4).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vcinr.adaptation.long_fit import OptimiserSpec, Overfitted, overfit
from vcinr.adaptation.objective import chunked_mean_squared_error
from vcinr.batching import map_batches, whole_symbols
from vcinr.codec import Code
from vcinr.entropy.parametric_tables import PARAMETER_BITS, fit_parameters, tables_from_parameters
from vcinr.entropy.range_coder import SymbolModel, Table, Uniform
from vcinr.entropy.uniform_quantiser import quantise_symmetric, symmetric_step
from vcinr.fields import siren
from vcinr.fields.encodings import encode
from vcinr.fields.field import FieldConfig, evaluate
from vcinr.stage import Progress
from vcinr.weights.adaround import AdaRoundConfig, Layer, adaround
from vcinr.weights.retraining import RetrainingConfig, num_flipped, quantise_straight_through
from vcinr.weights.signal_batches import SignalBatch

_log = logging.getLogger(__name__)

Report = Callable[[str], Progress | None]
"""What the part of that name ("fitting", "rounding", "retraining") reports to."""

STREAMS = ("steps", "tables", "weights")
"""Quantiser steps as bfloat16 and table parameters, one a tensor; then a symbol a weight, in the order of `siren.flatten`."""

STEPS_A_CHUNK = 2**35
"""Multiplications between two checkpoints, some tens of seconds on two CPU cores."""

MAX_WEIGHTS = 2**20
"""A file that asks for more is refused; the decoder's work is at most so many multiplications a sample."""


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """What a signal's loss depends on besides arrays.

    l1: weight of Σ|Δ| beside the mean squared error.   chunk: coordinates at once, 0 for all.
    """

    field: FieldConfig
    l1: float = 0.0
    chunk: int = 0


@dataclasses.dataclass(frozen=True)
class WeightCodingConfig:
    """adaround, retraining: see there.   num_points: coordinates that AdaRound looks at, 0 for as many as there are."""

    adaround: AdaRoundConfig = AdaRoundConfig()
    retraining: RetrainingConfig = RetrainingConfig()
    num_points: int = 2**14

    def __post_init__(self):
        if self.num_points < 0:
            raise ValueError(f"num_points must be at least 0, not {self.num_points}")


class Batch(NamedTuple):
    """Signals of equal shape as the functions here take them.

    shared: W₀ and b₀ as one vector ("base", [p]) and the encoded coordinates ("inputs", [n, e]).
    data: "values" [b, n, c] and "weight" [b, n], or None where all of it is 1.
    name: a file name for checkpoints.   labels: what messages call the signals.
    """

    shared: Mapping[str, Any]
    data: Mapping[str, Any]
    name: str
    labels: Sequence[int]


class Rounding(NamedTuple):
    """Whole and soft levels of all weights, [b, p]; errors of each layer, [b, layers]; see `adaround.Rounded`."""

    hard: np.ndarray
    soft: np.ndarray
    error: np.ndarray
    nearest_error: np.ndarray


class Quantised(NamedTuple):
    """levels: whole, float32 [b, p].   steps: of each tensor, float32 [b, t], bfloat16 in value.
    nearest: the nearest whole levels, [b, p].   rounding: what AdaRound made of them.
    flipped: levels of each signal that retraining changed, [b]."""

    levels: np.ndarray
    steps: np.ndarray
    nearest: np.ndarray
    rounding: Rounding
    flipped: np.ndarray


def make_batch(field: FieldConfig, base: Any, signals: SignalBatch, name: str) -> Batch:
    """A batch of whole signals; base: W₀ and b₀ as one vector [p]. ``name`` is put before the batch's own."""
    shared = {"base": jnp.asarray(base), "inputs": encode(field, jnp.asarray(signals.coords))}
    data = {"values": signals.values, "weight": signals.weight}
    return Batch(shared, data, f"{name}_{signals.name}", signals.indices)


def network(field: FieldConfig, base: Float[Array, " p"]) -> list[Layer]:
    """The field's layers as functions of their updates: ((ΔW, Δb), x) → σ(x (W₀ + ΔW) + b₀ + Δb), the last without σ."""
    scale, activation = field.nonlinearity()

    def layer(kernel: jax.Array, bias: jax.Array, last: bool) -> Layer:
        def apply(update: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
            linear = x @ (kernel + update[0]) + (bias + update[1])
            return linear if last else activation(scale * linear)

        return apply

    fixed = siren.unflatten(base, field.sizes())
    return [layer(kernel, bias, i + 1 == len(fixed)) for i, (kernel, bias) in enumerate(fixed)]


def signal_error(config: FitConfig, shared: Any, update: Float[Array, " p"], data: Any) -> Float[Array, ""]:
    """Weighted MSE of one signal at an update of its weights."""
    layers = siren.unflatten(shared["base"] + update, config.field.sizes())
    field = lambda x: siren.apply(layers, x, *config.field.nonlinearity())
    return chunked_mean_squared_error(field, shared["inputs"], data["values"], data["weight"], config.chunk)


def signal_errors(config: FitConfig, batch: Batch, updates: Any) -> np.ndarray:
    """`signal_error` of each signal of a batch at its row of updates [b, p]; float32 [b]."""
    with jax.default_matmul_precision("float32"):
        return np.asarray(_errors(config, batch.shared, jnp.asarray(updates), batch.data))


def fit_loss(config: FitConfig, shared: Any, update: Any, data: Any, step: Any) -> jax.Array:
    """MSE + λ Σ|Δ| (Strümpler et al. 2022, sections 3.2 and 3.4). The authors' code sums over weights, too."""
    del step
    return signal_error(config, shared, update, data) + config.l1 * jnp.sum(jnp.abs(update))


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
    """Codes of a batch of signals, fitted from ``updates`` [b, p] on."""
    fitted = fit_weights(fit, batch, updates, optimiser, num_steps, workdir=workdir, progress=report("fitting"))
    found = quantise_weights(config, fit, batch, fitted.params, bits, workdir=workdir, report=report)
    return [make_code(fit.field, *row, meta) for row in zip(found.levels, found.steps, strict=True)]


def fit_weights(
    config: FitConfig,
    batch: Batch,
    updates: Any,
    optimiser: OptimiserSpec,
    num_steps: int,
    *,
    workdir: str | None = None,
    progress: Progress | None = None,
) -> Overfitted:
    """Fits each signal of a batch from its row of ``updates`` [b, p]."""
    return overfit(
        fit_loss,
        config,
        batch.shared,
        updates,
        batch.data,
        optimiser,
        num_steps,
        chunk_steps=_chunk_steps(config, batch),
        workdir=workdir,
        name=f"{batch.name}_fit",
        labels=batch.labels,
        progress=progress,
    )


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
    """Fitted updates [b, p] onto symmetric grids of ``bits`` bits, a step a tensor: AdaRound, then retraining.

    AdaRound looks at layers, not at the signal. Of a signal that the nearest levels happen to serve better, these are what is
    retrained, so that nothing ends above the error of nearest rounding. How many levels retraining changed is logged at INFO.
    """
    if (rounding_progress := report("rounding")) is not None:
        rounding_progress(batch.name, 0, 1)
    steps = grid_steps(updates, fit.field, bits)
    rounding = round_weights(config, fit, batch, updates, steps, bits)
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


def flips_in_words(flipped: np.ndarray, num_symbols: int) -> str:
    """What retraining did to a batch of signals: ``flipped`` [b] of ``num_symbols`` each."""
    share = 100.0 * flipped / num_symbols
    return (
        f"retraining changed {np.mean(share):.1f} % of the {num_symbols} symbols of a signal "
        f"({np.min(share):.1f} to {np.max(share):.1f} % in {len(share)} signals)"
    )


def grid_steps(updates: np.ndarray, field: FieldConfig, bits: int) -> np.ndarray:
    """The step of each tensor that just reaches its largest weight, rounded up to bfloat16; float32 [b, t]."""
    largest = np.stack([np.abs(updates[:, part]).max(1) for part in siren.tensor_slices(field.sizes())], axis=1)
    return from_bfloat16(bfloat16_above(np.asarray(symmetric_step(largest, bits))))


def round_weights(
    config: WeightCodingConfig, fit: FitConfig, batch: Batch, updates: np.ndarray, steps: np.ndarray, bits: int
) -> Rounding:
    """AdaRound of updates [b, p] on grids of ``steps`` [b, t].

    Its layers are measured on ``config.num_points`` coordinates, of weighted signals drawn in proportion to the weight.
    """
    inputs, weight = batch.shared["inputs"], batch.data["weight"]
    count = min(config.num_points, len(inputs)) or len(inputs)
    rows: tuple[np.ndarray, ...] = (updates, steps)
    if weight is not None:
        rows += (np.stack([_drawn(row, count) for row in np.asarray(weight, np.float64)]),)
    elif count < len(inputs):
        inputs = inputs[np.sort(np.random.default_rng(0).choice(len(inputs), count, replace=False))]
    static, shared = (fit.field, config.adaround, bits), {"base": batch.shared["base"], "inputs": inputs}
    return Rounding(*map_batches(_round_row, static, shared, rows, len(updates)))


def retrain_weights(
    config: RetrainingConfig,
    fit: FitConfig,
    batch: Batch,
    levels: np.ndarray,
    steps: np.ndarray,
    bits: int,
    *,
    workdir: str | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Whole levels [b, p] of the lowest MSE on the way from soft ``levels``, which where they start are rounded as they are."""
    best = overfit(
        _retraining_loss,
        (fit, bits),
        batch.shared,
        levels,
        {"signal": batch.data, "steps": steps},
        OptimiserSpec(lr=config.lr, schedule="cosine"),
        config.num_steps,
        chunk_steps=_chunk_steps(fit, batch),
        workdir=workdir,
        name=f"{batch.name}_{bits}bits_retrain",
        labels=batch.labels,
        progress=progress,
    )
    return np.asarray(on_grid(best.params, bits))


def per_weight(field: FieldConfig, steps: np.ndarray) -> np.ndarray:
    """The step of each weight [..., p] from that of each tensor [..., t]."""
    return steps[..., tensor_index(tuple(field.sizes()))]


def on_grid(levels: Any, bits: int) -> jax.Array:
    """The nearest whole levels that ``bits`` bits have."""
    return quantise_symmetric(jnp.asarray(levels), 1.0, bits)


def make_code(field: FieldConfig, levels: np.ndarray, steps: np.ndarray, meta: Mapping[str, int | float]) -> Code:
    """The code of one signal's whole levels [p] and steps [t]; its tables are those of the fewest bits."""
    symbols, tensor = whole_symbols(levels), tensor_index(tuple(field.sizes()))
    parameters = fit_parameters(symbols, tensor, len(steps))
    return Code({"steps": bfloat16_above(steps).astype(np.int32), "tables": parameters, "weights": symbols}, meta)


def check_size(field: FieldConfig) -> None:
    """ValueError for a network of more than `MAX_WEIGHTS` weights."""
    if siren.num_weights(field.sizes()) > MAX_WEIGHTS:
        raise ValueError(f"the network has {siren.num_weights(field.sizes())} weights; the limit is {MAX_WEIGHTS}")


def symbol_model(field: FieldConfig, decoded: Mapping[str, np.ndarray], name: str) -> SymbolModel:
    """How a stream of `STREAMS` is coded. ValueError for steps that no encoder writes."""
    sizes = field.sizes()
    if name != "weights":
        return Uniform(16 if name == "steps" else PARAMETER_BITS, 2 * len(sizes))
    from_bfloat16(decoded["steps"])
    return Table(tables_from_parameters(decoded["tables"]), tensor_index(tuple(sizes)))


def decoded_weights(field: FieldConfig, code: Code) -> np.ndarray:
    """The update of a file, float32 [p]."""
    with np.errstate(over="ignore"):
        return code.streams["weights"].astype(np.float32) * per_weight(field, from_bfloat16(code.streams["steps"]))


def field_values(field: FieldConfig, base: Any, update: Float[Array, " p"], coords: Float[Array, "n d"]) -> jax.Array:
    """Values [n, c] of the field that W₀ and b₀ (``base`` [p]) and an update make."""
    return evaluate(field, siren.unflatten(base + update, field.sizes()), coords)


def bfloat16_above(values: np.ndarray) -> np.ndarray:
    """The least bfloat16 not below each positive finite float32, as uint16 bits; ValueError where there is none."""
    bits = (np.ascontiguousarray(values, np.float32).view(np.uint32) + np.uint32(0xFFFF)) >> np.uint32(16)
    from_bfloat16(bits)
    return bits.astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 of bfloat16 bits; ValueError where one is not positive, finite and normal: it can be no quantiser step."""
    bits = np.asarray(bits)
    if not ((bits >= 0x0080) & (bits < 0x7F80)).all():
        raise ValueError("a quantiser step is not a positive finite number")
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


@functools.lru_cache(maxsize=64)
def tensor_index(sizes: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The tensor that each weight belongs to, int32 [p]."""
    lengths = [part.stop - part.start for part in siren.tensor_slices(sizes)]
    index = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    index.setflags(write=False)
    return index


@functools.partial(jax.jit, static_argnums=0)
def _errors(config: FitConfig, shared: Any, updates: Any, data: Any) -> jax.Array:
    return jax.vmap(functools.partial(signal_error, config, shared))(updates, data)


def _chunk_steps(fit: FitConfig, batch: Batch) -> int:
    count, samples = batch.data["values"].shape[:2]
    return max(1, min(250, STEPS_A_CHUNK // (count * samples * siren.num_weights(fit.field.sizes()))))


def _drawn(weight: np.ndarray, count: int) -> np.ndarray:
    """``count`` coordinates of a signal, in proportion to their weight [n], int32."""
    chosen = np.random.default_rng(0).choice(len(weight), count, p=weight / weight.sum())
    return np.sort(chosen).astype(np.int32)


def _round_row(
    static: tuple, shared: Any, update: jax.Array, steps: jax.Array, chosen: jax.Array | None = None
) -> tuple[jax.Array, ...]:
    field, config, bits = static
    inputs = shared["inputs"] if chosen is None else shared["inputs"][chosen]
    sizes = field.sizes()
    levels = siren.unflatten(update / steps[tensor_index(tuple(sizes))], sizes)
    tensors = [(steps[2 * i], steps[2 * i + 1]) for i in range(len(sizes))]
    limit = 2 ** (bits - 1) - 1
    found = adaround(network(field, shared["base"]), levels, tensors, inputs, jax.random.key(0), config, limit)
    return siren.flatten(found.hard), siren.flatten(found.soft), found.error, found.nearest_error


def _retraining_loss(static: tuple[FitConfig, int], shared: Any, levels: Any, data: Any, step: Any) -> jax.Array:
    del step
    config, bits = static
    whole = quantise_straight_through(lambda level: on_grid(level, bits), levels)
    update = whole * data["steps"][tensor_index(tuple(config.field.sizes()))]
    return signal_error(config, shared, update, data["signal"])

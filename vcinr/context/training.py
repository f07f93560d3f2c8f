"""Training of what `vcinr.context.compression` compresses with, on rate + λ · distortion at a random operating point an example.

Stages: ``latents`` (of crops of several patches, made once), ``context`` (context prior and neighbour synthesis on these),
``end_to_end`` (both, every point's steps, and the field through its inner loop, on crops as they are), ``tables``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.adaptation import meta_learning, warm_start
from vcinr.batching import whole_symbols
from vcinr.compression.bottleneck import PEAK, best_steps
from vcinr.compression.variational import measured_statistics
from vcinr.context import prior as context_prior
from vcinr.context import synthesis as neighbour_synthesis
from vcinr.context.order import coarsest
from vcinr.datasets.sources import ArraySource
from vcinr.modalities.examples import normalise_batch
from vcinr.signals.patches import split
from vcinr.signals.signal import Grid
from vcinr.stage import ExampleSource, Params, Stage, TrainingConfig

Parts = Mapping[str, Any]


def stages(codec: Any) -> tuple[Stage, ...]:
    """``latents``, ``context``, ``end_to_end`` where it has steps, ``tables``."""
    c = codec.config.contextual
    make_latents = partial(latent_crops, codec, c.num_latents, c.offsets_per_picture)
    latents = Stage(
        name="latents",
        training=TrainingConfig(num_steps=0),
        examples=make_latents,
        init=partial(measured_statistics, codec),
        frozen=lambda params: {},
        loss=None,
        finish=lambda params, statistics: {**params, "latent_statistics": statistics},
    )
    context = Stage(
        name="context",
        training=c.training,
        examples=None,
        init=partial(_start, codec),
        frozen=lambda params: {**_frozen(codec, params), "steps": _best_steps(codec, params)},
        loss=partial(_at_random_point, codec, _context_terms),
        finish=lambda params, trained: {**params, **trained},
    )
    end_to_end = Stage(
        name="end_to_end",
        training=c.end_to_end,
        examples=lambda params, crops: _Crops(crops, codec.patch, codec.modality),
        init=partial(_end_to_end_start, codec),
        frozen=partial(_frozen, codec),
        loss=partial(_at_random_point, codec, _end_to_end_terms),
        finish=_end_to_end_finish,
        lr_multipliers=partial(_multipliers, c.field_rate),
    )
    tables = Stage(
        name="tables",
        training=TrainingConfig(num_steps=0),
        examples=make_latents if c.end_to_end.num_steps else None,
        init=partial(_points, codec),
        frozen=lambda params: {},
        loss=None,
        finish=_without_training_arrays,
    )
    return latents, context, *((end_to_end,) if c.end_to_end.num_steps else ()), tables


def latent_crops(codec: Any, limit: int, offsets_per_picture: int, params: Params, crops: Any) -> ArraySource:
    """Latents [b, *counts, k] of the patches of training crops."""
    raw = crops.all_patches(np.random.default_rng(0), offsets_per_picture, limit)
    patches, counts = _patches(codec.patch, codec.modality, raw)
    return ArraySource({"latent": codec.adapt_all(params, patches).reshape(len(raw), *counts, -1)})


def symbol_weights(lambda_: Any, step: Any, statistics: Parts, num_values: int) -> Any:
    """Bits that a squared error of one symbol is worth at λ: λ · 255² · h · n · Δ² of each dimension."""
    return lambda_ * PEAK**2 * num_values * statistics["sensitivity"] * step**2


@dataclasses.dataclass(frozen=True)
class _Crops:
    """Crops of a source as their patches, ``{"values": float32 [b, *counts, n, c]}``."""

    crops: ExampleSource
    patch: tuple[int, ...]
    modality: str

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        """A batch of crops."""
        patches, counts = _patches(self.patch, self.modality, self.crops.batch(rng, size)["values"])
        return {"values": patches.reshape(size, *counts, *patches.shape[1:])}


def _patches(patch: tuple[int, ...], modality: str, raw: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """(normalised patches [p, n, c], patches along each axis of a crop) of raw crops [b, *crop, c]."""
    counts = Grid(raw.shape[1:-1], patch).counts
    return normalise_batch(modality, np.concatenate([split(crop, patch) for crop in raw])), counts


def _num_values(codec: Any) -> int:
    return math.prod(codec.patch) * codec.config.field.channels


def _frozen(codec: Any, params: Params) -> dict[str, Any]:
    lambdas = jnp.asarray(codec.config.contextual.lambdas)
    return {"statistics": params["latent_statistics"], "lambdas": lambdas}


def _best_steps(codec: Any, params: Params) -> jax.Array:
    """Steps [points, k] before any are learned."""
    statistics = jax.tree.map(jnp.asarray, params["latent_statistics"])
    lambdas = jnp.asarray(codec.config.contextual.lambdas)
    return jax.vmap(lambda value: best_steps(value, statistics, _num_values(codec)))(lambdas)


def _start(codec: Any, key: jax.Array, params: Params, source: ArraySource) -> dict[str, Any]:
    c = codec.config.contextual
    statistics = jax.tree.map(jnp.asarray, params["latent_statistics"])
    frozen = {**_frozen(codec, params), "statistics": statistics, "steps": _best_steps(codec, params)}
    spread = jnp.sqrt(jnp.square(statistics["std"] / frozen["steps"]) + 1.0 / 12.0)
    rank = len(codec.patch)
    log_scale = context_prior.within_tables(jnp.log(spread * (math.sqrt(3.0) / math.pi)))
    prior = context_prior.init(key, c.order, rank, c.width, log_scale)
    row_length = c.groups[-1] + (3**rank - 1) * min(c.neighbour_dims, c.groups[-1])
    points = len(c.lambdas)
    synthesis = neighbour_synthesis.init(jax.random.fold_in(key, 7), c.groups[-1], row_length, c.synthesis_width, points)
    trained = {"prior": prior, "synthesis": synthesis, "loss_scale": jnp.ones(points)}
    sample = jnp.asarray(source.arrays["latent"][:: max(1, len(source) // 64)][:64])

    # As arguments, for XLA's CPU backend (of jaxlib 0.10) multiplies by constant zero matrices to NaN now and then.
    @jax.jit
    def losses(trained, frozen, sample):
        def terms(latent, point):
            return _context_terms(codec, trained, frozen, {"latent": latent}, point, key)[0]

        return jax.lax.map(lambda point: jnp.mean(jax.vmap(terms, (0, None))(sample, point)), jnp.arange(points))

    return {**trained, "loss_scale": 1.0 / losses(trained, frozen, sample)}


def _at_random_point(
    codec: Any, terms: Any, trained: Parts, frozen: Parts, example: Parts, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss at one point, in multiples of what it was when training began."""
    point = jax.random.randint(key, (), 0, len(codec.config.contextual.lambdas))
    loss, metrics = terms(codec, trained, frozen, example, point, jax.random.fold_in(key, 1))
    return loss * jax.lax.stop_gradient(trained["loss_scale"][point]), metrics


def _context_terms(
    codec: Any, trained: Parts, frozen: Parts, example: Parts, point: Any, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Bits a value + λ · 255² · MSE of the patches of one crop, from their latents [*counts, k]; the MSE is h · (error of the
    latent)², to which that of the field itself comes whatever is coded."""
    del key
    latent, statistics, step = example["latent"], frozen["statistics"], frozen["steps"][point]
    z, decoded, bits = _coded(codec, trained, frozen, latent, step, point)
    num_patches = math.prod(latent.shape[:-1])
    error = jnp.sum(statistics["sensitivity"] * jnp.square(step * (decoded - z))) / num_patches
    return _rate_distortion(bits / (num_patches * _num_values(codec)), error, frozen["lambdas"][point])


def _end_to_end_terms(
    codec: Any, trained: Parts, frozen: Parts, example: Parts, point: Any, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The same from the values [*counts, n, c] of the patches, through the inner loop and the field.

    Bits are those of the symbols, but what z should do about them, of z with uniform noise: a 0 that is likeliest says nothing of
    how near it is to a 1 (Ballé et al. 2017, section 3.1). The error has the derivative of z for that of a symbol.
    """
    values, mean = example["values"], frozen["statistics"]["mean"]
    counts = values.shape[:-2]
    field, log_step = meta_learning.cut(codec.config, trained["field"]), trained["log_step"][point]
    if codec.config.contextual.tuned != "field":
        field = jax.lax.stop_gradient(field)
    if codec.config.contextual.tuned == "nothing":
        log_step = jax.lax.stop_gradient(log_step)
    step = jnp.exp(log_step)
    flat = values.reshape(-1, *values.shape[-2:])
    latent = jax.vmap(partial(codec.adapt, field))(flat).reshape(*counts, -1)
    z, decoded, bits = _coded(codec, trained, frozen, latent, step, point)
    if codec.config.contextual.tuned != "nothing":
        noisy_bits = _bits(codec, jax.lax.stop_gradient(trained["prior"]), z + jax.random.uniform(key, z.shape) - 0.5, point)
        bits = bits + noisy_bits - jax.lax.stop_gradient(noisy_bits)
    again = jax.vmap(partial(codec.values, field))((mean + step * decoded).reshape(len(flat), -1))
    return _rate_distortion(bits / values.size, jnp.mean(jnp.square(again - flat)), frozen["lambdas"][point])


def _rate_distortion(rate: jax.Array, error: jax.Array, lambda_: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    return rate + lambda_ * PEAK**2 * error, {"bits_a_value": rate, "psnr_db": -10.0 * jnp.log10(error)}


def _coded(
    codec: Any, trained: Parts, frozen: Parts, latent: jax.Array, step: jax.Array, point: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(z, what the synthesis makes of its symbols, bits without a derivative by z) of the latents [*counts, k] of one crop."""
    c, statistics = codec.config.contextual, frozen["statistics"]
    counts = latent.shape[:-1]
    z = (latent - statistics["mean"]) / step
    symbols = jax.lax.stop_gradient(jnp.round(z))
    if c.rounding == "rate_distortion":
        # All symbols at once, their contexts rounded to nearest: what the encoder does turn by turn, nearly.
        weight = symbol_weights(frozen["lambdas"][point], step, statistics, _num_values(codec))
        location, log_scale = context_prior.predict(c.order, trained["prior"], point, symbols)
        cheapest = _cheapest(z, location, log_scale, weight, c.groups[0])
        symbols = jnp.where(c.order.predicted(counts), cheapest, symbols)
    own = neighbour_synthesis.of_point(trained["synthesis"], point)
    seen = z + jax.lax.stop_gradient(symbols - z)
    decoded = neighbour_synthesis.apply(own, neighbour_synthesis.rows(seen, c.neighbour_dims, jnp))
    return z, decoded, _bits(codec, trained["prior"], symbols, point)


def _bits(codec: Any, prior: Parts, symbols: jax.Array, point: Any) -> jax.Array:
    """Of symbols [*counts, k], or noisy stand-ins, of one crop, but for those that are coded as differences."""
    order = codec.config.contextual.order
    bits = context_prior.bin_bits(*context_prior.predict(order, prior, point, symbols), symbols)
    return jnp.sum(jnp.where(order.predicted(symbols.shape[:-1]), bits, 0.0))


def _cheapest(z: jax.Array, location: jax.Array, log_scale: jax.Array, weight: jax.Array, num_first: int) -> jax.Array:
    """Nearly as `vcinr.context.rounding.rounded`, whose centre of the first group is ⌊μ⌋; without a gradient."""
    nearest = best = jnp.round(z)
    lowest = weight * jnp.square(z - nearest) + context_prior.bin_bits(location, log_scale, nearest)
    centre = jnp.where(jnp.arange(z.shape[-1]) < num_first, jnp.round(location), 0.0)
    for candidate in (nearest - jnp.sign(nearest - centre), centre):
        cost = weight * jnp.square(z - candidate) + context_prior.bin_bits(location, log_scale, candidate)
        best, lowest = jnp.where(cost < lowest, candidate, best), jnp.minimum(cost, lowest)
    return jax.lax.stop_gradient(best)


def _end_to_end_start(codec: Any, key: jax.Array, params: Params, source: ExampleSource) -> dict[str, Any]:
    del key, source
    carried = {name: params[name] for name in ("prior", "synthesis", "loss_scale")}
    field = {name: params[name] for name in codec.fitted}
    return {**carried, "field": field, "log_step": jnp.log(_best_steps(codec, params))}


def _multipliers(field_rate: float, trained: Parts) -> dict[str, Any]:
    """1 for the networks and the logarithms of steps; relative to their size for the field's arrays; 0 for what stays."""
    rates = {name: jax.tree.map(lambda _: 1.0, trained[name]) for name in trained if name != "field"}
    field = warm_start.lr_multipliers({name: trained["field"][name] for name in trained["field"] if name != "step_sizes"})
    field["step_sizes"] = {"log_scale": 1.0, "reference": 0.0}
    return {**rates, "loss_scale": 0.0, "field": jax.tree.map(lambda rate: field_rate * rate, field)}


def _end_to_end_finish(params: Params, trained: Parts) -> Params:
    kept = {name: trained[name] for name in ("prior", "synthesis", "log_step")}
    return {**params, **trained["field"], **kept}


def _points(codec: Any, key: jax.Array, params: Params, source: ArraySource) -> dict[str, Any]:
    """Integer network, steps and tables of every point, counted on symbols as the encoder makes them; it weighs errors by the
    sensitivity of the field as it was before tuning."""
    del key
    c, compression, statistics = codec.config.contextual, codec.compression, params["latent_statistics"]
    order = c.order
    network = context_prior.integer_network(order, params["prior"])
    latents = source.arrays["latent"][:: max(1, len(source) // c.num_counted)][: c.num_counted]
    apart = coarsest(order, source.arrays["latent"], len(codec.patch))
    steps = np.asarray(np.exp(params["log_step"]) if "log_step" in params else _best_steps(codec, params))
    points = {}
    for i, (lambda_, step) in enumerate(zip(c.lambdas, steps, strict=True)):
        weight = np.asarray(symbol_weights(lambda_, step, statistics, _num_values(codec)), np.float32)
        z = (latents - statistics["mean"]) / step
        point = {"step": step, "weight": weight, "lambda": np.float32(lambda_)}
        made = {"network": network, "points": {str(i): {**point, "tables": context_prior.logistic_tables(order.ends[0])}}}
        symbols = compression.round(made, i, z)
        first = slice(order.ends[0])
        differing = whole_symbols(np.rint((apart - statistics["mean"][first]) / step[first]))
        point["tables"] = context_prior.count_tables(order, network, i, symbols, differing).to_arrays()
        points[str(i)] = point
    return {"network": network, "latent_mean": statistics["mean"], "points": points}


def _without_training_arrays(params: Params, found: Params) -> Params:
    dropped = ("prior", "loss_scale", "latent_statistics", "log_step")
    return {**{name: value for name, value in params.items() if name not in dropped}, **found}

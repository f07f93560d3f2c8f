"""Training of the context prior and the neighbour synthesis, on rate + λ · distortion.

Three stages: ``latents`` adapts the patches of training crops, once; ``context`` trains both networks on these latents, each
example at a random operating point; ``tables`` counts the tables of every point on the symbols that the encoder makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.batching import whole_symbols
from vcinr.compression.bottleneck import PEAK, best_steps
from vcinr.compression.interface import LatentModel
from vcinr.compression.variational import measured_statistics
from vcinr.context import integer_prior
from vcinr.context import prior as context_prior
from vcinr.context import synthesis as neighbour_synthesis
from vcinr.context.config import ContextualConfig
from vcinr.context.order import coarsest_lattice
from vcinr.context.tables import logistic_tables
from vcinr.datasets.sources import ArraySource
from vcinr.modalities.examples import normalise_batch
from vcinr.signals.patches import split
from vcinr.signals.signal import Grid
from vcinr.stage import AnyStage, ClosedForm, Params, PatchExamples, Stage, Workplace

Parts = Mapping[str, Any]

Rounding = Callable[[Params, int, np.ndarray], np.ndarray]
"""The encoder's rounding: (params, point, z [n, *counts, k]) → symbols int32 of the same shape."""


def stages(codec: LatentModel, config: ContextualConfig, rounding: Rounding) -> tuple[AnyStage, ...]:
    """``latents``, ``context`` and ``tables`` of a codec."""
    latents = ClosedForm("latents", partial(latent_crops, codec, config), partial(measured_statistics, codec))
    context = Stage(
        name="context",
        training=config.training,
        examples=None,
        init=partial(_start, codec, config),
        frozen=partial(_frozen, codec, config),
        loss=partial(_at_random_point, codec, config),
        finish=lambda params, trained: {**params, **trained},
    )
    return latents, context, ClosedForm("tables", None, partial(_points, codec, config, rounding))


def latent_crops(codec: LatentModel, config: ContextualConfig, params: Params, crops: PatchExamples) -> ArraySource:
    """Latents of the patches of training crops, "latent" [b, *counts, k]."""
    raw = crops.all_patches(np.random.default_rng(0), config.offsets_per_picture, config.num_latents)
    counts = Grid(raw.shape[1:-1], codec.patch).counts
    patches = normalise_batch(codec.modality, np.concatenate([split(crop, codec.patch) for crop in raw]))
    return ArraySource({"latent": codec.adapt_all(params, patches).reshape(len(raw), *counts, -1)})


def symbol_weights(lambda_: Any, step: Any, statistics: Parts, num_values: int) -> Any:
    """Bits that a squared error of one symbol is worth, λ · 255² · h · n · Δ² per dimension.

    h: sensitivity of the MSE to the dimension.   n: values per patch.   Δ: quantiser step.
    """
    return lambda_ * PEAK**2 * num_values * statistics["sensitivity"] * step**2


def _frozen(codec: LatentModel, config: ContextualConfig, params: Params) -> dict[str, Any]:
    lambdas = jnp.asarray(config.lambdas)
    return {"statistics": params["latent_statistics"], "lambdas": lambdas, "steps": _best_steps(codec, config, params)}


def _best_steps(codec: LatentModel, config: ContextualConfig, params: Params) -> jax.Array:
    """Quantiser steps [points, k]."""
    statistics = jax.tree.map(jnp.asarray, params["latent_statistics"])
    lambdas = jnp.asarray(config.lambdas)
    return jax.vmap(lambda value: best_steps(value, statistics, codec.num_values))(lambdas)


def _start(codec: LatentModel, config: ContextualConfig, key: jax.Array, params: Params, source: ArraySource) -> dict[str, Any]:
    c = config
    statistics = jax.tree.map(jnp.asarray, params["latent_statistics"])
    frozen = {**_frozen(codec, config, params), "statistics": statistics}
    spread = jnp.sqrt(jnp.square(statistics["std"] / frozen["steps"]) + 1.0 / 12.0)
    rank = len(codec.patch)
    log_scale = context_prior.within_tables(jnp.log(spread * (math.sqrt(3.0) / math.pi)))
    prior = context_prior.init(key, c.order, rank, c.width, log_scale)
    row_length = c.groups[-1] + (3**rank - 1) * min(c.neighbour_dims, c.groups[-1])
    points = len(c.lambdas)
    synthesis = neighbour_synthesis.init(jax.random.fold_in(key, 7), c.groups[-1], row_length, c.synthesis_width, points)
    trained = {"prior": prior, "synthesis": synthesis, "loss_scale": jnp.ones(points)}
    sample = jnp.asarray(source.arrays["latent"][:: max(1, len(source) // 64)][:64])

    # Arrays are arguments: where zero matrices were constants, XLA's CPU backend (jaxlib 0.10) now and then gave NaN products.
    @jax.jit
    def losses(trained, frozen, sample):
        def terms(latent, point):
            return _terms(codec, config, trained, frozen, latent, point)[0]

        return jax.lax.map(lambda point: jnp.mean(jax.vmap(terms, (0, None))(sample, point)), jnp.arange(points))

    return {**trained, "loss_scale": 1.0 / losses(trained, frozen, sample)}


def _at_random_point(
    codec: LatentModel, config: ContextualConfig, trained: Parts, frozen: Parts, example: Parts, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss at a random operating point, divided by the loss there before training."""
    point = jax.random.randint(key, (), 0, len(config.lambdas))
    loss, metrics = _terms(codec, config, trained, frozen, example["latent"], point)
    return loss * jax.lax.stop_gradient(trained["loss_scale"][point]), metrics


def _terms(
    codec: LatentModel, config: ContextualConfig, trained: Parts, frozen: Parts, latent: jax.Array, point: Any
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Bits per value + λ · 255² · MSE of the patches of one crop, from their latents [*counts, k].

    The MSE is Σ h · (error of the latent)² per patch, without the field's own error, which no symbol changes.
    """
    statistics, step = frozen["statistics"], frozen["steps"][point]
    z, decoded, bits = _coded(codec, config, trained, frozen, latent, step, point)
    num_patches = math.prod(latent.shape[:-1])
    rate = bits / (num_patches * codec.num_values)
    error = jnp.sum(statistics["sensitivity"] * jnp.square(step * (decoded - z))) / num_patches
    return rate + frozen["lambdas"][point] * PEAK**2 * error, {"bits_per_value": rate, "psnr_db": -10.0 * jnp.log10(error)}


def _coded(
    codec: LatentModel, config: ContextualConfig, trained: Parts, frozen: Parts, latent: jax.Array, step: jax.Array, point: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(z, ẑ of the synthesis, bits with a stop-gradient on z) of the latents [*counts, k] of one crop."""
    c, statistics = config, frozen["statistics"]
    counts = latent.shape[:-1]
    z = (latent - statistics["mean"]) / step
    symbols = jax.lax.stop_gradient(jnp.round(z))
    if c.rounding == "rate_distortion":
        # The encoder rounds step by step. Here all symbols are rounded at once, with nearest whole numbers as their context.
        weight = symbol_weights(frozen["lambdas"][point], step, statistics, codec.num_values)
        location, log_scale = context_prior.predict(c.order, trained["prior"], point, symbols)
        cheapest = _cheapest(z, location, log_scale, weight, c.groups[0])
        symbols = jnp.where(c.order.predicted(counts), cheapest, symbols)
    own = neighbour_synthesis.of_point(trained["synthesis"], point)
    seen = z + jax.lax.stop_gradient(symbols - z)
    decoded = neighbour_synthesis.apply(own, neighbour_synthesis.rows(seen, c.neighbour_dims, jnp))
    return z, decoded, context_prior.total_bits(c.order, trained["prior"], point, symbols, symbols)


def _cheapest(z: jax.Array, location: jax.Array, log_scale: jax.Array, weight: jax.Array, num_first: int) -> jax.Array:
    """`vcinr.context.rounding.rounded` with float bits and the centre ⌊μ⌉ instead of ⌊μ⌋ in the first group; no gradient."""
    nearest = best = jnp.round(z)
    lowest = weight * jnp.square(z - nearest) + context_prior.bin_bits(location, log_scale, nearest)
    centre = jnp.where(jnp.arange(z.shape[-1]) < num_first, jnp.round(location), 0.0)
    for candidate in (nearest - jnp.sign(nearest - centre), centre):
        cost = weight * jnp.square(z - candidate) + context_prior.bin_bits(location, log_scale, candidate)
        best, lowest = jnp.where(cost < lowest, candidate, best), jnp.minimum(cost, lowest)
    return jax.lax.stop_gradient(best)


def _points(
    codec: LatentModel,
    config: ContextualConfig,
    rounding: Rounding,
    key: jax.Array,
    params: Params,
    source: ArraySource,
    workplace: Workplace,
) -> Params:
    """Finished parameters: the integer network, and the quantiser step and tables of every point."""
    del key
    order, statistics = config.order, params["latent_statistics"]
    network = integer_prior.integer_network(order, params["prior"])
    latents = source.arrays["latent"][:: max(1, len(source) // config.num_counted)][: config.num_counted]
    coarsest = coarsest_lattice(order, source.arrays["latent"], len(codec.patch))
    points = {}
    for i, (lambda_, step) in enumerate(zip(config.lambdas, np.asarray(_best_steps(codec, config, params)), strict=True)):
        workplace.progress("tables", i, len(config.lambdas))
        weight = np.asarray(symbol_weights(lambda_, step, statistics, codec.num_values), np.float32)
        z = (latents - statistics["mean"]) / step
        point = {"step": step, "weight": weight, "lambda": np.float32(lambda_)}
        uncounted = {"network": network, "points": {str(i): {**point, "tables": logistic_tables(order.ends[0])}}}
        symbols = rounding(uncounted, i, z)
        first = slice(order.ends[0])
        first_symbols = whole_symbols(np.rint((coarsest - statistics["mean"][first]) / step[first]))
        point["tables"] = integer_prior.count_tables(order, network, i, symbols, first_symbols).to_arrays()
        points[str(i)] = point
    kept = {name: value for name, value in params.items() if name not in ("prior", "loss_scale", "latent_statistics")}
    return {**kept, "network": network, "latent_mean": statistics["mean"], "points": points}

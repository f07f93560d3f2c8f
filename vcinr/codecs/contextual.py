"""Compression of latents whose prior and synthesis look at the neighbouring patches; one model for all rates.

A point is a step for every dimension of the latent; the prior (`vcinr.codecs.context_prior`) and the synthesis
(`vcinr.codecs.neighbour_synthesis`) are shared by all points, but for their biases. Stages: ``latents`` (of crops of several
patches, made once), ``context`` (both networks, on rate + λ · distortion at a random point an example), ``tables``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.codecs import context_prior, neighbour_synthesis, refinement
from vcinr.codecs.batching import map_batches, whole_symbols
from vcinr.codecs.bottleneck import PEAK, best_steps
from vcinr.codecs.codec import Params, Stage, TrainingConfig
from vcinr.codecs.coding_order import Order, is_odd, streams_of, symbols_of
from vcinr.codecs.examples import normalise_batch
from vcinr.codecs.patch_by_patch import check_count
from vcinr.codecs.rate_distortion_rounding import rounded
from vcinr.codecs.variational import measured_statistics
from vcinr.entropy.range_coder import Table
from vcinr.signals.patches import split
from vcinr.signals.signal import Grid
from vcinr.signals.sources import ArraySource

Parts = Mapping[str, Any]

PATCHES_AT_ONCE = 1024
"""Where several signals are refined together."""


@dataclasses.dataclass(frozen=True)
class ContextualConfig:
    """lambdas: one an operating point, ascending.   groups: where the groups of latent dimensions end; the last is the latent's.
    neighbour_dims: leading dimensions that neighbours lend each other.   width: of the prior's hidden layers.
    synthesis_width: of the synthesis.   rounding: "rate_distortion" or "nearest", in the encoder.
    num_latents, offsets_per_picture: training crops at most, and random grids of them a picture.
    num_counted: crops that a point's tables are counted on."""

    lambdas: tuple[float, ...] = (0.002, 0.006, 0.02)
    groups: tuple[int, ...] = (3, 6, 12, 24, 48, 64)
    neighbour_dims: int = 96
    width: int = 96
    synthesis_width: int = 256
    rounding: str = "rate_distortion"
    num_latents: int = 5000
    offsets_per_picture: int = 2
    num_counted: int = 500
    training: TrainingConfig = TrainingConfig(num_steps=1500, batch_size=32, lr=2e-3, average_decay=0.99)

    def __post_init__(self):
        if list(self.lambdas) != sorted(set(self.lambdas)) or not self.lambdas or self.lambdas[0] <= 0:
            raise ValueError(f"lambdas must be positive and rise; got {self.lambdas}")
        if self.rounding not in ("rate_distortion", "nearest"):
            raise ValueError(f"unknown rounding {self.rounding!r}; valid are nearest, rate_distortion")
        Order(self.groups, self.neighbour_dims)

    @property
    def order(self) -> Order:
        """Of coding."""
        return Order(self.groups, self.neighbour_dims)


@dataclasses.dataclass(frozen=True)
class Contextual:
    """Steps, context prior, neighbour synthesis; see `vcinr.codecs.latent_codec.Compression`."""

    config: ContextualConfig
    masked = False

    @property
    def streams(self) -> tuple[str, ...]:
        return self.config.order.streams

    def encoder_parts(self, params: Params, point: int) -> dict[str, Any]:
        return {"mean": params["latent_mean"], "step": params["points"][str(point)]["step"]}

    def analyse(self, parts: Parts, latent: jax.Array) -> jax.Array:
        return (latent - parts["mean"]) / parts["step"]

    def decoder_parts(self, params: Params, point: int) -> dict[str, Any]:
        own = params["points"][str(point)]
        synthesis = neighbour_synthesis.of_point(params["synthesis"], point)
        return {"mean": params["latent_mean"], "step": own["step"], "synthesis": synthesis}

    def coder_arrays(self, params: Params, point: int) -> dict[str, Any]:
        """What `symbol_model` reads besides the tables: the fingerprint covers it."""
        return {"network": params["network"], "number": np.int32(point)}

    def synthesise(self, parts: Parts, row: jax.Array) -> jax.Array:
        return parts["mean"] + parts["step"] * neighbour_synthesis.apply(parts["synthesis"], row)

    def decoder_config(self) -> dict[str, Any]:
        return {"groups": list(self.config.groups), "neighbour_dims": self.config.neighbour_dims}

    def code(
        self, codec: Any, params: Params, point: int, rows: Sequence[np.ndarray], grids: Sequence[Grid], effort: int = 0
    ) -> list[dict[str, np.ndarray]]:
        """Streams of signals from what `analyse` gave, [p, k] each: rounded turn by turn, each given what the decoder knows.

        effort: passes of `vcinr.codecs.refinement`, 0..8; ValueError beyond.
        """
        del codec
        if not 0 <= effort <= refinement.MAX_EFFORT:
            raise ValueError(f"effort lies in 0..{refinement.MAX_EFFORT}, not {effort}")
        found: list[Any] = [None] * len(rows)
        counts = [grid.counts for grid in grids]
        for shape in dict.fromkeys(counts):
            places = [i for i, own in enumerate(counts) if own == shape]
            z = np.stack([rows[i].reshape(*shape, -1) for i in places])
            decided = self.round(params, point, z)
            if effort:
                decided = self._refine(params, point, decided, z, effort)
            for i, symbols in zip(places, decided, strict=True):
                found[i] = streams_of(self.config.order, symbols)
        return found

    def round(self, params: Params, point: int, z: np.ndarray) -> np.ndarray:
        """Symbols int32 of z, [n, *counts, k] both, n signals of one grid."""
        order = self.config.order
        own = params["points"][str(point)]
        symbols = whole_symbols(np.rint(z))
        if self.config.rounding == "nearest":
            return symbols
        odd_patches = is_odd(z.shape[1:-1])
        for _, group, odd in order.turns:
            start, stop = order.span(group)
            chosen = odd_patches == odd
            table, whole = context_prior.predict_table(order, params["network"], point, symbols, chosen, group, odd)
            part = z[:, chosen, start:stop].astype(np.float64)
            symbols[:, chosen, start:stop] = rounded(part, whole, table, own["tables"], np.asarray(own["weight"])[start:stop])
        return symbols

    def _refine(self, params: Params, point: int, symbols: np.ndarray, z: np.ndarray, passes: int) -> np.ndarray:
        """Symbols of the cheapest of several passes, for each signal."""
        order = self.config.order
        parts = {
            "prior": context_prior.float_network(order, params["network"]),
            "synthesis": neighbour_synthesis.of_point(params["synthesis"], point),
            "weight": params["points"][str(point)]["weight"],
            "point": np.int32(point),
        }
        z = z.astype(np.float32)
        at_once = max(1, PATCHES_AT_ONCE // math.prod(z.shape[1:-1]))
        best, lowest = symbols, np.full(len(z), np.inf)
        for i in range(passes + 1):
            rows = (symbols.astype(np.float32), z)
            target, cost = map_batches(refinement.targets, order, parts, rows, at_once)
            better = (cost < lowest).reshape(-1, *[1] * (z.ndim - 1))
            best, lowest = np.where(better, symbols, best), np.minimum(cost, lowest)
            if i < passes:
                symbols = self.round(params, point, target)
        return best

    def symbol_model(
        self, codec: Any, params: Params, point: int, grid: Grid, decoded: Mapping[str, np.ndarray], name: str
    ) -> Table:
        """The first group's differences by a table a dimension; then what is left of symbols after the whole part of μ."""
        order, tables = self.config.order, params["points"][str(point)]["tables"]
        check_count(codec.num_coded(params), grid)
        if name == "first":
            number = np.arange(order.ends[0]) + tables.num_tables - order.ends[0]
            return Table(tables, np.tile(number, grid.num_patches))
        _, group, odd = next(turn for turn in order.turns if turn[0] == name)
        symbols = symbols_of(order, grid.counts, decoded)
        chosen = is_odd(grid.counts) == odd
        table, whole = context_prior.predict_table(order, params["network"], point, symbols, chosen, group, odd)
        return Table(tables, table.ravel(), whole.ravel())

    def symbol_rows(self, codec: Any, params: Params, streams: Mapping[str, np.ndarray], grid: Grid) -> np.ndarray:
        """Symbols of each patch and around it, [p, r]."""
        del codec, params
        symbols = symbols_of(self.config.order, grid.counts, streams)
        return neighbour_synthesis.rows(symbols, self.config.neighbour_dims).reshape(grid.num_patches, -1)

    def stages(self, codec: Any) -> tuple[Stage, ...]:
        """``latents``, ``context``, ``tables``."""
        c = self.config
        latents = Stage(
            name="latents",
            training=TrainingConfig(num_steps=0),
            examples=partial(latent_crops, codec, c.num_latents, c.offsets_per_picture),
            init=partial(measured_statistics, codec),
            frozen=lambda params: {},
            loss=None,
            finish=lambda params, statistics: {**params, "latent_statistics": statistics},
        )
        context = Stage(
            name="context",
            training=c.training,
            examples=None,
            init=partial(self._start, codec),
            frozen=lambda params: self._frozen(codec, params["latent_statistics"]),
            loss=partial(self._loss, codec),
            finish=lambda params, trained: {
                **params,
                "prior": trained["prior"],
                "synthesis": trained["synthesis"],
                "loss_scale": trained["loss_scale"],
            },
        )
        tables = Stage(
            name="tables",
            training=TrainingConfig(num_steps=0),
            examples=None,
            init=partial(self._points, codec),
            frozen=lambda params: {},
            loss=None,
            finish=_without_training_arrays,
        )
        return latents, context, tables

    def _frozen(self, codec: Any, statistics: Parts) -> dict[str, Any]:
        lambdas = jnp.asarray(self.config.lambdas)
        steps = jax.vmap(lambda value: best_steps(value, statistics, _num_values(codec)))(lambdas)
        return {"statistics": statistics, "steps": steps, "lambdas": lambdas}

    def _start(self, codec: Any, key: jax.Array, params: Params, source: ArraySource) -> dict[str, Any]:
        c = self.config
        statistics = jax.tree.map(jnp.asarray, params["latent_statistics"])
        frozen = self._frozen(codec, statistics)
        spread = jnp.sqrt(jnp.square(statistics["std"] / frozen["steps"]) + 1.0 / 12.0)
        rank = len(codec.patch)
        log_scale = jnp.log(spread * (math.sqrt(3.0) / math.pi))
        prior = context_prior.init(key, c.order, rank, c.width, log_scale)
        row_length = c.groups[-1] + (3**rank - 1) * min(c.neighbour_dims, c.groups[-1])
        points = len(c.lambdas)
        synthesis = neighbour_synthesis.init(jax.random.fold_in(key, 7), c.groups[-1], row_length, c.synthesis_width, points)
        trained = {"prior": prior, "synthesis": synthesis, "loss_scale": jnp.ones(points)}
        sample = jnp.asarray(source.arrays["latent"][:: max(1, len(source) // 64)][:64])

        # As arguments, for XLA's CPU backend (of jaxlib 0.10) multiplies by constant zero matrices to NaN now and then.
        @jax.jit
        def losses(trained, frozen, sample):
            terms = jax.vmap(lambda latent, point: self._terms(codec, trained, frozen, latent, point)[0], (0, None))
            return jax.lax.map(lambda point: jnp.mean(terms(sample, point)), jnp.arange(points))

        return {**trained, "loss_scale": 1.0 / losses(trained, frozen, sample)}

    def _loss(self, codec: Any, trained: Parts, frozen: Parts, example: Parts, key: jax.Array) -> tuple[Any, dict[str, Any]]:
        point = jax.random.randint(key, (), 0, len(self.config.lambdas))
        loss, metrics = self._terms(codec, trained, frozen, example["latent"], point)
        return loss * jax.lax.stop_gradient(trained["loss_scale"][point]), metrics

    def _terms(
        self, codec: Any, trained: Parts, frozen: Parts, latent: jax.Array, point: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Bits a value + λ · 255² · MSE of the patches of one crop [*counts, k]; bits of all but the first group."""
        c, statistics, step = self.config, frozen["statistics"], frozen["steps"][point]
        odd = jnp.asarray(is_odd(latent.shape[:-1]), latent.dtype)
        z = (latent - statistics["mean"]) / step
        weight = symbol_weights(frozen["lambdas"][point], step, statistics, _num_values(codec))

        location, log_scale = predict = context_prior.predict(c.order, trained["prior"], point, jnp.round(z), odd)
        symbols = jnp.round(z)
        if c.rounding == "rate_distortion":
            # All symbols at once, their contexts rounded to nearest: what the encoder does turn by turn, nearly.
            symbols = _cheapest(z, location, log_scale, weight, c.groups[0])
            predict = context_prior.predict(c.order, trained["prior"], point, symbols, odd)
        bits = jnp.sum(context_prior.bin_bits(*predict, symbols)[..., c.groups[0] :])
        own = neighbour_synthesis.of_point(trained["synthesis"], point)
        decoded = neighbour_synthesis.apply(own, neighbour_synthesis.rows(symbols, c.neighbour_dims, jnp))
        num_patches = math.prod(latent.shape[:-1])
        error = jnp.sum(statistics["sensitivity"] * jnp.square(step * (decoded - z))) / num_patches
        rate = bits / (num_patches * _num_values(codec))
        return rate + frozen["lambdas"][point] * PEAK**2 * error, {"bits_a_value": rate, "psnr_db": -10.0 * jnp.log10(error)}

    def _points(self, codec: Any, key: jax.Array, params: Params, source: ArraySource) -> dict[str, Any]:
        """Integer network, steps and tables of every point, counted on symbols as the encoder makes them."""
        del key
        c, order, statistics = self.config, self.config.order, params["latent_statistics"]
        network = context_prior.integer_network(order, params["prior"])
        latents = source.arrays["latent"][:: max(1, len(source) // c.num_counted)][: c.num_counted]
        points = {}
        steps = np.asarray(self._frozen(codec, jax.tree.map(jnp.asarray, statistics))["steps"])
        for i, (lambda_, step) in enumerate(zip(c.lambdas, steps, strict=True)):
            weight = np.asarray(symbol_weights(lambda_, step, statistics, _num_values(codec)), np.float32)
            z = (latents - statistics["mean"]) / step
            point = {"step": step, "weight": weight, "lambda": np.float32(lambda_)}
            made = {"network": network, "points": {str(i): {**point, "tables": context_prior.logistic_tables(order.ends[0])}}}
            symbols = self.round(made, i, z)
            point["tables"] = context_prior.count_tables(order, network, i, symbols).to_arrays()
            points[str(i)] = point
        return {"network": network, "latent_mean": statistics["mean"], "points": points}


def _cheapest(z: jax.Array, location: jax.Array, log_scale: jax.Array, weight: jax.Array, num_first: int) -> jax.Array:
    """As `rounded`, of all but the first group; without a gradient."""
    nearest = best = jnp.round(z)
    lowest = weight * jnp.square(z - nearest) + context_prior.bin_bits(location, log_scale, nearest)
    for candidate in (nearest - jnp.sign(nearest), jnp.zeros_like(z)):
        cost = weight * jnp.square(z - candidate) + context_prior.bin_bits(location, log_scale, candidate)
        best, lowest = jnp.where(cost < lowest, candidate, best), jnp.minimum(cost, lowest)
    return jax.lax.stop_gradient(jnp.where(jnp.arange(z.shape[-1]) < num_first, nearest, best))


def symbol_weights(lambda_: Any, step: Any, statistics: Parts, num_values: int) -> Any:
    """Bits that a squared error of one symbol is worth at λ: λ · 255² · h · n · Δ² of each dimension."""
    return lambda_ * PEAK**2 * num_values * statistics["sensitivity"] * step**2


def _num_values(codec: Any) -> int:
    return math.prod(codec.patch) * codec.config.field.channels


def latent_crops(codec: Any, limit: int, offsets_per_picture: int, params: Params, crops: Any) -> ArraySource:
    """Latents [b, *counts, k] of the patches of training crops."""
    raw = crops.all_patches(np.random.default_rng(0), offsets_per_picture, limit)
    counts = Grid(raw.shape[1:-1], codec.patch).counts
    patches = normalise_batch(codec.modality, np.concatenate([split(crop, codec.patch) for crop in raw]))
    return ArraySource({"latent": codec.adapt_all(params, patches).reshape(len(raw), *counts, -1)})


def _without_training_arrays(params: Params, found: Params) -> Params:
    dropped = ("prior", "loss_scale", "latent_statistics")
    return {**{name: value for name, value in params.items() if name not in dropped}, **found}

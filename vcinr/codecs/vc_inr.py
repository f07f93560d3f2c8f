"""VC-INR: low-rank gates from a latent, meta-learned, then variationally compressed (Schwarz et al. 2023).

Algorithm 1, meta-training, is the stage ``meta``; algorithm 2, quantisation, is the stages ``latents`` (the training set's
latents, made once) and ``quantise_0``, ``quantise_1``, … (one operating point each).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from vcinr.adaptation.fit import fit
from vcinr.adaptation.meta_sgd import StepSizes, adapt, init_step_sizes, largest_curvature
from vcinr.adaptation.objective import chunked_mean_squared_error
from vcinr.codecs.batching import map_batches
from vcinr.codecs.codec import Code, ExampleSource, Params, Stage, TrainingConfig
from vcinr.codecs.examples import NormalisedSource, normalise_batch
from vcinr.codecs.transforms import Analysis, Synthesis
from vcinr.entropy import factorized_prior, quantisers
from vcinr.entropy.range_coder import Table
from vcinr.entropy.tables import tables_from_cdf
from vcinr.fields.field import FieldConfig, evaluate, make_field
from vcinr.signals.grids import pixel_grid
from vcinr.signals.signal import Grid, Signal
from vcinr.signals.sources import ArraySource

PEAK = 255.0
"""Distortion in the loss is in 8-bit units: λ · 255² · MSE."""


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """num_steps: of the inner loop, in training and encoding.  chunk: coordinates at once, 0 for all.
    first_order: drop second derivatives (an ablation).  initial_step: first step sizes in multiples of 1/λ_max."""

    num_steps: int = 3
    chunk: int = 0
    first_order: bool = False
    initial_step: float = 0.5


@dataclasses.dataclass(frozen=True)
class QuantiserConfig:
    """lambdas: one an operating point, ascending.  width, depth: of the residual MLPs.
    distortion: "signal" (through the frozen field) or "latent" (squared error of φ, weighted by the signal's sensitivity).
    num_latents, offsets_per_picture: training latents at most, and random patch grids a picture.
    prior_steps, prior_lr: of fitting the prior alone before a point's training."""

    lambdas: tuple[float, ...] = (0.002, 0.006, 0.02)
    width: int = 256
    depth: int = 2
    distortion: str = "signal"
    num_latents: int = 5000
    offsets_per_picture: int = 2
    prior_steps: int = 300
    prior_lr: float = 0.02
    training: TrainingConfig = TrainingConfig(num_steps=500, batch_size=64, lr=3e-4, average_decay=0.99)


@dataclasses.dataclass(frozen=True)
class VCINRConfig:
    """Everything that makes a VC-INR: the field and its gates, the inner loop, both training stages."""

    patch: tuple[int, ...] = (32, 32)
    modality: str = "picture"
    field: FieldConfig = FieldConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    meta: TrainingConfig = TrainingConfig(num_steps=2000, batch_size=16, lr=1e-3)
    quantiser: QuantiserConfig = QuantiserConfig()
    encode_batch: int = 32


def signal_loss(
    config: VCINRConfig, shared: Any, latent: jax.Array, values: jax.Array, weight: jax.Array | None = None
) -> jax.Array:
    """Weighted MSE of the field at ``latent`` on one patch; values [n, c] in [0, 1]."""
    layers = make_field(config.field).apply({"params": shared}, latent, method="layers")
    coords = jnp.asarray(pixel_grid(config.patch), values.dtype)
    return chunked_mean_squared_error(
        lambda x: evaluate(config.field, layers, x), coords, values, weight, config.adaptation.chunk
    )


def adapt_latent(
    config: VCINRConfig, trained: Mapping[str, Any], values: Float[Array, "n c"], weight: Float[Array, " n"] | None = None
) -> Float[Array, " k"]:
    """The latent of one patch: ``num_steps`` of Meta-SGD from the learned start (algorithm 1, line 5)."""
    a = config.adaptation
    latent, _ = adapt(
        lambda phi: signal_loss(config, trained["shared"], phi, values, weight),
        trained["latent_init"],
        StepSizes(**trained["step_sizes"]),
        a.num_steps,
        first_order=a.first_order,
    )
    return latent


def meta_loss(config: VCINRConfig, trained: Mapping[str, Any], example: Mapping[str, jax.Array]) -> tuple[jax.Array, dict]:
    """MSE after adaptation, whose gradient is the meta-gradient through the inner steps (algorithm 1, lines 6 and 7)."""
    latent = adapt_latent(config, trained, example["values"])
    loss = signal_loss(config, trained["shared"], latent, example["values"])
    return loss, {"psnr_db": -10.0 * jnp.log10(loss)}


def analyse(config: VCINRConfig, bottleneck: Mapping[str, Any], statistics: Mapping[str, Any], latent: jax.Array) -> jax.Array:
    """z, what is rounded, of a latent: g_a of the standardised φ (algorithm 2, line 10)."""
    q = config.quantiser
    standardised = (latent - statistics["mean"]) / statistics["std"]
    return Analysis(q.width, q.depth).apply({"params": bottleneck["analysis"]}, standardised)


def synthesise_latent(
    config: VCINRConfig, bottleneck: Mapping[str, Any], statistics: Mapping[str, Any], z: jax.Array
) -> jax.Array:
    """φ̃ of symbols or their noisy stand-ins: g_s, then standardisation undone (algorithm 2, line 13)."""
    q = config.quantiser
    standardised = Synthesis(q.width, q.depth).apply({"params": bottleneck["synthesis"]}, z)
    return statistics["mean"] + statistics["std"] * standardised


def quantisation_loss(
    config: VCINRConfig,
    lambda_: float,
    rounding: bool,
    bottleneck: Any,
    frozen: Any,
    example: Mapping[str, jax.Array],
    key: jax.Array,
) -> tuple[jax.Array, dict]:
    """Bits a value + λ · 255² · MSE of one patch (algorithm 2, lines 10 to 14)."""
    statistics = frozen["latent_statistics"]
    z = analyse(config, bottleneck, statistics, example["latent"])
    z = quantisers.hard(z) if rounding else quantisers.noise(key, z)
    bits = jnp.sum(factorized_prior.bin_bits(bottleneck["prior"], z))
    latent = synthesise_latent(config, bottleneck, statistics, z)
    if config.quantiser.distortion == "signal":
        distortion = signal_loss(config, frozen["shared"], latent, example["values"])
    else:
        distortion = jnp.sum(statistics["sensitivity"] * jnp.square(latent - example["latent"]))
    loss = bits / example["values"].size + lambda_ * PEAK**2 * distortion
    return loss, {"bits": bits, "psnr_db": -10.0 * jnp.log10(distortion)}


def sensitivity(config: VCINRConfig, shared: Any, latent: Float[Array, " k"], key: jax.Array) -> Float[Array, " k"]:
    """An unbiased estimate of mean |∂f/∂φ_k|² over samples and channels: MSE per squared error of each latent dimension.

    Random signs r make E[(Σ r ∂f/∂φ_k)²] the sum of squares (Hutchinson 1990), at the price of one backward pass.
    """
    coords = jnp.asarray(pixel_grid(config.patch))
    field = make_field(config.field)
    values, pull_back = jax.vjp(lambda phi: field.apply({"params": shared}, coords, phi), latent)
    signs = jax.random.rademacher(key, values.shape, values.dtype)
    return jnp.square(pull_back(signs)[0]) / values.size


def uniform_start(config: VCINRConfig, lambda_: float, statistics: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
    """A bottleneck that begins as a uniform quantiser: identity transforms, and the step that is best at high rate.

    With a step Δ on dimension k, distortion is h_k Δ²/12 and the rate −log₂ Δ; the loss of `quantisation_loss` is least at
    Δ² = 6 / (ln 2 · λ · 255² · h_k · n), n values in the patch.
    """
    num_values = int(np.prod(config.patch)) * config.field.channels
    step = jnp.sqrt(6.0 / (jnp.log(2.0) * lambda_ * PEAK**2 * num_values * jnp.maximum(statistics["sensitivity"], 1e-20)))
    log_gain = jnp.log(jnp.maximum(statistics["std"] / step, 1e-3))
    q, k = config.quantiser, config.field.latent_dim
    analysis = Analysis(q.width, q.depth).init(jax.random.fold_in(key, 0), jnp.zeros(k))["params"]
    synthesis = Synthesis(q.width, q.depth).init(jax.random.fold_in(key, 1), jnp.zeros(k))["params"]
    return {"analysis": {**analysis, "log_gain": log_gain}, "synthesis": {**synthesis, "log_gain": -log_gain}}


def fit_prior(
    config: VCINRConfig, bottleneck: Mapping[str, Any], statistics: Any, latents: jax.Array, key: jax.Array
) -> dict[str, Any]:
    """The factorized prior of a set of latents [m, k]: logistic with the symbols' spread, then maximum likelihood."""
    z = jax.vmap(lambda phi: analyse(config, bottleneck, statistics, phi))(latents)
    scale = jnp.sqrt(jnp.var(z, axis=0) + 1.0 / 12.0) * jnp.sqrt(3.0) / jnp.pi
    prior = factorized_prior.init(key, scale, z.shape[1])
    noisy = quantisers.noise(jax.random.fold_in(key, 99), z)

    def mean_bits(params):
        return jnp.mean(jnp.sum(jax.vmap(lambda row: factorized_prior.bin_bits(params, row))(noisy), axis=1))

    schedule = optax.cosine_decay_schedule(config.quantiser.prior_lr, config.quantiser.prior_steps)
    return fit(mean_bits, prior, optax.adam(schedule), config.quantiser.prior_steps, remat=False)[0]


@dataclasses.dataclass(frozen=True)
class VCINR:
    """The codec; see `vcinr.codecs.codec.Codec`."""

    config: VCINRConfig = VCINRConfig()
    name = "vc_inr"
    streams = ("latent",)
    continuous = True
    needs_model = True

    @property
    def modality(self) -> str:
        return self.config.modality

    @property
    def patch(self) -> tuple[int, ...]:
        return self.config.patch

    @property
    def meta_types(self) -> Mapping[str, str]:
        return {}

    def init(self, key: jax.Array) -> Params:
        """θ at SIREN's start with neutral gates, φ₀ = 0."""
        c = self.config
        shared = make_field(c.field).init(key, jnp.zeros((1, c.field.coord_dim)), jnp.zeros(c.field.latent_dim))["params"]
        sizes = init_step_sizes(c.adaptation.num_steps, c.field.latent_dim, 1.0, c.adaptation.initial_step)
        return {
            "shared": shared,
            "latent_init": jnp.zeros(c.field.latent_dim),
            "step_sizes": sizes._asdict(),
            "points": {},
        }

    def stages(self) -> tuple[Stage, ...]:
        """``meta``, ``latents``, then one ``quantise`` stage for each λ."""
        c = self.config
        meta = Stage(
            name="meta",
            training=c.meta,
            examples=lambda params, patches: NormalisedSource(patches, c.modality),
            init=self._start_meta,
            frozen=lambda params: {},
            loss=lambda trained, frozen, example, key: meta_loss(c, trained, example),
            finish=lambda params, trained: {**params, **trained},
        )
        latents = Stage(
            name="latents",
            training=TrainingConfig(num_steps=0),
            examples=self._latents,
            init=self._latent_statistics,
            frozen=lambda params: {},
            loss=None,
            finish=lambda params, statistics: {**params, "latent_statistics": statistics},
        )
        return (meta, latents, *(self._quantise(i, lambda_) for i, lambda_ in enumerate(c.quantiser.lambdas)))

    def _start_meta(self, key: jax.Array, params: Params, source: ExampleSource) -> dict[str, Any]:
        params = jax.tree.map(jnp.asarray, params)
        values = source.batch(np.random.default_rng(0), 8)["values"]
        curvature = jax.jit(
            jax.vmap(
                lambda y: largest_curvature(
                    lambda phi: signal_loss(self.config, params["shared"], phi, y), params["latent_init"], key
                )
            )
        )(values)
        sizes = {**params["step_sizes"], "reference": 1.0 / jnp.max(curvature)}
        return {"shared": params["shared"], "latent_init": params["latent_init"], "step_sizes": sizes}

    def _latents(self, params: Params, patches: ExampleSource) -> ArraySource:
        c = self.config
        raw = patches.all_patches(np.random.default_rng(0), c.quantiser.offsets_per_picture, c.quantiser.num_latents)
        values = normalise_batch(c.modality, raw)
        trained = {name: params[name] for name in ("shared", "latent_init", "step_sizes")}
        latent = map_batches(_adapt_row, c, trained, (values,), c.encode_batch)
        return ArraySource({"values": values, "latent": latent})

    def _latent_statistics(self, key: jax.Array, params: Params, source: ArraySource) -> dict[str, Any]:
        params = jax.tree.map(jnp.asarray, params)
        latent = jnp.asarray(source.arrays["latent"])
        sample = latent[:: max(1, len(latent) // 1024)]
        keys = jax.random.split(key, len(sample))
        estimate = jax.jit(
            lambda rows, ks: jnp.mean(
                jax.lax.map(lambda row: sensitivity(self.config, params["shared"], *row), (rows, ks), batch_size=32), axis=0
            )
        )(sample, keys)
        return {"mean": jnp.mean(latent, 0), "std": jnp.maximum(jnp.std(latent, 0), 1e-8), "sensitivity": estimate}

    def _quantise(self, index: int, lambda_: float) -> Stage:
        c = self.config

        def start(key, params, source):
            params = jax.tree.map(jnp.asarray, params)
            statistics = params["latent_statistics"]
            if index == 0:
                bottleneck = uniform_start(c, lambda_, statistics, key)
            else:
                neighbour = params["points"][str(index - 1)]
                finer = 0.5 * np.log(lambda_ / c.quantiser.lambdas[index - 1])
                bottleneck = {
                    "analysis": {**neighbour["analysis"], "log_gain": neighbour["analysis"]["log_gain"] + finer},
                    "synthesis": {**neighbour["synthesis"], "log_gain": neighbour["synthesis"]["log_gain"] - finer},
                }
            prior = jax.jit(lambda b, rows, k: fit_prior(c, b, statistics, rows, k))(
                bottleneck, jnp.asarray(source.arrays["latent"][:2048]), key
            )
            return {**bottleneck, "prior": prior}

        def loss(rounding):
            return lambda bottleneck, frozen, example, key: quantisation_loss(
                c, lambda_, rounding, bottleneck, frozen, example, key
            )

        def finish(params, bottleneck):
            cdf = factorized_prior.host_cumulative(bottleneck["prior"])
            far = np.full(c.field.latent_dim, 2**20, np.int64)
            point = {**bottleneck, "tables": tables_from_cdf(cdf, -far, far).to_arrays(), "lambda": np.float32(lambda_)}
            return {**params, "points": {**params["points"], str(index): point}}

        return Stage(
            name=f"quantise_{index}",
            training=c.quantiser.training,
            examples=None,
            init=start,
            frozen=lambda params: {name: params[name] for name in ("shared", "latent_statistics")},
            loss=loss(rounding=False),
            finish=finish,
            evaluate=loss(rounding=True),
        )

    def num_points(self, params: Params) -> int:
        return len(params["points"])

    def encode(
        self,
        params: Params,
        signals: Sequence[Signal],
        point: int,
        *,
        effort: int = 0,
        key: jax.Array | None = None,
        workdir: str | None = None,
    ) -> list[Code]:
        """Codes of signals. ValueError for an effort other than 0, the meta-learned encoder."""
        del key, workdir
        if effort != 0:
            raise ValueError(f"vc_inr encodes with effort 0 only, not {effort}")
        c = self.config
        values = np.concatenate([s.values for s in signals])
        weight = np.concatenate([np.ones(s.values.shape[:2], np.float32) if s.weight is None else s.weight for s in signals])
        chosen = {name: params["points"][str(point)][name] for name in ("analysis", "synthesis")}
        shared = {name: params[name] for name in ("shared", "latent_init", "step_sizes", "latent_statistics")}
        symbols = map_batches(_encode_row, c, {**shared, **chosen}, (values, weight), c.encode_batch)
        ends = np.cumsum([s.grid.num_patches for s in signals])[:-1]
        return [Code({"latent": part.ravel()}) for part in np.split(symbols, ends)]

    def symbol_model(self, params: Params, point: int, grid: Grid, meta: Any, decoded: Any, name: str) -> Table:
        """A table a latent dimension, patch after patch."""
        del meta, decoded, name
        tables = params["points"][str(point)]["tables"]
        return Table(tables, np.tile(np.arange(tables.num_tables, dtype=np.int32), grid.num_patches))

    def decoder_config(self) -> dict[str, Any]:
        """What decoding needs besides arrays: the field, and the shape of the synthesis transform."""
        q = self.config.quantiser
        return {"field": dataclasses.asdict(self.config.field), "synthesis": [q.width, q.depth]}

    def decoder_arrays(self, params: Params, point: int) -> dict[str, np.ndarray]:
        chosen = params["points"][str(point)]
        tree = {
            "shared": params["shared"],
            "mean": params["latent_statistics"]["mean"],
            "std": params["latent_statistics"]["std"],
            "synthesis": chosen["synthesis"],
            "tables": chosen["tables"].to_arrays(),
        }
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}

    def synthesise(self, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> list[np.ndarray]:
        """Decoded values, float32 [p, n, c]."""
        c = self.config
        symbols = np.concatenate([code.streams["latent"].reshape(-1, c.field.latent_dim) for code in codes])
        shared = {name: params[name] for name in ("shared", "latent_statistics")}
        shared["synthesis"] = params["points"][str(point)]["synthesis"]
        values = map_batches(_decode_row, c, shared, (symbols,), c.encode_batch)
        return np.split(values, np.cumsum([grid.num_patches for grid in grids])[:-1])


def _adapt_row(config: VCINRConfig, trained: Any, values: jax.Array) -> jax.Array:
    return adapt_latent(config, trained, values)


def _encode_row(config: VCINRConfig, trained: Any, values: jax.Array, weight: jax.Array) -> jax.Array:
    latent = adapt_latent(config, trained, values, weight)
    return quantisers.hard(analyse(config, trained, trained["latent_statistics"], latent)).astype(jnp.int32)


def _decode_row(config: VCINRConfig, trained: Any, symbols: jax.Array) -> jax.Array:
    latent = synthesise_latent(config, trained, trained["latent_statistics"], symbols.astype(jnp.float32))
    coords = jnp.asarray(pixel_grid(config.patch))
    return make_field(config.field).apply({"params": trained["shared"]}, coords, latent)

"""VC-INR: low-rank gates from a latent, meta-learned, then variationally compressed (Schwarz et al. 2023).

Algorithm 1, meta-training, is the stage ``meta``; algorithm 2, quantisation, is the stages ``latents`` (the training set's
latents, made once) and ``quantise_0``, ``quantise_1``, … (one operating point each).
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
from jaxtyping import Array, Float

from vcinr.adaptation.meta_sgd import HIGH, LOW, StepSizes, adapt, init_step_sizes, largest_curvature
from vcinr.adaptation.objective import chunked_mean_squared_error
from vcinr.codecs import bottleneck, warm_start
from vcinr.codecs.batching import map_batches, whole_symbols
from vcinr.codecs.bottleneck import QuantiserConfig
from vcinr.codecs.codec import Code, ExampleSource, Params, Stage, TrainingConfig
from vcinr.codecs.examples import NormalisedSource, modality_of, normalise_batch
from vcinr.codecs.warm_start import WarmStartConfig
from vcinr.entropy import factorized_prior, quantisers
from vcinr.entropy.range_coder import Table
from vcinr.fields.field import FieldConfig, evaluate, make_field
from vcinr.signals.grids import pixel_grid
from vcinr.signals.signal import Grid, Signal
from vcinr.signals.sources import ArraySource


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """num_steps: of the inner loop, in training and encoding.  chunk: coordinates at once, 0 for all.
    first_order: drop second derivatives (an ablation).  initial_step: first step sizes in multiples of 1/λ_max."""

    num_steps: int = 3
    chunk: int = 0
    first_order: bool = False
    initial_step: float = 0.5

    def __post_init__(self):
        if self.num_steps < 1 or self.chunk < 0:
            raise ValueError(f"adaptation needs num_steps >= 1 and chunk >= 0, not {self.num_steps} and {self.chunk}")
        if not LOW <= self.initial_step <= HIGH:
            raise ValueError(f"adaptation.initial_step must lie in [{LOW:g}, {HIGH:g}], not {self.initial_step:g}")


@dataclasses.dataclass(frozen=True)
class VCINRConfig:
    """Everything that makes a VC-INR: the field and its gates, the inner loop, all training stages.

    With ``warm_start`` the rate of ``meta`` is relative: a step changes each array by about that share of its size.
    """

    patch: tuple[int, ...] = (32, 32)
    modality: str = "picture"
    field: FieldConfig = FieldConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    warm_start: WarmStartConfig = WarmStartConfig()
    meta: TrainingConfig = TrainingConfig(num_steps=2000, batch_size=16, lr=1e-3)
    quantiser: QuantiserConfig = QuantiserConfig()
    encode_batch: int = 32

    def __post_init__(self):
        if self.warm_start.enabled and not self.field.linear_head:
            raise ValueError("a warm start needs the field's linear_head")
        row = modality_of(self.modality, self.patch)
        for key in ("coord_dim", "channels"):
            if getattr(self.field, key) != getattr(row, key):
                raise ValueError(f"field.{key} is {getattr(self.field, key)}, but a {row.name} has {getattr(row, key)}")


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
    """The latent of one patch: ``num_steps`` of Meta-SGD from the learned start (algorithm 1, line 5).

    The inner loss is the error's sum over what is inside, divided by the samples of the whole patch: so its curvature is at most
    that of a whole patch, and step sizes that suit whole patches stay stable where only a few samples are inside.
    """
    a = config.adaptation
    inside = 1.0 if weight is None else jnp.mean(weight)
    latent, _ = adapt(
        lambda phi: inside * signal_loss(config, trained["shared"], phi, values, weight),
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


def field_values(config: VCINRConfig, shared: Any, latent: Float[Array, " k"]) -> Float[Array, "n c"]:
    """The field on the patch's own grid."""
    return make_field(config.field).apply({"params": shared}, jnp.asarray(pixel_grid(config.patch)), latent)


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
            lr_multipliers=self._relative_rates if c.warm_start.enabled else None,
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
        return (
            *self._warm_start(),
            meta,
            latents,
            *(self._quantise(i, lambda_) for i, lambda_ in enumerate(c.quantiser.lambdas)),
        )

    def _warm_start(self) -> tuple[Stage, ...]:
        c, w = self.config, self.config.warm_start
        if not w.enabled:
            return ()
        coords = jnp.asarray(pixel_grid(c.patch))
        trunk = [f"{kind}_{i}" for kind in ("kernel", "bias") for i in range(c.field.num_layers)]

        def patches_of(params, patches):
            raw = patches.all_patches(np.random.default_rng(0), w.offsets_per_picture, w.num_patches)
            return ArraySource({"values": normalise_batch(c.modality, raw)})

        components = Stage(
            name="components",
            training=TrainingConfig(num_steps=0),
            examples=patches_of,
            init=lambda key, params, source: warm_start.components(source.arrays["values"], c.field.latent_dim),
            frozen=lambda params: {},
            loss=None,
            finish=lambda params, found: {**params, "components": found},
        )
        fit = Stage(
            name="warm_start",
            training=w.training,
            examples=lambda params, patches: warm_start.SketchSource(params["components"], w.sketches),
            init=lambda key, params, source: {name: params["shared"][name] for name in trunk},
            frozen=lambda params: {},
            loss=lambda trained, frozen, example, key: warm_start.projection_loss(c.field, trained, coords, example["sketch"]),
            finish=lambda params, trained: {
                **{name: value for name, value in params.items() if name != "components"},
                "shared": warm_start.started(c.field, {**params["shared"], **trained}, params["components"], coords),
            },
            lr_multipliers=warm_start.lr_multipliers,
        )
        return components, fit

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

    def _relative_rates(self, trained: Mapping[str, Any]) -> Any:
        """Relative rates for θ; step sizes are logarithms, whose changes are relative already, and so keep the rate itself."""
        rates = warm_start.lr_multipliers(trained)
        return {**rates, "step_sizes": {"log_scale": 1.0, "reference": 0.0}}

    def _latents(self, params: Params, patches: ExampleSource) -> ArraySource:
        c = self.config
        raw = patches.all_patches(np.random.default_rng(0), c.quantiser.offsets_per_picture, c.quantiser.num_latents)
        values = normalise_batch(c.modality, raw)
        trained = {name: params[name] for name in ("shared", "latent_init", "step_sizes")}
        latent = map_batches(_adapt_row, c, trained, (values,), c.encode_batch)
        return ArraySource({"values": values, "latent": latent})

    def _latent_statistics(self, key: jax.Array, params: Params, source: ArraySource) -> dict[str, Any]:
        params = jax.tree.map(jnp.asarray, params)
        latents = jnp.asarray(source.arrays["latent"])
        sample = latents[:: max(1, len(latents) // 1024)]

        def sensitivity(row):
            return bottleneck.signal_sensitivity(lambda phi: field_values(self.config, params["shared"], phi), *row)

        estimate = jax.jit(lambda *rows: jnp.mean(jax.lax.map(sensitivity, rows, batch_size=32), axis=0))
        return bottleneck.latent_statistics(latents, estimate(sample, jax.random.split(key, len(sample))))

    def _quantise(self, index: int, lambda_: float) -> Stage:
        c, q = self.config, self.config.quantiser
        num_values = math.prod(c.patch) * c.field.channels

        def start(key, params, source):
            params = jax.tree.map(jnp.asarray, params)
            statistics = params["latent_statistics"]
            if index == 0:
                transforms = bottleneck.uniform_start(q, lambda_, statistics, num_values, key)
            else:
                transforms = bottleneck.finer_start(params["points"][str(index - 1)], lambda_ / q.lambdas[index - 1])
            fit_prior = jax.jit(lambda rows: bottleneck.fit_prior(q, transforms, statistics, rows, key))
            return {**transforms, "prior": fit_prior(jnp.asarray(source.arrays["latent"][:2048]))}

        def loss(rounding, trained, frozen, example, key):
            return bottleneck.rate_distortion(
                q,
                trained,
                frozen["latent_statistics"],
                example["latent"],
                key,
                lambda_=lambda_,
                rounding=rounding,
                distortion=lambda phi: signal_loss(c, frozen["shared"], phi, example["values"]),
                num_values=num_values,
            )

        def finish(params, trained):
            tables = bottleneck.integer_tables(trained["prior"]).to_arrays()
            point = {**trained, "tables": tables, "lambda": np.float32(lambda_)}
            return {**params, "points": {**params["points"], str(index): point}}

        return Stage(
            name=f"quantise_{index}",
            training=q.training,
            examples=None,
            init=start,
            frozen=lambda params: {name: params[name] for name in ("shared", "latent_statistics")},
            loss=partial(loss, False),
            finish=finish,
            evaluate=partial(loss, True),
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
        """Codes of signals. ValueError for an effort other than 0, the meta-learned encoder, and where adaptation diverges."""
        del key, workdir
        if effort != 0:
            raise ValueError(f"vc_inr encodes with effort 0 only, not {effort}")
        c = self.config
        values = np.concatenate([s.values for s in signals])
        weight = np.concatenate([np.ones(s.values.shape[:2], np.float32) if s.weight is None else s.weight for s in signals])
        chosen = {name: params["points"][str(point)][name] for name in ("analysis", "synthesis")}
        shared = {name: params[name] for name in ("shared", "latent_init", "step_sizes", "latent_statistics")}
        symbols = whole_symbols(map_batches(_encode_row, c, {**shared, **chosen}, (values, weight), c.encode_batch))
        ends = np.cumsum([s.grid.num_patches for s in signals])[:-1]
        return [Code({"latent": part.ravel()}) for part in np.split(symbols, ends)]

    def symbol_model(self, params: Params, point: int, grid: Grid, meta: Any, decoded: Any, name: str) -> Table:
        """A table a latent dimension, patch after patch."""
        del meta, decoded, name
        tables = params["points"][str(point)]["tables"]
        return Table(tables, np.tile(np.arange(tables.num_tables, dtype=np.int32), grid.num_patches))

    def modelled_bits(self, params: Params, point: int, codes: Sequence[Code]) -> list[float]:
        """What the float prior says of each signal's symbols; the tables' `estimated_bits` should be close."""
        symbols = [code.streams["latent"].reshape(-1, self.config.field.latent_dim) for code in codes]
        bits = map_batches(_prior_row, self.config, params["points"][str(point)]["prior"], (np.concatenate(symbols),), 256)
        return [float(part.sum()) for part in np.split(bits, np.cumsum([len(part) for part in symbols])[:-1])]

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
    z = bottleneck.analyse(config.quantiser, trained, trained["latent_statistics"], latent)
    return quantisers.hard(z)


def _prior_row(config: VCINRConfig, prior: Any, symbols: jax.Array) -> jax.Array:
    del config
    return jnp.sum(factorized_prior.bin_bits(prior, symbols.astype(jnp.float32)))


def _decode_row(config: VCINRConfig, trained: Any, symbols: jax.Array) -> jax.Array:
    z = symbols.astype(jnp.float32)
    latent = bottleneck.synthesise(config.quantiser, trained, trained["latent_statistics"], z)
    return field_values(config, trained["shared"], latent)

"""MSCN: meta-learned fields that adapt few of their numbers, which gates choose (Schwarz and Teh 2022).

Unstructured: one gate a weight, δθ = −β Σ z ⊙ ∇ (equation 9). Structured: one gate a shift, f(W h + b + z ⊙ m) (equation 10).
Stages: ``gates``, where one z is drawn for each adaptation, the loss is the MSE after it plus λ times the expected open
fraction (equation 8), and θ, step sizes and log α are trained together while λ is driven until the fraction is the target;
``pattern``, in closed form, which opens the gates of largest log α, as many as the target pays for, and closes all others;
``meta``, which goes on without noise; then those of the compression. So ẑ is 0 or 1, and belongs to the model; a file holds
ẑ ⊙ δ or ẑ ⊙ m at the open entries.
With ``adapt_gates`` the inner loop moves log α as well: every signal has a pattern of its own, which its file holds too, a bit a
gate, and ``gates`` is the only stage of the field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.adaptation.meta_learning import AdaptationConfig, draw, lr_multipliers, signal_loss, stop_fixed_gradients
from vcinr.codec import QUICKEST, Code, EncodeRequest
from vcinr.codecs.latent_codec import LatentCodec, LatentCodecConfig, kept_entries, whole_latent
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.compression.uniform import UniformConfig
from vcinr.entropy.range_coder import Table
from vcinr.fields.field import FieldConfig, make_field
from vcinr.modalities.examples import NormalisedSource
from vcinr.signals.signal import Grid, Signal
from vcinr.sparsity import gating, hard_concrete, signal_patterns
from vcinr.sparsity.gating import PARTS, GateConfig
from vcinr.sparsity.signal_patterns import PatternUniform
from vcinr.stage import ClosedForm, ExampleSource, Params, Stage, TrainingConfig


@dataclasses.dataclass(frozen=True)
class MSCNConfig(LatentCodecConfig):
    """As `LatentCodecConfig`, and gates: what they are.  sparsify: training of the stage ``gates``."""

    compression: UniformConfig | BottleneckConfig = UniformConfig()
    field: FieldConfig = FieldConfig(modulation="weight_update", num_layers=4)
    adaptation: AdaptationConfig = AdaptationConfig(num_steps=2, learn_start=False, step_rate=10.0)
    gates: GateConfig = GateConfig()
    # Fewer open gates make a larger error, which is no collapse.
    sparsify: TrainingConfig = TrainingConfig(num_steps=2000, batch_size=16, lr=3e-4, collapse_db=0.0)
    meta: TrainingConfig = TrainingConfig(num_steps=1000, batch_size=16, lr=3e-4)

    def __post_init__(self):
        super().__post_init__()
        gating.check_field(self.field, self.gates.apply, self.gates.group)
        if self.gates.adapt_gates and self.compression.kind != "uniform":
            raise ValueError(f"adapt_gates needs compression to be uniform, not {self.compression.kind}")
        if self.adaptation.learn_start:
            raise ValueError("the entries of closed gates are 0 in every file: set adaptation.learn_start to False")


@dataclasses.dataclass(frozen=True)
class StructuredConfig(MSCNConfig):
    """As `MSCNConfig`, with shifts of a deeper field."""

    field: FieldConfig = FieldConfig(modulation="shifts", num_layers=8)
    adaptation: AdaptationConfig = AdaptationConfig(num_steps=3, learn_start=False, step_rate=10.0)
    gates: GateConfig = GateConfig(apply="modulation")


@dataclasses.dataclass(frozen=True)
class MSCN(LatentCodec):
    """Base of both forms; see `vcinr.codec.Codec`."""

    config: MSCNConfig = MSCNConfig()
    fitted = (*PARTS, "gates")

    @property
    def decoded(self) -> tuple[str, ...]:
        return ("shared", "gates") if self.config.gates.apply in ("weights", "activations") else ("shared",)

    @cached_property
    def index(self) -> np.ndarray:
        """`gating.gate_index` of the config."""
        return gating.gate_index(self.config.field, self.config.gates.apply, self.config.gates.group)

    @property
    def streams(self) -> tuple[str, ...]:
        return signal_patterns.STREAMS if self.config.gates.adapt_gates else ("latent",)

    @cached_property
    def compression(self) -> Any:
        return PatternUniform(self.config.compression) if self.config.gates.adapt_gates else super().compression

    def stages(self) -> tuple[AnyStage, ...]:
        """Those of the field, then those of the compression."""
        if not self.config.gates.adapt_gates:
            return super().stages()
        return (*self.field_stages(), *self.compression.stages_of(self, self.index[0]))

    def field_stages(self) -> tuple[AnyStage, ...]:
        """``gates``, ``pattern``, ``meta``; with ``adapt_gates`` the first of them alone."""
        c = self.config
        if c.gates.adapt_gates:
            return (self._gates(),)
        return self._gates(), self._pattern(), gating.sparse_meta_stage(c, c.gates, "meta", c.meta, restart=False)

    def _gates(self) -> Stage:
        c, g = self.config, self.config.gates

        def begin(key: jax.Array, params: Params, source: ExampleSource) -> dict[str, Any]:
            count = gating.num_gates(self.index)
            log_alpha = jnp.full(count, hard_concrete.log_alpha_of(jnp.asarray(g.start_open)))
            started = gating.start(c, g, jnp.ones(count), key, jax.tree.map(jnp.asarray, params), source)
            learned = {"log_alpha": log_alpha, "log_lambda": jnp.log(jnp.asarray(g.start_lambda))}
            if g.adapt_gates:
                learned["log_step"] = jnp.log(jnp.asarray(g.gate_step))
            return {**started, "gates": learned}

        def loss(trained: Any, frozen: Any, example: Mapping[str, jax.Array], key: jax.Array):
            noise, points = jax.random.split(key)
            error, log_alpha = self._error(stop_fixed_gradients(c, trained), example["values"], noise, points)
            log_lambda = trained["gates"]["log_lambda"]
            open_fraction = gating.expected_open(self.index, log_alpha)
            # A shared pattern is cut to the target by rank afterwards; a signal's own is what its deterministic gates open.
            paid = gating.open_fraction(self.index, log_alpha) if g.adapt_gates else open_fraction
            metrics = {"open": paid, "lambda": jnp.exp(log_lambda), "psnr_db": -10.0 * jnp.log10(error)}
            return error + gating.neutral_penalty(g, open_fraction, log_lambda, paid), metrics

        def evaluate(trained: Any, frozen: Any, example: Mapping[str, jax.Array], key: jax.Array):
            return gating.with_psnr(self._error(trained, example["values"], None, None)[0])

        def rates(trained: Any) -> dict[str, Any]:
            per_lr = {"log_alpha": g.gate_lr / c.sparsify.lr, "log_lambda": g.lambda_lr / c.sparsify.lr}
            if g.adapt_gates:
                per_lr["log_step"] = c.adaptation.step_rate
            return {**lr_multipliers(c, trained), "gates": per_lr}

        return Stage(
            name="gates",
            training=c.sparsify,
            examples=lambda params, patches: NormalisedSource(patches, c.modality),
            init=begin,
            frozen=lambda params: {},
            loss=loss,
            finish=lambda params, trained: {**params, **trained},
            evaluate=evaluate,
            lr_multipliers=rates,
        )

    def _error(
        self, trained: Any, values: jax.Array, noise: jax.Array | None, points: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """(MSE after adaptation, log α then): with gates of one draw, or deterministic ones; on random points, or on all."""
        c, g = self.config, self.config.gates
        if not g.adapt_gates:
            log_alpha = trained["gates"]["log_alpha"]
            z = hard_concrete.deterministic(log_alpha) if noise is None else hard_concrete.sample(noise, log_alpha)
            return gating.meta_error(c, g, trained, z, values, points), log_alpha
        (inner, inner_coords), (outer, outer_coords) = draw(c, values, points)
        latent, log_alpha = gating.adapt_with_gates(c, g, trained, trained["gates"], inner, coords=inner_coords, noise=noise)
        return signal_loss(c, trained["shared"], latent, outer, None, outer_coords), log_alpha

    def _pattern(self) -> ClosedForm:
        def solve(key: jax.Array, params: Params, source: Any, workplace: Any) -> Params:
            gates, entries = gating.pattern(self.index, np.asarray(params["gates"]["log_alpha"]), self.config.gates.target)
            return {**params, "gates": gates, "coded": entries}

        return ClosedForm("pattern", examples=None, solve=solve)

    def adapt(self, params: Params, values: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        """ẑ ⊙ δ or ẑ ⊙ m at the open entries [m]; with ``adapt_gates`` at all entries [k], 0 where they are closed."""
        c, steps = self.config, self.config.adaptation.encode_steps
        if c.gates.adapt_gates:
            return gating.adapt_with_gates(c, c.gates, params, params["gates"], values, weight, num_steps=steps)[0]
        z = jnp.asarray(params["gates"], values.dtype)
        return kept_entries(params, gating.adapt_gated(c, c.gates, params, z, values, weight, num_steps=steps))

    def decoder_config(self) -> dict[str, Any]:
        """As every latent codec's, and what its gates are."""
        g = self.config.gates
        return {**super().decoder_config(), "gates": [g.apply, g.group, g.adapt_gates]}

    def decoder_arrays(self, params: Params, point: int) -> dict[str, np.ndarray]:
        arrays = super().decoder_arrays(params, point)
        return {**arrays, "gate_table": params["points"][str(point)]["gate_table"]} if self.config.gates.adapt_gates else arrays

    def layers(self, params: Params, latent: jax.Array) -> Any:
        c = self.config
        phi = whole_latent(params, latent, c.field.latent_size())
        if "gates" not in self.decoded:
            return make_field(c.field).apply({"params": params["shared"]}, phi, method="layers")
        return gating.gated_layers(c.field, c.gates, self.index, params["shared"], phi, jnp.asarray(params["gates"], phi.dtype))

    def encode(
        self, params: Params, signals: Sequence[Signal], point: int, request: EncodeRequest = QUICKEST
    ) -> list[Code]:
        """As every latent codec's; with ``adapt_gates`` a pattern a patch, and the symbols of its open entries."""
        if not self.config.gates.adapt_gates:
            return super().encode(params, signals, point, request)
        self.check_effort(request.effort)
        return signal_patterns.encode(self, self.index[0], params, signals, point)

    def symbol_model(self, params: Params, point: int, grid: Grid, meta: Any, decoded: Any, name: str) -> Table:
        """As every latent codec's; with ``adapt_gates`` first the gates' tables, then as many symbols as they open."""
        if not self.config.gates.adapt_gates:
            return super().symbol_model(params, point, grid, meta, decoded, name)
        return signal_patterns.symbol_model(self.index[0], params, point, grid, decoded, name)

    def synthesise(self, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> list[np.ndarray]:
        """Decoded values, float32 [p, n, c]."""
        if not self.config.gates.adapt_gates:
            return super().synthesise(params, point, codes, grids)
        return signal_patterns.synthesise(self, self.index[0], params, point, codes, grids)


@dataclasses.dataclass(frozen=True)
class MSCNUnstructured(MSCN):
    """Sparse updates of all weights."""

    name = "mscn_unstructured"


@dataclasses.dataclass(frozen=True)
class MSCNStructured(MSCN):
    """Sparse shifts."""

    config: StructuredConfig = StructuredConfig()
    name = "mscn_structured"

"""MSCN: meta-learned fields that adapt few of their numbers, which gates choose (Schwarz and Teh 2022).

Unstructured: one gate per weight, δθ = −β Σ z ⊙ ∇ (equation 9). Structured: one gate per shift, f(W h + b + z ⊙ m) (equation 10).

Stages of both:

* ``gates``: one z is drawn for each adaptation; the loss is the MSE after it plus λ times the expected fraction of open entries
  (equation 8). θ, step sizes and log α are trained together, while λ is driven until the fraction is the target.
* ``pattern``, in closed form: the gates of largest log α open, as many as the target pays for, and all others close.
* ``meta``: meta-learning goes on under that pattern, without noise.
* those of the compression.

So ẑ is 0 or 1 and belongs to the model; a file holds ẑ ⊙ δ or ẑ ⊙ m at the open entries.

Per signal: the inner loop moves log α as well (equations 7 and 8). Every patch has a pattern of its own, which its file holds
too, one bit per gate; ``gates`` is the only stage of the field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.adaptation.meta_learning import AdaptationConfig, draw, lr_multipliers, signal_loss, stop_fixed_gradients
from vcinr.codecs.latent_codec import LatentCodec, LatentCodecConfig, kept_entries, whole_latent
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.compression.uniform import UniformConfig
from vcinr.fields.field import FieldConfig, make_field
from vcinr.modalities.examples import NormalisedSource
from vcinr.sparsity import gates, hard_concrete
from vcinr.sparsity.gate_training import PARTS, meta_error, neutral_penalty, sparse_meta_stage, start, with_psnr
from vcinr.sparsity.gates import GateConfig, Gates
from vcinr.sparsity.gating import adapt_gated, adapt_with_gates, gated_layers
from vcinr.sparsity.signal_patterns import PatternUniform
from vcinr.stage import AnyStage, ClosedForm, ExampleSource, Params, Stage, TrainingConfig


@dataclasses.dataclass(frozen=True)
class MSCNConfig(LatentCodecConfig):
    """Config of unstructured MSCN: as `LatentCodecConfig`, and

    gates: where they act, and the fraction of entries that files pay for.
    sparsify: training of the stage ``gates``.
    meta: training of the stage ``meta``.
    """

    compression: UniformConfig | BottleneckConfig = UniformConfig()
    field: FieldConfig = FieldConfig(modulation="weight_update", num_layers=4)
    adaptation: AdaptationConfig = AdaptationConfig(num_steps=2, learn_start=False, step_rate=10.0)
    gates: GateConfig = GateConfig()
    # Fewer open gates make a larger error, which is no collapse.
    sparsify: TrainingConfig = TrainingConfig(num_steps=2000, batch_size=16, lr=3e-4, collapse_db=0.0)
    meta: TrainingConfig = TrainingConfig(num_steps=1000, batch_size=16, lr=3e-4)

    def __post_init__(self):
        super().__post_init__()
        gates.check_field(self.field, self.gates.apply, self.gates.group)
        if self.adaptation.learn_start:
            raise ValueError("the entries of closed gates are 0 in every file: set adaptation.learn_start to False")


@dataclasses.dataclass(frozen=True)
class StructuredConfig(MSCNConfig):
    """Config of structured MSCN: as `MSCNConfig`, with shifts of a deeper field."""

    field: FieldConfig = FieldConfig(modulation="shifts", num_layers=8)
    adaptation: AdaptationConfig = AdaptationConfig(num_steps=3, learn_start=False, step_rate=10.0)
    gates: GateConfig = GateConfig(apply="modulation")


@dataclasses.dataclass(frozen=True)
class PerSignalConfig(StructuredConfig):
    """Config of MSCN with patterns of each signal's own: as `StructuredConfig`, without a stage ``meta``, and

    gates: on the modulation or on the update.
    compression: of kind uniform; all open entries share one histogram.
    gate_step: first step size of log α in the inner loop, per unit of the loss summed over entries; positive. It is learned
        where those of the latent are.
    """

    gate_step: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        if self.gates.apply not in ("update", "modulation"):
            raise ValueError(f"mscn_per_signal needs gates.apply to be update or modulation, not {self.gates.apply}")
        if self.compression.kind != "uniform":
            raise ValueError(f"mscn_per_signal needs compression.kind to be uniform, not {self.compression.kind}")
        if not self.gate_step > 0.0:
            raise ValueError(f"gate_step must be positive, not {self.gate_step}")


@dataclasses.dataclass(frozen=True)
class MSCN(LatentCodec):
    """Base of all forms, with one pattern that all signals share; see `vcinr.codec.Codec`."""

    config: MSCNConfig = MSCNConfig()
    fitted = (*PARTS, "gates")

    @property
    def decoded(self) -> tuple[str, ...]:
        return ("shared", "gates") if self.config.gates.apply in ("weights", "activations") else ("shared",)

    @cached_property
    def index(self) -> np.ndarray:
        """The gates that govern each entry, [r, k]; see `vcinr.sparsity.gates.gate_index`."""
        return gates.gate_index(self.config.field, self.config.gates.apply, self.config.gates.group)

    def field_stages(self) -> tuple[AnyStage, ...]:
        """``gates``, ``pattern``, ``meta``."""
        c = self.config
        return self.gates_stage(), self.pattern_stage(), sparse_meta_stage(c, c.gates, "meta", c.meta, restart=False)

    def gates_stage(self) -> Stage:
        """θ, step sizes and gates are trained together, under noise, until λ has brought the gates to the target."""
        c = self.config

        def begin(key: jax.Array, params: Params, source: ExampleSource) -> dict[str, Any]:
            every = jnp.ones(gates.num_gates(self.index))
            started = start(c, c.gates, every, key, jax.tree.map(jnp.asarray, params), source)
            return {**started, "gates": self.first_gates()}

        def loss(trained: Any, frozen: Any, example: Mapping[str, jax.Array], key: jax.Array):
            noise, samples = jax.random.split(key)
            error, log_alpha = self.gated_error(stop_fixed_gradients(c, trained), example["values"], noise, samples)
            log_lambda = trained["gates"]["log_lambda"]
            open_fraction, paid = gates.expected_open(self.index, log_alpha), self.paid_fraction(log_alpha)
            metrics = {"open": paid, "lambda": jnp.exp(log_lambda), "psnr_db": -10.0 * jnp.log10(error)}
            return error + neutral_penalty(c.gates, open_fraction, log_lambda, paid), metrics

        def evaluate(trained: Any, frozen: Any, example: Mapping[str, jax.Array], key: jax.Array):
            return with_psnr(self.gated_error(trained, example["values"], None, None)[0])

        return Stage(
            name="gates",
            training=c.sparsify,
            examples=lambda params, patches: NormalisedSource(patches, c.modality),
            init=begin,
            frozen=lambda params: {},
            loss=loss,
            finish=lambda params, trained: {**params, **trained},
            evaluate=evaluate,
            lr_multipliers=lambda trained: {**lr_multipliers(c, trained), "gates": self.gate_rates()},
        )

    def first_gates(self) -> dict[str, jax.Array]:
        """What is trained of the gates, where training starts."""
        g = self.config.gates
        log_alpha = jnp.full(gates.num_gates(self.index), hard_concrete.log_alpha_of(jnp.asarray(g.start_open)))
        return {"log_alpha": log_alpha, "log_lambda": jnp.log(jnp.asarray(g.start_lambda))}

    def gate_rates(self) -> dict[str, float]:
        """Outer step sizes of `first_gates`, in multiples of that of θ."""
        c = self.config
        return {"log_alpha": c.gates.gate_lr / c.sparsify.lr, "log_lambda": c.gates.lambda_lr / c.sparsify.lr}

    def gated_error(
        self, trained: Any, values: jax.Array, noise: jax.Array | None, samples: jax.Array | None
    ) -> tuple[jax.Array, Gates]:
        """(MSE of one patch after adaptation, log α then).

        noise: key of one draw of z; None: deterministic gates.   samples: key of random samples; None: all of them.
        """
        log_alpha = trained["gates"]["log_alpha"]
        z = hard_concrete.deterministic(log_alpha) if noise is None else hard_concrete.sample(noise, log_alpha)
        return meta_error(self.config, self.config.gates, trained, z, values, samples), log_alpha

    def paid_fraction(self, log_alpha: Gates) -> jax.Array:
        """Fraction of entries that λ brings to the target: the expected one, as the pattern is cut to the target by rank."""
        return gates.expected_open(self.index, log_alpha)

    def pattern_stage(self) -> ClosedForm:
        """The gates of largest log α open, as many as the target pays for."""

        def solve(key: jax.Array, params: Params, source: Any, workplace: Any) -> Params:
            log_alpha = np.asarray(params["gates"]["log_alpha"])
            opened, entries = gates.pattern(self.index, log_alpha, self.config.gates.target)
            return {**params, "gates": opened, "coded": entries}

        return ClosedForm("pattern", examples=None, solve=solve)

    def adapt(self, params: Params, values: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        """ẑ ⊙ δ or ẑ ⊙ m at the open entries, [m]."""
        c, z = self.config, jnp.asarray(params["gates"], values.dtype)
        latent = adapt_gated(c, c.gates, params, z, values, weight, num_steps=c.adaptation.encode_steps)
        return kept_entries(params, latent)

    def layers(self, params: Params, latent: jax.Array) -> Any:
        c = self.config
        phi = whole_latent(params, latent, c.field.latent_size())
        if "gates" not in self.decoded:
            return make_field(c.field).apply({"params": params["shared"]}, phi, method="layers")
        return gated_layers(c.field, c.gates, self.index, params["shared"], phi, jnp.asarray(params["gates"], phi.dtype))

    def decoder_config(self) -> dict[str, Any]:
        """As every latent codec's, and what its gates are."""
        g = self.config.gates
        # The last entry stood for patterns of a signal's own, and stays for the sake of older fingerprints.
        return {**super().decoder_config(), "gates": [g.apply, g.group, False]}


@dataclasses.dataclass(frozen=True)
class MSCNUnstructured(MSCN):
    """Sparse updates of all weights."""

    name = "mscn_unstructured"


@dataclasses.dataclass(frozen=True)
class MSCNStructured(MSCN):
    """Sparse shifts."""

    config: StructuredConfig = StructuredConfig()
    name = "mscn_structured"


@dataclasses.dataclass(frozen=True)
class MSCNPerSignal(MSCN):
    """Sparse shifts or updates whose pattern is each signal's own: the inner loop moves log α too, and files hold the pattern."""

    config: PerSignalConfig = PerSignalConfig()
    name = "mscn_per_signal"

    @cached_property
    def compression(self) -> PatternUniform:
        """b bits per open entry, one bit or less per gate."""
        return PatternUniform(self.config.compression, self.index[0])

    def field_stages(self) -> tuple[Stage, ...]:
        """``gates``."""
        return (self.gates_stage(),)

    def first_gates(self) -> dict[str, jax.Array]:
        """As for shared patterns, and log α's step size in the inner loop."""
        return {**super().first_gates(), "log_step": jnp.log(jnp.asarray(self.config.gate_step))}

    def gate_rates(self) -> dict[str, float]:
        """As for shared patterns; log α's step size goes with those of the latent."""
        return {**super().gate_rates(), "log_step": self.config.adaptation.step_rate}

    def gated_error(
        self, trained: Any, values: jax.Array, noise: jax.Array | None, samples: jax.Array | None
    ) -> tuple[jax.Array, Gates]:
        """(MSE of one patch after adaptation, its own log α); arguments as for shared patterns."""
        c = self.config
        (inner, inner_coords), (outer, outer_coords) = draw(c, values, samples)
        latent, log_alpha = adapt_with_gates(c, c.gates, trained, trained["gates"], inner, coords=inner_coords, noise=noise)
        return signal_loss(c, trained["shared"], latent, outer, None, outer_coords), log_alpha

    def paid_fraction(self, log_alpha: Gates) -> jax.Array:
        """What deterministic gates open, since files hold just that."""
        return gates.open_fraction(self.index, log_alpha)

    def adapt(self, params: Params, values: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        """z ⊙ d, [k]; 0 at closed entries."""
        c, steps = self.config, self.config.adaptation.encode_steps
        return adapt_with_gates(c, c.gates, params, params["gates"], values, weight, num_steps=steps)[0]

    def decoder_config(self) -> dict[str, Any]:
        """As for shared patterns, with what tells the two apart."""
        return {**super().decoder_config(), "gates": [self.config.gates.apply, self.config.gates.group, True]}

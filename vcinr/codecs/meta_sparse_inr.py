"""MetaSparseINR: meta-learned weights, pruned by magnitude and meta-learned again, round after round (Lee et al. 2021).

Stages: ``meta``, MAML on all weights θ₀ (two inner steps in the paper). Then for r = 1, 2, …: ``prune_r``, in closed form,
keeps the same fraction of the remaining kernel weights each round (four fifths in the paper, in 20 rounds), those with the
largest |θ₀|; ``retrain_r`` is MAML under the mask. Then the stages of the compression. Biases are neither pruned nor counted,
as in the authors' code: a SIREN's initial biases are larger than its hidden kernels, so pruning by magnitude would keep only
biases. Pruned weights are 0 in every signal: the mask belongs to the model, and a file holds w − θ₀ of the surviving weights.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.adaptation.meta_learning import AdaptationConfig
from vcinr.codecs.latent_codec import LatentCodec, LatentCodecConfig, kept_entries, whole_latent
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.compression.uniform import UniformConfig
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig
from vcinr.sparsity.gate_training import PARTS, sparse_meta_stage
from vcinr.sparsity.gates import GateConfig, check_field, gate_index
from vcinr.sparsity.gating import adapt_gated, gated_layers
from vcinr.sparsity.pruning import geometric_schedule, magnitude_mask
from vcinr.stage import AnyStage, ClosedForm, Params, TrainingConfig

MASKED = GateConfig(apply="weights", group="entry")
"""The pruning mask as gates on all weights; the other keys of this config are not used."""


@dataclasses.dataclass(frozen=True)
class MetaSparseINRConfig(LatentCodecConfig):
    """Config of `MetaSparseINR`: as `LatentCodecConfig`, with three more keys.

    target: fraction of the kernel weights that survive the last round; 0 to 1. Files hold these and all biases.
    rounds: number of pruning rounds, at least 1.
    retrain: training after each round.
    """

    compression: UniformConfig | BottleneckConfig = UniformConfig()
    field: FieldConfig = FieldConfig(modulation="weight_update", num_layers=4)
    adaptation: AdaptationConfig = AdaptationConfig(num_steps=2, step_sizes="fixed", learn_start=False)
    target: float = 0.1
    rounds: int = 10
    retrain: TrainingConfig = TrainingConfig(num_steps=200, batch_size=16, lr=3e-4, warmup_steps=10)

    def __post_init__(self):
        super().__post_init__()
        check_field(self.field, MASKED.apply, MASKED.group)
        if self.adaptation.learn_start:
            raise ValueError("weights that are pruned are 0 in every file: set adaptation.learn_start to False")
        self.survivors()

    def survivors(self) -> tuple[int, ...]:
        """Number of kernel weights left after each round. ValueError where ``target`` leaves none."""
        kernels = sum(fan_in * fan_out for fan_in, fan_out in self.field.sizes())
        return geometric_schedule(kernels, round(self.target * kernels), self.rounds)


@dataclasses.dataclass(frozen=True)
class MetaSparseINR(LatentCodec):
    """The codec; see `vcinr.codec.Codec`."""

    config: MetaSparseINRConfig = MetaSparseINRConfig()
    name = "meta_sparse_inr"
    fitted = (*PARTS, "gates")
    decoded = ("shared", "gates")

    def init(self, key: jax.Array) -> Params:
        """As of every latent codec, with a mask that keeps all weights."""
        return {**super().init(key), "gates": np.ones(self.config.field.latent_size(), np.int32)}

    def field_stages(self) -> tuple[AnyStage, ...]:
        c = self.config
        stages = [sparse_meta_stage(c, MASKED, "meta", c.meta, restart=True)]
        for number, keep in enumerate(c.survivors(), start=1):
            retrain = sparse_meta_stage(c, MASKED, f"retrain_{number}", c.retrain, restart=False)
            stages += [self._prune(number, keep), retrain]
        return tuple(stages)

    def _prune(self, number: int, keep: int) -> ClosedForm:
        sizes = self.config.field.sizes()
        kernels = np.concatenate([np.arange((fan_in + 1) * fan_out) < fan_in * fan_out for fan_in, fan_out in sizes])

        def solve(key: jax.Array, params: Params, source: Any, workplace: Any) -> Params:
            shared = params["shared"]
            weights = np.asarray(siren.flatten([(shared[f"kernel_{i}"], shared[f"bias_{i}"]) for i in range(len(sizes))]))
            kept = magnitude_mask(weights, (params["gates"] > 0) & kernels, keep) | ~kernels
            return {**params, "gates": kept.astype(np.int32), "coded": np.flatnonzero(kept).astype(np.int32)}

        return ClosedForm(f"prune_{number}", examples=None, solve=solve)

    def adapt(self, params: Params, values: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        """w − θ₀ of the surviving weights, [m]."""
        c = self.config
        z = jnp.asarray(params["gates"], values.dtype)
        return kept_entries(params, adapt_gated(c, MASKED, params, z, values, weight, num_steps=c.adaptation.encode_steps))

    def layers(self, params: Params, latent: jax.Array) -> Any:
        c = self.config
        index = gate_index(c.field, MASKED.apply, MASKED.group)
        phi = whole_latent(params, latent, c.field.latent_size())
        return gated_layers(c.field, MASKED, index, params["shared"], phi, jnp.asarray(params["gates"], phi.dtype))

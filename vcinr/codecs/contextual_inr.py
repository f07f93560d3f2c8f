"""Contextual INR: a linear field, with patches coded in the context of their neighbours. The codec of the bundled models.

It is this project's own, not a paper's.
Field: a SIREN trunk whose output layer is linear in the latent, f(x) = ψ₀(x) + Σ φ_k ψ_k(x), fitted to the principal components
of the training patches. Adaptation: a few gradient steps; one would be exact if the ψ_k were orthonormal.
Compression: a prior and a synthesis that see the neighbouring patches, one model for all rates (`vcinr.context`).
"""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np

from vcinr.adaptation.linear_inner_loop import adapt_linear
from vcinr.adaptation.meta_learning import REACH, AdaptationConfig, meta_stage
from vcinr.adaptation.warm_start import WarmStartConfig
from vcinr.codecs.latent_codec import LatentCodec, LatentCodecConfig
from vcinr.codecs.linear_start import applies, linear_start_stages, relative_rates
from vcinr.context.compression import ContextualConfig
from vcinr.fields.field import FieldConfig
from vcinr.modalities import MODALITIES
from vcinr.modalities.examples import check_direct
from vcinr.stage import AnyStage, Params, TrainingConfig


@dataclasses.dataclass(frozen=True)
class ContextualINRConfig(LatentCodecConfig):
    """Config of `ContextualINR`: as `LatentCodecConfig`, with a linear field and contextual compression.

    warm_start: training of the trunk.
    meta: brief training through the inner loop after it; its start also measures the step sizes.
    """

    field: FieldConfig = FieldConfig(modulation="none", linear_head=True, num_layers=3, width=32, last_width=96)
    adaptation: AdaptationConfig = AdaptationConfig(num_steps=2, initial_step=1.0)
    meta: TrainingConfig = TrainingConfig(num_steps=20, batch_size=16, lr=1e-5, warmup_steps=10)
    compression: ContextualConfig = ContextualConfig()
    warm_start: WarmStartConfig = WarmStartConfig(enabled=True)

    def __post_init__(self):
        super().__post_init__()
        check_direct(MODALITIES[self.modality], "contextual_inr")
        if self.field.modulation != "none" or not self.field.linear_head:
            raise ValueError(
                'the field of contextual_inr is linear: set field.modulation to "none" and field.linear_head to True, '
                "or choose the codec vc_inr"
            )


@dataclasses.dataclass(frozen=True)
class ContextualINR(LatentCodec):
    """The codec; see `vcinr.codec.Codec`."""

    config: ContextualINRConfig = ContextualINRConfig()
    name = "contextual_inr"

    @property
    def format_name(self) -> str:
        """The codec's former name, which the fingerprints in files of the bundled models were made with."""
        return "vc_inr"

    def field_stages(self) -> tuple[AnyStage, ...]:
        """``components`` and ``warm_start`` where they apply (see `vcinr.codecs.linear_start`), then ``meta``."""
        if not applies(self.config):
            return (meta_stage(self.config),)
        return *linear_start_stages(self.config), meta_stage(self.config, rates=partial(relative_rates, self.config))

    def analyse_all(self, params: Params, point: int, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """As of every latent codec, in NumPy. All patches are whole: padding weighs as much as what is inside the signal."""
        adaptation = self.config.adaptation
        if self.config.field.sine not in ("fast", "exact") or adaptation.step_sizes in REACH:
            return super().analyse_all(params, point, values, np.ones_like(weight))
        coords = MODALITIES[self.modality].coordinates(self.patch)
        latent = adapt_linear(self.config.field, params, values, coords, adaptation.encode_steps or adaptation.num_steps)
        return np.asarray(self.compression.analyse(self.compression.encoder_parts(params, point), latent))

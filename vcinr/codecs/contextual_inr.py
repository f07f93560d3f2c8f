"""A linear field whose patches code each other's context: the codec of the bundled models. Ours, no paper's.

Field: a SIREN trunk whose output layer is linear in the latent, f(x) = ψ₀(x) + Σ φ_k ψ_k(x), fitted to the principal components
of the training patches. Adaptation: a few gradient steps, exact on such a field up to how far ψ is from orthonormal.
Compression: a prior and a synthesis that see the neighbouring patches, one model for all rates (`vcinr.context`).
"""

from __future__ import annotations

import dataclasses
from functools import partial

from vcinr.adaptation.meta_learning import AdaptationConfig, meta_stage
from vcinr.adaptation.warm_start import WarmStartConfig
from vcinr.codecs.latent_codec import LatentCodec, LatentCodecConfig
from vcinr.codecs.linear_start import applies, linear_start_stages, relative_rates
from vcinr.context.compression import ContextualConfig
from vcinr.fields.field import FieldConfig
from vcinr.stage import AnyStage, TrainingConfig


@dataclasses.dataclass(frozen=True)
class ContextualINRConfig(LatentCodecConfig):
    """As `LatentCodecConfig`, with a linear field and contextual compression.

    warm_start: the fit of the trunk.
    meta: measures the step sizes, and trains the field through the inner loop for as long as it says.
    """

    field: FieldConfig = FieldConfig(modulation="none", linear_head=True, num_layers=3, width=32, last_width=96)
    adaptation: AdaptationConfig = AdaptationConfig(num_steps=2, initial_step=1.0)
    meta: TrainingConfig = TrainingConfig(num_steps=20, batch_size=16, lr=1e-5, warmup_steps=10)
    compression: ContextualConfig = ContextualConfig()
    warm_start: WarmStartConfig = WarmStartConfig(enabled=True)

    def __post_init__(self):
        super().__post_init__()
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
        """Files of the bundled models carry fingerprints with the name that the codec had before."""
        return "vc_inr"

    def field_stages(self) -> tuple[AnyStage, ...]:
        """``components`` and ``warm_start`` (see `vcinr.codecs.linear_start`), then ``meta``."""
        if not applies(self.config):
            return (meta_stage(self.config),)
        return *linear_start_stages(self.config), meta_stage(self.config, rates=partial(relative_rates, self.config))

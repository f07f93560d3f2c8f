"""VC-INR: low-rank soft gates from a latent, meta-learned, then variationally compressed (Schwarz et al. 2023).

Algorithm 1, meta-training: stage ``meta``. φ ← φ₀ − Σ_t α_t ⊙ ∇ MSE(f(·; θ, φ)), and θ, φ₀, α learn through these steps.
Algorithm 2, quantisation: stages ``latents`` (the training set's latents, made once) and ``quantise_0``, ``quantise_1``, … (one
operating point each): an analysis and a synthesis transform around a rounded latent, under a factorized prior.
An extension of ours, off by default: a field with a linear head may start as the KLT (``warm_start``).
"""

from __future__ import annotations

import dataclasses
from functools import partial

from vcinr.adaptation.meta_learning import meta_stage
from vcinr.adaptation.warm_start import WarmStartConfig
from vcinr.codecs.latent_codec import LatentCodec, LatentCodecConfig
from vcinr.codecs.linear_start import applies, linear_start_stages, relative_rates
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.compression.uniform import UniformConfig
from vcinr.context.compression import ContextualConfig
from vcinr.stage import AnyStage


@dataclasses.dataclass(frozen=True)
class VCINRConfig(LatentCodecConfig):
    """As `LatentCodecConfig`, variationally compressed.

    warm_start: whether and how the field begins as the KLT does. Rates of ``meta`` are then relative to each array's size.
    """

    compression: BottleneckConfig | UniformConfig | ContextualConfig = BottleneckConfig()
    warm_start: WarmStartConfig = WarmStartConfig()

    def __post_init__(self):
        super().__post_init__()
        if self.warm_start.enabled and not self.field.linear_head:
            raise ValueError("a warm start needs the field's linear_head")


@dataclasses.dataclass(frozen=True)
class VCINR(LatentCodec):
    """The codec; see `vcinr.codec.Codec`."""

    config: VCINRConfig = VCINRConfig()
    name = "vc_inr"

    def field_stages(self) -> tuple[AnyStage, ...]:
        """``meta``; before it the linear start, where it applies."""
        if not applies(self.config):
            return (meta_stage(self.config),)
        return *linear_start_stages(self.config), meta_stage(self.config, rates=partial(relative_rates, self.config))

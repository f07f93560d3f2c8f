"""VC-INR: low-rank soft gates from a latent, meta-learned, then variationally compressed (Schwarz et al. 2023).

Algorithm 1, meta-training: stage ``meta``. φ ← φ₀ − Σ_t α_t ⊙ ∇ MSE(f(·; θ, φ)); θ, φ₀ and α are trained through these steps.
Algorithm 2, quantisation: stage ``latents`` adapts to the training set once; then ``quantise_0``, ``quantise_1``, … train one
operating point each: analysis and synthesis transforms around a rounded latent with a factorized prior.
Not in the paper, off by default: a field with a linear head may start as the KLT (``warm_start``).
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
    """Config of `VCINR`: as `LatentCodecConfig`, by default with variational compression.

    warm_start: whether and how the field starts as the KLT; learning rates of ``meta`` are then relative to each array's size.
    """

    compression: BottleneckConfig | UniformConfig | ContextualConfig = BottleneckConfig()
    warm_start: WarmStartConfig = WarmStartConfig()

    def __post_init__(self):
        super().__post_init__()
        if self.warm_start.enabled and not self.field.linear_head:
            raise ValueError("a warm start needs a linear head: set field.linear_head to True, or warm_start.enabled to False")


@dataclasses.dataclass(frozen=True)
class VCINR(LatentCodec):
    """The codec; see `vcinr.codec.Codec`."""

    config: VCINRConfig = VCINRConfig()
    name = "vc_inr"

    def field_stages(self) -> tuple[AnyStage, ...]:
        """``meta``, preceded by the stages of the linear start where they apply."""
        if not applies(self.config):
            return (meta_stage(self.config),)
        return *linear_start_stages(self.config), meta_stage(self.config, rates=partial(relative_rates, self.config))

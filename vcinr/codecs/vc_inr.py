"""VC-INR: low-rank soft gates from a latent, meta-learned, then variationally compressed (Schwarz et al. 2023).

Algorithm 1, meta-training: stage ``meta``. φ ← φ₀ − Σ_t α_t ⊙ ∇ MSE(f(·; θ, φ)); θ, φ₀ and α are trained through these steps.
Algorithm 2, quantisation: stage ``latents`` adapts to the training set once; then ``quantise_0``, ``quantise_1``, … train one
operating point each: analysis and synthesis transforms around a rounded latent with a factorized prior.
Not in the paper, off by default: a field with a linear head may start as the KLT (``warm_start``); an affine analysis may take
the place of the inner loop (``amortised``); Gauss–Newton steps may follow either (``adaptation.projection_steps``).
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import numpy as np

from vcinr.adaptation import amortised
from vcinr.adaptation.amortised import AmortisedConfig
from vcinr.adaptation.meta_learning import meta_stage
from vcinr.adaptation.warm_start import WarmStartConfig
from vcinr.codecs.latent_codec import LatentCodec, LatentCodecConfig
from vcinr.codecs.linear_start import applies, linear_start_stages, relative_rates
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.compression.uniform import UniformConfig
from vcinr.context.compression import ContextualConfig
from vcinr.datasets.sources import ArraySource
from vcinr.modalities import MODALITIES
from vcinr.modalities.examples import normalise_batch
from vcinr.stage import AnyStage, ClosedForm, Params


@dataclasses.dataclass(frozen=True)
class VCINRConfig(LatentCodecConfig):
    """Config of `VCINR`: as `LatentCodecConfig`, by default with variational compression.

    warm_start: whether and how the field starts as the KLT; learning rates of ``meta`` are then relative to each array's size.
    amortised: whether and how an affine analysis takes the place of the inner loop; ``meta`` is then its training.
    """

    compression: BottleneckConfig | UniformConfig | ContextualConfig = BottleneckConfig()
    warm_start: WarmStartConfig = WarmStartConfig()
    amortised: AmortisedConfig = AmortisedConfig()

    def __post_init__(self):
        super().__post_init__()
        if self.amortised.enabled and self.warm_start.enabled:
            raise ValueError("amortised and warm_start are two ways to start: enable one of them")
        if self.amortised.enabled and not MODALITIES[self.modality].common_grid:
            raise ValueError(
                f"patches of a {self.modality} share no grid, so they have no analysis: set amortised.enabled to False"
            )
        if self.warm_start.enabled and not self.field.linear_head:
            raise ValueError("a warm start needs a linear head: set field.linear_head to True, or warm_start.enabled to False")


@dataclasses.dataclass(frozen=True)
class VCINR(LatentCodec):
    """The codec; see `vcinr.codec.Codec`."""

    config: VCINRConfig = VCINRConfig()
    name = "vc_inr"
    fitted = (*LatentCodec.fitted, "analysis")

    def init(self, key: jax.Array) -> Params:
        """Initial θ with what finds latents, an inner loop or an analysis; no operating points yet."""
        return (
            {**amortised.initial_params(self.config, key), "points": {}} if self.config.amortised.enabled else super().init(key)
        )

    def first_latent(self, params: Params, values: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        if not self.config.amortised.enabled:
            return super().first_latent(params, values, weight)
        return amortised.analyse(params["analysis"], values, weight)

    def field_stages(self) -> tuple[AnyStage, ...]:
        """``meta``, preceded by the stages of the linear start where they apply; or ``components`` and ``amortised``."""
        if self.config.amortised.enabled:
            return components_stage(self.config), amortised.amortised_stage(self.config, self.config.amortised.kernel_rate)
        if not applies(self.config):
            return (meta_stage(self.config),)
        return *linear_start_stages(self.config), meta_stage(self.config, rates=partial(relative_rates, self.config))


def components_stage(config: VCINRConfig) -> ClosedForm:
    """The stage ``components``, which starts the analysis as the whitened principal components of the training patches."""
    chosen = config.amortised

    def patches_of(params, patches):
        raw = patches.all_patches(np.random.default_rng(0), chosen.offsets_per_picture, chosen.num_patches)
        return ArraySource({"values": normalise_batch(config.modality, raw)})

    def solve(key, params, source, workplace):
        del key, workplace
        return {**params, "analysis": amortised.whitening(source.arrays["values"], config.field.latent_size())}

    return ClosedForm("components", patches_of, solve)

"""COIN++: shifts linear in a latent, which three gradient steps find and a uniform quantiser rounds (Dupont et al. 2022).

Stage ``meta``, meta-training: for every patch of a batch φ ← 0, then ``num_steps`` times φ ← φ − α ∇φ L(θ, φ) with one fixed α;
then θ ← θ − Adam(∇θ mean L(θ, φ)), differentiated through the inner steps. Stage ``quantise``: ranges mean ± kσ of the training
latents, and histograms of their symbols. Encoding: the inner loop, optionally with more steps (``adaptation.encode_steps``),
then rounding and coding.

Otherwise than in the authors' code, coordinates are in (−1, 1) instead of [0, 1], where an ω₀ means twice the frequencies in the
first layer; and each latent dimension has a mean, a σ and a histogram of its own, which costs fewer bits, where theirs share one.
``compression.one_range`` and ``compression.one_table`` make σ and histogram common; the means stay apart.
"""

from __future__ import annotations

import dataclasses

from vcinr.adaptation.meta_learning import AdaptationConfig
from vcinr.codecs.latent_codec import LatentCodec, LatentCodecConfig
from vcinr.fields.field import FieldConfig
from vcinr.stage import TrainingConfig


@dataclasses.dataclass(frozen=True)
class CoinPPConfig(LatentCodecConfig):
    """Config of `CoinPP`: as `LatentCodecConfig`; α is ``adaptation.inner_lr``, or ``initial_step`` / λ_max where that is 0."""

    field: FieldConfig = FieldConfig(modulation="latent_shifts", omega_0=50.0)
    adaptation: AdaptationConfig = AdaptationConfig(step_sizes="fixed", learn_start=False)
    meta: TrainingConfig = TrainingConfig(num_steps=2000, batch_size=16, lr=3e-4)


@dataclasses.dataclass(frozen=True)
class CoinPP(LatentCodec):
    """The codec; see `vcinr.codec.Codec`."""

    config: CoinPPConfig = CoinPPConfig()
    name = "coinpp"

"""Functa: shifts linear in a latent, found by Meta-SGD (Dupont et al. 2022a, "From data to functa").

As COIN++, but with learned step sizes (Li et al. 2017): one per latent dimension, shared by the inner steps and kept in (0, 1).
The authors draw their start from (0.005, 0.1), here all begin in its middle. Their coordinates are in (0, 1), here in (−1, 1),
where an ω₀ means twice the frequencies in the first layer. The paper uses latents as data for other networks; here they are
quantised and coded like those of COIN++.
"""

from __future__ import annotations

import dataclasses

from vcinr.adaptation.meta_learning import AdaptationConfig
from vcinr.codecs.latent_codec import LatentCodec, LatentCodecConfig
from vcinr.fields.field import FieldConfig
from vcinr.stage import TrainingConfig

PROJECTION_GAIN = 26.4
"""For ω₀ = 30: the authors' map of latents to shifts starts from a normal distribution cut off at ±2/√k, of deviation 0.88/√k."""


@dataclasses.dataclass(frozen=True)
class FunctaConfig(LatentCodecConfig):
    """Config of `Functa`: as `LatentCodecConfig`, with other defaults."""

    field: FieldConfig = FieldConfig(modulation="latent_shifts", projection_gain=PROJECTION_GAIN)
    adaptation: AdaptationConfig = AdaptationConfig(step_sizes="shared", inner_lr=0.0525, learn_start=False)
    meta: TrainingConfig = TrainingConfig(num_steps=2000, batch_size=16, lr=3e-4)


@dataclasses.dataclass(frozen=True)
class Functa(LatentCodec):
    """The codec; see `vcinr.codec.Codec`."""

    config: FunctaConfig = FunctaConfig()
    name = "functa"

"""Functa: shifts linear in a latent, found by Meta-SGD (Dupont et al. 2022a, "From data to functa").

As COIN++, but with learned step sizes, one per inner step and latent dimension (Li et al. 2017). The paper uses latents as data
for other networks; here they are quantised and coded as in COIN++.
"""

from __future__ import annotations

import dataclasses

from vcinr.adaptation.meta_learning import AdaptationConfig
from vcinr.codecs.latent_codec import LatentCodec, LatentCodecConfig
from vcinr.fields.field import FieldConfig
from vcinr.stage import TrainingConfig


@dataclasses.dataclass(frozen=True)
class FunctaConfig(LatentCodecConfig):
    """Config of `Functa`: as `LatentCodecConfig`, with other defaults."""

    field: FieldConfig = FieldConfig(modulation="latent_shifts")
    adaptation: AdaptationConfig = AdaptationConfig(step_sizes="learned", learn_start=False)
    meta: TrainingConfig = TrainingConfig(num_steps=2000, batch_size=16, lr=3e-4)


@dataclasses.dataclass(frozen=True)
class Functa(LatentCodec):
    """The codec; see `vcinr.codec.Codec`."""

    config: FunctaConfig = FunctaConfig()
    name = "functa"

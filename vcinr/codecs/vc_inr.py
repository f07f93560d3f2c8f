"""VC-INR: low-rank gates from a latent, meta-learned, then variationally compressed (Schwarz et al. 2023).

Algorithm 1, meta-training, is the stage ``meta``; algorithm 2, quantisation, is the stages ``latents`` (the training set's
latents, made once) and ``quantise_0``, ``quantise_1``, … (one operating point each).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from vcinr.codecs import warm_start
from vcinr.codecs.codec import Stage, TrainingConfig
from vcinr.codecs.examples import normalise_batch
from vcinr.codecs.latent_codec import LatentCodec, LatentCodecConfig
from vcinr.codecs.meta_learning import meta_stage
from vcinr.codecs.warm_start import WarmStartConfig
from vcinr.signals.grids import pixel_grid
from vcinr.signals.sources import ArraySource


@dataclasses.dataclass(frozen=True)
class VCINRConfig(LatentCodecConfig):
    """As `LatentCodecConfig`; ``warm_start``: whether and how the field begins as the KLT does.

    With ``warm_start`` the rate of ``meta`` is relative: a step changes each array by about that share of its size.
    """

    compression: str = "variational"
    warm_start: WarmStartConfig = WarmStartConfig()

    def __post_init__(self):
        super().__post_init__()
        if self.warm_start.enabled and not self.field.linear_head:
            raise ValueError("a warm start needs the field's linear_head")


@dataclasses.dataclass(frozen=True)
class VCINR(LatentCodec):
    """The codec; see `vcinr.codecs.codec.Codec`."""

    config: VCINRConfig = VCINRConfig()
    name = "vc_inr"

    def field_stages(self) -> tuple[Stage, ...]:
        """The warm start, where it is on, and ``meta``."""
        if not self.config.warm_start.enabled:
            return (meta_stage(self.config),)
        return *self._warm_start(), meta_stage(self.config, rates=_relative_rates)

    def _warm_start(self) -> tuple[Stage, ...]:
        c, w = self.config, self.config.warm_start
        coords = jnp.asarray(pixel_grid(c.patch))
        trunk = [f"{kind}_{i}" for kind in ("kernel", "bias") for i in range(c.field.num_layers)]

        def patches_of(params, patches):
            raw = patches.all_patches(np.random.default_rng(0), w.offsets_per_picture, w.num_patches)
            return ArraySource({"values": normalise_batch(c.modality, raw)})

        components = Stage(
            name="components",
            training=TrainingConfig(num_steps=0),
            examples=patches_of,
            init=lambda key, params, source: warm_start.components(source.arrays["values"], c.field.latent_dim),
            frozen=lambda params: {},
            loss=None,
            finish=lambda params, found: {**params, "components": found},
        )
        fit = Stage(
            name="warm_start",
            training=w.training,
            examples=lambda params, patches: warm_start.SketchSource(params["components"], w.sketches),
            init=lambda key, params, source: {name: params["shared"][name] for name in trunk},
            frozen=lambda params: {},
            loss=lambda trained, frozen, example, key: warm_start.projection_loss(c.field, trained, coords, example["sketch"]),
            finish=lambda params, trained: {
                **{name: value for name, value in params.items() if name != "components"},
                "shared": warm_start.started(c.field, {**params["shared"], **trained}, params["components"], coords),
            },
            lr_multipliers=warm_start.lr_multipliers,
        )
        return components, fit


def _relative_rates(trained: Mapping[str, Any]) -> Any:
    """Relative rates for θ; step sizes are logarithms, whose changes are relative already, and so keep the rate itself."""
    rates = warm_start.lr_multipliers(trained)
    return {**rates, "step_sizes": {"log_scale": 1.0, "reference": 0.0}}

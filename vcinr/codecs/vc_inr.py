"""VC-INR: low-rank gates from a latent, meta-learned, then variationally compressed (Schwarz et al. 2023).

Algorithm 1, meta-training, is the stage ``meta``; algorithm 2, quantisation, is the stages ``latents`` (the training set's
latents, made once) and ``quantise_0``, ``quantise_1``, … (one operating point each).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.adaptation import warm_start
from vcinr.adaptation.meta_learning import meta_stage
from vcinr.adaptation.warm_start import WarmStartConfig
from vcinr.codecs.latent_codec import LatentCodec, LatentCodecConfig
from vcinr.datasets.sources import ArraySource
from vcinr.fields.field import FieldConfig
from vcinr.modalities.examples import normalise_batch
from vcinr.modalities.picture import MODALITIES
from vcinr.signals.grids import pixel_grid
from vcinr.stage import AnyStage, ClosedForm, Stage

_log = logging.getLogger(__name__)

RATES: dict[str, Callable[[FieldConfig, Any], Any]] = {
    "plain": lambda field, trained: jax.tree.map(lambda _: 1.0, trained),
    "relative": lambda field, trained: warm_start.lr_multipliers(trained),
    "fan_in": warm_start.fan_in_multipliers,
}
"""`VCINRConfig.rates` → (field, arrays at the start) → their multipliers of the outer rate."""


@dataclasses.dataclass(frozen=True)
class VCINRConfig(LatentCodecConfig):
    """As `LatentCodecConfig`; ``warm_start``: whether and how the field begins as the KLT does.

    rates: what the outer rate of ``meta`` means, a key of `RATES`. "plain": a step changes every number by about the rate;
    "relative": every array by that share of its size; "fan_in": what every layer gives by about that share, or a phase by that
    many radians. "auto" is relative with a warm start, else plain. Step sizes are logarithms and keep the rate times
    ``adaptation.step_rate`` in all of them.
    """

    compression: str = "variational"
    warm_start: WarmStartConfig = WarmStartConfig()
    rates: str = "auto"

    def __post_init__(self):
        super().__post_init__()
        if self.rates not in ("auto", *RATES):
            raise ValueError(f"unknown rates {self.rates!r}; valid are auto, {', '.join(RATES)}")
        if self.warm_start.enabled and not self.field.linear_head:
            raise ValueError("a warm start needs the field's linear_head")


@dataclasses.dataclass(frozen=True)
class VCINR(LatentCodec):
    """The codec; see `vcinr.codec.Codec`."""

    config: VCINRConfig = VCINRConfig()
    name = "vc_inr"

    def field_stages(self) -> tuple[AnyStage, ...]:
        """The warm start, where it is on and the modality has a common grid, and ``meta``."""
        c = self.config
        warm = c.warm_start.enabled and MODALITIES[c.modality].common_grid
        if c.warm_start.enabled and not warm:
            _log.warning("a plain start: patches of a %s share no grid, and so no components to start from", c.modality)
        rates = c.rates if c.rates != "auto" else "relative" if warm else "plain"
        return *(self._warm_start() if warm else ()), meta_stage(c, rates=partial(_rates, c, RATES[rates]))

    def _warm_start(self) -> tuple[AnyStage, ...]:
        c, w = self.config, self.config.warm_start
        coords = jnp.asarray(pixel_grid(c.patch))
        trunk = [f"{kind}_{i}" for kind in ("kernel", "bias") for i in range(c.field.num_layers)]

        def patches_of(params, patches):
            raw = patches.all_patches(np.random.default_rng(0), w.offsets_per_picture, w.num_patches)
            return ArraySource({"values": normalise_batch(c.modality, raw)})

        def found_components(values):
            found = warm_start.components(values, c.field.latent_size())
            return {**found, "width_loss_db": np.float32(warm_start.report_width(found, c.field.sizes()[-1][0]))}

        def fit_loss(trained, frozen, example, key):
            missed, metrics = warm_start.projection_loss(c.field, trained, coords, example["sketch"])
            return missed, {**metrics, **frozen}

        components = ClosedForm(
            "components",
            examples=patches_of,
            solve=lambda key, params, source, workplace: {**params, "components": found_components(source.arrays["values"])},
        )
        fit = Stage(
            name="warm_start",
            training=w.training,
            examples=lambda params, patches: warm_start.SketchSource(params["components"], w.sketches),
            init=lambda key, params, source: {name: params["shared"][name] for name in trunk},
            frozen=lambda params: {"width_loss_db": params["components"]["width_loss_db"]},
            loss=fit_loss,
            finish=lambda params, trained: {
                **{name: value for name, value in params.items() if name != "components"},
                "shared": warm_start.started(c.field, {**params["shared"], **trained}, params["components"], coords),
            },
            lr_multipliers=warm_start.lr_multipliers,
        )
        return components, fit


def _rates(config: VCINRConfig, of_theta: Callable[[FieldConfig, Any], Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """Multipliers of the outer rate: those of `RATES` for θ and φ₀; the logarithms of step sizes change relatively already."""
    rates = of_theta(config.field, {part: trained[part] for part in ("shared", "latent_init")})
    return {**rates, "step_sizes": {"log_scale": config.adaptation.step_rate, "reference": 0.0}}

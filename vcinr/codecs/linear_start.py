"""Stages that initialise a field with a linear head as the KLT; see `vcinr.adaptation.warm_start`."""

from __future__ import annotations

import logging
from typing import Any

import jax.numpy as jnp
import numpy as np

from vcinr.adaptation import warm_start
from vcinr.adaptation.meta_learning import step_rates
from vcinr.datasets.sources import ArraySource
from vcinr.modalities import MODALITIES
from vcinr.modalities.examples import normalise_batch
from vcinr.stage import AnyStage, ClosedForm, Stage

_log = logging.getLogger(__name__)


def applies(config: Any) -> bool:
    """Whether these stages apply: the config's ``warm_start`` is enabled, and all patches of the modality share one grid."""
    enabled = config.warm_start.enabled
    if enabled and not MODALITIES[config.modality].common_grid:
        _log.warning("no warm start: patches of a %s share no grid, so they have no principal components", config.modality)
        return False
    return enabled


def linear_start_stages(config: Any) -> tuple[AnyStage, ...]:
    """``components`` computes those of the training patches, then ``warm_start`` trains the trunk and solves for the head.

    config: has the keys ``patch``, ``modality``, ``field`` and ``warm_start``, as `vcinr.codecs.vc_inr.VCINRConfig`.
    """
    field, chosen = config.field, config.warm_start
    coords = jnp.asarray(MODALITIES[config.modality].coordinates(config.patch))
    trunk = [f"{kind}_{i}" for kind in ("kernel", "bias") for i in range(field.num_layers)]

    def patches_of(params, patches):
        raw = patches.all_patches(np.random.default_rng(0), chosen.offsets_per_picture, chosen.num_patches)
        return ArraySource({"values": normalise_batch(config.modality, raw)})

    def find_components(key, params, source, workplace):
        found = warm_start.components(source.arrays["values"], field.latent_size())
        width_loss_db = np.float32(warm_start.report_width(found, field.sizes()[-1][0]))
        return {**params, "components": {**found, "width_loss_db": width_loss_db}}

    def fit_loss(trained, frozen, example, key):
        missed, metrics = warm_start.projection_loss(field, trained, coords, example["sketch"])
        return missed, {**metrics, **frozen}

    def finish(params, trained):
        shared = warm_start.solve_head(field, {**params["shared"], **trained}, params["components"], coords)
        return {**{name: value for name, value in params.items() if name != "components"}, "shared": shared}

    fit = Stage(
        name="warm_start",
        training=chosen.training,
        examples=lambda params, patches: warm_start.SketchSource(params["components"], chosen.sketches),
        init=lambda key, params, source: {name: params["shared"][name] for name in trunk},
        frozen=lambda params: {"width_loss_db": params["components"]["width_loss_db"]},
        loss=fit_loss,
        finish=finish,
        lr_multipliers=warm_start.lr_multipliers,
    )
    return ClosedForm("components", patches_of, find_components), fit


def relative_rates(config: Any, trained: Any) -> dict[str, Any]:
    """Learning-rate multipliers after a linear start: the size of each array of θ and φ₀; step sizes as in `step_rates`."""
    rates = warm_start.lr_multipliers({part: trained[part] for part in ("shared", "latent_init")})
    return {**rates, "step_sizes": step_rates(config, trained)}

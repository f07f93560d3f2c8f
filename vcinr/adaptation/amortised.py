"""Amortised adaptation: an affine analysis gives the latent of a patch in one product, and the field is trained behind it.

No gradient goes through an inner loop, so a training step costs about a tenth of a second-order one with three inner steps. The
analysis starts as the whitened principal components of the training patches: from the first step on, the latents say what the
KLT's would, and the field learns to make more of them than the KLT can. In encoding, damped Gauss–Newton steps may follow
(`vcinr.adaptation.projection`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vcinr.adaptation.meta_learning import MetaConfig, signal_loss, subset
from vcinr.adaptation.warm_start import components
from vcinr.fields.field import make_field
from vcinr.modalities import MODALITIES
from vcinr.modalities.examples import NormalisedSource
from vcinr.stage import Params, Stage


@dataclasses.dataclass(frozen=True)
class AmortisedConfig:
    """Config of the amortised start; `vcinr.adaptation.meta_learning.AdaptationConfig` says which coordinates a step sees.

    enabled: whether the analysis takes the place of the inner loop.
    num_patches: largest number of training patches that the components are computed from.
    offsets_per_picture: random grids of patches cut from each training picture.
    kernel_rate: learning rate of the analysis, in multiples of θ's rate and of the kernel's mean size; positive.
    """

    enabled: bool = False
    num_patches: int = 20000
    offsets_per_picture: int = 2
    kernel_rate: float = 10.0

    def __post_init__(self):
        if not self.kernel_rate > 0.0:
            raise ValueError(f"amortised.kernel_rate must be positive, not {self.kernel_rate}")


def whitening(values: np.ndarray, latent_dim: int) -> dict[str, np.ndarray]:
    """The analysis that makes unit-variance principal coefficients of patches [m, n, c]: "mean" [n, c], "kernel" [n c, k].

    Components that the patches do not have, or only rounding errors of, have zero columns.
    """
    found = components(values, latent_dim)
    std = found["std"]
    inverse = np.where(std > 1e-6 * std.max(initial=0.0), 1.0 / np.maximum(std, 1e-30), 0.0)
    kernel = (found["basis"] * inverse[:, None, None]).reshape(latent_dim, -1).T
    return {"mean": found["mean"].astype(np.float32), "kernel": np.ascontiguousarray(kernel, np.float32)}


def analyse(
    analysis: Mapping[str, Any], values: Float[Array, "n c"], weight: Float[Array, " n"] | None = None
) -> Float[Array, " k"]:
    """φ = Eᵀ(values − mean) of one whole patch; samples of weight 0 count as the mean."""
    centred = values - analysis["mean"]
    centred = centred if weight is None else jnp.where(weight[:, None] > 0.0, centred, 0.0)
    return centred.ravel() @ analysis["kernel"]


def amortised_stage(config: MetaConfig, kernel_rate: float) -> Stage:
    """The stage ``amortised``, which trains θ and ``params["analysis"]`` on the MSE of f(·; θ, φ = analysis of the patch)."""

    def init(key, params, source):
        del key, source
        return jax.tree.map(jnp.asarray, {name: params[name] for name in ("shared", "analysis")})

    def loss(trained, frozen, example, key):
        del frozen
        latent = analyse(trained["analysis"], example["values"])
        values, coords = subset(config, example["values"], key)
        error = signal_loss(config, trained["shared"], latent, values, None, coords)
        return error, {"psnr_db": -10.0 * jnp.log10(error)}

    def rates(trained):
        size = float(jnp.mean(jnp.abs(trained["analysis"]["kernel"])))
        return {
            "shared": jax.tree.map(lambda _: 1.0, trained["shared"]),
            "analysis": {"mean": 0.0, "kernel": kernel_rate * size},
        }

    return Stage(
        name="amortised",
        training=config.meta,
        examples=lambda params, patches: NormalisedSource(patches, config.modality),
        init=init,
        frozen=lambda params: {},
        loss=loss,
        finish=lambda params, trained: {**params, **trained},
        evaluate=lambda trained, frozen, example, key: loss(trained, frozen, example, None),
        lr_multipliers=rates,
    )


def initial_params(config: MetaConfig, key: jax.Array) -> Params:
    """Initial θ, and an analysis of zeros until the training patches are seen."""
    field = config.field
    shared = make_field(field).init(key, jnp.zeros((1, field.coord_dim)), jnp.zeros(field.latent_size()))["params"]
    samples, channels = int(np.prod(config.patch)), MODALITIES[config.modality].channels
    analysis = {
        "mean": jnp.zeros((samples, channels)),
        "kernel": jnp.zeros((samples * channels, field.latent_size())),
    }
    return {"shared": shared, "analysis": analysis}

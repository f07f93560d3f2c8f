"""How gates and the field under them are trained: the L0 penalty and its λ, and meta-learning under a fixed pattern."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vcinr.adaptation import meta_learning
from vcinr.adaptation.meta_learning import MetaConfig, Trained, draw, lr_multipliers, stop_fixed_gradients
from vcinr.modalities.examples import NormalisedSource
from vcinr.sparsity.gates import GateConfig, Gates, gate_index, spread
from vcinr.sparsity.gating import adapt_gated, gated_loss
from vcinr.stage import ExampleSource, Params, Stage, TrainingConfig

PARTS = ("shared", "latent_init", "step_sizes")
"""What meta-learning trains."""


def neutral_penalty(
    gates: GateConfig, open_fraction: jax.Array, log_lambda: jax.Array, paid: jax.Array | None = None
) -> Float[Array, ""]:
    """Zero in value; in gradient the L0 penalty times λ, and an ascent of log λ until the target is reached.

    With the violation v = log(paid / target), clipped to ±1: λ (1 + 5 v) times the gradient of the penalty, and −v / 100 for
    log λ. The term 5 v damps oscillations, and opens gates again where too many have closed.
    Platt and Barr 1987, "Constrained differential optimization", section 4.

    Args:
      gates: their target.
      open_fraction: the penalty: expected fraction of open entries.
      log_lambda: log λ.
      paid: fraction of the entries that a file pays for; None: the expected one.
    """
    paid = jnp.maximum(open_fraction if paid is None else paid, 1e-9)
    violation = jax.lax.stop_gradient(jnp.clip(jnp.log(paid / gates.target), -1.0, 1.0))
    pressure = jax.lax.stop_gradient(jnp.exp(log_lambda)) * (1.0 + 5.0 * violation)
    # A hundredth, so that clipping the global norm leaves θ its share; Adam makes up for it.
    terms = pressure * open_fraction - 0.01 * violation * log_lambda
    return terms - jax.lax.stop_gradient(terms)


def start(config: MetaConfig, gates: GateConfig, z: Gates, key: jax.Array, params: Params, source: ExampleSource) -> dict:
    """θ, φ₀ and step sizes as training under gates z starts from them; step sizes are relative to 1/λ_max over open entries."""
    mask = spread(gate_index(config.field, gates.apply, gates.group), z) if gates.apply == "update" else 1.0

    def loss(config, shared, latent, *rest):
        return gated_loss(gates, z)(config, shared, params["latent_init"] + mask * (latent - params["latent_init"]), *rest)

    return meta_learning.start(config, key, params, source, loss)


def meta_error(
    config: MetaConfig, gates: GateConfig, trained: Trained, z: Gates, values: Float[Array, "n c"], key: jax.Array | None
) -> Float[Array, ""]:
    """MSE after adaptation under gates z; on random samples (`draw`) where there is a key, else on all."""
    (inner, inner_coords), (outer, outer_coords) = draw(config, values, key)
    latent = adapt_gated(config, gates, trained, z, inner, coords=inner_coords)
    return gated_loss(gates, z)(config, trained["shared"], latent, outer, None, outer_coords)


def with_psnr(error: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(loss, metrics) of a stage whose loss is an MSE of values in [0, 1]."""
    return error, {"psnr_db": -10.0 * jnp.log10(error)}


def sparse_meta_stage(config: MetaConfig, gates: GateConfig, name: str, training: TrainingConfig, *, restart: bool) -> Stage:
    """Meta-learning under the pattern in ``params["gates"]``: of θ, and of φ₀ and step sizes as the config says.

    Args:
      config: the field and its inner loop.
      gates: where they act.
      name: of the stage.
      training: how to train.
      restart: True: step sizes start anew, measured under the pattern; False: from those of the stage before.
    """

    def begin(key: jax.Array, params: Params, source: ExampleSource) -> dict[str, Any]:
        params = jax.tree.map(jnp.asarray, {part: params[part] for part in (*PARTS, "gates")})
        if restart:
            return start(config, gates, jnp.asarray(params["gates"], jnp.float32), key, params, source)
        return {part: params[part] for part in PARTS}

    def error(trained: Any, frozen: Any, example: Mapping[str, jax.Array], key: jax.Array | None):
        values = example["values"]
        return with_psnr(meta_error(config, gates, trained, jnp.asarray(frozen["gates"], values.dtype), values, key))

    return Stage(
        name=name,
        training=training,
        examples=lambda params, patches: NormalisedSource(patches, config.modality),
        init=begin,
        frozen=lambda params: {"gates": params["gates"]},
        loss=lambda trained, *rest: error(stop_fixed_gradients(config, trained), *rest),
        finish=lambda params, trained: {**params, **trained},
        evaluate=lambda trained, frozen, example, key: error(trained, frozen, example, None),
        lr_multipliers=partial(lr_multipliers, config),
    )

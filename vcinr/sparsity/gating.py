"""Gates z inside a field and its inner loop: shared by all signals, or moved for each signal by its own inner loop.

Schwarz and Teh 2022, "Meta-Learning Sparse Compression Networks", section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from vcinr.adaptation.fit import fit
from vcinr.adaptation.inner_loop import meta_sgd, step_size
from vcinr.adaptation.meta_learning import Loss, MetaConfig, Trained, adapt_latent, layers_loss, signal_loss, step_sizes_of
from vcinr.fields import modulations, siren
from vcinr.fields.field import FieldConfig, make_field
from vcinr.sparsity import hard_concrete
from vcinr.sparsity.gates import GateConfig, Gates, expected_open, gate_index, spread, unit_gates


def gated_layers(
    field: FieldConfig, gates: GateConfig, index: Int[np.ndarray, "r k"], shared: Any, latent: Float[Array, " k"], z: Gates
) -> Any:
    """The layers of a field at a latent and gates z.

    Args:
      field: the field and its modulation.
      gates: where they act; those on the update do nothing here, see `adapt_gated`.
      index: as `gate_index` gives.
      shared: θ.
      latent: φ, not yet multiplied with z.
      z: in [0, 1].

    Returns:
      (kernel, bias) of each layer.
    """
    if gates.apply == "modulation":
        latent = spread(index, z) * latent
    layers = make_field(field).apply({"params": shared}, latent, method="layers")
    if gates.apply == "weights":
        masks = siren.unflatten(spread(index, z), field.sizes())
        return [(kernel * a, bias * b) for (kernel, bias), (a, b) in zip(layers, masks, strict=True)]
    if gates.apply == "activations":
        return modulations.gate_units(layers, z[unit_gates(field, gates.group)])
    return layers


def gated_loss(gates: GateConfig, z: Gates) -> Loss:
    """`signal_loss` of the field with gates z."""

    def loss(config, shared, latent, values, weight=None, coords=None):
        index = gate_index(config.field, gates.apply, gates.group)
        return layers_loss(config, gated_layers(config.field, gates, index, shared, latent, z), values, weight, coords)

    return loss


def adapt_gated(
    config: MetaConfig,
    gates: GateConfig,
    trained: Trained,
    z: Gates,
    values: Float[Array, "n c"],
    weight: Float[Array, " n"] | None = None,
    coords: Float[Array, "n d"] | None = None,
    *,
    num_steps: int = 0,
) -> Float[Array, " k"]:
    """The latent of one patch under gates that stay the same in all inner steps: the φ that `gated_layers` takes.

    Gates on the update give φ = φ₀ − β Σ z ⊙ ∇ (equation 9); all others act inside the loss.

    Args:
      config: the field and its inner loop.
      gates: where z acts.
      trained: θ, φ₀ and step sizes.
      z: in [0, 1].
      values: of the patch.
      weight: of its samples; None: 1 everywhere.
      coords: of its samples; None: the whole patch's grid.
      num_steps: inner steps; 0: as many as in training.
    """
    mask = spread(gate_index(config.field, gates.apply, gates.group), z) if gates.apply == "update" else None
    loss = gated_loss(gates, z)
    return adapt_latent(config, trained, values, weight, coords, num_steps=num_steps, loss=loss, mask=mask)


def adapt_with_gates(
    config: MetaConfig,
    gates: GateConfig,
    trained: Trained,
    learned: Mapping[str, jax.Array],
    values: Float[Array, "n c"],
    weight: Float[Array, " n"] | None = None,
    coords: Float[Array, "n d"] | None = None,
    *,
    noise: jax.Array | None = None,
    num_steps: int = 0,
) -> tuple[Float[Array, " k"], Gates]:
    """The latent and the gates of one patch whose inner loop moves both (equations 7 and 8): φ = z(log α) ⊙ d.

    d and log α descend on MSE + λ · expected open fraction: d by the step sizes of the latent, log α by exp(``log_step``) per
    unit of that loss, summed over the entries. Under gates of 0 and 1 that do not move, φ is that of `adapt_gated`, for gates on
    the update and on the modulation alike.

    Args:
      config: the field and its inner loop.
      gates: what shares a gate.
      trained: θ, φ₀ and step sizes.
      learned: log_alpha [g], where the gates start; log_lambda [] and log_step [].
      values: of the patch.
      weight: of its samples; None: 1 everywhere.
      coords: of its samples; None: the whole patch's grid.
      noise: key of the noise of z, the same in all steps; None: deterministic gates.
      num_steps: inner steps; 0: as many as in training.

    Returns:
      (φ, 0 at closed entries; log α at the end).
    """
    index = gate_index(config.field, gates.apply, gates.group)
    inside = 1.0 if weight is None else jnp.mean(weight)
    rate, pressure = jnp.exp(learned["log_step"]), jnp.exp(learned["log_lambda"])
    if config.adaptation.step_sizes == "fixed":
        rate = jax.lax.stop_gradient(rate)

    def latent_of(state):
        z = hard_concrete.deterministic(state[1]) if noise is None else hard_concrete.sample(noise, state[1])
        return spread(index, z) * state[0]

    def loss(state):
        error = signal_loss(config, trained["shared"], latent_of(state), values, weight, coords)
        return inside * error + jax.lax.stop_gradient(pressure) * expected_open(index, state[1])

    descend = meta_sgd(step_size(step_sizes_of(config.adaptation, trained)))

    def update(gradient, count, params=None):
        step, count = descend.update(gradient[0], count)
        return (step, -rate * index.shape[1] * gradient[1]), count

    optimiser = optax.GradientTransformation(lambda params: descend.init(params[0]), update)
    start_of = (trained["latent_init"], learned["log_alpha"])
    steps = num_steps or config.adaptation.num_steps
    state, _, _ = fit(loss, start_of, optimiser, steps, first_order=config.adaptation.first_order)
    return latent_of(state), state[1]

"""Modulations: from shared layers and a latent to the layers of one signal.

Every modulation maps layers to layers, (W, b) → (W', b'), so that one function evaluates all fields.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vcinr.fields.siren import Layer, unflatten


def split_units(layers: Sequence[Layer], flat: Float[Array, " total"]) -> list[jax.Array]:
    """A vector over the units of all layers but the last → one vector [width] per layer. ValueError for another length."""
    parts, start = [], 0
    for _, bias in layers[:-1]:
        parts.append(flat[start : start + bias.shape[0]])
        start += bias.shape[0]
    if flat.shape != (start,):
        raise ValueError(f"these layers have {start} units, got an array of shape {flat.shape}")
    return parts


def shifts(layers: Sequence[Layer], offsets: Sequence[jax.Array]) -> Sequence[Layer]:
    """b' = b + s for the first ``len(offsets)`` layers, s [width] each (Perez et al. 2018; Dupont et al. 2022, section 3.1)."""
    shifted = [(kernel, bias + offset) for (kernel, bias), offset in zip(layers, offsets, strict=False)]
    return shifted + list(layers[len(offsets) :])


def latent_shifts(layers: Sequence[Layer], projection: Float[Array, "k total"], latent: Float[Array, " k"]) -> Sequence[Layer]:
    """Shifts of all sine layers as one linear map of the latent (COIN++, Dupont et al. 2022, section 3.1)."""
    return shifts(layers, split_units(layers, latent @ projection))


def weight_update(layers: Sequence[Layer], update: Float[Array, " p"]) -> Sequence[Layer]:
    """W' = W + ΔW and b' = b + Δb in every layer; the update is in the order of `siren.flatten`.

    W and b are meta-learned, the update belongs to one signal: Strümpler et al. 2022; Schwarz and Teh 2022, section 3.3.1.
    """
    changes = unflatten(update, [kernel.shape for kernel, _ in layers])
    return [(kernel + change, bias + shift) for (kernel, bias), (change, shift) in zip(layers, changes, strict=True)]


def gate_units(layers: Sequence[Layer], gates: Float[Array, " total"]) -> Sequence[Layer]:
    """Gated activations z_l ⊙ h_l in every layer but the last: the gate of unit i scales row i of the next layer's kernel.

    gates: one per unit of all layers but the last, layer after layer; 0 switches a unit off, 1 leaves it unchanged
        (Schwarz and Teh 2022, section 3.2).
    """
    gated = [(gate[:, None] * kernel, bias) for gate, (kernel, bias) in zip(split_units(layers, gates), layers[1:], strict=True)]
    return [layers[0], *gated]


def linear_head(
    layers: Sequence[Layer], kernels: Float[Array, "k h c"], biases: Float[Array, "k c"], latent: Float[Array, " k"]
) -> Sequence[Layer]:
    """Output layer linear in the latent, W' = W + Σ φ_k A_k and b' = b + Σ φ_k a_k, so that f(x) = ψ₀(x) + Σ φ_k ψ_k(x)."""
    kernel, bias = layers[-1]
    return [*layers[:-1], (kernel + jnp.tensordot(latent, kernels, 1), bias + latent @ biases)]


def low_rank_gates(
    layers: Sequence[Layer],
    left: Sequence[jax.Array],
    right: Sequence[jax.Array],
    gain: float = 2.0,
    first: bool = False,
) -> Sequence[Layer]:
    """W' = gain · sigmoid(U Vᵀ) ⊙ W for all sine layers but the first (Schwarz et al. 2023, section 3.1).

    Args:
      layers: the shared layers.
      left: U [fan_in, r] of the gated layers.
      right: V [fan_out, r] of the same layers.
      gain: 2 makes the neutral gate, sigmoid(0) = ½, leave W unchanged.
      first: gate the first sine layer too.
    """
    begin = 0 if first else 1
    gated = [
        (gain * jax.nn.sigmoid(u @ v.T) * kernel, bias)
        for (kernel, bias), u, v in zip(layers[begin:-1], left, right, strict=True)
    ]
    return [*layers[:begin], *gated, layers[-1]]

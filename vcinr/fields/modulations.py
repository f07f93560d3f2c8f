"""Modulations: from a latent's numbers to the layers of one signal's own field.

Every modulation maps layers to layers, (W, b) → (W', b'), so that one field evaluates them all.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vcinr.fields.siren import Layer


def shifts(layers: Sequence[Layer], offsets: Sequence[jax.Array]) -> Sequence[Layer]:
    """b' = b + s for the first ``len(offsets)`` layers, s [width] each (Perez et al. 2018; Dupont et al. 2022, section 3.1)."""
    shifted = [(kernel, bias + offset) for (kernel, bias), offset in zip(layers, offsets, strict=False)]
    return shifted + list(layers[len(offsets) :])


def latent_shifts(layers: Sequence[Layer], projection: Float[Array, "k total"], latent: Float[Array, " k"]) -> Sequence[Layer]:
    """Shifts of all sine layers as one linear map of the latent (COIN++, Dupont et al. 2022, section 3.1)."""
    flat = latent @ projection
    offsets, start = [], 0
    for _, bias in layers[:-1]:
        offsets.append(flat[start : start + bias.shape[0]])
        start += bias.shape[0]
    return shifts(layers, offsets)


def linear_head(
    layers: Sequence[Layer], kernels: Float[Array, "k h c"], biases: Float[Array, "k c"], latent: Float[Array, " k"]
) -> Sequence[Layer]:
    """Output layer linear in the latent, W' = W + Σ φ_k A_k and b' = b + Σ φ_k a_k: f is a mean plus Σ φ_k ψ_k(x)."""
    kernel, bias = layers[-1]
    return [*layers[:-1], (kernel + jnp.tensordot(latent, kernels, 1), bias + latent @ biases)]


def low_rank_gates(
    layers: Sequence[Layer],
    left: Sequence[jax.Array],
    right: Sequence[jax.Array],
    gain: float = 2.0,
) -> Sequence[Layer]:
    """W' = gain · sigmoid(U Vᵀ) ⊙ W for the sine layers after the first, which stays ungated (Schwarz et al. 2023, section 3.1).

    left, right: U [fan_in, r] and V [fan_out, r] of layers 1, 2, …
    gain: 2 makes the neutral gate, sigmoid(0) = ½, leave W as it is.
    """
    gated = [
        (gain * jax.nn.sigmoid(u @ v.T) * kernel, bias) for (kernel, bias), u, v in zip(layers[1:-1], left, right, strict=True)
    ]
    return [layers[0], *gated, layers[-1]]

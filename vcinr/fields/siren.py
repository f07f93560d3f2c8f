"""SIREN, the multi-layer perceptron with sine activations, as functions of a list of layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Layer = tuple[jax.Array, jax.Array]
"""(kernel [fan_in, fan_out], bias [fan_out])."""


def layer_sizes(coord_dim: int, channels: int, num_layers: int, width: int, last_width: int = 0) -> list[tuple[int, int]]:
    """(fan_in, fan_out) of each layer: ``num_layers`` sine layers of ``width`` units, then the linear output.

    last_width: units of the last sine layer; 0 for ``width``.
    """
    dims = [coord_dim] + [width] * (num_layers - 1) + [last_width or width, channels]
    return list(itertools.pairwise(dims))


def kernel_bound(index: int, fan_in: int, omega_0: float) -> float:
    """Half-width of the uniform start of layer ``index``'s kernel (Sitzmann et al. 2020, section 3.2)."""
    return 1.0 / fan_in if index == 0 else (6.0 / fan_in) ** 0.5 / omega_0


def apply(
    layers: Sequence[Layer],
    coords: Float[Array, "*n d"],
    omega_0: float,
    sine: Callable[[jax.Array], jax.Array] = jnp.sin,
) -> Float[Array, "*n c"]:
    """Values of the field at coordinates in [-1, 1]: h ← sin(ω₀ (h W + b)) for all layers but the last, which is linear.

    Sitzmann et al. 2020, "Implicit Neural Representations with Periodic Activation Functions", equation 5.
    """
    hidden = coords
    for kernel, bias in layers[:-1]:
        hidden = sine(omega_0 * (hidden @ kernel + bias))
    kernel, bias = layers[-1]
    return hidden @ kernel + bias


def pre_activations(layers: Sequence[Layer], coords: Float[Array, "n d"], omega_0: float) -> list[jax.Array]:
    """ω₀ (h W + b) of every sine layer, [n, width] each: what a start must keep at SIREN's own statistics."""
    outputs, hidden = [], coords
    for kernel, bias in layers[:-1]:
        outputs.append(omega_0 * (hidden @ kernel + bias))
        hidden = jnp.sin(outputs[-1])
    return outputs

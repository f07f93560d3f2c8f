"""SIREN, the multi-layer perceptron with sine activations: evaluation, initial values, and all weights as one vector."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Layer = tuple[jax.Array, jax.Array]
"""(kernel [fan_in, fan_out], bias [fan_out])."""


NARROW = 32
"""Fields of at most this width are evaluated with coordinates along the last axis: 1.2 to 1.7 times as fast on a CPU
(`python -m benchmarks`). Wider layers, which signals share in meta-training, keep coordinates along the first axis, so that one
large product serves all signals."""


def layer_sizes(coord_dim: int, channels: int, num_layers: int, width: int, last_width: int = 0) -> list[tuple[int, int]]:
    """(fan_in, fan_out) of each layer: ``num_layers`` sine layers of ``width`` units, then the linear output.

    last_width: units of the last sine layer; 0: ``width``.
    """
    dims = [coord_dim] + [width] * (num_layers - 1) + [last_width or width, channels]
    return list(itertools.pairwise(dims))


def kernel_bound(index: int, fan_in: int, omega_0: float, activation: str = "sine") -> float:
    """B of the initial kernel of layer ``index``, uniform on [−B, B] (Sitzmann et al. 2020, section 3.2).

    activation: for "relu", B = √(6 / fan_in) in every layer (He et al. 2015, equation 10).
    """
    if activation == "relu":
        return (6.0 / fan_in) ** 0.5
    return 1.0 / fan_in if index == 0 else (6.0 / fan_in) ** 0.5 / omega_0


def init_layers(
    key: jax.Array, sizes: Sequence[tuple[int, int]], omega_0: float, output_bias: float = 0.5, activation: str = "sine"
) -> list[Layer]:
    """Initial layers: kernels uniform within `kernel_bound`, biases uniform within 1/√fan_in, constant biases at the output."""
    layers = []
    for i, ((fan_in, fan_out), layer_key) in enumerate(zip(sizes, jax.random.split(key, len(sizes)), strict=True)):
        kernel_key, bias_key = jax.random.split(layer_key)
        bound = kernel_bound(i, fan_in, omega_0, activation)
        kernel = jax.random.uniform(kernel_key, (fan_in, fan_out), minval=-bound, maxval=bound)
        if i + 1 < len(sizes):
            bias = jax.random.uniform(bias_key, (fan_out,), minval=-(fan_in**-0.5), maxval=fan_in**-0.5)
        else:
            bias = jnp.full((fan_out,), output_bias)
        layers.append((kernel, bias))
    return layers


def num_weights(sizes: Sequence[tuple[int, int]]) -> int:
    """P, the number of entries of all kernels and biases."""
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in sizes)


def tensor_slices(sizes: Sequence[tuple[int, int]]) -> list[slice]:
    """The slice of each tensor in the vector of `flatten`: kernel 0, bias 0, kernel 1, bias 1, …"""
    lengths = [length for fan_in, fan_out in sizes for length in (fan_in * fan_out, fan_out)]
    return [slice(start, stop) for start, stop in itertools.pairwise(itertools.accumulate(lengths, initial=0))]


def flatten(layers: Sequence[tuple[Any, Any]]) -> Float[Array, " p"]:
    """All weights as one vector: kernel 0 row by row, bias 0, kernel 1, …"""
    return jnp.concatenate([tensor.ravel() for layer in layers for tensor in layer])


def unflatten(vector: Any, sizes: Sequence[tuple[int, int]]) -> list[tuple[Any, Any]]:
    """The inverse of `flatten`, for a JAX or NumPy vector [P]. ValueError where P does not match the sizes."""
    if vector.shape != (num_weights(sizes),):
        raise ValueError(f"layers of sizes {list(sizes)} have {num_weights(sizes)} weights, got an array of {vector.shape}")
    tensors = [vector[part] for part in tensor_slices(sizes)]
    return [(kernel.reshape(size), bias) for size, kernel, bias in zip(sizes, tensors[::2], tensors[1::2], strict=True)]


def apply(
    layers: Sequence[Layer],
    coords: Float[Array, "*n d"],
    omega_0: float,
    sine: Callable[[jax.Array], jax.Array] = jnp.sin,
) -> Float[Array, "*n c"]:
    """Values of the field at coordinates in [-1, 1]: h ← sin(ω₀ (h W + b)) for all layers but the last, which is linear.

    Sitzmann et al. 2020, "Implicit Neural Representations with Periodic Activation Functions", equation 5.

    sine: the activation; any function of an array.
    """
    if coords.ndim == 2 and max(bias.shape[0] for _, bias in layers) <= NARROW:
        return apply_columns(layers, coords, omega_0, sine)
    return apply_rows(layers, coords, omega_0, sine)


def apply_rows(
    layers: Sequence[Layer], coords: Float[Array, "*n d"], omega_0: float, sine: Callable[[jax.Array], jax.Array]
) -> Float[Array, "*n c"]:
    """`apply` with one row per coordinate, whatever the width."""
    hidden = coords
    for kernel, bias in layers[:-1]:
        hidden = sine(omega_0 * (hidden @ kernel + bias))
    kernel, bias = layers[-1]
    return hidden @ kernel + bias


def apply_columns(
    layers: Sequence[Layer], coords: Float[Array, "n d"], omega_0: float, sine: Callable[[jax.Array], jax.Array]
) -> Float[Array, "n c"]:
    """`apply` with one column per coordinate: rows of all coordinates fill vector registers, rows of a few units do not."""
    hidden = coords.T
    for kernel, bias in layers[:-1]:
        hidden = sine(omega_0 * (kernel.T @ hidden + bias[:, None]))
    kernel, bias = layers[-1]
    return (kernel.T @ hidden + bias[:, None]).T


def pre_activations(layers: Sequence[Layer], coords: Float[Array, "n d"], omega_0: float) -> list[jax.Array]:
    """ω₀ (h W + b) of every sine layer, [n, width] each; good initial weights keep them at SIREN's statistics."""
    outputs, hidden = [], coords
    for kernel, bias in layers[:-1]:
        outputs.append(omega_0 * (hidden @ kernel + bias))
        hidden = jnp.sin(outputs[-1])
    return outputs

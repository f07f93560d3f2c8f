"""SIREN, the multi-layer perceptron with sine activations, as functions of a list of layers, and its layers as one vector."""

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
"""Fields of at most this width are evaluated coordinates last: 1.2 to 1.7 times as fast on a CPU (`python -m benchmarks`).
Wide layers that signals share, as in meta-training, keep their rows: one large product serves all signals."""


def layer_sizes(coord_dim: int, channels: int, num_layers: int, width: int, last_width: int = 0) -> list[tuple[int, int]]:
    """(fan_in, fan_out) of each layer: ``num_layers`` sine layers of ``width`` units, then the linear output.

    last_width: units of the last sine layer; 0 for ``width``.
    """
    dims = [coord_dim] + [width] * (num_layers - 1) + [last_width or width, channels]
    return list(itertools.pairwise(dims))


def kernel_bound(index: int, fan_in: int, omega_0: float, activation: str = "sine") -> float:
    """Half-width of the uniform start of layer ``index``'s kernel (Sitzmann et al. 2020, section 3.2).

    activation: "relu" takes √(6 / fan_in) in every layer instead (He et al. 2015, equation 10).
    """
    if activation == "relu":
        return (6.0 / fan_in) ** 0.5
    return 1.0 / fan_in if index == 0 else (6.0 / fan_in) ** 0.5 / omega_0


def init_layers(
    key: jax.Array, sizes: Sequence[tuple[int, int]], omega_0: float, output_bias: float = 0.5, activation: str = "sine"
) -> list[Layer]:
    """Layers at a network's ordinary start: kernels within `kernel_bound`, biases within 1/√fan_in, the output's constant."""
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
    """P, the numbers in all kernels and biases."""
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in sizes)


def tensor_slices(sizes: Sequence[tuple[int, int]]) -> list[slice]:
    """Where each tensor lies in the vector of `flatten`: kernel 0, bias 0, kernel 1, bias 1, …"""
    lengths = [length for fan_in, fan_out in sizes for length in (fan_in * fan_out, fan_out)]
    return [slice(start, stop) for start, stop in itertools.pairwise(itertools.accumulate(lengths, initial=0))]


def flatten(layers: Sequence[tuple[Any, Any]]) -> Float[Array, " p"]:
    """All weights as one vector: kernel 0 row by row, bias 0, kernel 1, …"""
    return jnp.concatenate([tensor.ravel() for layer in layers for tensor in layer])


def unflatten(vector: Any, sizes: Sequence[tuple[int, int]]) -> list[tuple[Any, Any]]:
    """Layers of a vector [P], JAX's or NumPy's; the inverse of `flatten`. ValueError where P is not that of these sizes."""
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

    sine: or any other function in its place.
    Sitzmann et al. 2020, "Implicit Neural Representations with Periodic Activation Functions", equation 5.
    """
    if coords.ndim == 2 and max(bias.shape[0] for _, bias in layers) <= NARROW:
        return apply_columns(layers, coords, omega_0, sine)
    return apply_rows(layers, coords, omega_0, sine)


def apply_rows(
    layers: Sequence[Layer], coords: Float[Array, "*n d"], omega_0: float, sine: Callable[[jax.Array], jax.Array]
) -> Float[Array, "*n c"]:
    """`apply` with a row a coordinate, whatever the width."""
    hidden = coords
    for kernel, bias in layers[:-1]:
        hidden = sine(omega_0 * (hidden @ kernel + bias))
    kernel, bias = layers[-1]
    return hidden @ kernel + bias


def apply_columns(
    layers: Sequence[Layer], coords: Float[Array, "n d"], omega_0: float, sine: Callable[[jax.Array], jax.Array]
) -> Float[Array, "n c"]:
    """`apply` with a column a coordinate: rows of a few units fill no vector register, rows of all coordinates do."""
    hidden = coords.T
    for kernel, bias in layers[:-1]:
        hidden = sine(omega_0 * (kernel.T @ hidden + bias[:, None]))
    kernel, bias = layers[-1]
    return (kernel.T @ hidden + bias[:, None]).T


def pre_activations(layers: Sequence[Layer], coords: Float[Array, "n d"], omega_0: float) -> list[jax.Array]:
    """ω₀ (h W + b) of every sine layer, [n, width] each: what a start must keep at SIREN's own statistics."""
    outputs, hidden = [], coords
    for kernel, bias in layers[:-1]:
        outputs.append(omega_0 * (hidden @ kernel + bias))
        hidden = jnp.sin(outputs[-1])
    return outputs

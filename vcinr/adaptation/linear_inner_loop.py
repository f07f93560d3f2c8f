"""The inner loop on a field that is linear in its latent, f(x) = ψ₀(x) + Σ φ_k ψ_k(x): products of matrices, in NumPy.

The MSE is then quadratic in φ and its gradient is G φ − b, with G = 2/(n c) ΨᵀΨ and b = 2/(n c) Ψᵀ(y − ψ₀). For one picture the
products take milliseconds, where a program for the general inner loop takes half a second to be traced and loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from vcinr.adaptation.inner_loop import HIGH, LOW
from vcinr.fields.encodings import encode
from vcinr.fields.field import FieldConfig
from vcinr.provenance import num_cores

PATCHES_AT_ONCE = 1024
"""Patches of one product of matrices."""


def components(
    config: FieldConfig, shared: Mapping[str, Any], coords: Float32[np.ndarray, "n d"]
) -> tuple[Float32[np.ndarray, "n c"], Float32[np.ndarray, "n c k"]]:
    """ψ₀ and the ψ_k of a field without modulation whose head is linear, at coordinates in [-1, 1]."""
    hidden = coords if config.encoding == "none" else np.asarray(encode(config, jnp.asarray(coords)))
    for i in range(config.num_layers):
        hidden = hidden @ shared[f"kernel_{i}"] + shared[f"bias_{i}"]
        hidden = np.maximum(hidden, 0.0) if config.activation == "relu" else np.sin(np.float32(config.omega_0) * hidden)
    offset = hidden @ shared[f"kernel_{config.num_layers}"] + shared[f"bias_{config.num_layers}"]
    return offset, np.moveaxis(np.tensordot(hidden, shared["head_kernel"], (1, 1)) + shared["head_bias"], 1, 2)


def adapt_linear(
    config: FieldConfig,
    trained: Mapping[str, Any],
    values: Float32[np.ndarray, "p n c"],
    coords: Float32[np.ndarray, "n d"],
    num_steps: int,
) -> Float32[np.ndarray, "p k"]:
    """The latents of whole patches, up to rounding those of `vcinr.adaptation.meta_learning.adapt_latent`.

    Args:
      config: a field without modulation whose head is linear.
      trained: "shared", "latent_init" and "step_sizes", NumPy arrays.
      values: of each patch, in [0, 1].
      coords: of the samples of one patch.
      num_steps: gradient steps; past the last learned step sizes, these are used again.
    """
    offset, basis = components(config, trained["shared"], coords)
    offset, basis = offset.reshape(-1), basis.reshape(-1, basis.shape[-1])
    basis_gradient = np.float32(2.0 / len(basis)) * basis
    curvature = basis.T @ basis_gradient
    sizes, start = trained["step_sizes"], trained["latent_init"]
    steps = sizes["reference"] * np.exp(np.clip(sizes["log_scale"], np.log(LOW), np.log(HIGH)))
    steps = [np.float32(steps[min(i, len(steps) - 1)]) for i in range(num_steps)]

    def adapted(first: int) -> np.ndarray:
        rows = values[first : first + PATCHES_AT_ONCE].reshape(-1, len(basis))
        target = (rows - offset) @ basis_gradient
        latent = start
        for step in steps:
            latent = latent - step * (latent @ curvature - target)
        return latent

    with ThreadPoolExecutor(num_cores()) as pool:
        return np.concatenate(list(pool.map(adapted, range(0, len(values), PATCHES_AT_ONCE))))

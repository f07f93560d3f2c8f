"""Encodings of coordinates by sines and cosines at several frequencies, before a field's first layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vcinr.fields.sine import fast_cos, fast_sin


def nerf_frequencies(num_frequencies: int, scale: float) -> np.ndarray:
    """π scale^i for i < num_frequencies, float32, in radians per unit of coordinate; infinite where float32 overflows."""
    with np.errstate(over="ignore"):
        return (np.pi * float(scale) ** np.arange(num_frequencies)).astype(np.float32)


def nerf(coords: Float[Array, "*n d"], num_frequencies: int, scale: float) -> Float[Array, "*n e"]:
    """(x, sin(π x), cos(π x), sin(σ π x), cos(σ π x), …, cos(σ^(L−1) π x)), so e = d (1 + 2 L).

    num_frequencies: L.
    scale: σ; 2 in Mildenhall et al. 2020, section 5.1; 1.4 in Strümpler et al. 2022.
    """
    frequencies = jnp.asarray(nerf_frequencies(num_frequencies, scale), coords.dtype)
    angles = coords[..., None, :] * frequencies[:, None]
    waves = jnp.stack([fast_sin(angles), fast_cos(angles)], axis=-2)
    return jnp.concatenate([coords, waves.reshape(*coords.shape[:-1], -1)], axis=-1)


def geometric_frequencies(num_frequencies: int, base: float) -> np.ndarray:
    """π base^(i / (num_frequencies − 1)) for i < num_frequencies, float32: from π to base π radians per unit of coordinate."""
    exponents = np.arange(num_frequencies) / max(num_frequencies - 1, 1)
    return (np.pi * float(base) ** exponents).astype(np.float32)


def geometric(coords: Float[Array, "*n d"], num_frequencies: int, base: float) -> Float[Array, "*n e"]:
    """(cos(a⁰ π x), …, cos(a π x), sin(a⁰ π x), …, sin(a π x)), so e = 2 d L (He 2023, equation 3.11).

    num_frequencies: L, exponents 0 to 1 in equal steps.
    base: a; 1024 in the thesis.
    """
    angles = coords[..., None, :] * jnp.asarray(geometric_frequencies(num_frequencies, base), coords.dtype)[:, None]
    waves = jnp.stack([fast_cos(angles), fast_sin(angles)], axis=-3)
    return waves.reshape(*coords.shape[:-1], -1)


def gaussian_matrix(coord_dim: int, num_frequencies: int, scale: float) -> np.ndarray:
    """B float32 [num_frequencies, coord_dim], drawn from N(0, scale²) with a fixed seed, so that files need not store it.

    NumPy guarantees that its legacy generator always gives the same numbers (NEP 19).
    """
    return (scale * np.random.RandomState(0).standard_normal((num_frequencies, coord_dim))).astype(np.float32)


def gaussian(coords: Float[Array, "*n d"], matrix: Float[Array, "m d"]) -> Float[Array, "*n e"]:
    """(sin(2π B x), cos(2π B x)), so e = 2 m; ``matrix`` is B (Tancik et al. 2020)."""
    angles = 2.0 * jnp.pi * (coords @ matrix.T)
    return jnp.concatenate([fast_sin(angles), fast_cos(angles)], axis=-1)


class Encoding(NamedTuple):
    """One row of `ENCODINGS`.

    width: (coord_dim, num_frequencies) → e, the number of encoded coordinates.
    apply: (coords [*n, d], num_frequencies, scale) → encoded coordinates [*n, e].
    highest: (coord_dim, num_frequencies, scale) → upper bound of the angles in radians, for coordinates in [-1, 1].
    """

    width: Callable[[int, int], int]
    apply: Callable[[Any, int, float], Any]
    highest: Callable[[int, int, float], float]


ENCODINGS: dict[str, Encoding] = {
    "none": Encoding(
        width=lambda d, count: d,
        apply=lambda coords, count, scale: coords,
        highest=lambda d, count, scale: 0.0,
    ),
    "nerf": Encoding(
        width=lambda d, count: d * (1 + 2 * count),
        apply=nerf,
        highest=lambda d, count, scale: float(nerf_frequencies(count, scale).max()),
    ),
    "geometric": Encoding(
        width=lambda d, count: 2 * d * count,
        apply=geometric,
        highest=lambda d, count, scale: float(geometric_frequencies(count, scale).max()),
    ),
    "gaussian": Encoding(
        width=lambda d, count: 2 * count,
        apply=lambda coords, count, scale: gaussian(
            coords, jnp.asarray(gaussian_matrix(coords.shape[-1], count, scale), coords.dtype)
        ),
        highest=lambda d, count, scale: float(2.0 * np.pi * np.abs(gaussian_matrix(d, count, scale)).sum(1).max()),
    ),
}
"""`FieldConfig.encoding` → encoding; "none" is the identity."""


def encoded_dim(config: Any) -> int:
    """Number of inputs of the first layer of a `FieldConfig`."""
    return ENCODINGS[config.encoding].width(config.coord_dim, config.num_frequencies)


def encode(config: Any, coords: Float[Array, "*n d"]) -> Float[Array, "*n e"]:
    """Coordinates in [-1, 1] → inputs of the first layer of a `FieldConfig`."""
    return ENCODINGS[config.encoding].apply(coords, config.num_frequencies, config.encoding_scale)

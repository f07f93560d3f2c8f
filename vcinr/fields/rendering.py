"""Volume rendering: what a camera sees of a field of colours and densities, as pure functions of arrays.

Mildenhall et al. 2020, "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis", equations 1 and 3: the colour of
a ray is Σ T_i (1 − exp(−σ_i δ_i)) c_i + T_end · background, with T_i = exp(−Σ_{j<i} σ_j δ_j). Scenes lie in the unit ball.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

BACKGROUND = 1.0
"""What lies behind every scene: white."""
DENSITY_GAIN, DENSITY_BIAS = 10.0, -8.0
"""Density is softplus(gain · raw + bias) per unit of length. An untrained field gives about 0.5, its output bias, so σ is 0.049
and a ray through the whole ball keeps 91 % of the light behind it; with less, gradients are too small to leave the empty scene. A
field that gives 2 is opaque within a third of the radius."""
COLOUR_GAIN = 4.0
"""Colour is sigmoid(gain · (raw − ½)), whose slope at ½ is 1."""


def ball_span(origins: Float[Array, "n 3"], directions: Float[Array, "n 3"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Distances (near, far) at which rays enter and leave the unit ball; equal where a ray misses it, near 0 from inside.

    directions: unit vectors.
    """
    middle = -jnp.sum(origins * directions, axis=-1)
    # The square of the distance from the centre; by the foot's own coordinates, |o|² − middle² would lose digits.
    missed = jnp.sum(jnp.square(origins + middle[:, None] * directions), axis=-1)
    half = jnp.sqrt(jnp.maximum(1.0 - missed, 0.0))
    near = jnp.maximum(middle - half, 0.0)
    return near, jnp.maximum(middle + half, near)


def depths_along(
    near: Float[Array, " n"], far: Float[Array, " n"], count: int, key: jax.Array | None = None
) -> tuple[Float[Array, "n s"], Float[Array, " n"]]:
    """(distances [n, count], length of an interval [n]) of one sample in each of ``count`` equal intervals of each ray.

    key: of uniformly random places in their intervals (NeRF's equation 2); None: the middles.
    """
    width = (far - near) / count
    place = 0.5 if key is None else jax.random.uniform(key, (*near.shape, count), near.dtype)
    return near[:, None] + (jnp.arange(count, dtype=near.dtype) + place) * width[:, None], width


def density(raw: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Density σ per unit of length, positive, of a field's fourth value; see `DENSITY_GAIN`."""
    return jax.nn.softplus(DENSITY_GAIN * raw + DENSITY_BIAS)


def colour(raw: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """Colours in (0, 1) of a field's first three values; see `COLOUR_GAIN`."""
    return jax.nn.sigmoid(COLOUR_GAIN * (raw - 0.5))


def composite(
    colours: Float[Array, "n s c"], depths: Float[Array, "n s"], background: float = BACKGROUND
) -> tuple[Float[Array, "n c"], Float[Array, " n"]]:
    """(colours, transmittance of the whole ray) of samples in order from the camera.

    depths: optical depth σ δ of each sample's interval, at least 0; may be so large that nothing is seen behind it.
    """
    # Shifted and not subtracted: what is opaque has large sums, and their differences no digits.
    through = jnp.cumsum(depths, axis=-1)
    before = jnp.concatenate([jnp.zeros_like(through[:, :1]), through[:, :-1]], axis=-1)
    weights = jnp.exp(-before) * -jnp.expm1(-depths)
    rest = jnp.exp(-through[:, -1])
    return jnp.sum(weights[..., None] * colours, axis=-2) + background * rest[:, None], rest


def render(
    field: Callable[[jax.Array], jax.Array], rays: Float[Array, "n 6"], count: int, key: jax.Array | None = None
) -> Float[Array, "n 3"]:
    """Colours in [0, 1] that rays see of a field, points [m, 3] → raw values [m, 4].

    rays: origins, then unit directions.   count: samples of each ray within the unit ball.   key: as of `depths_along`.
    """
    origins, directions = rays[:, :3], rays[:, 3:]
    distances, width = depths_along(*ball_span(origins, directions), count, key)
    points = origins[:, None] + distances[..., None] * directions[:, None]
    raw = field(points.reshape(-1, 3)).reshape(*distances.shape, 4)
    return composite(colour(raw[..., :3]), density(raw[..., 3]) * width[:, None])[0]


def render_in_parts(
    field: Callable[[jax.Array], jax.Array], rays: Float[Array, "n 6"], count: int, at_once: int
) -> Float[Array, "n 3"]:
    """As `render`, ``at_once`` rays at a time where there are more; so much memory is taken, in gradients too."""
    total = rays.shape[0]
    if total <= at_once:
        return render(field, rays, count)
    spare = -total % at_once
    # Rays of no length would have no direction: the last one is repeated.
    parts = jnp.concatenate([rays, jnp.repeat(rays[-1:], spare, axis=0)]).reshape(-1, at_once, 6)
    seen = jax.lax.map(jax.checkpoint(lambda part: render(field, part, count), prevent_cse=False), parts)
    return seen.reshape(-1, 3)[:total]

"""Residual analysis and synthesis transforms around a uniform quantiser (Schwarz et al. 2023, section 3.2)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class ResidualMLP(nn.Module):
    """u + MLP(u) with SELU, [k] → [k]; the last kernel starts at zero, so the map starts as the identity."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, u: Float[Array, " k"]) -> Float[Array, " k"]:
        hidden = u
        for i in range(self.depth):
            hidden = nn.selu(nn.Dense(self.width, kernel_init=nn.initializers.lecun_normal(), name=f"hidden_{i}")(hidden))
        return u + nn.Dense(u.shape[-1], kernel_init=nn.initializers.zeros, name="out")(hidden)


class Analysis(nn.Module):
    """Standardised latent u → z, to be rounded: z = exp(g) ⊙ (u + MLP(u)) + o, with one learned gain and offset per dimension."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, u: Float[Array, " k"]) -> Float[Array, " k"]:
        log_gain = self.param("log_gain", nn.initializers.zeros, (u.shape[-1],))
        offset = self.param("offset", nn.initializers.zeros, (u.shape[-1],))
        return jnp.exp(log_gain) * ResidualMLP(self.width, self.depth, name="mlp")(u) + offset


class Synthesis(nn.Module):
    """Symbols ẑ → standardised latent u = v + MLP(v), where v = exp(g) ⊙ (ẑ − o)."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, z: Float[Array, " k"]) -> Float[Array, " k"]:
        log_gain = self.param("log_gain", nn.initializers.zeros, (z.shape[-1],))
        offset = self.param("offset", nn.initializers.zeros, (z.shape[-1],))
        return ResidualMLP(self.width, self.depth, name="mlp")(jnp.exp(log_gain) * (z - offset))

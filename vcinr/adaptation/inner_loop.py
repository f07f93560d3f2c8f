"""Meta-SGD: gradient descent on the latent with learned step sizes, for every step and dimension or the same in all steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vcinr.adaptation.fit import fit


class StepSizes(NamedTuple):
    """Step sizes learned as logarithms: α = reference · exp(s), with s clipped to [log `LOW`, log `HIGH`].

    log_scale: s [steps, k], or [1, k] for all steps.
    reference: scalar, 1/λ_max of the inner loss's Hessian, in latent² per unit of loss.
    """

    log_scale: Any
    reference: Any


class LinearStepSizes(NamedTuple):
    """Step sizes learned as they are, as the papers do: α, clipped to [low, high] (Li et al. 2017, section 3).

    alpha: [steps, k], or [1, k] for all steps; in units of latent² per unit of loss. Nothing but the clip keeps it positive.
    low, high: least and largest α.
    """

    alpha: Any
    low: float = -math.inf
    high: float = math.inf


LOW, HIGH = 1e-3, 1e2
"""Clip of exp(s): step sizes stay within these multiples of the reference."""


def init_step_sizes(num_steps: int, latent_dim: int, reference: jax.Array | float, scale: float = 1.0) -> StepSizes:
    """Step sizes that start at ``scale`` times the reference, one per step and latent dimension."""
    return StepSizes(jnp.full((num_steps, latent_dim), jnp.log(scale)), jnp.asarray(reference, jnp.float32))


def step_size(sizes: StepSizes | LinearStepSizes) -> Float[Array, "steps k"]:
    """α [steps, k] in units of latent² per unit of loss; positive where it is learned as a logarithm."""
    if isinstance(sizes, LinearStepSizes):
        return jnp.clip(sizes.alpha, sizes.low, sizes.high)
    return jax.lax.stop_gradient(sizes.reference) * jnp.exp(jnp.clip(sizes.log_scale, jnp.log(LOW), jnp.log(HIGH)))


def meta_sgd(alpha: Float[Array, "steps k"], mask: Float[Array, " k"] | None = None) -> optax.GradientTransformation:
    """φ ← φ − α_t ⊙ ∇φ at step t (Li et al. 2017, equation 2); steps beyond the last row of ``alpha`` use the last row.

    mask: multiplies every update.
    """

    def init(params):
        del params
        return jnp.zeros((), jnp.int32)

    def update(gradient, count, params=None):
        del params
        row = alpha[jnp.minimum(count, alpha.shape[0] - 1)]
        step = row if mask is None else row * mask
        return -step * gradient, count + 1

    return optax.GradientTransformation(init, update)


def adapt(
    loss: Callable[[jax.Array], jax.Array],
    latent: Float[Array, " k"],
    sizes: StepSizes | LinearStepSizes,
    num_steps: int,
    *,
    first_order: bool = False,
    mask: Float[Array, " k"] | None = None,
) -> tuple[Float[Array, " k"], Float[Array, " steps"]]:
    """The inner loop: ``num_steps`` steps of Meta-SGD from ``latent`` (Schwarz et al. 2023, algorithm 1, line 5).

    Args:
      loss: scalar function of the latent.
      latent: start.
      sizes: learned step sizes.
      num_steps: number of steps.
      first_order: drop second derivatives.
      mask: multiplies every update (Schwarz and Teh 2022, equation 9); entries where it is 0 do not change.

    Returns:
      (adapted latent, loss before each step).
    """
    latent, _, losses = fit(loss, latent, meta_sgd(step_size(sizes), mask), num_steps, first_order=first_order)
    return latent, losses


def hessian_product(loss: Callable[[jax.Array], jax.Array], latent: Float[Array, " k"]) -> Callable[[jax.Array], jax.Array]:
    """v [k] ↦ H v, H being the Hessian of ``loss`` at ``latent``."""
    return lambda v: jax.jvp(jax.grad(loss), (latent,), (v,))[1]


def largest_curvature(
    loss: Callable[[jax.Array], jax.Array], latent: Float[Array, " k"], key: jax.Array, iterations: int = 20
) -> Float[Array, ""]:
    """λ_max of the Hessian of ``loss`` at ``latent`` by power iteration, in units of loss per latent²."""
    product = hessian_product(loss, latent)

    def body(_, v):
        w = product(v)
        return w / jnp.maximum(jnp.linalg.norm(w), 1e-30)

    v = jax.lax.fori_loop(0, iterations, body, jax.random.normal(key, latent.shape, latent.dtype))
    v = v / jnp.maximum(jnp.linalg.norm(v), 1e-30)
    return jnp.maximum(jnp.abs(v @ product(v)), 1e-12)

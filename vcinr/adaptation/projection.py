"""Projection: the latent whose field is nearest to a signal, by damped Gauss–Newton steps.

A few gradient steps stop far from the best latent where the Jacobian of the field is badly conditioned, as that of trained
gates is (condition of JᵀJ: 10⁴ and more). Gauss–Newton steps do not depend on the scaling of the latent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

DAMPING = 1e-2
"""Initial damping μ, relative to the diagonal of JᵀJ."""

ACCEPTED, REJECTED = 0.3, 4.0
"""Factors of μ after a step that lowered the error, and after one that did not."""

AT_ONCE = 16
"""Columns of the Jacobian computed at once; more take memory, fewer take time."""


def project(
    residuals: Callable[[jax.Array], Float[Array, " r"]],
    latent: Float[Array, " k"],
    num_steps: int,
    *,
    sketch: Callable[[jax.Array], Float[Array, " s"]] | None = None,
) -> tuple[Float[Array, " k"], Float[Array, " steps"]]:
    """Steps φ ← φ − (JᵀJ + μ diag JᵀJ)⁻¹ Jᵀr that lower |r(φ)|² (Levenberg 1944, Marquardt 1963).

    A step that would not lower it is not made, and the next one is more damped: the error never grows, a NaN is never kept.

    Args:
      residuals: latent → weighted residuals r of the signal; their squares are what is minimised.
      latent: start.
      num_steps: number of steps, taken or not; each costs k products with the Jacobian of ``sketch``.
      sketch: cheaper residuals whose JᵀJ estimates that of ``residuals``, such as those of a coarser grid, scaled so that their
        squared sums agree; the gradient is always that of ``residuals``. None: ``residuals`` themselves.

    Returns:
      (latent, |r|² after each step).
    """
    approximate = residuals if sketch is None else sketch

    def energy(phi: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(residuals(phi)))

    def step(carry, _):
        phi, best, damping = carry
        columns = jax.lax.map(lambda v: jax.jvp(approximate, (phi,), (v,))[1], directions, batch_size=AT_ONCE)
        hessian = columns @ columns.T
        diagonal = jnp.diagonal(hessian)
        # A dimension that changes nothing has no scale, and stays where it is.
        scale = jnp.where(diagonal > 0.0, jax.lax.rsqrt(diagonal), 0.0)
        scaled = scale[:, None] * hessian * scale + damping * jnp.eye(len(phi), dtype=phi.dtype)
        gradient = 0.5 * jax.grad(energy)(phi)
        # Conjugate gradients and not a batched Cholesky: that one waits in XLA's CPU thread pool for other threads of the pool
        # (jaxlib 0.10, ParallelBatchMap), and stands still for ever where every thread is a device that waits so.
        moved = phi - scale * cg(partial(jnp.matmul, scaled), scale * gradient, maxiter=len(phi))[0]
        error = energy(moved)
        lower = error < best
        phi = jnp.where(lower, moved, phi)
        damping = jnp.where(lower, ACCEPTED * damping, REJECTED * damping)
        return (phi, jnp.where(lower, error, best), damping), jnp.where(lower, error, best)

    directions = jnp.eye(latent.shape[0], dtype=latent.dtype)
    start = (latent, energy(latent), jnp.asarray(DAMPING, latent.dtype))
    (latent, _, _), errors = jax.lax.scan(step, start, None, length=num_steps)
    return latent, errors

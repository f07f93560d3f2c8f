"""The one optimisation loop: n steps of any optax transformation, differentiable and rematerialised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def fit(
    loss: Callable[[Any], jax.Array],
    params: Any,
    optimiser: optax.GradientTransformation,
    num_steps: int,
    opt_state: Any = None,
    *,
    remat: bool = True,
    first_order: bool = False,
) -> tuple[Any, Any, jax.Array]:
    """Minimises ``loss`` from ``params``: x ← x + update(∇loss(x)), ``num_steps`` times.

    The loop is a `lax.scan`, so gradients flow through all steps.

    Args:
      loss: scalar function of the parameters.
      params: pytree to start from.
      optimiser: any optax transformation.
      num_steps: number of updates.
      opt_state: optimiser state from an earlier call, to continue it; None starts a new one.
      remat: recompute each step in the backward pass, so that memory does not grow with the number of steps.
      first_order: drop second derivatives (Finn et al. 2017, section 5.2).

    Returns:
      (parameters, optimiser state, loss before each step [num_steps]).
    """
    if opt_state is None:
        opt_state = optimiser.init(params)

    def step(carry, _):
        current, state = carry
        value, gradient = jax.value_and_grad(loss)(current)
        if first_order:
            gradient = jax.lax.stop_gradient(gradient)
        updates, state = optimiser.update(gradient, state, current)
        return (optax.apply_updates(current, updates), state), value

    body = jax.checkpoint(step, prevent_cse=False) if remat else step
    (params, opt_state), losses = jax.lax.scan(body, (params, opt_state), jnp.arange(num_steps))
    return params, opt_state, losses

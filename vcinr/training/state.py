"""What training carries from one step to the next: data only."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vcinr.stage import TrainingConfig
from vcinr.training.signals import SignalStates

HEALTHY, NON_FINITE, COLLAPSED = 0, 1, 2


@flax.struct.dataclass
class TrainState:
    """One stage's state; leaves are arrays, or what JAX puts in their place while it traces and transforms.

    step: int32 [], updates made, skipped ones included.
    params: what the stage trains.
    opt_state: the optimiser's state.
    rng: uint32 key data; all randomness is folded from it, the attempt and the step (or the signal and its updates).
    aux: dict of
        average: the parameter average (absent where it is switched off),
        signals: state per training signal, a `SignalStates` (absent where there is none),
        attempt: int32 [], rollbacks so far,
        lr_scale: float32 [], multiplies every update,
        smoothed_loss, best_loss: float32 [], the smoothed loss and its least value so far (inf before the first),
        fault: int32 [], HEALTHY or what first went wrong,
        fault_step: int32 [], the update (counted from 1) in which it did, or 0.
    """

    step: Any
    params: Any
    opt_state: Any
    rng: Any
    aux: dict[str, Any]

    @property
    def evaluated_params(self) -> Any:
        """The parameters to evaluate and to keep: the average where there is one."""
        return self.aux.get("average", self.params)


def init_state(
    config: TrainingConfig,
    optimiser: optax.GradientTransformation,
    params: Any,
    key: jax.Array,
    attempt: int = 0,
    signals: SignalStates | None = None,
) -> TrainState:
    """State before the first update.

    Args:
        params: the stage's trainable tree.
        key: typed or raw PRNG key.
        attempt: rollbacks so far.
        signals: state per training signal, from `init_signals`.
    """
    params = jax.tree.map(jnp.array, params)
    aux = {
        "attempt": jnp.int32(attempt),
        "lr_scale": jnp.float32(config.rollback_lr_factor**attempt),
        "smoothed_loss": jnp.float32(0),
        "best_loss": jnp.float32(jnp.inf),
        "fault": jnp.int32(HEALTHY),
        "fault_step": jnp.int32(0),
    }
    if config.average_decay > 0:
        aux["average"] = jax.tree.map(jnp.array, params)
    if signals is not None:
        aux["signals"] = signals
    rng = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return TrainState(step=jnp.int32(0), params=params, opt_state=optimiser.init(params), rng=rng, aux=aux)


def with_attempt(config: TrainingConfig, state: TrainState, attempt: int) -> TrainState:
    """The state at the start of another attempt: other randomness, a smaller step size."""
    scale = jnp.float32(config.rollback_lr_factor**attempt)
    return state.replace(aux={**state.aux, "attempt": jnp.int32(attempt), "lr_scale": scale})


def attempt_key(state: TrainState) -> jax.Array:
    """Key of the current attempt: fold_in(rng, attempt)."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.aux["attempt"])


def step_key(state: TrainState) -> jax.Array:
    """Key of the next update: fold_in(fold_in(rng, attempt), step)."""
    return jax.random.fold_in(attempt_key(state), state.step)


def ramped_decay(average_decay: float, step: jax.Array) -> jax.Array:
    """Decay of the parameter average in update `step` (from 0): min(average_decay, (1 + t) / (10 + t))."""
    return jnp.minimum(average_decay, (1 + step) / (10 + step))

"""A stage's update on the host, between two steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vcinr.devices import replicate
from vcinr.stage import Stage
from vcinr.training.state import HEALTHY, NON_FINITE, TrainState


def with_host_update(stage: Stage, state: TrainState, step: int, mesh: Mesh) -> TrainState:
    """The state after `Stage.host_update`; arrays that it leaves alone stay where they are, on the devices.

    A result with values that are not finite changes nothing but ``state.aux["fault"]``.
    Raises ValueError where the result has another structure or shape.
    """
    aux = dict(state.aux)
    current = state.params, aux["signals"].values if "signals" in aux else None
    before = jax.device_get(current)
    # Trees of its own: an update may put new arrays into the dicts that it was given.
    after = tuple(stage.host_update(*jax.tree.map(lambda array: array, before), step))
    if _shapes(after) != _shapes(before):
        raise ValueError(
            f"the host_update of stage {stage.name!r} must give back a (trainable, signals) of the structure and shapes that "
            f"it got, {_shapes(before)}, not {_shapes(after)}"
        )
    after = jax.tree.map(lambda old, new: old if new is old else np.asarray(new, old.dtype), before, after)
    changed = jax.tree.map(lambda old, new: new is not old and not np.array_equal(old, new), before, after)
    finite = jax.tree.map(lambda change, new: not change or bool(np.all(np.isfinite(new))), changed, after)
    if not all(jax.tree.leaves(finite)):
        if int(aux["fault"]) == HEALTHY:
            aux |= {"fault": replicate(jnp.int32(NON_FINITE), mesh), "fault_step": replicate(jnp.int32(step), mesh)}
        return state.replace(aux=aux)

    def put(changed: Any, old: Any, new: Any) -> Any:
        return jax.tree.map(lambda change, a, b: replicate(b, mesh) if change else a, changed, old, new)

    params, signals = put(changed, current, after)
    if "average" in aux:
        aux["average"] = put(changed[0], aux["average"], after[0])
    if "signals" in aux:
        aux["signals"] = aux["signals"].replace(values=signals)
    return state.replace(params=params, aux=aux)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(np.shape, tree)

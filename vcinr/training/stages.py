"""Training steps made from a stage's loss of one example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from vcinr.devices import AXIS, all_devices_mesh, axis_mean, local_rows, pmapped, replicate, shard_batch
from vcinr.stage import ExampleSource, Stage
from vcinr.training.state import COLLAPSED, HEALTHY, NON_FINITE, TrainState, ramped_decay, step_key

SMOOTHING_STEPS = 20

Metrics = dict[str, jax.Array]


def microbatch_size(share: int, microbatch: int) -> int:
    """Examples that a device takes at once out of its `share`: the largest divisor up to `microbatch` (0: all of them)."""
    limit = min(microbatch, share) if microbatch > 0 else share
    return next(size for size in range(limit, 0, -1) if share % size == 0)


def mean_gradient(
    stage: Stage, trainable: Any, frozen: Any, batch: Mapping[str, jax.Array], key: jax.Array
) -> tuple[Any, Metrics]:
    """Gradient and metrics, each the mean over the whole batch; for use inside a `pmapped` function.

    batch: this device's rows of the batch.   key: the same on every device; example i of the *global* batch gets
        fold_in(key, i), so that the result does not depend on how many devices share the work.
    Returns (gradient, {"loss": …, …}), equal on all devices. Memory does not grow with the number of microbatches.
    """
    gradient = jax.grad(lambda *args: _mean_metrics(stage.loss, *args), has_aux=True)
    per_device = _over_microbatches(lambda *args: gradient(trainable, frozen, *args), batch, key, stage.training.microbatch)
    return axis_mean(per_device)


def make_step(
    stage: Stage, optimiser: optax.GradientTransformation, mesh: Mesh | None = None
) -> Callable[[TrainState, Any, Mapping[str, jax.Array]], tuple[TrainState, Metrics]]:
    """One compiled update over all devices: step(state, frozen, batch) → (state, metrics).

    state, frozen: replicated; the state is donated.   batch: split over devices by its leading axis.
    metrics: the stage's own, and ``loss``, ``smoothed_loss``, ``grad_norm`` (before clipping).
    An update whose loss, gradient or new parameters are not finite changes no parameter; it and a collapse (see
    `TrainingConfig.collapse_db`) are marked in ``state.aux["fault"]`` and stay marked.
    """
    config = stage.training

    def step(state: TrainState, frozen: Any, batch: Mapping[str, jax.Array]) -> tuple[TrainState, Metrics]:
        gradient, metrics = mean_gradient(stage, state.params, frozen, batch, step_key(state))
        updates, opt_state = optimiser.update(gradient, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: (u * state.aux["lr_scale"]).astype(u.dtype), updates)
        params = optax.apply_updates(state.params, updates)
        metrics["grad_norm"] = optax.tree.norm(gradient)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"]) & jnp.isfinite(optax.tree.norm(params))

        aux = dict(state.aux)
        candidates = {"params": params, "opt_state": opt_state}
        current = {"params": state.params, "opt_state": state.opt_state}
        if "average" in aux:
            decay = ramped_decay(config.average_decay, state.step)
            current["average"] = aux["average"]
            candidates["average"] = jax.tree.map(
                lambda a, p: (decay * a + (1 - decay) * p).astype(a.dtype), aux["average"], params
            )
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), candidates, current)
        if "average" in aux:
            aux["average"] = kept["average"]

        smoothed, best, collapsed = _watch(state, metrics["loss"], finite, config.collapse_db)
        healthy = aux["fault"] == HEALTHY
        fault = jnp.where(finite, jnp.where(collapsed, COLLAPSED, HEALTHY), NON_FINITE).astype(jnp.int32)
        aux["fault_step"] = jnp.where(healthy & (fault != HEALTHY), state.step + 1, aux["fault_step"])
        aux["fault"] = jnp.where(healthy, fault, aux["fault"])
        aux["smoothed_loss"], aux["best_loss"] = smoothed, best
        metrics["smoothed_loss"] = smoothed
        state = state.replace(step=state.step + 1, params=kept["params"], opt_state=kept["opt_state"], aux=aux)
        return state, metrics

    return pmapped(step, in_axes=(None, None, 0), out_axes=None, mesh=mesh, donate_argnums=(0,))


def make_validation(
    stage: Stage, frozen: Any, source: ExampleSource, num_examples: int, mesh: Mesh | None = None
) -> Callable[[Any], dict[str, float]]:
    """Mean metrics over a fixed draw of examples: validate(trainable) → {"loss": …, …}.

    num_examples: a multiple of the number of devices. They are drawn once, and their keys are always the same.
    """
    mesh = all_devices_mesh() if mesh is None else mesh
    limit = stage.training.microbatch or max(1, stage.training.batch_size // mesh.devices.size)
    frozen = replicate(frozen, mesh)
    rows = local_rows(num_examples, mesh)
    examples = source.batch(np.random.default_rng(0), num_examples)
    batch = shard_batch({name: array[rows] for name, array in examples.items()}, mesh)

    def evaluate(trainable: Any, frozen: Any, batch: Mapping[str, jax.Array]) -> Metrics:
        def metrics(*args: Any) -> Metrics:
            return _mean_metrics(stage.evaluate or stage.loss, trainable, frozen, *args)[1]

        return axis_mean(_over_microbatches(metrics, batch, jax.random.key(0), limit))

    compiled = pmapped(evaluate, in_axes=(None, None, 0), out_axes=None, mesh=mesh)
    return lambda trainable: {name: float(value) for name, value in compiled(trainable, frozen, batch).items()}


def _mean_metrics(
    loss_of_one: Callable, trainable: Any, frozen: Any, examples: Mapping[str, jax.Array], keys: jax.Array
) -> tuple[jax.Array, Metrics]:
    losses, metrics = jax.vmap(loss_of_one, in_axes=(None, None, 0, 0))(trainable, frozen, examples, keys)
    loss = jnp.mean(losses)
    return loss, {**{name: jnp.mean(value, axis=0) for name, value in metrics.items()}, "loss": loss}


def _over_microbatches(fn: Callable, batch: Mapping[str, jax.Array], key: jax.Array, microbatch: int) -> Any:
    """Mean over microbatches of fn(examples, keys), one after the other."""
    share = jax.tree.leaves(batch)[0].shape[0]
    size = microbatch_size(share, microbatch)
    count = share // size
    first = jax.lax.axis_index(AXIS) * share

    def one(index: jax.Array) -> Any:
        examples = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, index * size, size), batch)
        return fn(examples, jax.vmap(lambda i: jax.random.fold_in(key, i))(first + index * size + jnp.arange(size)))

    if count == 1:
        return one(jnp.int32(0))
    total = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(one, jnp.int32(0)))
    total, _ = jax.lax.scan(lambda sums, i: (jax.tree.map(jnp.add, sums, one(i)), None), total, jnp.arange(count))
    return jax.tree.map(lambda x: x / count, total)


def _watch(state: TrainState, loss: jax.Array, finite: jax.Array, collapse_db: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Smoothed loss, its least value so far, and whether it stands `collapse_db` decibels above that."""
    count = state.step + 1
    smoothed, best = state.aux["smoothed_loss"], state.aux["best_loss"]
    moved = smoothed + (loss.astype(smoothed.dtype) - smoothed) / jnp.minimum(count, SMOOTHING_STEPS)
    smoothed = jnp.where(finite, moved, smoothed).astype(smoothed.dtype)
    if collapse_db <= 0:
        return smoothed, jnp.where(count >= SMOOTHING_STEPS, jnp.minimum(best, smoothed), best), jnp.bool_(False)
    collapsed = smoothed > best * 10 ** (collapse_db / 10)
    return smoothed, jnp.where(count >= SMOOTHING_STEPS, jnp.minimum(best, smoothed), best), collapsed

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
from vcinr.training.signals import INDEX, move_rows, put_rows, signal_keys, take_rows
from vcinr.training.state import COLLAPSED, HEALTHY, NON_FINITE, TrainState, attempt_key, ramped_decay, step_key

SMOOTHING_STEPS = 20

Metrics = dict[str, jax.Array]


def microbatch_size(share: int, microbatch: int) -> int:
    """Examples per microbatch of a device that has `share`: the largest divisor up to `microbatch` (0: all of them)."""
    limit = min(microbatch, share) if microbatch > 0 else share
    return next(size for size in range(limit, 0, -1) if share % size == 0)


def mean_gradient(
    stage: Stage, trainable: Any, frozen: Any, batch: Mapping[str, jax.Array], key: jax.Array
) -> tuple[Any, Metrics]:
    """Gradient and metrics, each the mean over the whole batch; for use inside a `pmapped` function.

    Args:
        batch: this device's rows of the batch.
        key: the same on every device; example i of the *global* batch gets fold_in(key, i), so that the result does not
            depend on how many devices share the work.
    Returns:
        (gradient, {"loss": …, …}), equal on all devices. Memory does not grow with the number of microbatches.
    """

    def gradient(examples: Mapping[str, jax.Array], keys: jax.Array) -> tuple[Any, tuple]:
        return jax.grad(lambda t: _mean_metrics(stage.loss, t, frozen, examples, keys), has_aux=True)(trainable), ()

    mean, _ = _over_microbatches(gradient, (batch, _row_keys(batch, key)), stage.training.microbatch)
    return axis_mean(mean)


def signal_gradients(
    stage: Stage, trainable: Any, frozen: Any, batch: Mapping[str, jax.Array], keys: jax.Array, own: Any
) -> tuple[Any, Metrics, Any]:
    """As `mean_gradient`, and each example's gradient with respect to its own state; for use inside a `pmapped` function.

    Args:
        batch, keys, own: this device's rows of the batch, their keys [b] and their own states, a tree of [b, …].
    Returns:
        (gradient, metrics, gradients of each example's loss with respect to its own state, a tree of [b, …]).
    """

    def gradient(examples: Mapping[str, jax.Array], keys: jax.Array, own: Any) -> tuple[Any, Any]:
        def mean(t: Any, o: Any) -> tuple[jax.Array, Metrics]:
            return _mean_metrics(stage.loss, t, frozen, examples, keys, o)

        (shared, mean_own), metrics = jax.grad(mean, argnums=(0, 1), has_aux=True)(trainable, own)
        return (shared, metrics), jax.tree.map(lambda g: g * keys.shape[0], mean_own)

    mean, own_gradient = _over_microbatches(gradient, (batch, keys, own), stage.training.microbatch)
    return *axis_mean(mean), own_gradient


def make_step(
    stage: Stage, optimiser: optax.GradientTransformation, mesh: Mesh | None = None
) -> Callable[[TrainState, Any, Mapping[str, jax.Array]], tuple[TrainState, Metrics]]:
    """One compiled update over all devices: step(state, frozen, batch) → (state, metrics).

    Args of the step:
        state, frozen: replicated; the state is donated.
        batch: split over devices by its leading axis; of a stage with state per signal, as `epoch_batch` draws it.
    Returns of the step:
        The state, and the stage's own metrics with ``loss``, ``smoothed_loss`` and ``grad_norm`` (before clipping).
    An update whose loss, gradients or new values are not finite changes no parameter and no signal's state; it and a
    collapse (see `TrainingConfig.collapse_db`) are marked in ``state.aux["fault"]`` and stay marked.
    """
    config = stage.training

    def step(state: TrainState, frozen: Any, batch: Mapping[str, jax.Array]) -> tuple[TrainState, Metrics]:
        aux, moved = dict(state.aux), None
        if stage.per_signal is None:
            gradient, metrics = mean_gradient(stage, state.params, frozen, batch, step_key(state))
            norms = []
        else:
            own = take_rows(aux["signals"], batch[INDEX])
            keys = signal_keys(attempt_key(state), batch[INDEX], own.updates)
            gradient, metrics, own_gradient = signal_gradients(stage, state.params, frozen, batch, keys, own.values)
            # All devices move all rows of the batch, so that their copies of the state stay equal.
            index, own, own_gradient = jax.lax.all_gather((batch[INDEX], own, own_gradient), AXIS, tiled=True)
            moved = move_rows(stage, own, own_gradient, aux["lr_scale"])
            norms = [optax.tree.norm(own_gradient), optax.tree.norm(moved.values)]
        updates, opt_state = optimiser.update(gradient, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: (u * aux["lr_scale"]).astype(u.dtype), updates)
        params = optax.apply_updates(state.params, updates)
        metrics["grad_norm"] = optax.tree.norm(gradient)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"]) & jnp.isfinite(optax.tree.norm(params))
        for norm in norms:
            finite &= jnp.isfinite(norm)

        candidates = {"params": params, "opt_state": opt_state}
        current = {"params": state.params, "opt_state": state.opt_state}
        if "average" in aux:
            decay = ramped_decay(config.average_decay, state.step)
            current["average"] = aux["average"]
            candidates["average"] = jax.tree.map(
                lambda a, p: (decay * a + (1 - decay) * p).astype(a.dtype), aux["average"], params
            )
        if moved is not None:
            current["rows"], candidates["rows"] = own, moved
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), candidates, current)
        if "average" in aux:
            aux["average"] = kept["average"]
        if moved is not None:
            aux["signals"] = put_rows(aux["signals"], index, kept["rows"])

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
    Raises ValueError for a stage with state per signal that does not say how to evaluate examples that have none.
    """
    if stage.per_signal is not None and stage.evaluate is None:
        raise ValueError(
            f"stage {stage.name!r} has state per signal, which held-out examples lack: set its eval_every to 0, or give it "
            "an evaluate(trainable, frozen, example, key)"
        )
    mesh = all_devices_mesh() if mesh is None else mesh
    limit = stage.training.microbatch or max(1, stage.training.batch_size // mesh.devices.size)
    frozen = replicate(frozen, mesh)
    rows = local_rows(num_examples, mesh)
    examples = source.batch(np.random.default_rng(0), num_examples)
    batch = shard_batch({name: array[rows] for name, array in examples.items()}, mesh)

    def evaluate(trainable: Any, frozen: Any, batch: Mapping[str, jax.Array]) -> Metrics:
        def metrics(*args: Any) -> tuple[Metrics, tuple]:
            return _mean_metrics(stage.evaluate or stage.loss, trainable, frozen, *args)[1], ()

        return axis_mean(_over_microbatches(metrics, (batch, _row_keys(batch, jax.random.key(0))), limit)[0])

    compiled = pmapped(evaluate, in_axes=(None, None, 0), out_axes=None, mesh=mesh)
    return lambda trainable: {name: float(value) for name, value in compiled(trainable, frozen, batch).items()}


def _mean_metrics(
    loss_of_one: Callable, trainable: Any, frozen: Any, examples: Mapping[str, jax.Array], keys: jax.Array, *own: Any
) -> tuple[jax.Array, Metrics]:
    over_examples = jax.vmap(loss_of_one, in_axes=(None, None, *[0] * (2 + len(own))))
    losses, metrics = over_examples(trainable, frozen, examples, keys, *own)
    loss = jnp.mean(losses)
    return loss, {**{name: jnp.mean(value, axis=0) for name, value in metrics.items()}, "loss": loss}


def _row_keys(batch: Mapping[str, jax.Array], key: jax.Array) -> jax.Array:
    """Keys [b] of this device's rows, folded from their places in the global batch."""
    share = jax.tree.leaves(batch)[0].shape[0]
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jax.lax.axis_index(AXIS) * share + jnp.arange(share))


def _over_microbatches(fn: Callable, rows: tuple, microbatch: int) -> tuple[Any, Any]:
    """Runs fn(*rows of a microbatch) → (a, b) for one microbatch after the other; the mean of a, and b's rows [share, …]."""
    share = jax.tree.leaves(rows)[0].shape[0]
    size = microbatch_size(share, microbatch)
    count = share // size

    def one(index: jax.Array) -> tuple[Any, Any]:
        return fn(*jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, index * size, size), rows))

    if count == 1:
        return one(jnp.int32(0))

    def add(total: Any, index: jax.Array) -> tuple[Any, Any]:
        mean, each = one(index)
        return jax.tree.map(jnp.add, total, mean), each

    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(one, jnp.int32(0))[0])
    total, each = jax.lax.scan(add, zeros, jnp.arange(count))
    return jax.tree.map(lambda x: x / count, total), jax.tree.map(lambda x: x.reshape(share, *x.shape[2:]), each)


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

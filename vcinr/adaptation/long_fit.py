"""Fits of thousands of steps, driven from the host: signals in batches, best parameters kept, checkpoints to resume from."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from vcinr.devices import local_mesh, pad_rows, pmapped, replicate, shard_batch
from vcinr.trees import digest, load_tree, save_tree

SCHEDULES = ("constant", "cosine")

FIT_VERSION = 1
"""Increase it whenever a loss or the optimiser computes other numbers, so that no fit resumes from an older checkpoint."""

NAME_DIGITS = 12
"""Hexadecimal digits of a fit's digest in the names of its checkpoints."""

_NEVER = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True)
class OptimiserSpec:
    """Adam (Kingma & Ba 2015) and its learning rate.

    lr: learning rate at step 0, positive.
    schedule: "constant", or "cosine": half a cosine from ``lr`` down to ``final_fraction`` · ``lr`` at the last step.
    final_fraction: see ``schedule``; 0 to 1.
    """

    lr: float = 2e-4
    schedule: str = "constant"
    final_fraction: float = 0.0

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; valid are {', '.join(SCHEDULES)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"the learning rate must be positive, not {self.lr}")
        if not 0 <= self.final_fraction <= 1:
            raise ValueError(f"final_fraction lies in 0..1, not {self.final_fraction}")

    def rate(self, step: jax.Array, num_steps: jax.Array) -> jax.Array:
        """Learning rate at a step, 0 to ``num_steps`` − 1."""
        if self.schedule == "constant":
            return jnp.asarray(self.lr, jnp.float32)
        cosine = 0.5 + 0.5 * jnp.cos(jnp.pi * step / jnp.maximum(num_steps - 1, 1))
        return self.lr * (self.final_fraction + (1.0 - self.final_fraction) * cosine)


class Overfitted(NamedTuple):
    """Result of `overfit`, all NumPy.

    params: parameters at each signal's lowest loss, one row per signal.
    loss: lowest loss of each signal, [b].
    losses: lowest loss so far after each chunk of steps, [b, chunks].
    """

    params: Any
    loss: np.ndarray
    losses: np.ndarray


class _State(NamedTuple):
    """One signal's fit between two steps; ``fault`` is the first step whose loss was not finite, `_NEVER` if there was none."""

    params: Any
    optimiser: Any
    best: Any
    best_loss: Any
    fault: Any


def overfit(
    loss: Callable[..., Any],
    config: Hashable,
    shared: Any,
    params: Any,
    data: Any,
    optimiser: OptimiserSpec,
    num_steps: int,
    *,
    chunk_steps: int = 250,
    workdir: str | os.PathLike | None = None,
    name: str = "fit",
    labels: Sequence[Any] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Overfitted:
    """Minimises ``loss`` for each signal of a batch separately, by ``num_steps`` steps of Adam.

    A signal's result does not depend on the other signals, except in the last bits of its floats when the batch size differs.

    Args:
      loss: ``loss(config, shared, params, data, step)`` of one signal. Returns the scalar to minimise, or a pair: the scalar that
        the best parameters are chosen by, and the scalar to minimise. A module-level function, compiled once per ``config``.
        ``step`` runs from 0 to ``num_steps``; the last evaluation is of the parameters after the last update.
      config: static (hashable) part of the loss, with a stable ``repr``.
      shared: pytree that all signals share.
      params: pytree of initial parameters, one row per signal.
      data: pytree of whatever else the loss reads, one row per signal.
      optimiser: Adam's learning rate and schedule.
      num_steps: number of updates.
      chunk_steps: steps per call of the compiled program; progress, checkpoints and interruptions come between two calls.
      workdir: folder of the checkpoint ``NAME_DIGEST.safetensors``, from which an equal call resumes, bit for bit; None for no
        checkpoint. The digest covers everything that the fit depends on, so different fits of one name have different files.
      name: start of the checkpoint's file name.
      labels: names of the signals in errors; by default their row numbers.
      progress: called with ``name``, steps done and steps in total.

    Raises:
      ValueError: a loss is not finite (names signal and step), or a checkpoint is damaged or belongs to another fit.
    """
    if num_steps < 0 or chunk_steps < 1:
        raise ValueError(f"a fit needs num_steps ≥ 0 and chunk_steps ≥ 1, not {num_steps} and {chunk_steps}")
    if num_steps >= _NEVER:
        raise ValueError(f"a fit has fewer than {_NEVER} steps, not {num_steps}: lower num_steps or the effort")
    params, data = jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.asarray, data)
    count = _num_rows(params, data)
    total = num_steps + 1
    state, losses, done, path = _start(loss, config, shared, params, data), np.empty((count, 0)), 0, None
    if workdir is not None:
        fit = _digest(loss, config, optimiser, num_steps, chunk_steps, shared, params, data)
        path = Path(workdir) / f"{name}_{fit.tobytes().hex()[:NAME_DIGITS]}.safetensors"
        if path.exists():
            state, losses, done = _restore(path, state, fit)
    if progress is not None:
        progress(name, min(done, num_steps), num_steps)
    if done < total:
        mesh = local_mesh(count)
        run = _compiled(loss, config, optimiser, mesh)
        shared, rows = replicate(shared, mesh), pad_rows((state, data), mesh)
        state, data = (shard_batch(tree, mesh) for tree in rows)
    while done < total:
        stop = done + chunk_steps
        stop = total if stop >= num_steps else stop
        # sin(30 x) amplifies the error of faster formats: whatever the process is set to, fits run in float32.
        with jax.default_matmul_precision("float32"):
            state = run(shared, state, data, *(jnp.int32(n) for n in (done, stop, num_steps)))
        host = jax.tree.map(lambda a: np.asarray(a)[:count], state)
        _check_finite(host.fault, optimiser, labels or range(count))
        losses, done = np.column_stack([losses, host.best_loss]), stop
        if path is not None:
            leaves = jax.tree.leaves(host)
            save_tree(path, {"fit": fit, "step": np.int64(done), "losses": losses, "leaves": leaves})
        if progress is not None:
            progress(name, min(done, num_steps), num_steps)
    state = jax.tree.map(lambda a: np.asarray(a)[:count], state)
    return Overfitted(state.best, state.best_loss, losses)


@functools.lru_cache(maxsize=64)
def _compiled(loss: Callable, config: Hashable, optimiser: OptimiserSpec, mesh: Mesh) -> Callable:
    """Steps ``start`` … ``stop`` − 1 of a batch; one program for chunks of any length."""
    adam = optax.scale_by_adam()

    def one_signal(shared, state, data, start, stop, num_steps):
        def value(params, step):
            result = loss(config, shared, params, data, step)
            selected, minimised = result if isinstance(result, tuple) else (result, result)
            return minimised, selected

        def body(step, state):
            (minimised, selected), gradient = jax.value_and_grad(value, has_aux=True)(state.params, step)
            finite = jnp.isfinite(minimised) & jnp.isfinite(selected)
            better = selected < state.best_loss
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), state.params, state.best)
            direction, adam_state = adam.update(gradient, state.optimiser)
            # The last evaluation updates nothing, so that one program serves it too.
            rate = jnp.where(step < num_steps, optimiser.rate(step, num_steps), 0.0)
            params = jax.tree.map(lambda p, d: p - (rate * d).astype(p.dtype), state.params, direction)
            fault = jnp.minimum(state.fault, jnp.where(finite, _NEVER, step))
            return _State(params, adam_state, best, jnp.where(better, selected, state.best_loss), fault)

        return jax.lax.fori_loop(start, stop, body, state)

    def one_device(shared, state, data, start, stop, num_steps):
        if state.fault.shape == (1,):  # Unbatched products of matrices are twice as fast.
            state, data = jax.tree.map(lambda a: a[0], (state, data))
            return jax.tree.map(lambda a: a[None], one_signal(shared, state, data, start, stop, num_steps))
        return jax.vmap(one_signal, in_axes=(None, 0, 0, None, None, None))(shared, state, data, start, stop, num_steps)

    return pmapped(one_device, (None, 0, 0, None, None, None), mesh=mesh)


def _start(loss: Callable, config: Hashable, shared: Any, params: Any, data: Any) -> _State:
    def one_loss(shared, params, data):
        result = loss(config, shared, params, data, jnp.int32(0))
        return result[0] if isinstance(result, tuple) else result

    value = jax.eval_shape(jax.vmap(one_loss, in_axes=(None, 0, 0)), shared, params, data)
    if value.ndim != 1:
        raise ValueError(f"the loss of one signal must be a scalar, not of shape {value.shape[1:]}")
    adam = jax.vmap(optax.scale_by_adam().init)(params)
    best_loss = jnp.full(value.shape, jnp.inf, value.dtype)
    return _State(params, adam, params, best_loss, jnp.full(value.shape, _NEVER, jnp.int32))


def _num_rows(params: Any, data: Any) -> int:
    lengths = {leaf.shape[0] if leaf.ndim else None for leaf in jax.tree.leaves((params, data))}
    if len(lengths) != 1 or not lengths.isdisjoint({None, 0}):
        raise ValueError(f"params and data need one row per signal, and the same number of rows everywhere; found {lengths}")
    return lengths.pop()


def _check_finite(fault: np.ndarray, optimiser: OptimiserSpec, labels: Sequence[Any]) -> None:
    row = int(np.argmin(fault))
    if fault[row] != _NEVER:
        raise ValueError(
            f"the fit of signal {labels[row]} has diverged: its loss at step {fault[row]} is not finite; "
            f"lower the learning rate, which is {optimiser.lr:g}"
        )


def _digest(loss: Callable, *parts: Any) -> np.ndarray:
    """Digest of everything that a fit depends on, uint8 [32]."""
    *about, shared, params, data = parts
    name = f"{FIT_VERSION} {jax.__version__} {loss.__module__}.{loss.__qualname__} {about!r}"
    return np.frombuffer(digest(name, (shared, params, data)), np.uint8)


def _restore(path: Path, state: _State, fit: np.ndarray) -> tuple[_State, np.ndarray, int]:
    saved = load_tree(path)
    if not np.array_equal(saved.get("fit"), fit):
        raise ValueError(
            f"{path} is a checkpoint of another fit (other signals, parameters or settings): remove it to begin anew"
        )
    return jax.tree.unflatten(jax.tree.structure(state), saved["leaves"]), saved["losses"], int(saved["step"])

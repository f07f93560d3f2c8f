"""Fits of thousands of steps on the host: a batch of signals side by side, the best kept, interrupted and gone on with."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.dtypes import prng_key
from jax.sharding import Mesh

from vcinr.devices import local_mesh, pmapped, replicate, shard_batch
from vcinr.trees import load_tree, save_tree

SCHEDULES = ("constant", "cosine")

FIT_VERSION = 1
"""Raised whenever a loss or the optimiser changes its numbers, so that no fit goes on from a checkpoint of the old ones."""

NAME_DIGITS = 12
"""Hexadecimal digits of a fit's digest in the names of its checkpoints."""

_NEVER = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True)
class OptimiserSpec:
    """Adam (Kingma & Ba 2015) and its rate.

    lr: the rate at step 0.   schedule: "constant", or "cosine" down to ``lr`` times ``final_fraction`` at the last step.
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
        """The learning rate of a step in 0 … ``num_steps`` − 1."""
        if self.schedule == "constant":
            return jnp.asarray(self.lr, jnp.float32)
        cosine = 0.5 + 0.5 * jnp.cos(jnp.pi * step / jnp.maximum(num_steps - 1, 1))
        return self.lr * (self.final_fraction + (1.0 - self.final_fraction) * cosine)


class Overfitted(NamedTuple):
    """params: of each signal, those of its lowest loss.   loss: that loss, [b].   losses: the lowest so far after each
    chunk of steps, [b, chunks].  All NumPy."""

    params: Any
    loss: np.ndarray
    losses: np.ndarray


class _State(NamedTuple):
    """One signal's fit between two steps; ``fault``: the first step whose loss was not finite."""

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
    """Minimises ``loss`` for every signal of a batch by itself, ``num_steps`` steps of Adam.

    loss: ``loss(config, shared, params, data, step)`` of ONE signal, a scalar; or a pair (what the best parameters are chosen
        by, what is minimised). A module-level function, so that it is compiled once for each pair of it and ``config``.
        ``step`` counts 0 … ``num_steps``: at the last of them the result of the last update is evaluated.
    config: static, of a stable ``repr``.   shared: pytree that all signals see.   params, data: pytrees of one row a signal.
    chunk_steps: steps of one call of the compiled program; between two of them come progress, checkpoint and interruption.
    workdir: keeps ``NAME_DIGEST.safetensors``, from which the same call goes on, bit for bit; None for nowhere. The digest is of
        all that the fit depends on, so that other fits of that name have files of their own.
    labels: what errors call the signals; by default their rows.
    progress: called with ``name``, steps done and steps in all.

    The result of a signal does not depend on its neighbours, but for the last bits of floats in batches of another size.
    Raises ValueError where a loss is not finite, naming signal and step, and for a checkpoint that is damaged or of another fit.
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
        digest = _digest(loss, config, optimiser, num_steps, chunk_steps, shared, params, data)
        path = Path(workdir) / f"{name}_{digest.tobytes().hex()[:NAME_DIGITS]}.safetensors"
        if path.exists():
            state, losses, done = _restore(path, state, digest)
    if progress is not None:
        progress(name, min(done, num_steps), num_steps)
    if done < total:
        mesh = _mesh(count)
        run = _compiled(loss, config, optimiser, mesh)
        shared, rows = replicate(shared, mesh), _padded((state, data), count, mesh.size)
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
            save_tree(path, {"fit": digest, "step": np.int64(done), "losses": losses, "leaves": leaves})
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
        raise ValueError(f"params and data need one row a signal, and the same number of rows everywhere; found {lengths}")
    return lengths.pop()


def _mesh(count: int) -> Mesh:
    """This process's devices, but no more than there are signals: copies of a signal would only take time from it."""
    mesh = local_mesh()
    return Mesh(mesh.devices[:count], mesh.axis_names, axis_types=mesh.axis_types)


def _padded(tree: Any, count: int, num_devices: int) -> Any:
    spare = -count % num_devices
    return tree if not spare else jax.tree.map(lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], spare, axis=0)]), tree)


def _check_finite(fault: np.ndarray, optimiser: OptimiserSpec, labels: Sequence[Any]) -> None:
    row = int(np.argmin(fault))
    if fault[row] != _NEVER:
        raise ValueError(
            f"the fit of signal {labels[row]} has diverged: its loss at step {fault[row]} is not finite; "
            f"lower the learning rate, which is {optimiser.lr:g}"
        )


def _digest(loss: Callable, *parts: Any) -> np.ndarray:
    """What makes two fits the same fit, uint8 [32]."""
    *about, shared, params, data = parts
    digest = hashlib.sha256(f"{FIT_VERSION} {jax.__version__} {loss.__module__}.{loss.__qualname__} {about!r}".encode())
    for leaf in jax.tree.leaves((shared, params, data)):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype.name} {array.shape}".encode())
        digest.update(array.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _restore(path: Path, state: _State, digest: np.ndarray) -> tuple[_State, np.ndarray, int]:
    saved = load_tree(path)
    if not np.array_equal(saved.get("fit"), digest):
        raise ValueError(
            f"{path} is a checkpoint of another fit (other signals, parameters or settings): remove it to begin anew"
        )
    return jax.tree.unflatten(jax.tree.structure(state), saved["leaves"]), saved["losses"], int(saved["step"])

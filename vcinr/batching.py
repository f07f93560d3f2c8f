"""One compiled program for any number of rows: padded batches of a fixed shape, spread over the devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import numpy as np

from vcinr.devices import local_mesh, pmapped
from vcinr.signals.signal import Grid, Signal

SMALL_BATCHES = (1, 8)
"""Batch sizes for fewer rows than a whole batch, so that a single small picture does not take the time of a whole batch."""


@functools.lru_cache(maxsize=64)
def _compiled(function: Callable, config: Hashable, num_arrays: int):
    def one_device(shared, *rows):
        return jax.vmap(functools.partial(function, config), in_axes=(None,) + (0,) * num_arrays)(shared, *rows)

    return pmapped(one_device, (None,) + (0,) * num_arrays, mesh=local_mesh())


def whole_symbols(rounded: np.ndarray) -> np.ndarray:
    """Rounded floats as int32. ValueError where one is not finite or too large: then the encoder has diverged on a signal."""
    if not (np.abs(rounded) < 2.0**31).all():
        raise ValueError("encoding has diverged: symbols are not finite or do not fit 32 bits; train with smaller step sizes")
    return rounded.astype(np.int32)


def map_batches(function: Callable, config: Hashable, shared: Any, arrays: tuple[np.ndarray, ...], batch_size: int) -> Any:
    """``function(config, shared, *row)`` for every row of ``arrays``, stacked; NumPy in, NumPy out.

    Args:
      function: takes the arrays of one row; it is vmapped, compiled once per ``config``, and spread over this process's devices.
      config: static (hashable).
      shared: pytree that all rows share.
      arrays: arrays with one row per call of ``function``; at least one row.
      batch_size: rows per device and batch. The last batch is padded with copies of its last row, so that all batches have one
        shape and compile once. At most 1 or 8 rows per device go through a smaller program.
    """
    total = len(arrays[0])
    if total == 0:
        raise ValueError("the arrays have no rows: give at least one")
    num_devices = local_mesh().size
    step = num_devices * next((n for n in SMALL_BATCHES if total <= n * num_devices and n < batch_size), batch_size)
    run = _compiled(function, config, len(arrays))
    outputs = []
    for start in range(0, total, step):
        rows = [np.asarray(a[start : start + step]) for a in arrays]
        count = len(rows[0])
        if count < step:
            rows = [np.concatenate([r, np.repeat(r[-1:], step - count, axis=0)]) for r in rows]
        # sin(30 x) amplifies the error of faster formats: whatever the process is set to, codecs run in float32.
        with jax.default_matmul_precision("float32"):
            outputs.append(jax.tree.map(lambda a, n=count: np.asarray(a)[:n], run(shared, *rows)))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)


def patch_rows(signals: Sequence[Signal]) -> tuple[np.ndarray, np.ndarray]:
    """All patches of all signals, one after the other: values [p, n, c] and weights [p, n]."""
    values = np.concatenate([s.values for s in signals])
    weight = np.concatenate([np.ones(s.values.shape[:2], np.float32) if s.weight is None else s.weight for s in signals])
    return values, weight


def per_signal(rows: np.ndarray, grids: Sequence[Grid]) -> list[np.ndarray]:
    """Splits rows, one per patch of all signals, into the rows of each signal."""
    return np.split(rows, np.cumsum([grid.num_patches for grid in grids])[:-1])

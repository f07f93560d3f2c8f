"""Fields evaluated at every coordinate of whole signals, in chunks that share few compiled programs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import numpy as np

from vcinr.batching import map_batches
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig, evaluate
from vcinr.signals.grids import pixel_grid
from vcinr.signals.signal import Grid

EVALUATED_SAMPLES = 2**16
"""Coordinates at which one device evaluates fields together."""
HELD_NUMBERS = 2**24
"""Coordinates and latents held for that at once."""
MAX_WORK = 2**42
"""Multiplications that decoding one signal may take, minutes on a CPU."""
SMALLEST_CHUNK, LARGEST_CHUNK = 2**10, 2**14
"""Coordinates per chunk, a power of two within these, so that pictures of many shapes share few programs."""


def check_work(num_weights: int, shape: Sequence[int]) -> None:
    """ValueError where a network of so many weights takes over `MAX_WORK` multiplications at all samples of a shape."""
    work = num_weights * math.prod(shape)
    if work > MAX_WORK:
        samples = "×".join(map(str, shape))
        raise ValueError(f"{num_weights} weights at {samples} samples take {work} multiplications; the limit is {MAX_WORK}")


def evaluate_everywhere(
    function: Callable[[Any, Any, jax.Array, jax.Array], jax.Array],
    config: Hashable,
    shared: Any,
    latents: Sequence[np.ndarray],
    grids: Sequence[Grid],
) -> list[np.ndarray]:
    """Values of whole signals at all of their coordinates.

    Args:
      function: ``function(config, shared, latent [k], coords [m, d])`` → values [m, c]; module-level, compiled once per pair of
        it and ``config``.
      config: static, part of the compiled program.
      shared: arrays that all signals use.
      latents: one [k] per signal, all of equal length.
      grids: one per signal, a single patch of its own shape.

    Returns:
      float32 [1, n, c] per signal.
    """
    chunks = [_chunk(math.prod(grid.shape)) for grid in grids]
    outputs: list[list[np.ndarray]] = [[] for _ in grids]
    coords_of = functools.lru_cache(maxsize=1)(pixel_grid)
    for chunk in sorted(set(chunks)):
        rows = [(i, k) for i, grid in enumerate(grids) if chunks[i] == chunk for k in range(0, math.prod(grid.shape), chunk)]
        held = max(1, HELD_NUMBERS // (chunk * len(grids[0].shape) + len(latents[0])))
        for first in range(0, len(rows), held):
            part = rows[first : first + held]
            coords = np.stack([_filled(coords_of(grids[i].shape)[k : k + chunk], chunk) for i, k in part])
            arrays = (np.stack([latents[i] for i, _ in part]), coords)
            found = map_batches(function, config, shared, arrays, max(1, EVALUATED_SAMPLES // chunk))
            for (i, k), values in zip(part, found, strict=True):
                outputs[i].append(values[: math.prod(grids[i].shape) - k])
    return [np.concatenate(values)[None] for values in outputs]


def at_unit_frequency(field: FieldConfig, weights: np.ndarray, omega_0: int | float) -> np.ndarray:
    """Weights [p] that mean at ω₀ = 1 what ``weights`` mean at ``omega_0``: sin(ω₀ (h W + b)) = sin(h (ω₀ W) + ω₀ b).

    So one program serves fields of every ω₀.
    """
    inner = siren.num_weights(field.sizes()[:-1])
    with np.errstate(over="ignore"):
        return np.concatenate([np.float32(omega_0) * weights[:inner], weights[inner:]])


def evaluate_networks(fields: Sequence[FieldConfig], weights: Sequence[np.ndarray], grids: Sequence[Grid]) -> list[np.ndarray]:
    """Values of whole signals, each a network of its own; those of one architecture together, whatever their ω₀.

    Args:
      fields: one per signal.
      weights: one [p] per signal, in the order of `siren.flatten`.
      grids: one per signal, a single patch of its own shape.

    Returns:
      float32 [1, n, c] per signal.
    """
    values: list[np.ndarray] = [np.empty(0)] * len(fields)
    shared = [dataclasses.replace(field, omega_0=1.0) for field in fields]
    for field in dict.fromkeys(shared):
        own = [i for i, each in enumerate(shared) if each == field]
        rows = [weights[i] for i in own]
        if field.activation == "sine":
            rows = [at_unit_frequency(field, row, fields[i].omega_0) for row, i in zip(rows, own, strict=True)]
        parts = evaluate_everywhere(network_values, field, None, rows, [grids[i] for i in own])
        for i, part in zip(own, parts, strict=True):
            values[i] = part
    return values


def network_values(field: FieldConfig, shared: None, weights: jax.Array, coords: jax.Array) -> jax.Array:
    """Values [m, c] at coordinates [m, d] of the network with these weights [p]."""
    del shared
    return evaluate(field, siren.unflatten(weights, field.sizes()), coords)


def _chunk(samples: int) -> int:
    return min(LARGEST_CHUNK, max(SMALLEST_CHUNK, 1 << (samples - 1).bit_length()))


def _filled(coords: np.ndarray, chunk: int) -> np.ndarray:
    """Coordinates [chunk, d]: those given, then the last of them repeated."""
    return np.concatenate([coords, np.repeat(coords[-1:], chunk - len(coords), axis=0)])

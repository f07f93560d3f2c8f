"""For codecs that fit signals whole: what they share, signals of equal shape in bounded batches, fields evaluated everywhere."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import numpy as np

from vcinr.batching import map_batches
from vcinr.codec import Codec
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig, evaluate
from vcinr.signals.grids import pixel_grid
from vcinr.signals.signal import Grid, Signal
from vcinr.stage import Params, Progress

EVALUATED_SAMPLES = 2**16
"""Coordinates that a device evaluates fields at together."""
HELD_NUMBERS = 2**24
"""Coordinates and latents that are held for that at once."""
MAX_WORK = 2**42
"""Multiplications that decoding one signal may take, minutes on a CPU."""
SMALLEST_CHUNK, LARGEST_CHUNK = 2**10, 2**14
"""Coordinates of one row of that, a power of two within these, so that pictures of many shapes share few programs."""


@dataclasses.dataclass(frozen=True)
class WholeSignalCodec(Codec):
    """What codecs that fit signals whole share; see `vcinr.codec.Codec`."""

    config: Any
    @property
    def patch(self) -> tuple[int, ...]:
        return ()

    @property
    def max_effort(self) -> int:
        return 16

    def num_steps(self, effort: int) -> int:
        """Steps of a fit: each level of effort doubles the config's. ValueError for an effort that the codec does not have."""
        self.check_effort(effort)
        return self.config.num_steps << effort


class SelfContainedCodec(WholeSignalCodec):
    """A codec whose files hold all that decoding uses, and that trains nothing.

    A subclass has ``networks``: what tells operating points apart, one each.
    """

    needs_model = False

    def init(self, key: jax.Array | None = None) -> Params:
        """No parameters, only points."""
        del key
        return {"points": {str(i): {} for i in range(len(self.networks))}}

    def decoder_arrays(self, params: Params, point: int) -> dict[str, np.ndarray]:
        """Nothing: the file says all."""
        del params, point
        return {}


@dataclasses.dataclass(frozen=True)
class SignalBatch:
    """Signals of equal shape that are fitted together.

    indices: which of the signals.   coords: [n, d], of each.   values: [b, n, c].   weight: [b, n], or None where all is 1.
    name: the shape; part of a file name for checkpoints.
    """

    indices: list[int]
    coords: Any
    values: np.ndarray
    weight: np.ndarray | None
    name: str


def batches_of_equal_shape(signals: Sequence[Signal], max_samples: int) -> list[SignalBatch]:
    """All signals, those of equal shape together, at most ``max_samples`` samples a batch (but at least one signal).

    signals: each one patch of its own shape, values [1, n, c].
    """
    by_shape: dict[tuple, list[int]] = {}
    for i, signal in enumerate(signals):
        by_shape.setdefault((signal.grid.shape, signal.weight is None), []).append(i)
    batches = []
    for (shape, unweighted), same in by_shape.items():
        size = max(1, max_samples // math.prod(shape))
        for start in range(0, len(same), size):
            indices = same[start : start + size]
            values = np.concatenate([np.asarray(signals[i].values) for i in indices])
            weight = None if unweighted else np.concatenate([np.asarray(signals[i].weight) for i in indices])
            batches.append(SignalBatch(indices, signals[indices[0]].coords, values, weight, "x".join(map(str, shape))))
    return batches


def check_work(num_weights: int, shape: Sequence[int]) -> None:
    """ValueError where a network of so many weights takes over `MAX_WORK` multiplications at all samples of a shape."""
    work = num_weights * math.prod(shape)
    if work > MAX_WORK:
        samples = "×".join(map(str, shape))
        raise ValueError(f"{num_weights} weights at {samples} samples take {work} multiplications; the limit is {MAX_WORK}")


def batch_progress(progress: Progress | None, index: int, num_batches: int, what: str = "fitting") -> Progress | None:
    """What the fit of batch ``index`` reports to, so that ``progress`` hears of all batches as one."""
    if progress is None:
        return None

    def report(name: str, done: int, total: int) -> None:
        del name
        progress(what, index * total + done, num_batches * total)

    return report


def evaluate_everywhere(
    function: Callable[[Any, Any, jax.Array, jax.Array], jax.Array],
    config: Hashable,
    shared: Any,
    latents: Sequence[np.ndarray],
    grids: Sequence[Grid],
) -> list[np.ndarray]:
    """Values of whole signals, float32 [1, n, c] each.

    function: ``function(config, shared, latent [k], coords [m, d])`` → values [m, c]; module-level, compiled once for each pair
        of it and ``config``.
    latents: what tells each signal's field from the others', of equal length.   grids: of each, one patch of its own shape.
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
    """Values of whole signals, float32 [1, n, c] each, every one a network of its own.

    weights: [p] of each, in the order of `siren.flatten`. Those of one architecture are evaluated together, whatever their ω₀.
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
    """Values [m, c] at coordinates [m, d] of the network whose weights [p] these are."""
    del shared
    return evaluate(field, siren.unflatten(weights, field.sizes()), coords)


def _chunk(samples: int) -> int:
    return min(LARGEST_CHUNK, max(SMALLEST_CHUNK, 1 << (samples - 1).bit_length()))


def _filled(coords: np.ndarray, chunk: int) -> np.ndarray:
    """Coordinates [chunk, d]: those given, and the last of them again."""
    return np.concatenate([coords, np.repeat(coords[-1:], chunk - len(coords), axis=0)])

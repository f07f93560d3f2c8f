"""Whole signals of equal shape in bounded batches, which are fitted together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from vcinr.codec import Code
from vcinr.signals.signal import Signal
from vcinr.stage import Progress

Report = Callable[[str], Progress | None]
"""What the part of that name ("fitting", "rounding", "retraining") reports its progress to."""


@dataclasses.dataclass(frozen=True)
class SignalBatch:
    """Signals of equal shape that are fitted together.

    indices: the place of each in the list that was batched.
    coords: [n, d], shared by all.
    values: [b, n, c].
    weight: [b, n], or None where it is 1 everywhere.
    name: the shape, e.g. "24x36"; part of a file name for checkpoints.
    """

    indices: list[int]
    coords: Any
    values: np.ndarray
    weight: np.ndarray | None
    name: str


def batches_of_equal_shape(signals: Sequence[Signal], max_samples: int) -> list[SignalBatch]:
    """All signals, those of equal shape together.

    Args:
      signals: each one patch of its own shape, values [1, n, c].
      max_samples: most samples per batch; a signal with more is a batch of its own.
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


def encode_in_batches(
    encode: Callable[[SignalBatch, Report], Sequence[Code]],
    signals: Sequence[Signal],
    max_samples: int,
    progress: Progress | None = None,
) -> list[Code]:
    """Codes of signals, in their order.

    Args:
      encode: (batch, report) → one code per signal of the batch; ``report`` gives what its parts report progress to.
      signals, max_samples: as of `batches_of_equal_shape`.
      progress: told of all batches as of one.
    """
    codes: dict[int, Code] = {}
    batches = batches_of_equal_shape(signals, max_samples)
    for i, batch in enumerate(batches):
        codes |= zip(batch.indices, encode(batch, partial(batch_progress, progress, i, len(batches))), strict=True)
    return [codes[i] for i in range(len(signals))]


def batch_progress(progress: Progress | None, index: int, num_batches: int, what: str = "fitting") -> Progress | None:
    """What the fit of batch ``index`` reports to, so that ``progress`` is told of all batches as of one."""
    if progress is None:
        return None

    def report(name: str, done: int, total: int) -> None:
        del name
        progress(what, index * total + done, num_batches * total)

    return report

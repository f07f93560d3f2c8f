"""What one training stage of a codec declares; `vcinr.training` makes steps of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

Params = dict[str, Any]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How one stage is trained.

    num_steps, batch_size: outer steps and examples a step, over all devices.
    microbatch: examples a device holds at once; 0 means its whole share of the batch.
    lr, warmup_steps, final_lr_fraction: peak rate of Adam after a linear warm-up; cosine decay ends at lr times the fraction.
    clip_norm: largest global gradient norm; 0 switches clipping off.
    average_decay: the parameter average used for evaluation is a ← decay·a + (1 − decay)·θ, with decay ramped as
        min(average_decay, (1 + t) / (10 + t)); 0 switches it off.
    collapse_db: a smoothed loss this many decibels above its best is a collapse; 0 switches the check off.
    max_rollbacks, rollback_lr_factor: how often a collapse or a non-finite step returns to the last good checkpoint, and
        what the outer rate is multiplied with each time; 0 rollbacks stop the run with the step's number instead.
    log_every, eval_every, checkpoint_every: in steps; 0 means never.
    """

    num_steps: int = 1000
    batch_size: int = 16
    microbatch: int = 0
    lr: float = 1e-3
    warmup_steps: int = 50
    final_lr_fraction: float = 0.02
    clip_norm: float = 1.0
    average_decay: float = 0.999
    collapse_db: float = 3.0
    max_rollbacks: int = 3
    rollback_lr_factor: float = 0.5
    log_every: int = 20
    eval_every: int = 0
    checkpoint_every: int = 200


@runtime_checkable
class ExampleSource(Protocol):
    """Training examples, drawn by a NumPy generator so that a batch depends on the step alone."""

    def batch(self, rng: np.random.Generator, size: int) -> Mapping[str, np.ndarray]:
        """A batch of examples, arrays with a leading axis of length ``size``."""


@runtime_checkable
class PatchExamples(ExampleSource, Protocol):
    """Raw patches of training signals: what training gives to the first stage of a codec.

    Batches are ``{"values": [b, *patch, c]}``, as `vcinr.datasets.sources.PatchSource` draws them.
    """

    patch: tuple[int, ...]

    def with_patch(self, patch: tuple[int, ...]) -> PatchExamples:
        """The same signals, in patches of another shape."""

    def all_patches(self, rng: np.random.Generator, offsets_per_picture: int = 1, limit: int | None = None) -> np.ndarray:
        """Every whole patch of every signal, [n, *patch, c], tiled from random offsets; at most ``limit`` of them."""


@runtime_checkable
class ArrayExamples(ExampleSource, Protocol):
    """Examples that are rows of arrays held in memory, as `vcinr.datasets.sources.ArraySource` is."""

    arrays: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        """Number of rows."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training stage of a codec, as pure functions; `vcinr.training` makes steps of it.

    name: also the folder that its checkpoints live in.
    training: how to train it.
    examples: (params, patches) → source of this stage's examples; ``patches`` are `PatchExamples`.
        None: the examples of the stage before, made once and shared.
    init: (key, params, source) → trainable, from what earlier stages have made.
    frozen: params → what the loss needs and does not train.
    loss: (trainable, frozen, example, key) → (loss, metrics) of ONE example; vmapped, microbatched and averaged outside.
    finish: (params, trainable) → params.
    lr_multipliers: trainable at the start → tree of floats that scale the outer rate leaf by leaf; None: 1 everywhere.
    evaluate: as ``loss``, with whatever differs when measuring (rounding instead of noise); None: ``loss`` itself.
    """

    name: str
    training: TrainingConfig
    examples: Callable[[Params, Any], ExampleSource] | None
    init: Callable[[jax.Array, Params, Any], Any]
    frozen: Callable[[Params], Any]
    loss: Callable[[Any, Any, Mapping[str, jax.Array], jax.Array], tuple[jax.Array, Mapping[str, jax.Array]]]
    finish: Callable[[Params, Any], Params]
    evaluate: Callable[..., tuple[jax.Array, Mapping[str, jax.Array]]] | None = None
    lr_multipliers: Callable[[Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Workplace:
    """What a stage in closed form may use while it runs.

    workdir: a folder of its own that outlives an interruption.   progress: to be told of steps done.
    """

    workdir: str
    progress: Progress


@dataclasses.dataclass(frozen=True)
class ClosedForm:
    """One stage of a codec without gradient steps.

    name: also the folder that its result lives in.
    examples: as of a `Stage`.
    solve: (key, params, source, workplace) → params.
    """

    name: str
    examples: Callable[[Params, Any], ExampleSource] | None
    solve: Callable[[jax.Array, Params, Any, Workplace], Params]


AnyStage = Stage | ClosedForm

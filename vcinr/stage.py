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

    num_steps: outer steps, at least 1.
    batch_size: examples per step, over all devices.
    microbatch: most examples per device at once; 0: its whole share of the batch.
    lr: peak step size of Adam, reached after the warm-up.
    warmup_steps: steps of the linear warm-up; fewer than num_steps.
    final_lr_fraction: step size at the end of the cosine decay, divided by lr; 0 to 1.
    clip_norm: largest global gradient norm; 0: no clipping.
    average_decay: the parameter average a used for evaluation follows a ← d·a + (1 − d)·θ with d = min(average_decay,
        (1 + t) / (10 + t)) in step t; 0: no average.
    collapse_db: a smoothed loss this many decibels above its best counts as a collapse; 0: no check.
    max_rollbacks: how often a collapse or a non-finite step returns to the last good checkpoint before the run stops.
    rollback_lr_factor: factor on the step size at each rollback; 0 to 1.
    log_every, eval_every, checkpoint_every: in steps; 0: never.
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
class PerSignal:
    """State that a stage trains for each training signal alone, such as COMBINER's Gaussian posteriors.

    init: (key, params, source) → tree of arrays [n, …], where n = len(source) and row i belongs to signal i.
    lr: step size of the state's own Adam: a number, or a function of how many updates the signal has had.

    A step updates the rows of its batch, each with the gradient of its own example's loss (no mean over the batch, no clipping)
    and moments of its own, so that a signal's path does not depend on the others in its batch. Every device holds all
    n rows and their two moments: three times the state's size.
    """

    init: Callable[[jax.Array, Params, Any], Any]
    lr: float | Callable[[jax.Array], jax.Array]


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
    evaluate: as ``loss``, with whatever differs when measuring (rounding instead of noise); None: ``loss`` itself.
    lr_multipliers: trainable at the start → tree of floats that scale the step size leaf by leaf; None: 1 everywhere.
    per_signal: state that belongs to single training signals; None: there is none. With it,
        - the source is `ArrayExamples`, and an epoch is ⌊n / batch_size⌋ batches of different signals, in random order;
        - ``example["index"]`` is the signal's row in the source;
        - ``loss(trainable, frozen, example, key, own)`` gets the row of the signal's own state, and a key that depends on the
          signal and on how many updates it has had, and on nothing else that is drawn;
        - ``finish(params, trainable, signals)`` gets the state of all signals, a tree of arrays [n, …];
        - ``evaluate`` keeps its four arguments, because held-out examples have no state: it must find one by itself.
          Without ``evaluate`` the stage cannot be validated.
    host_update: (trainable, signals, step) → (trainable, signals), called on the host after every ``host_update_every`` steps
        and after the last one, such as a prior in closed form from all posteriors. Trees of NumPy arrays in, trees of the
        same structure and shapes out (cast to the dtypes they had); ``signals`` is None without ``per_signal``. It must
        depend on its arguments alone. Arrays of ``trainable`` that it changes are replaced in the parameter average, too;
        Adam's moments stay. Parameters that it alone should set need a stop-gradient in ``loss``.
    host_update_every: in steps, at least 1 where there is a ``host_update``.
    """

    name: str
    training: TrainingConfig
    examples: Callable[[Params, Any], ExampleSource] | None
    init: Callable[[jax.Array, Params, Any], Any]
    frozen: Callable[[Params], Any]
    loss: Callable[..., tuple[jax.Array, Mapping[str, jax.Array]]]
    finish: Callable[..., Params]
    evaluate: Callable[..., tuple[jax.Array, Mapping[str, jax.Array]]] | None = None
    lr_multipliers: Callable[[Any], Any] | None = None
    per_signal: PerSignal | None = None
    host_update: Callable[[Any, Any, int], tuple[Any, Any]] | None = None
    host_update_every: int = 0

    def __post_init__(self) -> None:
        if (self.host_update is not None) != (self.host_update_every > 0):
            raise ValueError(
                f"stage {self.name!r} has {'a' if self.host_update else 'no'} host_update and host_update_every = "
                f"{self.host_update_every}; give both, every at least 1, or neither"
            )


@dataclasses.dataclass(frozen=True)
class Workplace:
    """What a stage in closed form may use while it runs.

    workdir: the stage's own folder; what is written there is found again after an interruption.
    progress: to be called now and then with the steps done.
    """

    workdir: str
    progress: Progress


@dataclasses.dataclass(frozen=True)
class ClosedForm:
    """One stage of a codec without gradient steps.

    name: also the folder that its result lives in.
    examples: as in `Stage`.
    solve: (key, params, source, workplace) → params.
    """

    name: str
    examples: Callable[[Params, Any], ExampleSource] | None
    solve: Callable[[jax.Array, Params, Any, Workplace], Params]


AnyStage = Stage | ClosedForm

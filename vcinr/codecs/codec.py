"""What a codec is: the types that travel through every one of them, and the interface they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from vcinr.entropy.range_coder import SymbolModel
from vcinr.signals.signal import Grid, Signal

Params = dict[str, Any]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""


@dataclasses.dataclass(frozen=True)
class Code:
    """Everything that one signal's file pays for, all its patches.

    streams: name → int32 [n], in the order that the codec declares in ``streams``.
    meta: name → int or float (kept as float32), in the order of the codec's ``meta_types``.
    """

    streams: Mapping[str, np.ndarray]
    meta: Mapping[str, int | float] = dataclasses.field(default_factory=dict)


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


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training stage of a codec, as pure functions; `vcinr.training` makes steps of it.

    name: also the folder that its checkpoints live in.
    training: how to train it; ``num_steps=0`` for a stage in closed form (``loss`` is then None).
    examples: (params, patches) → source of this stage's examples; ``patches`` yields raw ``{"values": [b, *patch, c]}``.
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
    examples: Callable[[Params, ExampleSource], ExampleSource] | None
    init: Callable[[jax.Array, Params, ExampleSource], Any]
    frozen: Callable[[Params], Any]
    loss: Callable[[Any, Any, Mapping[str, jax.Array], jax.Array], tuple[jax.Array, Mapping[str, jax.Array]]] | None
    finish: Callable[[Params, Any], Params]
    evaluate: Callable[..., tuple[jax.Array, Mapping[str, jax.Array]]] | None = None
    lr_multipliers: Callable[[Any], Any] | None = None


@runtime_checkable
class Codec(Protocol):
    """A composition of field, adaptation, quantiser and entropy coder.

    name: its key in `CODECS`.            config: frozen dataclass, JSON-able by `dataclasses.asdict`.
    modality: key of `MODALITIES`.        patch: shape of one patch; () for a codec that takes signals whole.
    streams: declared order of streams.   meta_types: name → "int" or "float32", in order.
    continuous: whether `synthesise` takes any coordinates, so that decoding at any resolution comes free.
    needs_model: False where the file alone decodes (COIN).

    A codec may also offer ``modelled_bits(params, point, codes)``, bits a signal by a float entropy model beside its tables;
    ``choose_point(params, signal, bpp, *, workdir, progress)``, where it knows rates before it encodes; ``point_name(point)``.
    """

    name: str
    config: Any
    modality: str
    patch: tuple[int, ...]
    streams: tuple[str, ...]
    meta_types: Mapping[str, str]
    continuous: bool
    needs_model: bool

    def init(self, key: jax.Array) -> Params:
        """Parameters before any training."""

    def stages(self) -> tuple[Stage, ...]:
        """Training stages, in order."""

    def num_points(self, params: Params) -> int:
        """Operating points that `params` holds."""

    def encode(
        self,
        params: Params,
        signals: Sequence[Signal],
        point: int,
        *,
        effort: int = 0,
        key: jax.Array | None = None,
        workdir: str | None = None,
        progress: Progress | None = None,
    ) -> list[Code]:
        """Codes of a batch of signals (host).

        workdir: where a codec that optimises for long keeps checkpoints, and goes on from them; None for nowhere.
        """

    def symbol_model(
        self,
        params: Params,
        point: int,
        grid: Grid,
        meta: Mapping[str, int | float],
        decoded: Mapping[str, np.ndarray],
        name: str,
    ) -> SymbolModel:
        """How stream `name` of one signal is coded, from integers alone: model tables or streams already decoded."""

    def decoder_config(self) -> Mapping[str, Any]:
        """What decoding uses besides arrays, JSON-able; the fingerprint covers it too."""

    def decoder_arrays(self, params: Params, point: int) -> Mapping[str, np.ndarray]:
        """Exactly the arrays that decoding this point uses, flat; the fingerprint covers them."""

    def synthesise(self, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> list[np.ndarray]:
        """Decoded values of each signal, float32 [p, n, c] in normalised units (host; batches are jitted inside)."""


def grid_of(codec: Codec, shape: Sequence[int]) -> Grid:
    """The grid of a signal of this shape, cut into the codec's patches."""
    return Grid(tuple(shape), tuple(codec.patch) or tuple(shape))


def training_patch(codec: Codec) -> tuple[int, ...]:
    """Shape of what training sees: the config's ``crop`` where it has one, or else the codec's own patch."""
    return tuple(getattr(codec.config, "crop", ())) or tuple(codec.patch)

"""What a codec is: the interface that all of them share, and everything that one signal's file pays for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from vcinr.entropy.range_coder import SymbolModel
from vcinr.signals.signal import Grid, Signal
from vcinr.stage import Params, Progress, Stage


@dataclasses.dataclass(frozen=True)
class Code:
    """Everything that one signal's file pays for, all its patches.

    streams: name → int32 [n], in the order that the codec declares in ``streams``.
    meta: name → int or float (kept as float32), in the order of the codec's ``meta_types``.
    """

    streams: Mapping[str, np.ndarray]
    meta: Mapping[str, int | float] = dataclasses.field(default_factory=dict)


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

"""What a codec is: the interface that all of them share, and everything that one signal's file pays for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from vcinr.entropy.range_coder import SymbolModel
from vcinr.signals.patches import from_values
from vcinr.signals.signal import Grid, Signal
from vcinr.stage import AnyStage, Params, Progress


class FoundModels(NamedTuple):
    """Symbol models of streams, which hold for these very arrays and no others.

    streams: all streams of a signal; read-only arrays.   models: stream → its model.
    """

    streams: Mapping[str, np.ndarray]
    models: Mapping[str, SymbolModel]


@dataclasses.dataclass(frozen=True)
class Code:
    """Everything that one signal's file pays for, all its patches.

    streams: name → int32 [n], in the order that the codec declares in ``streams``.
    meta: name → int or float (kept as float32), in the order of the codec's ``meta_types``.
    metadata: the same of the modality's ``meta_types``, e.g. a sample rate; no codec reads or makes them.
    found: symbol models that the encoder has met on its way, so that they need not be made again; not in the file.
    """

    streams: Mapping[str, np.ndarray]
    meta: Mapping[str, int | float] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, int | float | bytes] = dataclasses.field(default_factory=dict)
    found: FoundModels | None = dataclasses.field(default=None, repr=False, compare=False)

    def known_models(self) -> Mapping[str, SymbolModel]:
        """Stream → what `Codec.symbol_model` gives for it, where that is known; empty where streams have been replaced since."""
        current = self.found is not None and all(self.streams.get(name) is own for name, own in self.found.streams.items())
        return self.found.models if current else {}


class Piece(NamedTuple):
    """Values of consecutive samples of one signal: patch after patch, row-major within each.

    signal: which one.   start: number of the first sample.   values: float32 [m, c], in normalised units.
    """

    signal: int
    start: int
    values: np.ndarray


STREAM_WORK = 2**24
"""Multiplications that setting up one stream of one signal counts for, about a millisecond; see `Limits.check_work`."""


@dataclasses.dataclass(frozen=True)
class EncodeRequest:
    """How to encode.

    effort: how long to look for a better code, from 0 (the quickest) to the codec's ``max_effort``.
    key: of random starts; None for the seed of the codec's config.
    workdir: where a codec that optimises for long keeps checkpoints, and goes on from them; None for nowhere.
    progress: told of the steps that are done; None for nobody.
    """

    effort: int = 0
    key: jax.Array | None = None
    workdir: str | None = None
    progress: Progress | None = None


QUICKEST = EncodeRequest()
"""Effort 0, the config's seed; nothing is kept or told."""


class Codec:
    """Base of all codecs: a composition of field, adaptation, quantiser and entropy coder.

    name: its key in `CODECS`.   format_name: what stands for the codec in fingerprints; ``name``, unless it was renamed.
    config: frozen dataclass, JSON-able by `dataclasses.asdict`.
    streams: declared order of streams.   meta_types: name → "int" or "float32", in the order of the file.
    continuous: whether `resample` evaluates a field between the samples.
    needs_model: False where the file alone decodes (COIN).
    searches: whether `choose_point` finds a point by a search of its own, because points are too many to try.
    patches_alone: whether a patch is coded as it would be in any other signal, so that large signals are encoded slab by slab.
    max_effort: largest ``EncodeRequest.effort``.
    """

    name: ClassVar[str]
    config: Any
    streams: tuple[str, ...]
    continuous: ClassVar[bool] = True
    needs_model: ClassVar[bool] = True
    searches: ClassVar[bool] = False

    @property
    def format_name(self) -> str:
        return self.name

    @property
    def modality(self) -> str:
        """Key of `MODALITIES`."""
        return self.config.modality

    @property
    def patch(self) -> tuple[int, ...]:
        """Shape of one patch; () for a codec that takes signals whole."""
        return tuple(self.config.patch)

    @property
    def training_patch(self) -> tuple[int, ...]:
        """Shape of one training example: a patch, or a crop of several."""
        return self.patch

    @property
    def meta_types(self) -> Mapping[str, str]:
        return {}

    @property
    def patches_alone(self) -> bool:
        return False

    @property
    def max_effort(self) -> int:
        return 0

    def check_effort(self, effort: int) -> None:
        """ValueError for an effort outside 0 … ``max_effort``."""
        if not 0 <= effort <= self.max_effort:
            valid = f"0 to {self.max_effort}" if self.max_effort else "0 alone"
            raise ValueError(f"effort lies in {valid} for {self.name}, not {effort}")

    def init(self, key: jax.Array) -> Params:
        """Parameters before any training."""
        raise NotImplementedError

    def stages(self) -> tuple[AnyStage, ...]:
        """Training stages, in order; none for a codec that trains nothing."""
        return ()

    def num_points(self, params: Params) -> int:
        """Number of operating points in ``params``."""
        return len(params["points"])

    def point_name(self, point: int) -> str:
        """What an operating point is called; by default its number."""
        return str(point)

    def choose_point(self, params: Params, signal: Signal, bpp: float, request: EncodeRequest) -> int:
        """The operating point for a signal within ``bpp`` bits per sample, where ``searches``."""
        raise NotImplementedError

    def encode(self, params: Params, signals: Sequence[Signal], point: int, request: EncodeRequest = QUICKEST) -> list[Code]:
        """Codes of a batch of signals (host). ValueError for an effort that the codec does not have."""
        raise NotImplementedError

    def symbol_model(
        self,
        params: Params,
        point: int,
        grid: Grid,
        meta: Mapping[str, int | float],
        decoded: Mapping[str, np.ndarray],
        name: str,
    ) -> SymbolModel:
        """How stream ``name`` of one signal is coded, from integers alone: model tables or streams already decoded."""
        raise NotImplementedError

    def modelled_bits(self, params: Params, point: int, codes: Sequence[Code]) -> list[float] | None:
        """Bits per signal by the float entropy model that the tables were made from; None where there is none."""
        del params, point, codes
        return None

    def decoder_config(self) -> Mapping[str, Any]:
        """What decoding uses besides arrays, JSON-able; the fingerprint covers it too."""
        return {}

    def decoder_arrays(self, params: Params, point: int) -> Mapping[str, np.ndarray]:
        """Exactly the arrays that decoding this point uses, flat; the fingerprint covers them."""
        raise NotImplementedError

    @property
    def decoding_bytes_per_sample(self) -> int:
        """Memory that decoding takes for every sample of a signal, where it is so much that limits must know of it; else 0."""
        return 0

    def decoding_work(self, grid: Grid, meta: Mapping[str, int | float]) -> int:
        """Multiplications that decoding one signal takes because its file says so: `STREAM_WORK` for each stream, and those
        of a network that the file itself holds. ValueError for a meta that no encoder writes."""
        del grid, meta
        return STREAM_WORK * len(self.streams)

    def synthesise_pieces(self, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> Iterator[Piece]:
        """Decoded values of signals, some samples at a time, so that no more than these are held as floats."""
        raise NotImplementedError

    def resample(self, params: Params, point: int, code: Code, grid: Grid, shape: Sequence[int]) -> np.ndarray:
        """Decoded values of a signal on another grid over the same extent, float32 [*shape, c] in normalised units (host).

        Where the codec is ``continuous``, its field is evaluated there; here, for all others, decoded samples are interpolated
        linearly.
        """
        import scipy.ndimage  # Here, for it takes as long to import as a small picture takes to decode.

        whole = from_values(self.synthesise(params, point, [code], [grid])[0], grid)
        factors = [m / n for m, n in zip(shape, grid.shape, strict=True)]
        return scipy.ndimage.zoom(whole, [*factors, 1], order=1, mode="nearest", grid_mode=True)

    def synthesise_at(self, params: Params, point: int, code: Code, grid: Grid, coords: np.ndarray) -> np.ndarray:
        """Decoded values, float32 [n, c] in normalised units, at coordinates float32 [n, d] of a signal of one patch (host).

        ValueError where there is no field, or several.
        """
        raise ValueError(f"{self.name} has no field that is asked for at any coordinates: encode with another codec")

    def synthesise(self, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> list[np.ndarray]:
        """Decoded values of each signal, float32 [p, n, c] in normalised units (host; batches are jitted inside)."""
        values: list[np.ndarray] = [np.empty(0)] * len(grids)
        for piece in self.synthesise_pieces(params, point, codes, grids):
            samples, channels = num_samples(grids[piece.signal]), piece.values.shape[-1]
            if piece.start == 0:
                values[piece.signal] = np.empty((samples, channels), np.float32)
            values[piece.signal][piece.start : piece.start + len(piece.values)] = piece.values
        return [part.reshape(grid.num_patches, -1, part.shape[-1]) for part, grid in zip(values, grids, strict=True)]


def grid_of(codec: Codec, shape: Sequence[int]) -> Grid:
    """The grid of a signal of this shape, cut into the codec's patches."""
    return Grid(tuple(shape), codec.patch or tuple(shape))


def num_samples(grid: Grid) -> int:
    """Samples of a signal in whole patches."""
    return grid.num_patches * math.prod(grid.patch)

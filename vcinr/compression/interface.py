"""From the latent of a patch to symbols: the interface of a compression, and what it may ask of the codec that uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import numpy as np

from vcinr.codec import Code
from vcinr.entropy.range_coder import Table
from vcinr.signals.signal import Grid
from vcinr.stage import AnyStage, ArrayExamples, Params, PatchExamples


@runtime_checkable
class LatentModel(Protocol):
    """What a compression may ask of its codec: a field, its adaptation, and the m numbers per patch that a file pays for.

    name: of the codec.
    patch: samples per patch along each axis.
    modality: key of `MODALITIES`.
    num_values: samples × channels of one patch.
    """

    name: str

    @property
    def patch(self) -> tuple[int, ...]: ...

    @property
    def modality(self) -> str: ...

    @property
    def num_values(self) -> int: ...

    def num_coded(self, params: Params) -> int:
        """m, the numbers per patch that the file pays for."""

    def decoder_params(self, params: Params) -> Params:
        """The parameters that `values` and `distortion` read."""

    def values(self, params: Params, latent: jax.Array) -> jax.Array:
        """The field of one patch, made from the numbers [m], on the patch's own coordinates: [n, c]."""

    def distortion(self, params: Params, latent: jax.Array, values: jax.Array) -> jax.Array:
        """MSE between the field made from the numbers [m] and a patch's values [n, c]."""

    def adapt_all(self, params: Params, values: np.ndarray) -> np.ndarray:
        """The numbers [b, m] of many whole patches [b, n, c]. ValueError where adaptation diverges."""

    def latents(self, limit: int, offsets_per_picture: int, params: Params, patches: PatchExamples) -> ArrayExamples:
        """Training patches, "values" [b, n, c], and the numbers that a file would pay for them, "latent" [b, m]."""


class Compression:
    """Base of the compressions; all methods but `stages` are pure functions of arrays.

    streams: names of the symbol streams, in coding order.
    masks_padding: whether a patch that extends beyond the signal is fitted only to its samples inside (True), or also to the
        padding, which repeats the signal's edge (False). With False, padded patches resemble their neighbours, so they take
        fewer bits where neighbours predict each other.
    patches_alone: whether the code of a patch depends on no other patch.
    max_effort: largest effort that `code` accepts.
    decoding_bytes_per_symbol: memory of decoding a large signal, where limits must know of it; else 0.
    """

    streams: tuple[str, ...]
    masks_padding: ClassVar[bool] = True
    patches_alone: ClassVar[bool] = False
    max_effort: ClassVar[int] = 0
    decoding_bytes_per_symbol: ClassVar[int] = 0

    def stages(self, codec: LatentModel) -> tuple[AnyStage, ...]:
        """The training stages after those of the field; the last one completes ``params["points"]``."""
        raise NotImplementedError

    def encoder_parts(self, params: Params, point: int) -> Mapping[str, Any]:
        """Arrays that `analyse` reads."""
        raise NotImplementedError

    def analyse(self, parts: Mapping[str, Any], latent: jax.Array) -> jax.Array:
        """Latent [m] of one patch → input [m] of `code`, float: symbols, or values that `code` still rounds."""
        raise NotImplementedError

    def code(self, params: Params, point: int, rows: Sequence[np.ndarray], grids: Sequence[Grid], effort: int = 0) -> list[Code]:
        """The symbol streams of each signal, on the host.

        Args:
          params: of the model.
          point: operating point.
          rows: of each signal, the outputs of `analyse` for its p patches, [p, m].
          grids: of each signal.
          effort: 0 to ``max_effort``; more takes longer and saves bits.
        """
        raise NotImplementedError

    def symbol_model(
        self, codec: LatentModel, params: Params, point: int, grid: Grid, decoded: Mapping[str, np.ndarray], name: str
    ) -> Table:
        """See `vcinr.codec.Codec.symbol_model`."""
        raise NotImplementedError

    def row_blocks(
        self, codec: LatentModel, params: Params, streams: Mapping[str, np.ndarray], grid: Grid, at_once: int
    ) -> Iterator[np.ndarray]:
        """Inputs of `synthesise` for all patches of one signal: blocks [b, r] of b ≤ ``at_once`` patches, on the host."""
        raise NotImplementedError

    def row_length(self, codec: LatentModel, params: Params) -> int:
        """r, the symbols that `synthesise` takes per patch."""
        return codec.num_coded(params)

    def decoder_parts(self, params: Params, point: int) -> Mapping[str, Any]:
        """Arrays that `synthesise` reads; the fingerprint covers them, as it covers the field and the tables."""
        raise NotImplementedError

    def coder_arrays(self, params: Params, point: int) -> Mapping[str, Any]:
        """Arrays that `symbol_model` reads besides the tables; the fingerprint covers them."""
        del params, point
        return {}

    def synthesise(self, parts: Mapping[str, Any], symbols: jax.Array) -> jax.Array:
        """Symbols of one patch [r], a row of `row_blocks` as float → latent [m]."""
        raise NotImplementedError

    def modelled_bits(
        self, codec: LatentModel, params: Params, point: int, streams: Sequence[Mapping[str, np.ndarray]]
    ) -> list[float] | None:
        """Bits per signal by the float entropy model that the tables were made from; None where there is none."""
        del codec, params, point, streams
        return None

    def decoder_config(self) -> Mapping[str, Any]:
        """Everything that decoding needs besides arrays, as JSON-able values."""
        raise NotImplementedError

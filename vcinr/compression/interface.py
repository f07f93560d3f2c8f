"""How the latent of a patch becomes symbols: what a compression offers, and what it may ask of the codec that it serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import numpy as np

from vcinr.entropy.range_coder import Table
from vcinr.signals.signal import Grid
from vcinr.stage import AnyStage, ArrayExamples, Params, PatchExamples


@runtime_checkable
class LatentModel(Protocol):
    """What a compression may ask of its codec: a field, its adaptation, and the m numbers per patch that a file pays for.

    patch, modality: of the signals.   num_values: samples × channels of one patch.
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
        """Of all parameters, those that `values` and `distortion` read."""

    def values(self, params: Params, latent: jax.Array) -> jax.Array:
        """The field of one patch on its own coordinates, [n, c], from the numbers [m]."""

    def distortion(self, params: Params, latent: jax.Array, values: jax.Array) -> jax.Array:
        """MSE of the field that the numbers [m] make against a patch's values [n, c]."""

    def adapt_all(self, params: Params, values: np.ndarray) -> np.ndarray:
        """The numbers [b, m] of many whole patches [b, n, c]. ValueError where adaptation diverges."""

    def latents(self, limit: int, offsets_per_picture: int, params: Params, patches: PatchExamples) -> ArrayExamples:
        """Training patches, "values" [b, n, c], and the numbers that a file would pay for them, "latent" [b, m]."""


class Compression:
    """Base of the compressions; pure functions of arrays, apart from the stages.

    streams: names, in the order of coding.
    masks_padding: whether a patch over the edge of a signal is fitted to the samples inside alone, or to the repeated edge too.
        Where neighbours predict each other, a patch that goes on as it ends takes fewer bits.
    max_effort: largest effort of `code`.
    """

    streams: tuple[str, ...]
    masks_padding: ClassVar[bool] = True
    max_effort: ClassVar[int] = 0

    def stages(self, codec: LatentModel) -> tuple[AnyStage, ...]:
        """What is trained after the field, up to ``params["points"]``."""
        raise NotImplementedError

    def encoder_parts(self, params: Params, point: int) -> Mapping[str, Any]:
        """Arrays that `analyse` needs."""
        raise NotImplementedError

    def analyse(self, parts: Mapping[str, Any], latent: jax.Array) -> jax.Array:
        """Latent [m] of one patch → what `code` makes symbols of: the symbols [m] as float, or numbers yet to be rounded."""
        raise NotImplementedError

    def code(
        self, params: Params, point: int, rows: Sequence[np.ndarray], grids: Sequence[Grid], effort: int = 0
    ) -> list[dict[str, np.ndarray]]:
        """Streams of each signal from what `analyse` gave of its patches, [p, m] (host)."""
        raise NotImplementedError

    def symbol_model(
        self, codec: LatentModel, params: Params, point: int, grid: Grid, decoded: Mapping[str, np.ndarray], name: str
    ) -> Table:
        """See `vcinr.codec.Codec.symbol_model`."""
        raise NotImplementedError

    def row_blocks(
        self, codec: LatentModel, params: Params, streams: Mapping[str, np.ndarray], grid: Grid, at_once: int
    ) -> Iterator[np.ndarray]:
        """The symbols that `synthesise` needs of each patch of one signal, ``at_once`` patches at a time, [m, r] (host)."""
        raise NotImplementedError

    def row_length(self, codec: LatentModel, params: Params) -> int:
        """r of `row_blocks`."""
        return codec.num_coded(params)

    def decoder_parts(self, params: Params, point: int) -> Mapping[str, Any]:
        """Arrays that `synthesise` needs: what the fingerprint covers besides the field and the tables."""
        raise NotImplementedError

    def coder_arrays(self, params: Params, point: int) -> Mapping[str, Any]:
        """Arrays that `symbol_model` reads besides the tables: the fingerprint covers them too."""
        del params, point
        return {}

    def synthesise(self, parts: Mapping[str, Any], symbols: jax.Array) -> jax.Array:
        """A row [r] of `row_blocks`, as float → latent [m]."""
        raise NotImplementedError

    def modelled_bits(
        self, codec: LatentModel, params: Params, point: int, streams: Sequence[Mapping[str, np.ndarray]]
    ) -> list[float] | None:
        """Bits per signal by the float entropy model that the tables were made from; None where there is none."""
        del codec, params, point, streams
        return None

    def decoder_config(self) -> Mapping[str, Any]:
        """What decoding needs besides arrays, JSON-able."""
        raise NotImplementedError

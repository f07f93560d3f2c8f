"""Base classes of the codecs that fit signals whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vcinr.codec import Code, Codec
from vcinr.fields.field import FieldConfig
from vcinr.signals.patches import from_values
from vcinr.signals.signal import Grid
from vcinr.stage import Params
from vcinr.weights import evaluation


@dataclasses.dataclass(frozen=True)
class WholeSignalCodec(Codec):
    """Base of the codecs that fit signals whole; see `vcinr.codec.Codec`."""

    config: Any

    @property
    def patch(self) -> tuple[int, ...]:
        return ()

    @property
    def max_effort(self) -> int:
        return 16

    def resample(self, params: Params, point: int, code: Code, grid: Grid, shape: Sequence[int]) -> np.ndarray:
        """The network of the signal between its samples: its coordinates are relative to the extent, whatever the grid."""
        finer = Grid(tuple(shape), tuple(shape))
        return from_values(self.synthesise(params, point, [code], [finer])[0], finer)

    def num_steps(self, effort: int) -> int:
        """Steps of a fit: the config's, doubled per level of effort. ValueError for an effort that the codec does not have."""
        self.check_effort(effort)
        return self.config.num_steps << effort


class SelfContainedCodec(WholeSignalCodec):
    """Base of those whose files hold all that decoding uses, and that train nothing."""

    needs_model = False

    def network(self, meta: Mapping[str, int | float]) -> FieldConfig:
        """The network that a file's head describes. ValueError where no encoder describes such a one."""
        raise NotImplementedError

    def decoding_work(self, grid: Grid, meta: Mapping[str, int | float]) -> int:
        """As every codec's, and the network's at all samples."""
        return super().decoding_work(grid, meta) + evaluation.work(self.network(meta), grid.shape)

    @property
    def networks(self) -> Sequence[Any]:
        """What tells operating points apart, one entry per point."""
        raise NotImplementedError

    def init(self, key: jax.Array | None = None) -> Params:
        """No parameters, only points."""
        del key
        return {"points": {str(i): {} for i in range(len(self.networks))}}

    def decoder_arrays(self, params: Params, point: int) -> dict[str, np.ndarray]:
        """Nothing: the file says all."""
        del params, point
        return {}

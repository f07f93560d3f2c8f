"""KLT: principal components of the training patches, a uniform quantiser with a dead zone, one table per component.

The linear baseline ("linear floor" in reports): as modality-agnostic as an INR, and trained in seconds. Every learned codec
should beat it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.batching import map_batches, per_signal
from vcinr.codec import QUICKEST, Code, Codec, EncodeRequest, Piece
from vcinr.compression.pieces import patch_pieces, patches_at_once
from vcinr.datasets.sources import ArraySource
from vcinr.entropy.range_coder import Table
from vcinr.entropy.tables import tables_from_columns
from vcinr.modalities import MODALITIES
from vcinr.modalities.examples import modality_of, normalise_batch
from vcinr.signals.principal_components import principal_components
from vcinr.signals.signal import Grid, Signal
from vcinr.stage import ClosedForm, ExampleSource, Params, Workplace

BATCH = 256
"""Batch size per device, in patches."""


@dataclasses.dataclass(frozen=True)
class KLTConfig:
    """Config of `KLT`.

    patch: samples per patch along each axis.
    modality: key of `MODALITIES`.
    num_components: components that are coded, at least 1.
    steps: quantiser step Δ of each operating point, in 1/255 of the peak, coarse to fine.
    rounding: r in sign(z) ⌊|z|/Δ + r⌋, 0 to 1; below ½ it makes a dead zone.
    num_patches: largest number of training patches; they include mirror images where the patch source flips.
    offsets_per_picture: random grids of patches cut from each training picture.
    """

    patch: tuple[int, ...] = (32, 32)
    modality: str = "picture"
    num_components: int = 1024
    steps: tuple[float, ...] = (120.0, 80.0, 56.0, 40.0, 27.0, 19.0, 12.0)
    rounding: float = 0.42
    num_patches: int = 20000
    offsets_per_picture: int = 2

    def __post_init__(self):
        modality_of(self.modality, self.patch)


def quantise(config: KLTConfig, shared: tuple, values: jax.Array) -> jax.Array:
    """Patch [d] → symbols int32 [k]: sign(z) ⌊|z|/Δ + r⌋ of its coefficients z; shared = (mean, basis, Δ)."""
    mean, basis, step = shared
    scaled = basis @ (values - mean) / step
    return (jnp.sign(scaled) * jnp.floor(jnp.abs(scaled) + config.rounding)).astype(jnp.int32)


def reconstruct(config: KLTConfig, shared: tuple, symbols: jax.Array) -> jax.Array:
    """Symbols [k] → patch [d]."""
    del config
    mean, basis, step = shared
    return mean + step * symbols.astype(jnp.float32) @ basis


@dataclasses.dataclass(frozen=True)
class KLT(Codec):
    """The codec; see `vcinr.codec.Codec`."""

    config: KLTConfig = KLTConfig()
    name = "klt"
    streams = ("coefficients",)
    continuous = False

    @property
    def patches_alone(self) -> bool:
        return True

    def init(self, key: jax.Array) -> Params:
        """No parameters: the only stage makes all of them."""
        del key
        return {"points": {}}

    def stages(self) -> tuple[ClosedForm, ...]:
        """``components``, in closed form: components, then one table per component and step from the training symbols."""
        return (ClosedForm("components", examples=self._examples, solve=self._fit),)

    def _examples(self, params: Params, patches: ExampleSource) -> ArraySource:
        c = self.config
        values = patches.all_patches(np.random.default_rng(0), c.offsets_per_picture, c.num_patches)
        return ArraySource({"values": values})

    def _fit(self, key: jax.Array, params: Params, source: ArraySource, workplace: Workplace) -> Params:
        del key
        c = self.config
        values = normalise_batch(c.modality, source.arrays["values"])
        values = values.reshape(len(values), -1)
        mean, basis = principal_components(values, c.num_components)
        points = {}
        for i, step in enumerate(c.steps):
            workplace.progress("tables", i, len(c.steps))
            step = np.float32(step / 255.0)
            symbols = map_batches(quantise, c, (mean, basis, step), (values,), BATCH)
            points[str(i)] = {"step": step, "tables": tables_from_columns(symbols).to_arrays()}
        return {**params, "mean": mean, "basis": basis, "points": points}

    def encode(self, params: Params, signals: Sequence[Signal], point: int, request: EncodeRequest = QUICKEST) -> list[Code]:
        """Codes of signals, encoded together."""
        self.check_effort(request.effort)
        values = np.concatenate([s.values.reshape(s.grid.num_patches, -1) for s in signals])
        shared = (params["mean"], params["basis"], params["points"][str(point)]["step"])
        symbols = map_batches(quantise, self.config, shared, (values,), BATCH)
        return [Code({"coefficients": part.ravel()}) for part in per_signal(symbols, [s.grid for s in signals])]

    def symbol_model(self, params: Params, point: int, grid: Grid, meta: Any, decoded: Any, name: str) -> Table:
        """One table per component; the same tables in every patch."""
        del meta, decoded, name
        tables = params["points"][str(point)]["tables"]
        return Table(tables, np.tile(np.arange(tables.num_tables, dtype=np.int32), grid.num_patches))

    def decoder_arrays(self, params: Params, point: int) -> dict[str, np.ndarray]:
        chosen = params["points"][str(point)]
        return {"mean": params["mean"], "basis": params["basis"], "step": chosen["step"], **chosen["tables"].to_arrays()}

    def synthesise_pieces(self, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> Iterator[Piece]:
        """Decoded values, some patches at a time."""
        del grids
        k, d = params["basis"].shape
        at_once = patches_at_once(k + d)
        symbols = [code.streams["coefficients"].reshape(-1, k) for code in codes]
        blocks = ((i, (own[a : a + at_once],)) for i, own in enumerate(symbols) for a in range(0, len(own), at_once))
        shared = (params["mean"], params["basis"], params["points"][str(point)]["step"])
        channels = MODALITIES[self.config.modality].channels
        return patch_pieces(reconstruct, self.config, shared, blocks, channels, BATCH, at_once)

"""Patterns of a signal's own: which entries of a latent a file pays for, coded a bit a gate, and the numbers at those entries.

An entry is open where its number is not 0, and a gate where any of its entries is: a file that pays for a pattern needs no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.batching import map_batches, patch_rows, per_signal, whole_symbols
from vcinr.codec import Code
from vcinr.compression.patch_by_patch import check_count
from vcinr.compression.uniform import UniformCompression
from vcinr.datasets.sources import ArraySource
from vcinr.entropy import uniform_quantiser
from vcinr.entropy.range_coder import Table
from vcinr.entropy.tables import tables_from_counts
from vcinr.signals.signal import Grid, Signal
from vcinr.sparsity.gating import num_gates
from vcinr.stage import Params, Stage

STREAMS = ("gates", "latent")
BUCKETS = 32
"""Gates that are open about equally often share a table; table 0 is the symbols'."""


def open_gates(index: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """int32 [p, g]: 1 for the gates of which any number [p, k] is not 0; index [k], the gate of each entry."""
    gates = np.zeros((num_gates(index), len(numbers)), np.int32)
    np.maximum.at(gates, index, (numbers != 0).T.astype(np.int32))
    return gates.T


class PatternUniform(UniformCompression):
    """As `UniformCompression`, of the open entries alone: each has the range of its own numbers, all share one histogram."""

    def stages_of(self, codec: Any, index: np.ndarray) -> tuple[Stage, ...]:
        """As its stages; index: the gate of each entry."""
        (stage,) = self.stages(codec)
        return (
            dataclasses.replace(
                stage,
                solve=lambda key, params, source, workplace: {**params, "points": self._pattern_points(source, index)},
            ),
        )

    def _pattern_points(self, source: ArraySource, index: np.ndarray) -> dict[str, Any]:
        c = self.config
        latents = np.asarray(source.arrays["latent"], np.float32)
        gates = open_gates(index, latents)
        is_open = gates[:, index] > 0
        if not is_open.any():
            raise ValueError("no gate is open on any training patch: raise gates.target or lower gates.lambda_lr")
        count = is_open.sum(axis=0)
        mean = np.where(is_open, latents, 0).sum(axis=0) / np.maximum(count, 1)
        square = np.where(is_open, np.square(latents - mean), 0)
        # An entry that is open too rarely to have a spread of its own takes that of all.
        pooled = np.sqrt(square.sum() / count.sum())
        std = np.where(count < 8, pooled, np.sqrt(square.sum(axis=0) / np.maximum(count, 1)))
        if c.one_range:
            std = np.full_like(std, pooled)
        share = np.log((gates.sum(axis=0) + 0.5) / (len(gates) - gates.sum(axis=0) + 0.5))
        table_of = 1 + np.digitize(share, np.quantile(share, np.arange(1, BUCKETS) / BUCKETS)).astype(np.int32)
        points = {}
        for i, bits in enumerate(c.bits):
            lower, step = uniform_quantiser.uniform_range(mean, std, c.num_std, bits)
            symbols = np.asarray(uniform_quantiser.quantise(latents, lower, step, bits)).astype(np.int32)[is_open]
            tables = tables_from_counts(
                np.concatenate([symbols, gates.ravel()]),
                np.concatenate([np.zeros(symbols.size, np.int32), np.broadcast_to(table_of, gates.shape).ravel()]),
                1 + BUCKETS,
            )
            points[str(i)] = {
                "lower": np.asarray(lower),
                "step": np.asarray(step),
                "gate_table": table_of,
                "tables": tables.to_arrays(),
            }
        return points


def encode(codec: Any, index: np.ndarray, params: Params, signals: Sequence[Signal], point: int) -> list[Code]:
    """Codes of signals: the stream of open gates, then the symbols of the open entries, patch after patch."""
    numbers = map_batches(_adapt_row, codec, codec.encoder_params(params), patch_rows(signals), codec.config.encode_batch)
    if not np.isfinite(numbers).all():
        raise ValueError("encoding has diverged: the latent is not finite; train with smaller step sizes")
    gates = open_gates(index, numbers)
    parts = codec.compression.encoder_parts(params, point)
    symbols = whole_symbols(np.asarray(codec.compression.analyse(parts, jnp.asarray(numbers))))
    grids = [signal.grid for signal in signals]
    rows = zip(per_signal(gates, grids), per_signal(symbols, grids), strict=True)
    return [Code({"gates": g.ravel(), "latent": s[g[:, index] > 0]}) for g, s in rows]


def symbol_model(index: np.ndarray, params: Params, point: int, grid: Grid, decoded: Any, name: str) -> Table:
    """Tables of the gates, or those of as many symbols as the decoded gates have opened entries.

    ValueError for gates that are neither 0 nor 1.
    """
    chosen = params["points"][str(point)]
    if name == "gates":
        check_count(max(len(chosen["gate_table"]), len(index)), grid)
        return Table(chosen["tables"], np.tile(chosen["gate_table"], grid.num_patches))
    gates = np.asarray(decoded["gates"])
    if not np.isin(gates, (0, 1)).all():
        raise ValueError("a gate is either open or closed: the stream of gates holds something else")
    opened = gates.reshape(grid.num_patches, -1)[:, index].sum(dtype=np.int64)
    return Table(chosen["tables"], np.zeros(opened, np.int32))


def synthesise(
    codec: Any, index: np.ndarray, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]
) -> list[np.ndarray]:
    """Decoded values of each signal, float32 [p, n, c]."""
    gates = np.concatenate([code.streams["gates"].reshape(grid.num_patches, -1) for code, grid in zip(codes, grids, strict=True)])
    is_open = gates[:, index] > 0
    symbols = np.zeros(is_open.shape, np.int32)
    symbols[is_open] = np.concatenate([code.streams["latent"] for code in codes])
    shared = (codec.decoder_params(params), codec.compression.decoder_parts(params, point))
    return per_signal(map_batches(_decode_row, codec, shared, (symbols, is_open), codec.config.encode_batch), grids)


def _adapt_row(codec: Any, params: Params, values: jax.Array, weight: jax.Array) -> jax.Array:
    return codec.adapt(params, values, weight)


def _decode_row(codec: Any, shared: Any, symbols: jax.Array, is_open: jax.Array) -> jax.Array:
    params, parts = shared
    latent = codec.compression.synthesise(parts, symbols.astype(jnp.float32))
    return codec.values(params, jnp.where(is_open, latent, 0.0))

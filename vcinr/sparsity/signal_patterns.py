"""Patterns of a signal's own: which entries of a latent its file pays for, one bit per gate, and the numbers at those entries.

An entry is open where its number is not 0, and a gate where any of its entries is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from vcinr.batching import whole_symbols
from vcinr.codec import Code
from vcinr.compression.interface import LatentModel
from vcinr.compression.patch_by_patch import check_count
from vcinr.compression.uniform import UniformCompression
from vcinr.entropy import uniform_quantiser
from vcinr.entropy.range_coder import Table
from vcinr.entropy.tables import Tables, tables_from_counts
from vcinr.signals.signal import Grid
from vcinr.sparsity.gates import num_gates
from vcinr.stage import ArrayExamples, Params

BUCKETS = 32
"""Gates that are open about equally often share a table; table 0 is that of the symbols."""
RARE = 8
"""An entry that is open on fewer training patches has no spread of its own and takes that of all."""
CLOSED = -1
"""What stands for a closed entry among the symbols of a patch, which are at least 0."""


def open_gates(index: Int[np.ndarray, " k"], numbers: Float[np.ndarray, "p k"]) -> Int[np.ndarray, "p g"]:
    """1 for the gates of which any number is not 0, else 0; index: the gate of each entry."""
    gates = np.zeros((num_gates(index), len(numbers)), np.int32)
    np.maximum.at(gates, index, (numbers != 0).T.astype(np.int32))
    return gates.T


@dataclasses.dataclass(frozen=True, eq=False)
class PatternUniform(UniformCompression):
    """As `UniformCompression`, of the open entries alone: each has the range of its own numbers, all share one histogram.

    index: the gate of each entry, int32 [k].
    Streams: "gates", 0 or 1 per gate, patch after patch; "latent", the symbols of the open entries, patch after patch.
    """

    index: np.ndarray
    streams = ("gates", "latent")

    def encoder_parts(self, params: Params, point: int) -> dict[str, Any]:
        """Nothing: `code` quantises."""
        del params, point
        return {}

    def analyse(self, parts: Mapping[str, Any], latent: jax.Array) -> jax.Array:
        """The latent itself, 0 at closed entries."""
        del parts
        return latent

    def code(self, params: Params, point: int, rows: Sequence[np.ndarray], grids: Sequence[Grid], effort: int = 0) -> list[Code]:
        """Symbols of each signal. ValueError for a latent that is not finite."""
        del grids, effort
        chosen, coded = params["points"][str(point)], []
        for numbers in rows:
            if not np.isfinite(numbers).all():
                raise ValueError("encoding has diverged: the latent is not finite; train with smaller step sizes")
            gates = open_gates(self.index, numbers)
            symbols = uniform_quantiser.quantise(jnp.asarray(numbers), chosen["lower"], chosen["step"], self.config.bits[point])
            opened = whole_symbols(np.asarray(symbols))[gates[:, self.index] > 0]
            coded.append(Code({"gates": gates.ravel(), "latent": opened}))
        return coded

    def symbol_model(
        self, codec: LatentModel, params: Params, point: int, grid: Grid, decoded: Mapping[str, np.ndarray], name: str
    ) -> Table:
        """Tables of the gates, or those of as many symbols as the decoded gates have opened entries.

        ValueError for gates that are neither 0 nor 1.
        """
        del codec
        chosen = params["points"][str(point)]
        if name == "gates":
            check_count(max(len(chosen["gate_table"]), len(self.index)), grid)
            return Table(chosen["tables"], np.tile(chosen["gate_table"], grid.num_patches))
        gates = np.asarray(decoded["gates"])
        if not np.isin(gates, (0, 1)).all():
            raise ValueError("a gate is either open or closed: the stream of gates holds something else")
        opened = gates.reshape(grid.num_patches, -1)[:, self.index].sum(dtype=np.int64)
        return Table(chosen["tables"], np.zeros(opened, np.int32))

    def row_blocks(
        self, codec: LatentModel, params: Params, streams: Mapping[str, np.ndarray], grid: Grid, at_once: int
    ) -> Iterator[np.ndarray]:
        """Symbols of some patches, [m, k], and `CLOSED`."""
        del codec, params
        gates, used = streams["gates"].reshape(grid.num_patches, -1), 0
        for start in range(0, grid.num_patches, at_once):
            is_open = gates[start : start + at_once, self.index] > 0
            count = int(is_open.sum())
            symbols = np.full(is_open.shape, CLOSED, np.int32)
            symbols[is_open] = np.maximum(streams["latent"][used : used + count], 0)
            used += count
            yield symbols

    def synthesise(self, parts: Mapping[str, Any], symbols: jax.Array) -> jax.Array:
        return jnp.where(symbols == CLOSED, 0.0, super().synthesise(parts, symbols))

    def coder_arrays(self, params: Params, point: int) -> dict[str, Any]:
        return {"gate_table": params["points"][str(point)]["gate_table"]}

    def points(self, source: ArrayExamples) -> dict[str, Any]:
        """Ranges and tables of every operating point, from training latents. ValueError where no gate is ever open."""
        c = self.config
        latents = np.asarray(source.arrays["latent"], np.float32)
        gates = open_gates(self.index, latents)
        mean, std = self._statistics(latents, gates[:, self.index] > 0)
        gate_table = _gate_tables(gates)
        points = {}
        for i, bits in enumerate(c.bits):
            lower, step = uniform_quantiser.uniform_range(mean, std, c.num_std, bits)
            symbols = np.asarray(uniform_quantiser.quantise(latents, lower, step, bits)).astype(np.int32)
            points[str(i)] = {
                "lower": np.asarray(lower),
                "step": np.asarray(step),
                "gate_table": gate_table,
                "tables": _tables(symbols[gates[:, self.index] > 0], gates, gate_table).to_arrays(),
            }
        return points

    def _statistics(self, latents: np.ndarray, is_open: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(mean, standard deviation) [k] of each entry over the patches [b, k] where it is open."""
        if not is_open.any():
            raise ValueError("no gate is open on any training patch: raise gates.target or lower gates.lambda_lr")
        count = is_open.sum(axis=0)
        mean = np.where(is_open, latents, 0).sum(axis=0) / np.maximum(count, 1)
        square = np.where(is_open, np.square(latents - mean), 0)
        pooled = np.sqrt(square.sum() / count.sum())
        std = np.where(count < RARE, pooled, np.sqrt(square.sum(axis=0) / np.maximum(count, 1)))
        return mean, np.full_like(std, pooled) if self.config.one_range else std


def _gate_tables(gates: np.ndarray) -> np.ndarray:
    """The table of each gate, int32 [g] in 1 … `BUCKETS`, by how often it is open in ``gates`` [b, g]."""
    opened = gates.sum(axis=0)
    log_odds = np.log((opened + 0.5) / (len(gates) - opened + 0.5))
    return 1 + np.digitize(log_odds, np.quantile(log_odds, np.arange(1, BUCKETS) / BUCKETS)).astype(np.int32)


def _tables(symbols: np.ndarray, gates: np.ndarray, gate_table: np.ndarray) -> Tables:
    """Histograms of the symbols (table 0) and of the gates [b, g] in their tables."""
    table_of = np.concatenate([np.zeros(symbols.size, np.int32), np.broadcast_to(gate_table, gates.shape).ravel()])
    return tables_from_counts(np.concatenate([symbols, gates.ravel()]), table_of, 1 + BUCKETS)

"""Compression of latents whose prior and synthesis look at the neighbouring patches; one model for all rates.

An operating point has a quantiser step per latent dimension, integer tables, and its own biases in the prior
(`vcinr.context.prior`) and the synthesis (`vcinr.context.synthesis`); everything else in these two networks is shared by all
points. `vcinr.context.training` trains them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vcinr.batching import map_batches, whole_symbols
from vcinr.codec import Code, FoundModels
from vcinr.compression.interface import Compression, LatentModel
from vcinr.compression.patch_by_patch import check_count
from vcinr.context import refinement
from vcinr.context import synthesis as neighbour_synthesis
from vcinr.context import training as contextual_training
from vcinr.context.config import ContextualConfig
from vcinr.context.integer_prior import float_network, predict_table
from vcinr.context.order import streams_of, symbols_of
from vcinr.context.rounding import rounded
from vcinr.entropy.range_coder import Table
from vcinr.signals.signal import Grid
from vcinr.stage import AnyStage, Params

Parts = Mapping[str, Any]

PATCHES_AT_ONCE = 1024
"""Largest batch of the refinement, over several signals."""
MAX_FOUND_SYMBOLS = 2**23
"""Symbols of a batch whose tables are kept for the payload, 8 bytes each; of larger ones they are predicted again."""
BYTES_PER_SYMBOL = 24
"""Memory that decoding takes for every symbol, measured: 32 bytes per pixel of `photo`, 70 of `tiny`."""


@dataclasses.dataclass(frozen=True)
class ContextualCompression(Compression):
    """Quantiser steps, context prior and neighbour synthesis; see `vcinr.compression.interface.Compression`."""

    config: ContextualConfig
    masks_padding = False
    max_effort = refinement.MAX_EFFORT
    decoding_bytes_per_symbol = BYTES_PER_SYMBOL

    @property
    def streams(self) -> tuple[str, ...]:
        return self.config.order.streams

    def encoder_parts(self, params: Params, point: int) -> dict[str, Any]:
        return {"mean": params["latent_mean"], "step": params["points"][str(point)]["step"]}

    def analyse(self, parts: Parts, latent: Any) -> Any:
        return (latent - parts["mean"]) / parts["step"]

    def decoder_parts(self, params: Params, point: int) -> dict[str, Any]:
        own = params["points"][str(point)]
        synthesis = neighbour_synthesis.of_point(params["synthesis"], point)
        return {"mean": params["latent_mean"], "step": own["step"], "synthesis": synthesis}

    def coder_arrays(self, params: Params, point: int) -> dict[str, Any]:
        """What `symbol_model` reads besides the tables: the fingerprint covers it."""
        return {"network": params["network"], "number": np.int32(point)}

    def synthesise(self, parts: Parts, row: jax.Array) -> jax.Array:
        return parts["mean"] + parts["step"] * neighbour_synthesis.apply(parts["synthesis"], row)

    def decoder_config(self) -> dict[str, Any]:
        c = self.config
        return {"groups": list(c.groups), "neighbour_dims": c.neighbour_dims, "octaves": c.octaves}

    def code(self, params: Params, point: int, rows: Sequence[np.ndarray], grids: Sequence[Grid], effort: int = 0) -> list[Code]:
        """Symbols of each signal, with the models that rounding has asked for, from what `analyse` gave of its patches, [p, k].

        effort: passes of `vcinr.context.refinement`.
        """
        found: list[Any] = [None] * len(rows)
        tables = params["points"][str(point)]["tables"]
        counts = [grid.counts for grid in grids]
        for shape in dict.fromkeys(counts):
            places = [i for i, own in enumerate(counts) if own == shape]
            z = np.stack([rows[i].reshape(*shape, -1) for i in places])
            decided, predicted = self._round(params, point, z)
            if effort:
                decided, predicted = self._refine(params, point, decided, z, effort), {}
            for number, i in enumerate(places):
                own = {name: (table[number], whole[number]) for name, (table, whole) in predicted.items()}
                models = {name: Table(tables, table.ravel(), whole.ravel()) for name, (table, whole) in own.items()}
                streams = streams_of(self.config.order, decided[number])
                for stream in streams.values():
                    stream.flags.writeable = False
                found[i] = Code(streams, found=FoundModels(streams, models))
        return found

    def round(self, params: Params, point: int, z: np.ndarray) -> np.ndarray:
        """Symbols int32 of z, [n, *counts, k] both, n signals of one grid.

        One coding step after the other, each with the code lengths that the decoder will know by then.
        """
        return self._round(params, point, z)[0]

    def _round(self, params: Params, point: int, z: np.ndarray) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """The symbols of `round`, and stream → what `predict_table` gave for it, where rounding has asked and memory allows."""
        order = self.config.order
        own = params["points"][str(point)]
        symbols, predicted = whole_symbols(np.rint(z)), {}
        if self.config.rounding == "nearest":
            return symbols, predicted
        for step in order.steps:
            start, stop = order.span(step.group)
            chosen = step.patches(z.shape[1:-1])
            table, whole = predict_table(order, params["network"], point, symbols, step)
            if z.size <= MAX_FOUND_SYMBOLS:
                predicted[step.stream] = table, whole
            part, weight = z[:, chosen, start:stop].astype(np.float64), np.asarray(own["weight"])[start:stop]
            # In the first group the likeliest symbol is near those of the neighbours, in all others it is 0.
            centre = whole if step.group == 0 else 0
            symbols[:, chosen, start:stop] = rounded(part, whole, table, own["tables"], weight, centre)
        return symbols, predicted

    def _refine(self, params: Params, point: int, symbols: np.ndarray, z: np.ndarray, passes: int) -> np.ndarray:
        """For each signal, the symbols of the cheapest pass of several."""
        order = self.config.order
        parts = {
            "prior": float_network(order, params["network"]),
            "synthesis": neighbour_synthesis.of_point(params["synthesis"], point),
            "weight": params["points"][str(point)]["weight"],
            "point": np.int32(point),
        }
        z = z.astype(np.float32)
        at_once = max(1, PATCHES_AT_ONCE // math.prod(z.shape[1:-1]))
        best, lowest = symbols, np.full(len(z), np.inf)
        for i in range(passes + 1):
            rows = (symbols.astype(np.float32), z)
            target, cost = map_batches(refinement.targets, order, parts, rows, at_once)
            better = (cost < lowest).reshape(-1, *[1] * (z.ndim - 1))
            best, lowest = np.where(better, symbols, best), np.minimum(cost, lowest)
            if i < passes:
                symbols = self.round(params, point, target)
        return best

    def symbol_model(
        self, codec: LatentModel, params: Params, point: int, grid: Grid, decoded: Mapping[str, np.ndarray], name: str
    ) -> Table:
        """One table per dimension for the differences; in context, the table and the offset ⌊μ⌋ that the prior names."""
        order, tables = self.config.order, params["points"][str(point)]["tables"]
        check_count(codec.num_coded(params), grid)
        if name == "first":
            number = np.arange(order.ends[0]) + tables.num_tables - order.ends[0]
            coarsest = math.prod(-(-count // order.coarsest_stride) for count in grid.counts)
            return Table(tables, np.tile(number, coarsest))
        step = next(step for step in order.steps if step.stream == name)
        symbols = symbols_of(order, grid.counts, decoded)
        table, whole = predict_table(order, params["network"], point, symbols[None], step)
        return Table(tables, table.ravel(), whole.ravel())

    def row_blocks(
        self, codec: LatentModel, params: Params, streams: Mapping[str, np.ndarray], grid: Grid, at_once: int
    ) -> Iterator[np.ndarray]:
        """Symbols of some patches and of their neighbours, [m, r]."""
        del codec, params
        symbols = symbols_of(self.config.order, grid.counts, streams)
        for start in range(0, grid.num_patches, at_once):
            yield neighbour_synthesis.some_rows(symbols, self.config.neighbour_dims, start, start + at_once)

    def row_length(self, codec: LatentModel, params: Params) -> int:
        """Symbols of one patch, and those of its neighbours that the synthesis sees."""
        k = codec.num_coded(params)
        return k + min(k, self.config.neighbour_dims) * (3 ** len(codec.patch) - 1)

    def stages(self, codec: LatentModel) -> tuple[AnyStage, ...]:
        """``latents``, ``context``, ``tables``."""
        return contextual_training.stages(codec, self.config, self.round)

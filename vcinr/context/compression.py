"""Compression of latents whose prior and synthesis look at the neighbouring patches; one model for all rates.

A point is a step for every dimension of the latent; the prior (`vcinr.context.prior`) and the synthesis
(`vcinr.context.synthesis`) are shared by all points, but for their biases. `vcinr.context.training` trains
them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vcinr.batching import map_batches, whole_symbols
from vcinr.compression.interface import Compression, LatentModel
from vcinr.compression.patch_by_patch import check_count
from vcinr.context import prior as context_prior
from vcinr.context import refinement
from vcinr.context import synthesis as neighbour_synthesis
from vcinr.context import training as contextual_training
from vcinr.context.order import Order, streams_of, symbols_of
from vcinr.context.rounding import rounded
from vcinr.entropy.range_coder import Table
from vcinr.signals.signal import Grid
from vcinr.stage import AnyStage, Params, TrainingConfig

Parts = Mapping[str, Any]

PATCHES_AT_ONCE = 1024
"""Where several signals are refined together."""


@dataclasses.dataclass(frozen=True)
class ContextualConfig:
    """Config of `ContextualCompression`.

    kind: "contextual".
    lambdas: λ of each operating point, ascending; loss = bits per value + λ · 255² · MSE.
    groups: ends of the groups of latent dimensions, ascending; the last is the latent's length.
    neighbour_dims: leading latent dimensions that neighbouring patches lend to a context.
    octaves: lattices, each of half the stride of the one before, in which the first group is coded.
    width: units of the prior's hidden layers.
    synthesis_width: units of the synthesis's hidden layers.
    rounding: of the encoder, "rate_distortion" or "nearest".
    crop: shape of a training example, whole patches along each axis; () for one patch.
    num_latents: most training crops.
    offsets_per_picture: random grids of crops per training picture.
    num_counted: training crops that a point's tables are counted on.
    training: of prior and synthesis.
    """

    kind: str = "contextual"
    lambdas: tuple[float, ...] = (0.002, 0.006, 0.02)
    groups: tuple[int, ...] = (3, 6, 12, 24, 48, 64)
    neighbour_dims: int = 96
    octaves: int = 2
    width: int = 96
    synthesis_width: int = 256
    rounding: str = "rate_distortion"
    crop: tuple[int, ...] = ()
    num_latents: int = 5000
    offsets_per_picture: int = 2
    num_counted: int = 500
    training: TrainingConfig = TrainingConfig(num_steps=1500, batch_size=32, lr=2e-3, average_decay=0.99)

    def __post_init__(self):
        if list(self.lambdas) != sorted(set(self.lambdas)) or not self.lambdas or self.lambdas[0] <= 0:
            raise ValueError(f"lambdas must be positive and rise; got {self.lambdas}")
        if self.rounding not in ("rate_distortion", "nearest"):
            raise ValueError(f"unknown rounding {self.rounding!r}; valid are nearest, rate_distortion")
        _ = self.order

    def check_patch(self, patch: tuple[int, ...], latent_size: int) -> None:
        """ValueError where the groups are not those of the latent, or a crop is not whole patches."""
        if self.groups[-1] != latent_size:
            raise ValueError(
                f"compression.groups must end at the latent's {latent_size} dimensions, not at {self.groups[-1]}"
            )
        if self.crop and (len(self.crop) != len(patch) or any(a < b or a % b for a, b in zip(self.crop, patch, strict=True))):
            raise ValueError(f"compression.crop must be whole patches of {patch} along each axis, not {self.crop}")

    @property
    def order(self) -> Order:
        """The order of coding."""
        return Order(self.groups, self.neighbour_dims, self.octaves)


@dataclasses.dataclass(frozen=True)
class ContextualCompression(Compression):
    """Steps, context prior, neighbour synthesis; see `vcinr.compression.interface.Compression`."""

    config: ContextualConfig
    masks_padding = False
    max_effort = refinement.MAX_EFFORT

    @property
    def streams(self) -> tuple[str, ...]:
        return self.config.order.streams

    def encoder_parts(self, params: Params, point: int) -> dict[str, Any]:
        return {"mean": params["latent_mean"], "step": params["points"][str(point)]["step"]}

    def analyse(self, parts: Parts, latent: jax.Array) -> jax.Array:
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

    def code(
        self, params: Params, point: int, rows: Sequence[np.ndarray], grids: Sequence[Grid], effort: int = 0
    ) -> list[dict[str, np.ndarray]]:
        """Streams of each signal from what `analyse` gave, [p, k]: rounded step by step, each given what the decoder knows.

        effort: passes of `vcinr.context.refinement`.
        """
        found: list[Any] = [None] * len(rows)
        counts = [grid.counts for grid in grids]
        for shape in dict.fromkeys(counts):
            places = [i for i, own in enumerate(counts) if own == shape]
            z = np.stack([rows[i].reshape(*shape, -1) for i in places])
            decided = self.round(params, point, z)
            if effort:
                decided = self._refine(params, point, decided, z, effort)
            for i, symbols in zip(places, decided, strict=True):
                found[i] = streams_of(self.config.order, symbols)
        return found

    def round(self, params: Params, point: int, z: np.ndarray) -> np.ndarray:
        """Symbols int32 of z, [n, *counts, k] both, n signals of one grid."""
        order = self.config.order
        own = params["points"][str(point)]
        symbols = whole_symbols(np.rint(z))
        if self.config.rounding == "nearest":
            return symbols
        for turn in order.turns:
            start, stop = order.span(turn.group)
            chosen = turn.patches(z.shape[1:-1])
            table, whole = context_prior.predict_table(order, params["network"], point, symbols, turn)
            part, weight = z[:, chosen, start:stop].astype(np.float64), np.asarray(own["weight"])[start:stop]
            # A symbol of the first group is likely where those around it are, any other where it is 0.
            centre = whole if turn.group == 0 else 0
            symbols[:, chosen, start:stop] = rounded(part, whole, table, own["tables"], weight, centre)
        return symbols

    def _refine(self, params: Params, point: int, symbols: np.ndarray, z: np.ndarray, passes: int) -> np.ndarray:
        """Symbols of the cheapest of several passes, for each signal."""
        order = self.config.order
        parts = {
            "prior": context_prior.float_network(order, params["network"]),
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
        """Differences by a table a dimension; then what is left of symbols after the whole part of μ."""
        order, tables = self.config.order, params["points"][str(point)]["tables"]
        check_count(codec.num_coded(params), grid)
        if name == "first":
            number = np.arange(order.ends[0]) + tables.num_tables - order.ends[0]
            coarsest = math.prod(-(-count // order.coarsest) for count in grid.counts)
            return Table(tables, np.tile(number, coarsest))
        turn = next(turn for turn in order.turns if turn.stream == name)
        symbols = symbols_of(order, grid.counts, decoded)
        table, whole = context_prior.predict_table(order, params["network"], point, symbols[None], turn)
        return Table(tables, table.ravel(), whole.ravel())

    def symbol_rows(self, codec: LatentModel, params: Params, streams: Mapping[str, np.ndarray], grid: Grid) -> np.ndarray:
        """Symbols of each patch and around it, [p, r]."""
        del codec, params
        symbols = symbols_of(self.config.order, grid.counts, streams)
        return neighbour_synthesis.rows(symbols, self.config.neighbour_dims).reshape(grid.num_patches, -1)

    def stages(self, codec: LatentModel) -> tuple[AnyStage, ...]:
        """``latents``, ``context``, ``tables``."""
        return contextual_training.stages(codec, self.config, self.round)

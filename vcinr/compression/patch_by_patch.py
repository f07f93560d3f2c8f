"""Base of compressions that code each patch independently: one stream; one table per coded number, or one table for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vcinr.batching import whole_symbols
from vcinr.codec import Code
from vcinr.compression.interface import Compression, LatentModel
from vcinr.entropy.range_coder import Table
from vcinr.signals.signal import Grid
from vcinr.stage import Params

MAX_SYMBOLS = 2**26
"""Largest number of symbols per signal: a limit on the memory that a file's header alone can demand."""


class PatchByPatch(Compression):
    """Base of the uniform and the variational compression; see `vcinr.compression.interface.Compression`."""

    streams = ("latent",)
    patches_alone = True

    def code(self, params: Params, point: int, rows: Sequence[np.ndarray], grids: Sequence[Grid], effort: int = 0) -> list[Code]:
        """The outputs of `analyse` as integers: they are whole already."""
        del params, point, grids, effort
        return [Code({"latent": whole_symbols(part).ravel()}) for part in rows]

    def symbol_model(
        self, codec: LatentModel, params: Params, point: int, grid: Grid, decoded: Mapping[str, np.ndarray], name: str
    ) -> Table:
        """One table per coded number, or one for all; the same in every patch."""
        del decoded, name
        count = check_count(codec.num_coded(params), grid)
        tables = params["points"][str(point)]["tables"]
        own = np.zeros(count, np.int32) if tables.num_tables == 1 else np.arange(count, dtype=np.int32)
        return Table(tables, np.tile(own, grid.num_patches))

    def row_blocks(
        self, codec: LatentModel, params: Params, streams: Mapping[str, np.ndarray], grid: Grid, at_once: int
    ) -> Iterator[np.ndarray]:
        """Symbols of some patches, [b, m]."""
        symbols = streams["latent"].reshape(grid.num_patches, codec.num_coded(params))
        return (symbols[start : start + at_once] for start in range(0, len(symbols), at_once))


def check_count(numbers: int, grid: Grid) -> int:
    """Returns ``numbers``, the symbols per patch. ValueError where a signal has more than `MAX_SYMBOLS` symbols in total."""
    if numbers * grid.num_patches > MAX_SYMBOLS:
        raise ValueError(
            f"a signal of shape {grid.shape} has {grid.num_patches} patches of {numbers} coded numbers each; at most "
            f"{MAX_SYMBOLS} are coded: cut it up, or code fewer numbers per patch"
        )
    return numbers

"""Symbols of patches that know nothing of each other: one stream, one table per coded number or one for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vcinr.batching import whole_symbols
from vcinr.compression.interface import Compression, LatentModel
from vcinr.entropy.range_coder import Table
from vcinr.signals.signal import Grid
from vcinr.stage import Params

MAX_SYMBOLS = 2**26
"""Most symbols of one signal; a file's header alone can ask for as many."""


class PatchByPatch(Compression):
    """What such compressions share; see `vcinr.compression.interface.Compression`."""

    streams = ("latent",)

    def code(
        self, params: Params, point: int, rows: Sequence[np.ndarray], grids: Sequence[Grid], effort: int = 0
    ) -> list[dict[str, np.ndarray]]:
        """What `analyse` gave is whole already."""
        del params, point, grids, effort
        return [{"latent": whole_symbols(part).ravel()} for part in rows]

    def symbol_model(
        self, codec: LatentModel, params: Params, point: int, grid: Grid, decoded: Mapping[str, np.ndarray], name: str
    ) -> Table:
        """One table per coded number, or one for all, patch after patch."""
        del decoded, name
        count = check_count(codec.num_coded(params), grid)
        tables = params["points"][str(point)]["tables"]
        own = np.zeros(count, np.int32) if tables.num_tables == 1 else np.arange(count, dtype=np.int32)
        return Table(tables, np.tile(own, grid.num_patches))

    def row_blocks(
        self, codec: LatentModel, params: Params, streams: Mapping[str, np.ndarray], grid: Grid, at_once: int
    ) -> Iterator[np.ndarray]:
        """Symbols of some patches, [m, k]."""
        symbols = streams["latent"].reshape(grid.num_patches, codec.num_coded(params))
        return (symbols[start : start + at_once] for start in range(0, len(symbols), at_once))


def check_count(numbers: int, grid: Grid) -> int:
    """``numbers`` per patch. ValueError where all patches of a signal have more than `MAX_SYMBOLS` together."""
    if numbers * grid.num_patches > MAX_SYMBOLS:
        raise ValueError(
            f"a signal of shape {grid.shape} has {grid.num_patches} patches of {numbers} coded numbers each; at most "
            f"{MAX_SYMBOLS} are coded: cut it up, or code fewer numbers per patch"
        )
    return numbers

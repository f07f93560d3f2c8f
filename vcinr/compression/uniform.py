"""Uniform compression of a codec's latents: b bits within mean ± kσ, a histogram of training symbols (COIN++, section 3.3).

One operating point per bit depth, all from one stage in closed form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from vcinr.compression.interface import LatentModel
from vcinr.compression.patch_by_patch import PatchByPatch
from vcinr.entropy import uniform_quantiser
from vcinr.entropy.tables import tables_from_columns
from vcinr.stage import ArrayExamples, ClosedForm, Params

MAX_BITS = 16


@dataclasses.dataclass(frozen=True)
class UniformConfig:
    """Config of `UniformCompression`.

    kind: "uniform".
    bits: of each coded number, one value per operating point, ascending, in 1..16.
    num_std: k; the range is mean ± kσ.
    one_range: one σ for all dimensions (the root mean square of theirs) instead of one each.
    one_table: one histogram for all dimensions instead of one each, for latents of many thousand numbers.
    num_latents: most training latents.
    offsets_per_picture: random grids of patches per training picture.
    """

    kind: str = "uniform"
    bits: tuple[int, ...] = (3, 4, 5, 6)
    num_std: float = 3.0
    one_range: bool = False
    one_table: bool = False
    num_latents: int = 5000
    offsets_per_picture: int = 2

    def __post_init__(self):
        if list(self.bits) != sorted(set(self.bits)) or not self.bits or not 1 <= self.bits[0] <= self.bits[-1] <= MAX_BITS:
            raise ValueError(f"compression.bits must rise within 1..{MAX_BITS}, got {self.bits}")
        if not self.num_std > 0:
            raise ValueError(f"compression.num_std must be positive, not {self.num_std}")


@dataclasses.dataclass(frozen=True)
class UniformCompression(PatchByPatch):
    """Clip, round, count; see `vcinr.compression.interface.Compression`."""

    config: UniformConfig

    def encoder_parts(self, params: Params, point: int) -> dict[str, Any]:
        return {**self.decoder_parts(params, point), "bits": np.int32(self.config.bits[point])}

    def analyse(self, parts: Mapping[str, Any], latent: jax.Array) -> jax.Array:
        return uniform_quantiser.quantise(latent, parts["lower"], parts["step"], parts["bits"])

    def decoder_parts(self, params: Params, point: int) -> dict[str, Any]:
        return {name: params["points"][str(point)][name] for name in ("lower", "step")}

    def synthesise(self, parts: Mapping[str, Any], symbols: jax.Array) -> jax.Array:
        return uniform_quantiser.dequantise(symbols, parts["lower"], parts["step"])

    def decoder_config(self) -> dict[str, Any]:
        return {"quantiser": "uniform"}

    def stages(self, codec: LatentModel) -> tuple[ClosedForm, ...]:
        """One stage in closed form: ranges and histograms of the training latents."""
        return (
            ClosedForm(
                "quantise",
                examples=partial(codec.latents, self.config.num_latents, self.config.offsets_per_picture),
                solve=lambda key, params, source, workplace: {**params, "points": self.points(source)},
            ),
        )

    def points(self, source: ArrayExamples) -> dict[str, Any]:
        """Ranges and tables of every operating point, from training latents."""
        c = self.config
        latents = np.asarray(source.arrays["latent"], np.float32)
        mean, std = latents.mean(axis=0), latents.std(axis=0)
        if c.one_range:
            std = np.full_like(std, np.sqrt(np.mean(np.square(std))))
        points = {}
        for i, bits in enumerate(c.bits):
            lower, step = uniform_quantiser.uniform_range(mean, std, c.num_std, bits)
            symbols = np.asarray(uniform_quantiser.quantise(latents, lower, step, bits)).astype(np.int32)
            tables = tables_from_columns(symbols.reshape(-1, 1) if c.one_table else symbols).to_arrays()
            points[str(i)] = {"lower": np.asarray(lower), "step": np.asarray(step), "tables": tables}
        return points

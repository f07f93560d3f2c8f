"""Uniform compression of latents: 2^b levels over mean ± kσ, histograms of training symbols (Dupont et al. 2022, section 3.3).

One operating point per bit depth b; one stage in closed form makes all of them.
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
"""Largest bit depth of a coded number."""


@dataclasses.dataclass(frozen=True)
class UniformConfig:
    """Config of `UniformCompression`.

    kind: "uniform".
    bits: bit depth of the coded numbers, 1 to 16, one value per operating point, ascending.
    num_std: k of the range mean ± kσ, positive.
    one_range: one σ for all dimensions, the root mean square of theirs, instead of one σ per dimension.
    one_table: one histogram for all dimensions instead of one per dimension; for latents of many thousand numbers.
    num_latents: largest number of training latents.
    offsets_per_picture: random grids of patches cut from each training picture.
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
            raise ValueError(f"compression.bits must be ascending, from 1 to {MAX_BITS}; got {self.bits}")
        if not self.num_std > 0:
            raise ValueError(f"compression.num_std must be positive, not {self.num_std}")


@dataclasses.dataclass(frozen=True)
class UniformCompression(PatchByPatch):
    """Clipping, rounding and histograms; see `vcinr.compression.interface.Compression`."""

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
        """``quantise``, in closed form: ranges and histograms of the training latents."""
        return (
            ClosedForm(
                "quantise",
                examples=partial(codec.latents, self.config.num_latents, self.config.offsets_per_picture),
                solve=lambda key, params, source, workplace: {**params, "points": self.points(source)},
            ),
        )

    def points(self, source: ArrayExamples) -> dict[str, Any]:
        """Range and tables of each operating point, from training latents."""
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

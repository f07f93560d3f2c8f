"""Strümpler et al. 2022, the basic codec: one Fourier-encoded SIREN per signal, all its weights in the file.

Encoding (section 3.2): w ← a random start; Adam on MSE + λ Σ|w|; one symmetric grid per tensor; AdaRound; retraining on the grid;
entropy coding. Decoding: evaluate the network at all coordinates. Nothing is trained beforehand, and a file needs no model.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vcinr.adaptation.long_fit import OptimiserSpec
from vcinr.codec import QUICKEST, Code, EncodeRequest, Piece
from vcinr.codecs.whole_signals import SelfContainedCodec
from vcinr.entropy.range_coder import SymbolModel
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig
from vcinr.modalities import MODALITIES
from vcinr.modalities.examples import check_direct
from vcinr.modalities.modality import Modality
from vcinr.signals.signal import Grid, Signal
from vcinr.stage import Params
from vcinr.weights import coding as weight_coding
from vcinr.weights.coding import WeightCodingConfig
from vcinr.weights.evaluation import check_work, network_pieces
from vcinr.weights.fit import FitConfig, make_batch
from vcinr.weights.signal_batches import Report, SignalBatch, encode_in_batches

# Their place is what a file holds, so new ones go to the end.
_ENCODINGS = ("none", "nerf", "gaussian")
_ACTIVATIONS = ("sine", "relu")

MAX_META = {
    "num_layers": 64,
    "width": 1024,
    "encoding": len(_ENCODINGS) - 1,
    "num_frequencies": 256,
    "milliscale": 2**16,
    "omega_0": 1000,
    "activation": len(_ACTIVATIONS) - 1,
}
"""The largest value of each number of a file's head; the smallest is 1 for ω₀ and 0 for all others."""


@dataclasses.dataclass(frozen=True)
class StrumplerBasicConfig:
    """Config of `StrumplerBasic`. Largest values of what a file's head holds are in `MAX_META`.

    modality: key of `MODALITIES`.
    widths: units per layer, one value per operating point, small to large.
    num_layers: layers before the output, at least 1.
    encoding: of the coordinates, "none", "nerf" or "gaussian"; see `FieldConfig`.
    num_frequencies: of the encoding.
    encoding_scale: of the encoding, in whole thousandths.
    omega_0: frequency scale ω₀, at least 1.
    activation: "sine" or "relu".
    num_steps: steps of Adam, at least 1; each level of effort doubles them.
    optimiser: step size and schedule.
    seed: of the random start, which is the same for all signals.
    l1: λ of λ Σ|w| beside the mean squared error of values in [0, 1]; at least 0. The paper's 1e-5 belongs to values in [-1, 1],
        whose error is four times as large: it is 2.5e-6 here.
    bits: per weight, 2 to 16.
    coding: AdaRound and retraining.
    chunk: coordinates per evaluation of a signal's loss, which bounds memory; 0: all at once.
    batch_samples: most samples fitted together, of signals of equal shape; a larger signal is fitted alone.
    """

    modality: str = "picture"
    widths: tuple[int, ...] = (32, 48, 64, 96, 128)
    num_layers: int = 3
    encoding: str = "nerf"
    num_frequencies: int = 16
    encoding_scale: float = 1.4
    omega_0: int = 30
    activation: str = "sine"
    num_steps: int = 2000
    optimiser: OptimiserSpec = OptimiserSpec(lr=2e-3, schedule="cosine", final_fraction=0.02)
    seed: int = 0
    l1: float = 2.5e-6
    bits: int = 8
    coding: WeightCodingConfig = WeightCodingConfig()
    chunk: int = 2**15
    batch_samples: int = 2**16

    def __post_init__(self):
        if self.modality not in MODALITIES:
            raise ValueError(f"unknown modality {self.modality!r}: valid are {', '.join(MODALITIES)}")
        check_direct(MODALITIES[self.modality], "strumpler_basic")
        for name, valid in (("encoding", _ENCODINGS), ("activation", _ACTIVATIONS)):
            if getattr(self, name) not in valid:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; valid are {', '.join(valid)}")
        if not self.widths:
            raise ValueError("widths must name the width of at least one operating point")
        if self.num_steps < 1 or self.l1 < 0 or not 2 <= self.bits <= 16:
            raise ValueError("strumpler_basic needs num_steps >= 1, l1 >= 0 and bits in 2..16")
        if round(1000 * self.encoding_scale) / 1000 != self.encoding_scale:
            raise ValueError(f"a file holds encoding_scale in whole thousandths, which {self.encoding_scale} is not")
        for point in range(len(self.widths)):
            field_of(self.modality, self.meta(point))

    def meta(self, point: int) -> dict[str, int]:
        """What a file's head says of the network of a point."""
        return {
            "num_layers": self.num_layers,
            "width": self.widths[point],
            "encoding": _ENCODINGS.index(self.encoding),
            "num_frequencies": self.num_frequencies,
            "milliscale": round(1000 * self.encoding_scale),
            "omega_0": self.omega_0,
            "activation": _ACTIVATIONS.index(self.activation),
        }


def field_of(modality: str, meta: Mapping[str, int | float]) -> FieldConfig:
    """The network that a file's head describes. ValueError where no encoder describes such a one; nothing is allocated before."""
    for name, largest in MAX_META.items():
        least = 1 if name == "omega_0" else 0
        if not least <= meta[name] <= largest:
            raise ValueError(f"the head's {name} is {meta[name]}; it lies in {least}..{largest}")
    row = MODALITIES[modality]
    field = FieldConfig(
        coord_dim=row.coord_dim,
        channels=row.channels,
        num_layers=int(meta["num_layers"]),
        width=int(meta["width"]),
        omega_0=float(meta["omega_0"]),
        modulation="none",
        encoding=_ENCODINGS[int(meta["encoding"])],
        num_frequencies=int(meta["num_frequencies"]),
        encoding_scale=int(meta["milliscale"]) / 1000,
        activation=_ACTIVATIONS[int(meta["activation"])],
    )
    weight_coding.check_size(field)
    return field


@functools.lru_cache(maxsize=1024)
def _cached_field_of(row: Modality, *values: int) -> FieldConfig:
    return field_of(row.name, dict(zip(MAX_META, values, strict=True)))


@dataclasses.dataclass(frozen=True)
class StrumplerBasic(SelfContainedCodec):
    """The codec; see `vcinr.codec.Codec`."""

    config: StrumplerBasicConfig = StrumplerBasicConfig()
    name = "strumpler_basic"
    streams = weight_coding.STREAMS

    @property
    def meta_types(self) -> Mapping[str, str]:
        return dict.fromkeys(MAX_META, "int")

    @property
    def networks(self) -> Sequence[int]:
        """The width of each operating point's network."""
        return self.config.widths

    def point_name(self, point: int) -> str:
        """The width of the network."""
        return str(self.config.widths[point])

    def encode(self, params: Params, signals: Sequence[Signal], point: int, request: EncodeRequest = QUICKEST) -> list[Code]:
        """Codes of signals; those of equal shape are fitted together, and each level of effort doubles the steps."""
        del params
        c = self.config
        num_steps = self.num_steps(request.effort)
        meta = c.meta(point)
        field = field_of(c.modality, meta)
        fit = FitConfig(field, c.l1, c.chunk)
        key = jax.random.key(c.seed) if request.key is None else request.key
        for signal in signals:
            check_work(field, signal.grid.shape)
        start = siren.flatten(siren.init_layers(key, field.sizes(), field.omega_0, field.output_bias, field.activation))

        def encode_batch(of_shape: SignalBatch, report: Report) -> list[Code]:
            return weight_coding.encode_batch(
                c.coding,
                fit,
                make_batch(field, jnp.zeros_like(start), of_shape, f"{self.name}_{self.point_name(point)}_{request.effort}"),
                jnp.tile(start, (len(of_shape.indices), 1)),
                c.optimiser,
                num_steps,
                c.bits,
                meta=meta,
                workdir=request.workdir,
                report=report,
            )

        return encode_in_batches(encode_batch, signals, c.batch_samples, request.progress)

    def symbol_model(self, params: Params, point: int, grid: Grid, meta: Any, decoded: Any, name: str) -> SymbolModel:
        """From the file alone: the head gives the number of weights, the streams before give their tables."""
        del params, point, grid
        return weight_coding.symbol_model(self.network(meta), decoded, name)

    def network(self, meta: Mapping[str, Any]) -> FieldConfig:
        return _cached_field_of(MODALITIES[self.modality], *(meta[name] for name in MAX_META))

    def synthesise_pieces(self, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> Iterator[Piece]:
        """Decoded values."""
        del params, point
        fields = [self.network(code.meta) for code in codes]
        weights = (weight_coding.decoded_weights(field, code) for field, code in zip(fields, codes, strict=True))
        return network_pieces(fields, weights, grids, MODALITIES[self.modality].coordinates)

"""Strümpler et al. 2022, the meta-learned codec: the file holds how a signal's weights differ from meta-learned ones.

Training (section 3.4): θ₀ by MAML, through three inner steps with a learned step size for every weight and step, on crops. Step
sizes are learned as they are, as in the authors' code: from a start of 1e-5, which is next to nothing, their logarithms could not
get to where a step changes anything.
Encoding: those inner steps; Adam on MSE + λ Σ|Δ|, Δ = θ − θ₀; one symmetric grid per tensor; AdaRound and retraining of Δ alone;
entropy coding. Decoding: evaluate the network of weights θ₀ + Δ at all coordinates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.adaptation import meta_learning
from vcinr.adaptation.long_fit import OptimiserSpec
from vcinr.adaptation.meta_learning import AdaptationConfig, adapt_latent
from vcinr.batching import map_batches
from vcinr.codec import QUICKEST, Code, EncodeRequest, Piece
from vcinr.codecs.whole_signals import WholeSignalCodec
from vcinr.entropy.range_coder import SymbolModel
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig
from vcinr.modalities import MODALITIES
from vcinr.modalities.examples import check_direct, check_field, modality_of
from vcinr.signals.signal import Grid, Signal
from vcinr.stage import Params, Stage, TrainingConfig
from vcinr.weights import coding as weight_coding
from vcinr.weights.coding import WeightCodingConfig
from vcinr.weights.evaluation import network_pieces
from vcinr.weights.fit import FitConfig, make_batch
from vcinr.weights.signal_batches import Report, SignalBatch, encode_in_batches


@dataclasses.dataclass(frozen=True)
class StrumplerMetaConfig:
    """Config of `StrumplerMeta`. All operating points share θ₀, and any of them decodes the files of all.

    crop: samples of one example of meta-training along each axis. Signals are encoded whole.
    modality: key of `MODALITIES`.
    field: the network.
    adaptation: the inner loop.
    meta: training of θ₀ through the inner loop.
    num_steps: steps of Adam after the inner loop, at least 1; each level of effort doubles them.
    optimiser: step size and schedule of these steps.
    l1: λ of λ Σ|Δ| beside the mean squared error of values in [0, 1], one value per operating point; at least 0. The paper's 1e-5
        belongs to values in [-1, 1], whose error is four times as large: it is 2.5e-6 here.
    bits: per weight, one value per operating point; 2 to 16.
    coding: AdaRound and retraining.
    chunk: coordinates per evaluation of a signal's loss, which bounds memory; 0: all at once.
    batch_samples: most samples fitted together, of signals of equal shape; a larger signal is fitted alone.
    """

    crop: tuple[int, ...] = (32, 32)
    modality: str = "picture"
    field: FieldConfig = FieldConfig(num_layers=3, width=32, modulation="weight_update", encoding="nerf")
    adaptation: AdaptationConfig = AdaptationConfig(num_steps=3, step_sizes="linear", inner_lr=1e-5, learn_start=False)
    meta: TrainingConfig = TrainingConfig(num_steps=2000, batch_size=16, lr=1e-3)
    num_steps: int = 1000
    optimiser: OptimiserSpec = OptimiserSpec(lr=1e-3, schedule="cosine", final_fraction=0.02)
    l1: tuple[float, ...] = (2.5e-6,)
    bits: tuple[int, ...] = (7,)
    coding: WeightCodingConfig = WeightCodingConfig()
    chunk: int = 2**15
    batch_samples: int = 2**16

    def __post_init__(self):
        row = modality_of(self.modality, self.crop)
        check_direct(row, "strumpler_meta")
        check_field(row, self.field)
        if self.field.modulation != "weight_update" or self.field.linear_head or self.field.last_width:
            raise ValueError(
                "strumpler_meta codes changes of weights: field.modulation is weight_update, without linear_head or last_width"
            )
        if self.adaptation.learn_start:
            raise ValueError("strumpler_meta needs adaptation.learn_start=False: weights are θ₀ where the update is 0")
        if not self.l1 or len(self.l1) != len(self.bits):
            raise ValueError(f"l1 and bits name one value per operating point, not {self.l1} and {self.bits}")
        if self.num_steps < 1 or min(self.l1) < 0 or not all(2 <= bits <= 16 for bits in self.bits):
            raise ValueError("strumpler_meta needs num_steps >= 1, l1 >= 0 and bits in 2..16")
        weight_coding.check_size(self.field)

    @property
    def patch(self) -> tuple[int, ...]:
        """What meta-learning calls the shape of its examples."""
        return self.crop


def base_weights(config: StrumplerMetaConfig, shared: Mapping[str, Any]) -> jax.Array:
    """θ₀ as one vector [p], in the order of `siren.flatten`."""
    layers = [(jnp.asarray(shared[f"kernel_{i}"]), jnp.asarray(shared[f"bias_{i}"])) for i in range(len(config.field.sizes()))]
    return siren.flatten(layers)


def first_updates(config: StrumplerMetaConfig, params: Params, signals: SignalBatch) -> np.ndarray:
    """Δ of each signal after the inner loop, [b, p]."""
    trained = {name: params[name] for name in ("shared", "latent_init", "step_sizes")} | {"coords": signals.coords}
    count, samples = signals.values.shape[:2]
    weight = np.ones((count, samples), np.float32) if signals.weight is None else signals.weight
    updates = map_batches(_adapt_row, config, trained, (signals.values, weight), count)
    if not np.isfinite(updates).all():
        raise ValueError("the inner loop diverges on these signals: train θ₀ with smaller step sizes, or on larger crops")
    return updates


@dataclasses.dataclass(frozen=True)
class StrumplerMeta(WholeSignalCodec):
    """The codec; see `vcinr.codec.Codec`."""

    config: StrumplerMetaConfig = StrumplerMetaConfig()
    name = "strumpler_meta"
    streams = weight_coding.STREAMS

    @property
    def training_patch(self) -> tuple[int, ...]:
        return self.config.crop

    def init(self, key: jax.Array) -> Params:
        """θ₀ at a network's ordinary start, and the operating points."""
        return {**meta_learning.init(self.config, key), "points": {str(i): {} for i in range(len(self.config.bits))}}

    def stages(self) -> tuple[Stage, ...]:
        """MAML."""
        return (meta_learning.meta_stage(self.config),)

    def point_name(self, point: int) -> str:
        """Bits and λ."""
        return f"{self.config.bits[point]} bits, {self.config.l1[point]:g}"

    def encode(self, params: Params, signals: Sequence[Signal], point: int, request: EncodeRequest = QUICKEST) -> list[Code]:
        """Codes of signals; those of equal shape are fitted together, and each level of effort doubles the steps.

        Points of equal λ differ in their grids alone: in one ``workdir`` they share the fit.
        """
        c = self.config
        num_steps = self.num_steps(request.effort)
        fit, base = FitConfig(c.field, c.l1[point], c.chunk), base_weights(c, params["shared"])

        def encode_batch(of_shape: SignalBatch, report: Report) -> list[Code]:
            return weight_coding.encode_batch(
                c.coding,
                fit,
                make_batch(c.field, base, of_shape, f"{self.name}_{fit.l1:g}_{num_steps}"),
                first_updates(c, params, of_shape),
                c.optimiser,
                num_steps,
                c.bits[point],
                meta={},
                workdir=request.workdir,
                report=report,
            )

        return encode_in_batches(encode_batch, signals, c.batch_samples, request.progress)

    def symbol_model(self, params: Params, point: int, grid: Grid, meta: Any, decoded: Any, name: str) -> SymbolModel:
        """The model gives the number of weights, the streams before give their tables."""
        del params, point, grid, meta
        return weight_coding.symbol_model(self.config.field, decoded, name)

    def decoder_config(self) -> dict[str, Any]:
        return {"field": self.config.field.described()}

    def decoder_arrays(self, params: Params, point: int) -> dict[str, np.ndarray]:
        """θ₀, the same for all points."""
        del point
        return {f"shared/{name}": np.asarray(array) for name, array in params["shared"].items()}

    def synthesise_pieces(self, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> Iterator[Piece]:
        """Decoded values."""
        del point
        field, base = self.config.field, np.asarray(base_weights(self.config, params["shared"]))
        weights = (base + weight_coding.decoded_weights(field, code) for code in codes)
        coordinates = MODALITIES[self.modality].coordinates
        return network_pieces([field] * len(codes), weights, grids, coordinates, unit_frequency=False)


def _adapt_row(config: StrumplerMetaConfig, trained: Any, values: jax.Array, weight: jax.Array) -> jax.Array:
    steps = config.adaptation.encode_steps
    return adapt_latent(config, trained, values, weight, trained["coords"], num_steps=steps)

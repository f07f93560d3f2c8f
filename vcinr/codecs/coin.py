"""COIN: one SIREN per signal, fitted from scratch, its weights in half precision.

Dupont et al. 2021, "COIN: COmpression with Implicit Neural representations".

Encoding: w ← SIREN's random start; Adam on the mean squared error; the weights of the lowest loss, as float16, are the file.
Decoding: evaluate the SIREN at all coordinates. Nothing is trained beforehand, and a file needs no model.

The paper chooses a rate's architecture and learning rate by Bayesian optimisation on one picture and uses them for all. Here
trial fits of a few architectures of about equal size, all at one learning rate, decide for each signal (`Coin.choose_point`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.adaptation.long_fit import OptimiserSpec, overfit
from vcinr.adaptation.objective import chunked_mean_squared_error
from vcinr.bitstream import container
from vcinr.bitstream.container import BitstreamError
from vcinr.codec import QUICKEST, STREAM_WORK, Code, EncodeRequest, Piece
from vcinr.codecs.whole_signals import SelfContainedCodec
from vcinr.entropy.range_coder import RawBits
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig, evaluate
from vcinr.modalities import MODALITIES
from vcinr.modalities.modality import Modality
from vcinr.signals.signal import Grid, Signal
from vcinr.stage import Params, Progress
from vcinr.weights.evaluation import Coordinates, check_work, network_pieces, work
from vcinr.weights.signal_batches import Report, SignalBatch, batch_progress, batches_of_equal_shape, encode_in_batches

BITS = 16
"""Bits per weight in the file."""
MAX_DEPTH, MAX_WIDTH, MAX_OMEGA_0, MAX_WEIGHTS = 64, 1024, 1000, 2**20
"""What a file may ask for; a reader's `vcinr.bitstream.limits.Limits` bound weights times samples."""
CHECKPOINT_WORK = 2**36
"""Multiplications between two checkpoints, half a minute and more on two CPU cores."""


@dataclasses.dataclass(frozen=True)
class CoinConfig:
    """Config of `Coin`.

    modality: key of `MODALITIES`.
    architectures: (depth, width) of each operating point, in any order; depth is the number of sine layers. (): all pairs of
        ``depths`` and ``widths``. Points are numbered by size.
    depths: sine layers, 1 to `MAX_DEPTH`; used where there are no ``architectures``.
    widths: units per layer, 1 to `MAX_WIDTH`; used where there are no ``architectures``.
    omega_0: frequency scale ω₀, 1 to `MAX_OMEGA_0`.
    seed: of the random start, which is the same for all signals.
    num_steps: steps of Adam, at least 1; each level of effort doubles them. The paper takes 50,000.
    optimiser: step size and schedule. The paper's are 2e-4, constant.
    trial_steps: steps of each trial fit by which `choose_point` chooses among architectures of about equal size.
    chunk: coordinates per evaluation of a signal's loss, which bounds memory; 0: all at once.
    batch_samples: most samples fitted together, of signals of equal shape; a larger signal is fitted alone.
    """

    modality: str = "picture"
    architectures: tuple[tuple[int, ...], ...] = ()
    depths: tuple[int, ...] = (2, 3, 5, 7, 10, 13)
    widths: tuple[int, ...] = (
        *(6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 31, 34, 37, 40, 44, 49),
        *(54, 60, 66, 72, 80, 88, 96, 112, 128),
    )
    omega_0: int = 30
    seed: int = 0
    num_steps: int = 2000
    optimiser: OptimiserSpec = OptimiserSpec(lr=4e-3, schedule="cosine")
    trial_steps: int = 300
    chunk: int = 2**15
    batch_samples: int = 2**16

    def __post_init__(self):
        if self.modality not in MODALITIES:
            raise ValueError(f"unknown modality {self.modality!r}: valid are {', '.join(MODALITIES)}")
        if min(self.num_steps, self.trial_steps) < 1:
            raise ValueError(f"num_steps and trial_steps must be at least 1, not {self.num_steps} and {self.trial_steps}")
        if not self.points:
            raise ValueError("a COIN needs at least one architecture, or depths and widths")

    @functools.cached_property
    def points(self) -> tuple[tuple[int, ...], ...]:
        """(depth, width) of each operating point, small to large."""
        chosen = self.architectures or tuple(itertools.product(self.depths, self.widths))
        for architecture in chosen:
            if len(architecture) != 2:
                raise ValueError(f"an architecture is (depth, width), not {architecture}")
        return tuple(sorted(chosen, key=lambda a: (num_weights(field_of(self.modality, *a, self.omega_0)), a)))


def field_of(modality: str, depth: int, width: int, omega_0: int) -> FieldConfig:
    """The SIREN of an architecture. ValueError beyond `MAX_DEPTH`, `MAX_WIDTH`, `MAX_OMEGA_0` or `MAX_WEIGHTS`."""
    return _field_of(MODALITIES[modality], depth, width, omega_0)


@functools.lru_cache(maxsize=1024)
def _field_of(row: Modality, depth: int, width: int, omega_0: int) -> FieldConfig:
    limits = (("depth", depth, MAX_DEPTH), ("width", width, MAX_WIDTH), ("omega_0", omega_0, MAX_OMEGA_0))
    for name, value, largest in limits:
        if not 1 <= value <= largest:
            raise ValueError(f"the {name} of a COIN lies in 1..{largest}, not {value}")
    field = FieldConfig(row.coord_dim, row.outputs, depth, width, float(omega_0), latent_dim=1, modulation="none")
    if num_weights(field) > MAX_WEIGHTS:
        raise ValueError(f"a COIN of {depth}×{width} has {num_weights(field)} weights; at most {MAX_WEIGHTS} are coded")
    return field


def num_weights(field: FieldConfig) -> int:
    """Weights of one signal."""
    return siren.num_weights(field.sizes())


def file_bits(field: FieldConfig, shape: Sequence[int]) -> int:
    """Most bits that the file of a signal of this shape takes: header, checksum, 16 bits per weight, the range coder's slack.

    A range of 2^32 at least, rounded to a multiple of 2^24, costs under 2^-7.4 bits per symbol; the end costs under 8 bytes.
    """
    meta = {"depth": field.num_layers, "width": field.width, "omega_0": int(field.omega_0)}
    head = container.head_bytes(bytes(container.FINGERPRINT_SIZE), [shape], [meta], META_TYPES)
    payload = math.ceil((BITS + 2.0**-7.4) * num_weights(field) / 8) + 8
    return 8 * (len(head) + payload + container.CHECKSUM_SIZE)


def reconstruction_loss(config: tuple[FieldConfig, int, str], coords: Any, layers: Any, data: Any, step: Any) -> jax.Array:
    """Mean squared error of one signal; config = (field, chunk, modality), data = (values [n, c], weight [n] or None)."""
    del step
    field, chunk, modality = config
    values, weight = data
    observe = functools.partial(MODALITIES[modality].observe, functools.partial(evaluate, field, layers))
    return chunked_mean_squared_error(observe, coords, values, weight, chunk)


def to_symbols(weights: np.ndarray) -> np.ndarray:
    """float16 bit patterns of weights, int32. ValueError where one does not fit."""
    with np.errstate(over="ignore"):
        halves = np.asarray(weights).astype(np.float16)
    if not np.isfinite(halves).all():
        raise ValueError("a weight has left the range of float16: lower the learning rate")
    return halves.view(np.uint16).astype(np.int32)


def from_symbols(symbols: np.ndarray) -> np.ndarray:
    """Weights, float32, of `to_symbols`. BitstreamError for a pattern that is no number."""
    weights = symbols.astype(np.uint16).view(np.float16).astype(np.float32)
    if not np.isfinite(weights).all():
        raise BitstreamError("the file holds weights that are not finite: no encoder has written it")
    return weights


META_TYPES = {"depth": "int", "width": "int", "omega_0": "int"}


@dataclasses.dataclass(frozen=True)
class Coin(SelfContainedCodec):
    """The codec; see `vcinr.codec.Codec`. An operating point is an architecture, which the file names itself."""

    config: CoinConfig = CoinConfig()
    name = "coin"
    searches = True
    streams = ("weights",)
    meta_types = META_TYPES

    @property
    def networks(self) -> Sequence[tuple[int, ...]]:
        """(depth, width) of each operating point."""
        return self.config.points

    def point_name(self, point: int) -> str:
        """The architecture, e.g. "10x28"."""
        return "x".join(map(str, self.config.points[point]))

    def encode(self, params: Params, signals: Sequence[Signal], point: int, request: EncodeRequest = QUICKEST) -> list[Code]:
        """Codes of signals; those of equal shape are fitted together, and each level of effort doubles the steps."""
        del params
        c = self.config
        field = self._field(point)
        meta = {"depth": field.num_layers, "width": field.width, "omega_0": c.omega_0}
        steps = self.num_steps(request.effort)
        for signal in signals:
            check_work(field, signal.grid.shape, MODALITIES[self.modality].evaluations)

        def encode_batch(batch: SignalBatch, report: Report) -> list[Code]:
            name = f"{self.point_name(point)}_{steps}_{batch.name}"
            weights, _ = self._fit(field, batch, steps, request, name, report("fitting"))
            return [Code({"weights": symbols}, meta) for symbols in to_symbols(weights)]

        return encode_in_batches(encode_batch, signals, c.batch_samples, request.progress)

    def choose_point(self, params: Params, signal: Signal, bpp: float, request: EncodeRequest) -> int:
        """The architecture for one signal whose file is within ``bpp`` bits per sample, by trial fits.

        Candidates are the widest architecture of each depth that fits, unless its file is under half of the largest that fits. A
        short fit of each on the signal itself decides; the paper's search is another, see the module. ValueError where none fits.
        """
        del params
        shape = signal.grid.shape
        budget = bpp * math.prod(shape)
        about = 8 * container.max_meta_bytes(MODALITIES[self.modality].meta_types)
        sizes = [about + file_bits(self._field(i), shape) for i in range(len(self.config.points))]
        fitting = [i for i, bits in enumerate(sizes) if bits <= budget]
        if not fitting:
            raise ValueError(f"no operating point fits {bpp:g} bpp; the cheapest takes {min(sizes) / math.prod(shape):.4f}")
        widest = {self.config.points[i][0]: i for i in fitting}
        candidates = [i for i in widest.values() if 2 * sizes[i] >= sizes[fitting[-1]]]
        if len(candidates) == 1:
            return candidates[0]
        (batch,) = batches_of_equal_shape([signal], self.config.batch_samples)
        losses = []
        for i, point in enumerate(candidates):
            report = batch_progress(request.progress, i, len(candidates), "trial fits")
            name = f"trial_{self.point_name(point)}_{batch.name}"
            _, loss = self._fit(self._field(point), batch, self.config.trial_steps, request, name, report)
            losses.append(float(loss[0]))
        return candidates[int(np.argmin(losses))]

    def symbol_model(self, params: Params, point: int, grid: Grid, meta: Mapping[str, Any], decoded: Any, name: str) -> RawBits:
        """16 bits for each weight of the architecture in ``meta``. ValueError for one that no encoder writes."""
        del params, point, grid, decoded, name
        return RawBits(BITS, num_weights(self.network(meta)))

    def network(self, meta: Mapping[str, Any]) -> FieldConfig:
        return field_of(self.modality, *(meta[name] for name in META_TYPES))

    def synthesise_pieces(self, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> Iterator[Piece]:
        """Decoded values. BitstreamError for weights that are not finite."""
        del params, point
        return self._pieces(codes, grids, MODALITIES[self.modality].coordinates)

    def synthesise_at(self, params: Params, point: int, code: Code, grid: Grid, coords: np.ndarray) -> np.ndarray:
        """The network at coordinates. BitstreamError for weights that are not finite."""
        del params, point, grid
        every = Grid((len(coords),), (len(coords),))
        return np.concatenate([part.values for part in self._pieces([code], [every], lambda shape, a, b: coords[a:b])])

    def decoding_work(self, grid: Grid, meta: Mapping[str, int | float]) -> int:
        """As every codec's, and the network's at all points that samples take."""
        return STREAM_WORK * len(self.streams) + work(self.network(meta), grid.shape, MODALITIES[self.modality].evaluations)

    def _pieces(self, codes: Sequence[Code], grids: Sequence[Grid], coordinates: Coordinates) -> Iterator[Piece]:
        row = MODALITIES[self.modality]
        fields = [self.network(code.meta) for code in codes]
        weights = (from_symbols(code.streams["weights"]) for code in codes)
        return network_pieces(fields, weights, grids, coordinates, observe=row.observe, evaluations=row.evaluations)

    def _field(self, point: int) -> FieldConfig:
        return field_of(self.modality, *self.config.points[point], self.config.omega_0)

    def _fit(
        self,
        field: FieldConfig,
        batch: SignalBatch,
        num_steps: int,
        request: EncodeRequest,
        name: str,
        progress: Progress | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights [b, P] of the lowest loss, and that loss [b]."""
        c = self.config
        key = jax.random.key(c.seed) if request.key is None else request.key
        start = siren.init_layers(key, field.sizes(), field.omega_0)
        count, samples = batch.values.shape[:2]
        points = samples * MODALITIES[self.modality].evaluations
        start = jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *a.shape)), start)
        fitted = overfit(
            reconstruction_loss,
            (field, c.chunk, self.modality),
            batch.coords,
            start,
            (batch.values, batch.weight),
            c.optimiser,
            num_steps,
            chunk_steps=max(1, min(250, CHECKPOINT_WORK // (count * points * num_weights(field)))),
            workdir=request.workdir,
            name=name,
            labels=batch.indices,
            progress=progress,
        )
        tensors = [tensor.reshape(count, -1) for layer in fitted.params for tensor in layer]
        return np.concatenate(tensors, axis=1), fitted.loss

"""COMBINER and COMBINER+: a signal is a sample of the Gaussian posterior of its network, sent by relative entropy coding.

He 2023, "Data Compression with Variational Implicit Neural Representations"; Guo, Flamich, He, Chen, Hernández-Lobato 2023,
"Compression with Bayesian Implicit Neural Representations".

Training, for every β: posteriors of all training signals and the prior that they share, by coordinate ascent (algorithm 1); then
dimensions are packed into blocks of κ bits (algorithm 2).
Encoding: the posterior is fitted, with a β per block that keeps the block's divergence within κ bits (algorithms 3 and 4); block
after block, a sample of it is coded as the index of one of 2^(κ + t) candidates, and the open blocks are fitted on (algorithm 5).
Decoding: the candidates of these indices are the network's weights; evaluate it at all coordinates.

COMBINER+ has another network: its weights are A h with A learned beside the prior, it reads a positional encoding made from a
latent z, and blocks mix the patches of a signal.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.codec import QUICKEST, Code, Codec, EncodeRequest, Piece
from vcinr.compression.pieces import patch_pieces, patches_at_once
from vcinr.datasets.sources import ArraySource
from vcinr.entropy.range_coder import RawBits
from vcinr.fields.field import FieldConfig
from vcinr.modalities import MODALITIES
from vcinr.modalities.examples import check_direct, check_field, modality_of, normalise_batch
from vcinr.posterior.gaussians import Gaussian
from vcinr.posterior.networks import PositionalConfig, TransformedNetwork, WeightNetwork
from vcinr.posterior.partition import Partition, patch_permutation
from vcinr.posterior.prior_learning import PriorConfig, blocks_stage, first_posterior, prior_stage
from vcinr.posterior.progressive_coding import Coded, CodingConfig, Problem, code_signals, decode_signal
from vcinr.signals.signal import Grid, Signal
from vcinr.stage import AnyStage, Params, PatchExamples
from vcinr.weights.signal_batches import batch_progress

MAX_EFFORT = 8


@dataclasses.dataclass(frozen=True)
class CombinerConfig:
    """Config of `Combiner`.

    patch: samples per patch along each axis; each patch has a network of its own.
    modality: key of `MODALITIES`.
    field: the network, without modulation.
    betas: β of each operating point, from large (few bits) to small.
    prior: how the priors are learned.
    coding: how signals are coded.
    go_on: whether the prior of each β but the largest starts from that of the β before. The thesis starts each anew.
    batch_samples: most samples fitted together, of signals of equal shape; a larger signal is fitted alone.
    decode_batch: batch size per device in decoding, in patches.
    seed: of the initial weights and of the order of dimensions.
    """

    patch: tuple[int, ...] = (32, 32)
    modality: str = "picture"
    field: FieldConfig = FieldConfig(
        num_layers=3, width=16, modulation="none", latent_dim=1, encoding="geometric", num_frequencies=8, encoding_scale=1024.0
    )
    betas: tuple[float, ...] = (2e-5, 5e-6, 2e-6, 1e-6, 5e-7)
    prior: PriorConfig = PriorConfig()
    coding: CodingConfig = CodingConfig()
    go_on: bool = True
    batch_samples: int = 2**15
    decode_batch: int = 64
    seed: int = 0

    def __post_init__(self):
        row = modality_of(self.modality, self.patch)
        check_direct(row, "COMBINER")
        check_field(row, self.field)
        if self.field.modulation != "none" or self.field.linear_head:
            raise ValueError('all weights are random, so nothing modulates them: field.modulation is "none", linear_head False')
        if not self.betas or list(self.betas) != sorted(self.betas, reverse=True) or self.betas[-1] <= 0:
            raise ValueError(f"betas fall from point to point and are positive, not {self.betas}")


@dataclasses.dataclass(frozen=True)
class CombinerPlusConfig(CombinerConfig):
    """Config of `CombinerPlus`; see `CombinerConfig`.

    transform: whether weights are A h with a learned A; without it they are h.
    positional: the learned positional encoding.
    """

    field: FieldConfig = FieldConfig(
        num_layers=3, width=32, modulation="none", latent_dim=1, encoding="geometric", num_frequencies=4, encoding_scale=1024.0
    )
    coding: CodingConfig = CodingConfig(num_samples=5, permute=True)
    transform: bool = True
    positional: PositionalConfig = PositionalConfig()


@dataclasses.dataclass(frozen=True)
class Combiner(Codec):
    """The codec; see `vcinr.codec.Codec`. An operating point is a β, with a prior and blocks of its own."""

    config: CombinerConfig = CombinerConfig()
    name = "combiner"
    streams = ("indices",)

    @functools.cached_property
    def network(self) -> WeightNetwork:
        """What the posteriors are over."""
        return WeightNetwork(self.config.field, self.patch)

    @property
    def max_effort(self) -> int:
        return MAX_EFFORT

    def init(self, key: jax.Array) -> Params:
        """No parameters: every prior's stage starts its own."""
        del key
        return {"points": {}}

    def stages(self) -> tuple[AnyStage, ...]:
        """For each β: ``prior_i`` (algorithm 1), then ``blocks_i`` (algorithm 2)."""
        c, stages = self.config, []
        for point in range(len(c.betas)):
            first, last = point == 0, point + 1 == len(c.betas)
            examples = self._examples if first else None
            beta = c.betas[point]
            go_on = c.go_on and not first
            stages.append(prior_stage(self.network, c.prior, beta, point, self._inputs(), examples, go_on, c.seed))
            stages.append(blocks_stage(c.prior, c.coding.budget, point, last, c.seed))
        return tuple(stages)

    def encode(self, params: Params, signals: Sequence[Signal], point: int, request: EncodeRequest = QUICKEST) -> list[Code]:
        """Codes of signals; those of equal shape are fitted together. ValueError where a fit diverges."""
        codes: list[Code | None] = [None] * len(signals)
        for indices, coded in self.coded(params, signals, point, request):
            for row, i in enumerate(indices):
                codes[i] = Code({"indices": coded.indices[row].ravel()})
        return codes

    def coded(
        self, params: Params, signals: Sequence[Signal], point: int, request: EncodeRequest = QUICKEST
    ) -> Iterator[tuple[list[int], Coded]]:
        """(places of the signals, what was coded) of each batch of signals of equal shape (algorithms 3 to 5)."""
        self.check_effort(request.effort)
        c, own = self.config, params["points"][str(point)]
        by_grid: dict[tuple, list[int]] = {}
        for i, signal in enumerate(signals):
            by_grid.setdefault((signal.grid, signal.weight is None), []).append(i)
        batches = []
        for (grid, unweighted), same in by_grid.items():
            size = max(1, c.batch_samples // (grid.num_patches * math.prod(grid.patch)))
            batches += [(grid, unweighted, same[begin : begin + size]) for begin in range(0, len(same), size)]
        for number, (grid, unweighted, places) in enumerate(batches):
            progress = batch_progress(request.progress, number, len(batches), "coding")
            values = np.stack([np.asarray(signals[i].values) for i in places])
            weight = None if unweighted else np.stack([np.asarray(signals[i].weight) for i in places])
            start = first_posterior(own, values.reshape(-1, *values.shape[2:]))
            start = {name: part.reshape(*values.shape[:2], -1) for name, part in start.items()}
            yield (
                places,
                code_signals(
                    Problem(self.network, c.coding, grid.counts),
                    own,
                    c.betas[point],
                    values,
                    weight,
                    self._inputs(),
                    start,
                    self._rows(grid),
                    dataclasses.replace(request, progress=progress),
                    places,
                ),
            )

    def symbol_model(self, params: Params, point: int, grid: Grid, meta: Any, decoded: Any, name: str) -> RawBits:
        """κ + t bits for each block of each patch."""
        del meta, decoded, name
        blocks = len(params["points"][str(point)]["blocks"]["ends"])
        return RawBits(self.config.coding.index_bits, grid.num_patches * blocks)

    def decoder_config(self) -> dict[str, Any]:
        c = self.config
        coding = {"index_bits": c.coding.index_bits, "seed": c.coding.seed, "permute": c.coding.permute}
        return {"field": c.field.described(), "coding": coding}

    def decoder_arrays(self, params: Params, point: int) -> dict[str, np.ndarray]:
        own = params["points"][str(point)]
        leaves = jax.tree_util.tree_leaves_with_path({name: own[name] for name in ("prior", "shared", "blocks")})
        return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}

    def sample(self, params: Params, point: int, code: Code, grid: Grid) -> np.ndarray:
        """The coded vectors of all patches of a signal, float32 [p, size], equal on every machine."""
        own = params["points"][str(point)]
        partition = Partition.from_arrays(own["blocks"])
        indices = code.streams["indices"].reshape(grid.num_patches, partition.num_blocks)
        prior = Gaussian(**own["prior"])
        found = decode_signal(partition, prior, self.config.coding.seed, indices)
        rows = self._rows(grid)
        if rows is None:
            return found
        whole = np.empty_like(found)
        np.put_along_axis(whole, rows, found, axis=0)
        return whole

    def synthesise_pieces(self, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> Iterator[Piece]:
        """Decoded values, some patches at a time."""
        c, shared = self.config, params["points"][str(point)]["shared"]
        channels = MODALITIES[c.modality].channels
        at_once = patches_at_once(self.network.size + math.prod(self.patch) * (channels + self.network.num_features))

        def blocks() -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
            for i, (code, grid) in enumerate(zip(codes, grids, strict=True)):
                v = self.sample(params, point, code, grid)
                features = self.network.features(shared, jnp.asarray(v), grid.counts)
                arrays = (v,) if features is None else (v, np.asarray(features))
                for a in range(0, len(v), at_once):
                    yield i, tuple(array[a : a + at_once] for array in arrays)

        return patch_pieces(_values_row, self, (shared, self._inputs()), blocks(), channels, c.decode_batch, at_once)

    def _examples(self, params: Params, patches: PatchExamples) -> ArraySource:
        del params
        c = self.config.prior
        values = patches.all_patches(np.random.default_rng(self.config.seed), c.offsets_per_picture, c.num_patches)
        return ArraySource({"values": normalise_batch(self.config.modality, values)})

    def _inputs(self) -> jax.Array:
        return self.network.inputs(MODALITIES[self.config.modality].coordinates(self.patch))

    def _rows(self, grid: Grid) -> np.ndarray | None:
        """The patch in each row of blocks; None where each row is a patch of its own."""
        if not self.config.coding.permute or grid.num_patches == 1:
            return None
        return patch_permutation(self.config.coding.seed, grid.num_patches, self.network.size)


@dataclasses.dataclass(frozen=True)
class CombinerPlus(Combiner):
    """The codec; see `Combiner`. Its network is another, and its blocks mix the patches of a signal."""

    config: CombinerPlusConfig = CombinerPlusConfig()
    name = "combiner_plus"
    continuous = False

    @functools.cached_property
    def network(self) -> TransformedNetwork:
        c = self.config
        return TransformedNetwork(c.field, self.patch, c.transform, c.positional)

    @property
    def decoding_bytes_per_sample(self) -> int:
        return self.network.bytes_per_sample

    def decoder_config(self) -> dict[str, Any]:
        c = self.config
        return {**super().decoder_config(), "transform": c.transform, "positional": dataclasses.asdict(c.positional)}


def _values_row(codec: Combiner, shared: Any, v: jax.Array, features: jax.Array | None = None) -> jax.Array:
    own, inputs = shared
    return codec.network.values(own, v, features, inputs)

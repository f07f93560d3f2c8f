"""Base of the codecs with a meta-learned latent: training stages, encoding in batches, coding, decoding.

Such a codec is a field modulated by one flat latent per patch, an inner loop that finds the latent, and a compression of the
numbers that the file pays for. `coinpp`, `contextual_inr`, `functa`, `meta_sparse_inr`, `mscn` and `vc_inr` choose these three.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.adaptation import meta_learning
from vcinr.adaptation.meta_learning import AdaptationConfig, adapt_latent, layers_loss, nearest_latent, values_at
from vcinr.batching import map_batches, patch_rows, per_signal
from vcinr.codec import QUICKEST, Code, Codec, EncodeRequest, Piece
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.compression.interface import Compression
from vcinr.compression.pieces import patch_pieces, patches_at_once
from vcinr.compression.uniform import UniformCompression, UniformConfig
from vcinr.compression.variational import VariationalCompression
from vcinr.context.compression import ContextualCompression, ContextualConfig
from vcinr.datasets.sources import ArraySource
from vcinr.entropy.range_coder import Table
from vcinr.fields.field import FieldConfig, make_field
from vcinr.modalities import MODALITIES
from vcinr.modalities.examples import check_field, modality_of, normalise_batch
from vcinr.signals.resampling import Resampling
from vcinr.signals.signal import Grid, Signal
from vcinr.stage import AnyStage, Params, PatchExamples, TrainingConfig
from vcinr.trees import digest, load_tree, save_tree

COMPRESSIONS: dict[str, type] = {
    "uniform": UniformCompression,
    "variational": VariationalCompression,
    "contextual": ContextualCompression,
}
"""``compression.kind`` of a config → class of the compression."""

PROJECTED = ("latent_shifts", "low_rank_gates")
"""Modulations whose latents are short enough for Gauss–Newton steps, and not sparse."""


@dataclasses.dataclass(frozen=True)
class LatentCodecConfig:
    """Config of a latent codec.

    patch: samples per patch along each axis.
    modality: key of `MODALITIES`.
    field: the field and its modulation.
    adaptation: the inner loop.
    meta: training of the field through the inner loop.
    compression: from latents to symbols; its ``kind`` is a key of `COMPRESSIONS`.
    encode_batch: batch size per device in encoding and decoding, in patches; at least 1.
    """

    patch: tuple[int, ...] = (32, 32)
    modality: str = "picture"
    field: FieldConfig = FieldConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    meta: TrainingConfig = TrainingConfig(num_steps=2000, batch_size=16, lr=1e-3)
    compression: UniformConfig | BottleneckConfig | ContextualConfig = UniformConfig()
    encode_batch: int = 32

    def __post_init__(self):
        if self.field.modulation == "none" and not self.field.linear_head:
            raise ValueError('field.modulation is "none", so the latent changes nothing: choose a modulation, or set linear_head')
        if self.adaptation.projection_steps and self.field.modulation not in PROJECTED:
            raise ValueError(
                f"adaptation.projection_steps is for field.modulation {' or '.join(PROJECTED)}, not "
                f"{self.field.modulation}: set it to 0"
            )
        row = modality_of(self.modality, self.patch)
        if isinstance(self.compression, ContextualConfig):
            self.compression.check_patch(self.patch, self.field.latent_size())
        check_field(row, self.field)


@dataclasses.dataclass(frozen=True)
class LatentCodec(Codec):
    """Base of the latent codecs; see `vcinr.codec.Codec`. A codec adds a name, and overrides the methods marked below as needed.

    The file pays for m of the latent's k numbers: all of them, or those at the indices ``params["coded"]`` (int32 [m]); all
    others are 0.
    """

    config: Any = LatentCodecConfig()
    fitted = ("shared", "latent_init", "step_sizes")
    """Parameters that `adapt` reads."""
    decoded = ("shared",)
    """Parameters that `layers` reads."""

    # Codecs may override these methods.

    def field_stages(self) -> tuple[AnyStage, ...]:
        """The stages that train the field; they complete the parameters in ``fitted`` and ``decoded``."""
        return (meta_learning.meta_stage(self.config),)

    def adapt(self, params: Params, values: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        """Values [n, c] and weights [n] of one patch → the numbers [m] that the file pays for."""
        latent = self.first_latent(params, values, weight)
        if self.config.adaptation.projection_steps:
            latent = nearest_latent(self.config, params["shared"], latent, values, weight)
        return kept_entries(params, latent)

    def first_latent(self, params: Params, values: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        """The latent [k] of one patch by the inner loop, from which projection starts."""
        return adapt_latent(self.config, params, values, weight, num_steps=self.config.adaptation.encode_steps)

    def layers(self, params: Params, latent: jax.Array) -> Any:
        """The numbers [m] that the file holds of one patch → the layers of its field."""
        phi = whole_latent(params, latent, self.config.field.latent_size())
        return make_field(self.config.field).apply({"params": params["shared"]}, phi, method="layers")

    # The rest is common to all latent codecs.

    @property
    def streams(self) -> tuple[str, ...]:
        return self.compression.streams

    @property
    def patches_alone(self) -> bool:
        return self.compression.patches_alone

    @property
    def max_effort(self) -> int:
        return self.compression.max_effort

    @property
    def training_patch(self) -> tuple[int, ...]:
        compression = self.config.compression
        return (isinstance(compression, ContextualConfig) and compression.crop) or self.patch

    @property
    def num_values(self) -> int:
        """Samples × channels of one patch."""
        return math.prod(self.patch) * MODALITIES[self.modality].channels

    @property
    def decoding_bytes_per_sample(self) -> int:
        return -(-self.compression.decoding_bytes_per_symbol * self.config.field.latent_size() // math.prod(self.patch))

    @cached_property
    def compression(self) -> Compression:
        """The compression that the config names."""
        return COMPRESSIONS[self.config.compression.kind](self.config.compression)

    def init(self, key: jax.Array) -> Params:
        """Initial θ, φ₀ = 0 and initial step sizes; no operating points yet."""
        return {**meta_learning.init(self.config, key), "points": {}}

    def stages(self) -> tuple[AnyStage, ...]:
        """The stages of the field, then those of the compression."""
        field_stages = self.field_stages()
        if self.training_patch != self.patch:
            field_stages = tuple(_of_patches(stage, self.patch) for stage in field_stages)
        return (*field_stages, *self.compression.stages(self))

    def values(self, params: Params, latent: jax.Array) -> jax.Array:
        """The numbers [m] that the file holds of one patch → values of its field on the patch's own coordinates, [n, c]."""
        coords = jnp.asarray(MODALITIES[self.modality].coordinates(self.patch))
        return values_at(self.config, self.layers(params, latent), coords)

    def distortion(self, params: Params, latent: jax.Array, values: jax.Array) -> jax.Array:
        """MSE between the field made from the numbers [m] and a patch's values [n, c]."""
        return layers_loss(self.config, self.layers(params, latent), values)

    def encoder_params(self, params: Params) -> Params:
        """The parameters that `adapt` reads."""
        return {name: params[name] for name in (*self.fitted, "coded") if name in params}

    def decoder_params(self, params: Params) -> Params:
        """The parameters that `layers` reads."""
        return {name: params[name] for name in (*self.decoded, "coded") if name in params}

    def num_coded(self, params: Params) -> int:
        """m, the numbers per patch that the file pays for."""
        return len(params["coded"]) if "coded" in params else self.config.field.latent_size()

    def latents(self, limit: int, offsets_per_picture: int, params: Params, patches: PatchExamples) -> ArraySource:
        """Training patches, "values" [b, n, c], and the numbers that a file would pay for them, "latent" [b, m]."""
        raw = patches.all_patches(np.random.default_rng(0), offsets_per_picture, limit)
        values = normalise_batch(self.modality, raw)
        return ArraySource({"values": values, "latent": self.adapt_all(params, values)})

    def adapt_all(self, params: Params, values: np.ndarray) -> np.ndarray:
        """`adapt` of many whole patches: values [b, n, c] → numbers [b, m]. ValueError where adaptation diverges."""
        latent = map_batches(_adapt_row, self, self.encoder_params(params), (values,), self.config.encode_batch)
        if not np.isfinite(latent).all():
            raise ValueError("adaptation diverges on these patches: train with smaller step sizes")
        return latent

    def encode(self, params: Params, signals: Sequence[Signal], point: int, request: EncodeRequest = QUICKEST) -> list[Code]:
        """Codes of signals. Effort 0 is the inner loop alone, more is as the compression says. ValueError where it diverges."""
        self.check_effort(request.effort)
        values, weight = patch_rows(signals)
        weight = weight if self.compression.masks_padding else np.ones_like(weight)
        if self.config.adaptation.projection_steps:
            latents = self.projected_latents(params, values, weight, request.workdir)
            rows = map_batches(
                _analyse_row, self, self.compression.encoder_parts(params, point), (latents,), self.config.encode_batch
            )
        else:
            rows = self.analyse_all(params, point, values, weight)
        grids = [s.grid for s in signals]
        return self.compression.code(params, point, per_signal(rows, grids), grids, request.effort)

    def projected_latents(
        self, params: Params, values: np.ndarray, weight: np.ndarray, workdir: str | os.PathLike | None
    ) -> np.ndarray:
        """The numbers [b, m] of patches: values [b, n, c], weight [b, n]; kept in a workdir, where operating points share them.

        Raises ValueError where adaptation diverges.
        """
        path = None
        if workdir is not None:
            name = digest(repr(self.config.adaptation), (self.encoder_params(params), values, weight)).hex()[:32]
            path = Path(workdir) / f"latents_{name}.safetensors"
            if path.exists():
                return load_tree(path)["latents"]
        latents = map_batches(_adapt_row, self, self.encoder_params(params), (values, weight), self.config.encode_batch)
        if not np.isfinite(latents).all():
            raise ValueError("adaptation diverges on these patches: train with smaller step sizes")
        if path is not None:
            save_tree(path, {"latents": latents})
        return latents

    def analyse_all(self, params: Params, point: int, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """What `Compression.code` takes, [b, m], of patches: values [b, n, c], weight [b, n]."""
        shared = (self.encoder_params(params), self.compression.encoder_parts(params, point))
        return map_batches(_encode_row, self, shared, (values, weight), self.config.encode_batch)

    def symbol_model(self, params: Params, point: int, grid: Grid, meta: Any, decoded: Any, name: str) -> Table:
        """The compression's symbol model."""
        del meta
        return self.compression.symbol_model(self, params, point, grid, decoded, name)

    def modelled_bits(self, params: Params, point: int, codes: Sequence[Code]) -> list[float] | None:
        """The compression's `modelled_bits`; the tables' `estimated_bits` should be close."""
        return self.compression.modelled_bits(self, params, point, [code.streams for code in codes])

    def decoder_config(self) -> dict[str, Any]:
        """Everything that decoding needs besides arrays: config of the field, and the compression's `decoder_config`."""
        return {"field": self.config.field.described(), **self.compression.decoder_config()}

    def decoder_arrays(self, params: Params, point: int) -> dict[str, np.ndarray]:
        tables = params["points"][str(point)]["tables"].to_arrays()
        tree = {**self.decoder_params(params), **self.compression.decoder_parts(params, point), "tables": tables}
        if coder := self.compression.coder_arrays(params, point):
            tree["coder"] = coder
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}

    def synthesise_pieces(self, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> Iterator[Piece]:
        """Decoded values, some patches at a time."""
        c, compression = self.config, self.compression
        at_once = patches_at_once(compression.row_length(self, params) + self.num_values)
        blocks = (
            (i, (rows,))
            for i, (code, grid) in enumerate(zip(codes, grids, strict=True))
            for rows in compression.row_blocks(self, params, code.streams, grid, at_once)
        )
        shared = (self.decoder_params(params), compression.decoder_parts(params, point))
        return patch_pieces(_decode_row, self, shared, blocks, MODALITIES[c.modality].channels, c.encode_batch, at_once)

    def resample(self, params: Params, point: int, code: Code, grid: Grid, shape: Sequence[int]) -> np.ndarray:
        """The field of each patch between its samples."""
        c, compression, row = self.config, self.compression, MODALITIES[self.modality]
        finer = Resampling(grid, shape)
        at_once = patches_at_once(compression.row_length(self, params) + finer.most * max(row.channels, row.coord_dim))
        shared = (self.decoder_params(params), compression.decoder_parts(params, point))

        def blocks() -> Iterator[np.ndarray]:
            first = 0
            for rows in compression.row_blocks(self, params, code.streams, grid, at_once):
                positions = finer.positions(np.arange(first, first + len(rows)))
                coords = row.locate(positions.reshape(-1, row.rank)).reshape(*positions.shape[:2], -1)
                yield map_batches(_resample_row, self, shared, (rows, coords), c.encode_batch)
                first += len(rows)

        return finer.assemble(blocks())

    def synthesise_at(self, params: Params, point: int, code: Code, grid: Grid, coords: np.ndarray) -> np.ndarray:
        """The field of the only patch at coordinates."""
        if grid.num_patches != 1:
            raise ValueError(f"a signal of {grid.num_patches} patches has as many fields: ask for samples of a grid instead")
        (rows,) = self.compression.row_blocks(self, params, code.streams, grid, 1)
        shared = (self.decoder_params(params), self.compression.decoder_parts(params, point))
        return map_batches(_resample_row, self, shared, (rows, coords[None]), self.config.encode_batch)[0]


def kept_entries(params: Params, latent: jax.Array) -> jax.Array:
    """A latent [k] → the numbers [m] that the file pays for."""
    return latent[params["coded"]] if "coded" in params else latent


def whole_latent(params: Params, numbers: jax.Array, size: int) -> jax.Array:
    """The numbers [m] that the file holds → a latent [k], 0 elsewhere."""
    return jnp.zeros(size, numbers.dtype).at[params["coded"]].set(numbers) if "coded" in params else numbers


def _of_patches(stage: AnyStage, patch: tuple[int, ...]) -> AnyStage:
    """A stage that draws single patches, where the codec's other stages draw larger crops."""
    if stage.examples is None:
        return stage
    return dataclasses.replace(stage, examples=lambda params, crops: stage.examples(params, crops.with_patch(patch)))


def _adapt_row(codec: LatentCodec, params: Params, values: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    return codec.adapt(params, values, weight)


def _analyse_row(codec: LatentCodec, parts: Any, latent: jax.Array) -> jax.Array:
    return codec.compression.analyse(parts, latent)


def _encode_row(codec: LatentCodec, shared: Any, values: jax.Array, weight: jax.Array) -> jax.Array:
    params, parts = shared
    return codec.compression.analyse(parts, codec.adapt(params, values, weight))


def _resample_row(codec: LatentCodec, shared: Any, symbols: jax.Array, coords: jax.Array) -> jax.Array:
    params, parts = shared
    latent = codec.compression.synthesise(parts, symbols.astype(jnp.float32))
    return values_at(codec.config, codec.layers(params, latent), coords)


def _decode_row(codec: LatentCodec, shared: Any, symbols: jax.Array) -> jax.Array:
    params, parts = shared
    return codec.values(params, codec.compression.synthesise(parts, symbols.astype(jnp.float32)))

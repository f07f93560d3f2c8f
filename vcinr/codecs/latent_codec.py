"""What every codec with a meta-learned latent shares: training stages, encoding in batches, coding, decoding.

Such a codec is a field whose modulation takes one flat latent a patch, an inner loop that finds it, and a compression of the
numbers that the file pays for. `vcinr.codecs.coinpp`, `functa`, `meta_sparse_inr`, `mscn` and `vc_inr` say which.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.adaptation import meta_learning
from vcinr.adaptation.meta_learning import AdaptationConfig, adapt_latent, layers_loss
from vcinr.batching import map_batches
from vcinr.codec import Code
from vcinr.compression.bottleneck import QuantiserConfig
from vcinr.compression.uniform import Uniform, UniformConfig
from vcinr.compression.variational import Variational
from vcinr.context.compression import Contextual, ContextualConfig
from vcinr.datasets.sources import ArraySource
from vcinr.entropy.range_coder import Table
from vcinr.fields.field import FieldConfig, evaluate, make_field
from vcinr.modalities.examples import modality_of, normalise_batch
from vcinr.signals.grids import pixel_grid
from vcinr.signals.signal import Grid, Signal
from vcinr.stage import ExampleSource, Params, Progress, Stage, TrainingConfig

COMPRESSIONS = {
    "uniform": lambda config: Uniform(config.uniform),
    "variational": lambda config: Variational(config.quantiser),
    "contextual": lambda config: Contextual(config.contextual),
}
"""`LatentCodecConfig.compression` → how latents become symbols, and what of the config it reads."""

PRIOR_BATCH = 256
"""Patches a device takes at once where only the prior is evaluated."""


@runtime_checkable
class Compression(Protocol):
    """How the numbers that a file pays for become symbols; pure functions of arrays, apart from the stages.

    streams: names, in the order of coding; see `vcinr.codec.Codec.streams`.
    masked: whether a patch over the edge is fitted where the signal is, and not to the repeated edge besides. Where neighbours
        predict each other, the patch that goes on as it ends costs less.
    """

    streams: tuple[str, ...]
    masked: bool

    def stages(self, codec: LatentCodec) -> tuple[Stage, ...]:
        """What is trained after the field, up to ``params["points"]``."""

    def encoder_parts(self, params: Params, point: int) -> Mapping[str, Any]:
        """Arrays that `analyse` needs."""

    def analyse(self, parts: Mapping[str, Any], latent: jax.Array) -> jax.Array:
        """Latent [m] of a patch → what `code` makes symbols of: the symbols [m], as float, or what is yet to be rounded."""

    def code(
        self,
        codec: LatentCodec,
        params: Params,
        point: int,
        rows: Sequence[np.ndarray],
        grids: Sequence[Grid],
        effort: int = 0,
    ) -> list[dict[str, np.ndarray]]:
        """Streams of signals from what `analyse` gave of their patches, [p, m] each (host). ValueError for an unknown effort."""

    def symbol_model(
        self, codec: LatentCodec, params: Params, point: int, grid: Grid, decoded: Mapping[str, np.ndarray], name: str
    ) -> Table:
        """See `vcinr.codec.Codec.symbol_model`."""

    def symbol_rows(self, codec: LatentCodec, params: Params, streams: Mapping[str, np.ndarray], grid: Grid) -> np.ndarray:
        """The symbols that `synthesise` needs of each patch of a signal, [p, r] (host)."""

    def decoder_parts(self, params: Params, point: int) -> Mapping[str, Any]:
        """Arrays that `synthesise` needs: what the fingerprint covers besides the field and the tables."""

    def synthesise(self, parts: Mapping[str, Any], symbols: jax.Array) -> jax.Array:
        """A row [r] of `symbol_rows`, as float → latent [m]."""

    def decoder_config(self) -> Mapping[str, Any]:
        """What decoding needs besides arrays, JSON-able."""


@dataclasses.dataclass(frozen=True)
class LatentCodecConfig:
    """patch, modality: of the signals.  field: and its modulation.  adaptation: the inner loop.  meta: its training.
    compression: key of `COMPRESSIONS`, and so which of ``uniform``, ``quantiser`` (the variational one) and ``contextual``
    is used.   crop: of training examples where that is contextual, several whole patches each way; () for one patch.
    encode_batch: patches a device takes at once."""

    patch: tuple[int, ...] = (32, 32)
    modality: str = "picture"
    field: FieldConfig = FieldConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    meta: TrainingConfig = TrainingConfig(num_steps=2000, batch_size=16, lr=1e-3)
    compression: str = "uniform"
    uniform: UniformConfig = UniformConfig()
    quantiser: QuantiserConfig = QuantiserConfig()
    contextual: ContextualConfig = ContextualConfig()
    crop: tuple[int, ...] = ()
    encode_batch: int = 32

    def __post_init__(self):
        if self.compression not in COMPRESSIONS:
            raise ValueError(f"unknown compression {self.compression!r}; valid are {', '.join(COMPRESSIONS)}")
        if self.field.modulation == "none" and not self.field.linear_head:
            raise ValueError('field.modulation is "none": the latent would change nothing, choose one, or a linear_head')
        row = modality_of(self.modality, self.patch)
        if self.compression == "contextual":
            if self.contextual.groups[-1] != self.field.latent_size():
                raise ValueError(
                    f"contextual.groups must end at the latent's {self.field.latent_size()} dimensions, not at "
                    f"{self.contextual.groups[-1]}"
                )
            if self.crop and (
                len(self.crop) != len(self.patch) or any(a < b or a % b for a, b in zip(self.crop, self.patch, strict=True))
            ):
                raise ValueError(f"crop must be whole patches of {self.patch} each way, not {self.crop}")
        elif self.crop and tuple(self.crop) != tuple(self.patch):
            raise ValueError(f"crop is for compression contextual, whose patches see their neighbours, not {self.compression}")
        for key in ("coord_dim", "channels"):
            if getattr(self.field, key) != getattr(row, key):
                raise ValueError(f"field.{key} is {getattr(self.field, key)}, but a {row.name} has {getattr(row, key)}")


@dataclasses.dataclass(frozen=True)
class LatentCodec:
    """Base of the codecs; see `vcinr.codec.Codec`. A codec adds a name and, where it differs, what is marked below.

    The file pays for m of the latent's k numbers: all, or those at ``params["coded"]`` (int32 [m]), the others being 0.
    """

    config: Any = LatentCodecConfig()
    continuous = True
    needs_model = True
    fitted = ("shared", "latent_init", "step_sizes")
    """Parameters that `adapt` reads."""
    decoded = ("shared",)
    """Parameters that `layers` reads."""

    # What a codec may say differently.

    def field_stages(self) -> tuple[Stage, ...]:
        """What trains the field, up to everything in ``fitted`` and ``decoded``."""
        return (meta_learning.meta_stage(self.config),)

    def adapt(self, params: Params, values: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        """The numbers [m] that the file pays for, of one patch; values [n, c]."""
        steps = self.config.adaptation.encode_steps
        return coded(params, adapt_latent(self.config, params, values, weight, num_steps=steps))

    def layers(self, params: Params, latent: jax.Array) -> Any:
        """The field of a patch, from the numbers [m] that the file holds."""
        phi = uncoded(params, latent, self.config.field.latent_size())
        return make_field(self.config.field).apply({"params": params["shared"]}, phi, method="layers")

    # What is common to all.

    @property
    def modality(self) -> str:
        return self.config.modality

    @property
    def patch(self) -> tuple[int, ...]:
        return self.config.patch

    @property
    def streams(self) -> tuple[str, ...]:
        return self.compression.streams

    @property
    def meta_types(self) -> Mapping[str, str]:
        return {}

    @property
    def compression(self) -> Any:
        """The `Compression` of the config."""
        return COMPRESSIONS[self.config.compression](self.config)

    def init(self, key: jax.Array) -> Params:
        """θ at its start, φ₀ = 0, no points yet."""
        return {**meta_learning.init(self.config, key), "points": {}}

    def stages(self) -> tuple[Stage, ...]:
        """Those of the field, then those of the compression."""
        field_stages = self.field_stages()
        if self.config.crop:
            field_stages = tuple(_of_patches(stage, self.patch) for stage in field_stages)
        return (*field_stages, *self.compression.stages(self))

    def values(self, params: Params, latent: jax.Array) -> jax.Array:
        """The field of a patch on its own grid [n, c], from the numbers [m] that the file holds."""
        return evaluate(self.config.field, self.layers(params, latent), jnp.asarray(pixel_grid(self.patch)))

    def distortion(self, params: Params, latent: jax.Array, values: jax.Array) -> jax.Array:
        """MSE of the field that the numbers [m] make, against a patch's values [n, c]."""
        return layers_loss(self.config, self.layers(params, latent), values)

    def encoder_params(self, params: Params) -> Params:
        """Of all parameters, those that `adapt` reads."""
        return {name: params[name] for name in (*self.fitted, "coded") if name in params}

    def decoder_params(self, params: Params) -> Params:
        """Of all parameters, those that `layers` reads."""
        return {name: params[name] for name in (*self.decoded, "coded") if name in params}

    def num_coded(self, params: Params) -> int:
        """m, numbers that the file pays for in every patch."""
        return len(params["coded"]) if "coded" in params else self.config.field.latent_size()

    def latents(self, limit: int, offsets_per_picture: int, params: Params, patches: ExampleSource) -> ArraySource:
        """Training patches [b, n, c] and the numbers [b, m] that a file would pay for them."""
        raw = patches.all_patches(np.random.default_rng(0), offsets_per_picture, limit)
        values = normalise_batch(self.modality, raw)
        return ArraySource({"values": values, "latent": self.adapt_all(params, values)})

    def adapt_all(self, params: Params, values: np.ndarray) -> np.ndarray:
        """`adapt` of many whole patches: values [b, n, c] → numbers [b, m]. ValueError where adaptation diverges."""
        latent = map_batches(_adapt_row, self, self.encoder_params(params), (values,), self.config.encode_batch)
        if not np.isfinite(latent).all():
            raise ValueError("adaptation diverges on these patches: train with smaller step sizes")
        return latent

    def num_points(self, params: Params) -> int:
        return len(params["points"])

    def encode(
        self,
        params: Params,
        signals: Sequence[Signal],
        point: int,
        *,
        effort: int = 0,
        key: jax.Array | None = None,
        workdir: str | None = None,
        progress: Progress | None = None,
    ) -> list[Code]:
        """Codes of signals; effort 0 is the meta-learned encoder. ValueError for an effort that the compression has not, and
        where adaptation diverges."""
        del key, workdir, progress
        values, weight = patch_rows(signals)
        weight = weight if self.compression.masked else np.ones_like(weight)
        shared = (self.encoder_params(params), self.compression.encoder_parts(params, point))
        rows = map_batches(_encode_row, self, shared, (values, weight), self.config.encode_batch)
        grids = [s.grid for s in signals]
        return [Code(streams) for streams in self.compression.code(self, params, point, per_signal(rows, grids), grids, effort)]

    def symbol_model(self, params: Params, point: int, grid: Grid, meta: Any, decoded: Any, name: str) -> Table:
        """As the compression says."""
        del meta
        return self.compression.symbol_model(self, params, point, grid, decoded, name)

    def modelled_bits(self, params: Params, point: int, codes: Sequence[Code]) -> list[float] | None:
        """What a float prior says of each signal's symbols; the tables' `estimated_bits` should be close. None without one."""
        if not hasattr(self.compression, "symbol_bits"):
            return None
        symbols = [code.streams["latent"].reshape(-1, self.num_coded(params)) for code in codes]
        prior = params["points"][str(point)]["prior"]
        bits = map_batches(_prior_row, self, prior, (np.concatenate(symbols),), PRIOR_BATCH)
        return [float(part.sum()) for part in np.split(bits, np.cumsum([len(part) for part in symbols])[:-1])]

    def decoder_config(self) -> dict[str, Any]:
        """What decoding needs besides arrays: the field, and what the compression names."""
        return {"field": self.config.field.described(), **self.compression.decoder_config()}

    def decoder_arrays(self, params: Params, point: int) -> dict[str, np.ndarray]:
        tables = params["points"][str(point)]["tables"].to_arrays()
        tree = {**self.decoder_params(params), **self.compression.decoder_parts(params, point), "tables": tables}
        if hasattr(self.compression, "coder_arrays"):
            tree["coder"] = self.compression.coder_arrays(params, point)
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}

    def synthesise(self, params: Params, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> list[np.ndarray]:
        """Decoded values, float32 [p, n, c]."""
        rows = [self.compression.symbol_rows(self, params, code.streams, grid) for code, grid in zip(codes, grids, strict=True)]
        shared = (self.decoder_params(params), self.compression.decoder_parts(params, point))
        return per_signal(map_batches(_decode_row, self, shared, (np.concatenate(rows),), self.config.encode_batch), grids)


def coded(params: Params, latent: jax.Array) -> jax.Array:
    """Of a latent [k], the numbers [m] that the file pays for."""
    return latent[params["coded"]] if "coded" in params else latent


def uncoded(params: Params, numbers: jax.Array, size: int) -> jax.Array:
    """A latent [k] from the numbers [m] that the file holds; the others are 0."""
    return jnp.zeros(size, numbers.dtype).at[params["coded"]].set(numbers) if "coded" in params else numbers


def patch_rows(signals: Sequence[Signal]) -> tuple[np.ndarray, np.ndarray]:
    """All patches of all signals, one after the other: values [p, n, c] and weights [p, n]."""
    values = np.concatenate([s.values for s in signals])
    weight = np.concatenate([np.ones(s.values.shape[:2], np.float32) if s.weight is None else s.weight for s in signals])
    return values, weight


def per_signal(rows: np.ndarray, grids: Sequence[Grid]) -> list[np.ndarray]:
    """Rows, one a patch, of all signals → those of each signal."""
    return np.split(rows, np.cumsum([grid.num_patches for grid in grids])[:-1])


def _of_patches(stage: Stage, patch: tuple[int, ...]) -> Stage:
    """A stage whose examples are single patches of what the others see in larger crops."""
    if stage.examples is None:
        return stage
    return dataclasses.replace(stage, examples=lambda params, crops: stage.examples(params, crops.with_patch(patch)))


def _adapt_row(codec: LatentCodec, params: Params, values: jax.Array) -> jax.Array:
    return codec.adapt(params, values)


def _encode_row(codec: LatentCodec, shared: Any, values: jax.Array, weight: jax.Array) -> jax.Array:
    params, parts = shared
    return codec.compression.analyse(parts, codec.adapt(params, values, weight))


def _prior_row(codec: LatentCodec, prior: Any, symbols: jax.Array) -> jax.Array:
    return codec.compression.symbol_bits(prior, symbols.astype(jnp.float32))


def _decode_row(codec: LatentCodec, shared: Any, symbols: jax.Array) -> jax.Array:
    params, parts = shared
    return codec.values(params, codec.compression.synthesise(parts, symbols.astype(jnp.float32)))

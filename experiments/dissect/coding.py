"""Quantisers on identical latents: rate by the integer tables, quality of the decoded values."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.dissect.models import Part, held_out, label, of_each_model, training_patches
from vcinr.batching import map_batches
from vcinr.codecs.latent_codec import LatentCodec
from vcinr.compression import bottleneck
from vcinr.compression.uniform import UniformCompression, UniformConfig
from vcinr.compression.variational import VariationalCompression
from vcinr.datasets.sources import ArraySource
from vcinr.entropy.tables import Tables, code_length_bits, tables_from_columns
from vcinr.evaluation.bd_rate import MIN_POINTS, bd_psnr_db, bd_rate_percent
from vcinr.evaluation.metrics import psnr_db
from vcinr.model.finding import load
from vcinr.stage import Params

RESAMPLED = 200
"""Draws of patches, with replacement, whose spread is that of a gain."""


@dataclasses.dataclass(frozen=True)
class Coded:
    """What coding did to patches at several operating points: bits and MSE, float [points, patches]."""

    bits: np.ndarray
    mse: np.ndarray

    def curve(self, samples: int, chosen: Any = slice(None)) -> list[tuple[float, float]]:
        """(bits per sample, PSNR of the mean MSE) of each point, over the chosen patches."""
        return list(zip(self.bits[:, chosen].mean(1) / samples, psnr_db(self.mse[:, chosen].mean(1)), strict=True))


def rising(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of a curve, by rate, that no cheaper one equals."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(points):
        if not kept or (rate > kept[-1][0] and quality > kept[-1][1]):
            kept.append((rate, quality))
    return kept


def gain(reference: Coded, test: Coded, samples: int) -> list[str | None]:
    """[BD-PSNR in dB ± its standard deviation over draws of patches, BD-rate in %]; None where curves share too little."""

    def measure(measured: Callable[[Any, Any], float], chosen: Any = slice(None)) -> float | None:
        curves = [rising(coded.curve(samples, chosen)) for coded in (reference, test)]
        try:
            return measured(*curves) if min(map(len, curves)) >= MIN_POINTS else None
        except ValueError:
            return None

    whole, rate = measure(bd_psnr_db), measure(bd_rate_percent)
    rng, count = np.random.default_rng(0), reference.bits.shape[1]
    drawn = [measure(bd_psnr_db, rng.integers(count, size=count)) for _ in range(RESAMPLED)]
    spread = np.std([value for value in drawn if value is not None] or [np.nan])
    return [None if whole is None else f"{whole:+.2f} ± {spread:.2f}", None if rate is None else f"{rate:+.1f}"]


def decoded_error(pair: Any, shared: Any, symbols: jax.Array, values: jax.Array) -> jax.Array:
    """MSE of the field from the symbols of one patch; values clamped to [0, 1]."""
    (codec, compression), (params, parts) = pair, shared
    latent = compression.synthesise(parts, symbols.astype(jnp.float32))
    return jnp.mean(jnp.square(jnp.clip(codec.values(params, latent), 0.0, 1.0) - values))


def analysed(compression: Any, parts: Any, latent: jax.Array) -> jax.Array:
    """Symbols of one latent."""
    return compression.analyse(parts, latent)


def coded(
    codec: LatentCodec, params: Params, compression: Any, points: Sequence[Any], symbols: Sequence[np.ndarray], values: np.ndarray
) -> Coded:
    """Bits by the tables, and the error, of patches [m, n, c].

    points: (`decoder_parts`, tables) of each operating point.   symbols: of each point, whole numbers [m, k].
    """
    bits, errors, k = [], [], symbols[0].shape[1]
    for (parts, tables), found in zip(points, symbols, strict=True):
        found = np.rint(found).astype(np.int32)
        length = code_length_bits(tables, found.ravel(), np.tile(np.arange(k), len(found)))
        bits.append(length.reshape(found.shape).sum(1))
        shared = (codec.decoder_params(params), parts)
        errors.append(map_batches(decoded_error, (codec, compression), shared, (found, values), codec.config.encode_batch))
    return Coded(np.array(bits), np.array(errors, np.float64))


def learned(codec: LatentCodec, params: Params, config: Any, latents: np.ndarray, values: np.ndarray) -> Coded:
    """Patches and their latents through the trained bottlenecks in ``params``."""
    compression = VariationalCompression(config)
    parts = [compression.encoder_parts(params, i) for i in range(len(params["points"]))]
    symbols = [map_batches(analysed, compression, each, (latents,), 256) for each in parts]
    tables = [params["points"][str(i)]["tables"] for i in range(len(parts))]
    tables = [found if isinstance(found, Tables) else Tables.from_arrays(found) for found in tables]
    points = [(compression.decoder_parts(params, i), found) for i, found in enumerate(tables)]
    return coded(codec, params, compression, points, symbols, values)


def uniform(
    codec: LatentCodec, params: Params, config: UniformConfig, training: np.ndarray, latents: np.ndarray, values: np.ndarray
) -> Coded:
    """The same through uniform quantisers, with ranges and histograms of training latents [b, k]."""
    compression = UniformCompression(config)
    own = {"points": compression.points(ArraySource({"latent": training}))}
    parts = [compression.encoder_parts(own, i) for i in range(len(config.bits))]
    symbols = [map_batches(analysed, compression, each, (latents,), 256) for each in parts]
    tables = [Tables.from_arrays(own["points"][str(i)]["tables"]) for i in range(len(parts))]
    points = [(compression.decoder_parts(own, i), found) for i, found in enumerate(tables)]
    return coded(codec, params, compression, points, symbols, values)


def stepped(
    codec: LatentCodec, params: Params, lambdas: Sequence[float], training: np.ndarray, latents: np.ndarray, values: np.ndarray
) -> Coded:
    """The same with the step that is best for λ and for each dimension's sensitivity, where a bottleneck's training starts."""
    statistics = params["latent_statistics"]
    mean, points, symbols = np.asarray(statistics["mean"]), [], []
    for lambda_ in lambdas:
        step = np.asarray(bottleneck.best_steps(lambda_, statistics, codec.num_values))
        tables = tables_from_columns(np.rint((training - mean) / step).astype(np.int32))
        points.append(({"lower": mean, "step": step}, tables))
        symbols.append((latents - mean) / step)
    return coded(codec, params, UniformCompression(UniformConfig()), points, symbols, values)


def curve_cells(found: Coded, samples: int) -> list[str]:
    """Rates and qualities of the points that no cheaper one equals, as two cells."""
    points = rising(found.curve(samples))
    return [", ".join(f"{rate:.3f}" for rate, _ in points), ", ".join(f"{quality:.2f}" for _, quality in points)]


def quantiser_rows(name: str, options: argparse.Namespace) -> list[list[Any]]:
    """The learned quantiser of one model against uniform ones, on latents that are the same to the bit."""
    model = load(name)
    codec, params, config = model.codec, model.params, model.codec.config.compression
    values = held_out(model, options.patches)
    latents = codec.adapt_all(params, values)
    training = codec.latents(options.latents, config.offsets_per_picture, params, training_patches(model)).arrays["latent"]
    bits = tuple(range(1, 8))
    rates = (config.lambdas[0] / 16, config.lambdas[0] / 4, *config.lambdas)
    own = learned(codec, params, config, latents, values)
    others = {
        "uniform in ±3σ": uniform(codec, params, UniformConfig(bits=bits), training, latents, values),
        "uniform in ±3σ, one σ": uniform(codec, params, UniformConfig(bits=bits, one_range=True), training, latents, values),
        "uniform, steps by λ": stepped(codec, params, rates, training, latents, values),
    }
    samples = int(np.prod(codec.patch))
    rows = [[label(name), "learned", *curve_cells(own, samples), None, None]]
    return rows + [[label(name), arm, *curve_cells(c, samples), *gain(c, own, samples)] for arm, c in others.items()]


PART = Part(
    title="The learned quantiser against uniform ones, on identical latents",
    about="""At most {patches} validation patches a model, each adapted once; all quantisers get these latents, and the same field
    makes values of what they leave of them. Bits by integer tables: the trained prior's, or histograms of {latents}
    training latents. PSNR of the mean squared error, values clamped to [0, 1]. Uniform in ±3σ: 1 to 7 bits a number,
    σ of each dimension, or one of all; steps by λ: those with which the bottleneck's training starts, from λ and each
    dimension's sensitivity. Last columns: what the learned quantiser gains over that row (Bjøntegaard, over common
    rates or qualities), ± its standard deviation over draws of the patches.""",
    columns=("model", "quantiser", "bpp", "PSNR dB", "learned over it, dB", "learned over it, % rate"),
    options=("patches", "latents"),
    rows=of_each_model(quantiser_rows),
)

"""Variational compression of latents: the trained bottleneck of `vcinr.compression.bottleneck`, one operating point per λ.

Schwarz et al. 2023, algorithm 2. Stages: ``latents`` adapts to the training set once; then ``quantise_0``, ``quantise_1``, …
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.batching import map_batches
from vcinr.compression import bottleneck
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.compression.interface import LatentModel
from vcinr.compression.patch_by_patch import PatchByPatch
from vcinr.entropy import factorized_prior, quantisers
from vcinr.stage import AnyStage, ArrayExamples, ClosedForm, Params, Stage, Workplace

Parts = Mapping[str, Any]

PRIOR_BATCH = 256
"""Batch size per device, in patches, where only the prior is evaluated."""


@dataclasses.dataclass(frozen=True)
class VariationalCompression(PatchByPatch):
    """Analysis, rounding, factorized prior, synthesis; see `vcinr.compression.interface.Compression`."""

    config: BottleneckConfig

    def encoder_parts(self, params: Params, point: int) -> dict[str, Any]:
        return {"statistics": params["latent_statistics"], "analysis": params["points"][str(point)]["analysis"]}

    def analyse(self, parts: Parts, latent: jax.Array) -> jax.Array:
        return quantisers.hard(bottleneck.analyse(self.config, parts, parts["statistics"], latent))

    def decoder_parts(self, params: Params, point: int) -> dict[str, Any]:
        statistics = params["latent_statistics"]
        synthesis = params["points"][str(point)]["synthesis"]
        return {"mean": statistics["mean"], "std": statistics["std"], "synthesis": synthesis}

    def synthesise(self, parts: Parts, symbols: jax.Array) -> jax.Array:
        return bottleneck.synthesise(self.config, parts, parts, symbols)

    def decoder_config(self) -> dict[str, Any]:
        return {"synthesis": [self.config.width, self.config.depth]}

    def modelled_bits(
        self, codec: LatentModel, params: Params, point: int, streams: Sequence[Mapping[str, np.ndarray]]
    ) -> list[float]:
        """Bits per signal by the float factorized prior; the tables' `estimated_bits` should be close."""
        rows = [stream["latent"].reshape(-1, codec.num_coded(params)) for stream in streams]
        prior = params["points"][str(point)]["prior"]
        bits = map_batches(_prior_bits, None, prior, (np.concatenate(rows),), PRIOR_BATCH)
        return [float(part.sum()) for part in np.split(bits, np.cumsum([len(part) for part in rows])[:-1])]

    def stages(self, codec: LatentModel) -> tuple[AnyStage, ...]:
        """``latents``, then one ``quantise`` stage per λ."""
        latents = ClosedForm(
            "latents",
            examples=partial(codec.latents, self.config.num_latents, self.config.offsets_per_picture),
            solve=partial(measured_statistics, codec),
        )
        return latents, *(self._quantise(codec, i, lambda_) for i, lambda_ in enumerate(self.config.lambdas))

    def _quantise(self, codec: LatentModel, index: int, lambda_: float) -> Stage:
        q = self.config

        def start(key, params, source):
            params = jax.tree.map(jnp.asarray, params)
            statistics = params["latent_statistics"]
            if index == 0:
                transforms = bottleneck.uniform_start(q, lambda_, statistics, codec.num_values, key)
            else:
                transforms = bottleneck.finer_start(params["points"][str(index - 1)], lambda_ / q.lambdas[index - 1])
            fit_prior = jax.jit(lambda rows: bottleneck.fit_prior(q, transforms, statistics, rows, key))
            return {**transforms, "prior": fit_prior(jnp.asarray(source.arrays["latent"][:2048]))}

        def loss(rounding, trained, frozen, example, key):
            return bottleneck.rate_distortion(
                q,
                trained,
                frozen["latent_statistics"],
                example["latent"],
                key,
                lambda_=lambda_,
                rounding=rounding,
                distortion=lambda latent: codec.distortion(frozen, latent, example["values"]),
                num_values=codec.num_values,
            )

        def finish(params, trained):
            tables = bottleneck.integer_tables(trained["prior"]).to_arrays()
            point = {**trained, "tables": tables, "lambda": np.float32(lambda_)}
            return {**params, "points": {**params["points"], str(index): point}}

        return Stage(
            name=f"quantise_{index}",
            training=q.training,
            examples=None,
            init=start,
            frozen=lambda params: {**codec.decoder_params(params), "latent_statistics": params["latent_statistics"]},
            loss=partial(loss, False),
            finish=finish,
            evaluate=partial(loss, True),
        )


def measured_statistics(
    codec: LatentModel, key: jax.Array, params: Params, source: ArrayExamples, workplace: Workplace
) -> Params:
    """The parameters and the statistics of a source's latents [b, …, k]; about 1,000 of these give the sensitivity."""
    del workplace
    decoder = jax.tree.map(jnp.asarray, codec.decoder_params(params))
    latents = jnp.asarray(source.arrays["latent"].reshape(-1, source.arrays["latent"].shape[-1]))
    sample = latents[:: max(1, len(latents) // 1024)]

    def sensitivity(row):
        return bottleneck.signal_sensitivity(lambda latent: codec.values(decoder, latent), *row)

    estimate = jax.jit(lambda *rows: jnp.mean(jax.lax.map(sensitivity, rows, batch_size=32), axis=0))
    statistics = bottleneck.latent_statistics(latents, estimate(sample, jax.random.split(key, len(sample))))
    return {**params, "latent_statistics": statistics}


def _prior_bits(config: None, prior: Any, symbols: jax.Array) -> jax.Array:
    del config
    return jnp.sum(factorized_prior.bin_bits(prior, symbols.astype(jnp.float32)))

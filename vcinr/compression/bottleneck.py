"""The bottleneck of a latent: analysis, quantiser, factorized prior, synthesis; trained on rate + λ · distortion.

Schwarz et al. 2023, section 3.2 and algorithm 2, after Ballé et al. 2017 and 2018. Any codec with a latent vector can use it:
it asks only for the latents of training signals and for the distortion that a latent causes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from vcinr.adaptation.fit import fit
from vcinr.compression.transforms import Analysis, Synthesis
from vcinr.entropy import factorized_prior, quantisers
from vcinr.entropy.tables import Tables, tables_from_cdf
from vcinr.stage import TrainingConfig

PEAK = 255.0
"""Distortion in the loss is in 8-bit units: λ · 255² · MSE."""

Tree = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class BottleneckConfig:
    """Config of the variational bottleneck.

    kind: "variational".
    lambdas: λ of each operating point, ascending; loss = bits per value + λ · 255² · MSE.
    width: units of the hidden layers of the residual MLPs.
    depth: residual blocks of each.
    relaxation: what stands for rounding in training, "noise" or "straight_through".
    distortion: "signal" (MSE through the frozen field) or "latent" (squared error of φ, weighted by the signal's sensitivity).
    num_latents: most training latents.
    offsets_per_picture: random grids of patches per training picture.
    prior_steps: Adam steps that fit the prior alone before a point is trained.
    prior_lr: their rate.
    training: of each operating point.
    """

    kind: str = "variational"
    lambdas: tuple[float, ...] = (0.002, 0.006, 0.02)
    width: int = 256
    depth: int = 2
    relaxation: str = "noise"
    distortion: str = "signal"
    num_latents: int = 5000
    offsets_per_picture: int = 2
    prior_steps: int = 300
    prior_lr: float = 0.02
    training: TrainingConfig = TrainingConfig(num_steps=500, batch_size=64, lr=3e-4, average_decay=0.99)

    def __post_init__(self):
        if self.relaxation not in ("noise", "straight_through"):
            raise ValueError(f"unknown relaxation {self.relaxation!r}; valid are noise, straight_through")
        if self.distortion not in ("signal", "latent"):
            raise ValueError(f"unknown distortion {self.distortion!r}; valid are latent, signal")
        if list(self.lambdas) != sorted(set(self.lambdas)) or not self.lambdas or self.lambdas[0] <= 0:
            raise ValueError(f"lambdas must be positive and rise, each point starting from the one before; got {self.lambdas}")


def latent_statistics(latents: Float[Array, "m k"], sensitivity: Float[Array, " k"]) -> dict[str, jax.Array]:
    """Mean, standard deviation and sensitivity (`signal_sensitivity`, averaged) of each latent dimension."""
    return {"mean": jnp.mean(latents, 0), "std": jnp.maximum(jnp.std(latents, 0), 1e-8), "sensitivity": sensitivity}


def signal_sensitivity(
    synthesise: Callable[[jax.Array], jax.Array], latent: Float[Array, " k"], key: jax.Array
) -> Float[Array, " k"]:
    """An unbiased estimate of mean |∂f/∂φ_k|² over all values of f: MSE per squared error of each latent dimension.

    Random signs r make E[(Σ r ∂f/∂φ_k)²] the sum of squares (Hutchinson 1990), at the price of one backward pass.
    """
    values, pull_back = jax.vjp(synthesise, latent)
    signs = jax.random.rademacher(key, values.shape, values.dtype)
    return jnp.square(pull_back(signs)[0]) / values.size


def analyse(config: BottleneckConfig, bottleneck: Tree, statistics: Tree, latent: Float[Array, " k"]) -> Float[Array, " k"]:
    """z, what is rounded, of a latent: g_a of the standardised φ (algorithm 2, line 10)."""
    standardised = (latent - statistics["mean"]) / statistics["std"]
    return Analysis(config.width, config.depth).apply({"params": bottleneck["analysis"]}, standardised)


def synthesise(config: BottleneckConfig, bottleneck: Tree, statistics: Tree, z: Float[Array, " k"]) -> Float[Array, " k"]:
    """φ̃ of symbols or their noisy stand-ins: g_s, then standardisation undone (algorithm 2, line 13)."""
    standardised = Synthesis(config.width, config.depth).apply({"params": bottleneck["synthesis"]}, z)
    return statistics["mean"] + statistics["std"] * standardised


def rate_distortion(
    config: BottleneckConfig,
    bottleneck: Tree,
    statistics: Tree,
    latent: Float[Array, " k"],
    key: jax.Array,
    *,
    lambda_: float,
    rounding: bool,
    distortion: Callable[[jax.Array], jax.Array],
    num_values: int,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Bits a value + λ · 255² · MSE of one latent (algorithm 2, lines 10 to 14).

    rounding: round z, as when measuring, instead of its relaxation.   distortion: MSE of the signal that a latent makes, on
    [0, 1]; unused where the config measures it on φ.   num_values: in the signal.
    """
    z = analyse(config, bottleneck, statistics, latent)
    if rounding:
        z = quantisers.hard(z)
    else:
        z = quantisers.noise(key, z) if config.relaxation == "noise" else quantisers.straight_through(z)
    bits = jnp.sum(factorized_prior.bin_bits(bottleneck["prior"], z))
    decoded = synthesise(config, bottleneck, statistics, z)
    if config.distortion == "signal":
        error = distortion(decoded)
    else:
        error = jnp.sum(statistics["sensitivity"] * jnp.square(decoded - latent))
    loss = bits / num_values + lambda_ * PEAK**2 * error
    return loss, {"bits": bits, "psnr_db": -10.0 * jnp.log10(error)}


def best_steps(lambda_: Any, statistics: Tree, num_values: int) -> jax.Array:
    """Δ of each latent dimension that is best at high rate, at most a thousand deviations.

    With a step Δ on dimension k, distortion is h_k Δ²/12 and the rate −log₂ Δ; the loss of `rate_distortion` is least at
    Δ² = 6 / (ln 2 · λ · 255² · h_k · n), n values in the signal.
    """
    curvature = jnp.log(2.0) * lambda_ * PEAK**2 * num_values * jnp.maximum(statistics["sensitivity"], 1e-20)
    return jnp.minimum(jnp.sqrt(6.0 / curvature), 1e3 * statistics["std"])


def uniform_start(config: BottleneckConfig, lambda_: float, statistics: Tree, num_values: int, key: jax.Array) -> dict[str, Any]:
    """Transforms that begin as a uniform quantiser: the identity, with the step that is best at high rate.

    See `best_steps`.
    """
    log_gain = jnp.log(statistics["std"] / best_steps(lambda_, statistics, num_values))
    zeros = jnp.zeros_like(statistics["mean"])
    analysis = Analysis(config.width, config.depth).init(jax.random.fold_in(key, 0), zeros)["params"]
    synthesis = Synthesis(config.width, config.depth).init(jax.random.fold_in(key, 1), zeros)["params"]
    return {"analysis": {**analysis, "log_gain": log_gain}, "synthesis": {**synthesis, "log_gain": -log_gain}}


def finer_start(neighbour: Tree, ratio: float) -> dict[str, Any]:
    """A neighbouring point's transforms, their steps finer by √ratio, the ratio of the two λ."""
    shift = 0.5 * np.log(ratio)
    analysis, synthesis = neighbour["analysis"], neighbour["synthesis"]
    return {
        "analysis": {**analysis, "log_gain": analysis["log_gain"] + shift},
        "synthesis": {**synthesis, "log_gain": synthesis["log_gain"] - shift},
    }


def fit_prior(
    config: BottleneckConfig, bottleneck: Tree, statistics: Tree, latents: Float[Array, "m k"], key: jax.Array
) -> dict[str, Any]:
    """The factorized prior of a set of latents: logistic with the symbols' spread, then maximum likelihood."""
    z = jax.vmap(lambda phi: analyse(config, bottleneck, statistics, phi))(latents)
    scale = jnp.sqrt(jnp.var(z, axis=0) + 1.0 / 12.0) * jnp.sqrt(3.0) / jnp.pi
    prior = factorized_prior.init(key, scale, z.shape[1])
    noisy = quantisers.noise(jax.random.fold_in(key, 99), z)

    def mean_bits(params):
        return jnp.mean(jnp.sum(jax.vmap(lambda row: factorized_prior.bin_bits(params, row))(noisy), axis=1))

    schedule = optax.cosine_decay_schedule(config.prior_lr, config.prior_steps)
    return fit(mean_bits, prior, optax.adam(schedule), config.prior_steps, remat=False)[0]


def integer_tables(prior: Tree) -> Tables:
    """The tables that a trained prior's symbols are coded with, made once in float64."""
    dims = prior["kernel_0"].shape[0]
    far = np.full(dims, 2**20, np.int64)
    return tables_from_cdf(factorized_prior.host_cumulative(dict(prior)), -far, far)

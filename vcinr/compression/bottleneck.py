"""The variational bottleneck: analysis, quantiser, factorized prior and synthesis, trained on rate + λ · distortion.

Schwarz et al. 2023, section 3.2 and algorithm 2, after Ballé et al. 2017 and 2018. Any codec with a latent vector can use it: the
bottleneck needs only the latents of training signals and a function from latent to distortion.
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
"""255 of λ · 255² · MSE: the loss counts distortion in 8-bit units."""

Tree = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class BottleneckConfig:
    """Config of the variational bottleneck.

    kind: "variational".
    lambdas: λ of each operating point, positive and ascending, in loss = bits per value + λ · 255² · MSE.
    width: units per hidden layer of the transforms' residual MLPs, at least 1.
    depth: hidden layers of each MLP, at least 0.
    relaxation: replacement of rounding in training, "noise" or "straight_through".
    distortion: "signal" (MSE through the frozen field) or "latent" (squared error of φ, weighted by the signal's sensitivity).
    num_latents: largest number of training latents.
    offsets_per_picture: random grids of patches cut from each training picture.
    prior_steps: steps of Adam that fit the prior alone, before each operating point is trained.
    prior_lr: learning rate of these steps, positive.
    training: training of each operating point.
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
            raise ValueError(f"lambdas must be positive and ascending, for each point starts from the last; got {self.lambdas}")


def latent_statistics(latents: Float[Array, "m k"], sensitivity: Float[Array, " k"]) -> dict[str, jax.Array]:
    """Mean, standard deviation and sensitivity (the average of `signal_sensitivity`) of each latent dimension."""
    return {"mean": jnp.mean(latents, 0), "std": jnp.maximum(jnp.std(latents, 0), 1e-8), "sensitivity": sensitivity}


def signal_sensitivity(
    synthesise: Callable[[jax.Array], jax.Array], latent: Float[Array, " k"], key: jax.Array
) -> Float[Array, " k"]:
    """MSE of the signal per squared error of each latent dimension, an unbiased estimate: the mean of |∂f/∂φ_k|² over f's values.

    With random signs r, E[(Σ r ∂f/∂φ_k)²] is the sum of the squares (Hutchinson 1990). It takes one backward pass.
    """
    values, pull_back = jax.vjp(synthesise, latent)
    signs = jax.random.rademacher(key, values.shape, values.dtype)
    return jnp.square(pull_back(signs)[0]) / values.size


def analyse(config: BottleneckConfig, bottleneck: Tree, statistics: Tree, latent: Float[Array, " k"]) -> Float[Array, " k"]:
    """z = g_a(standardised φ), which is rounded next (algorithm 2, line 10)."""
    standardised = (latent - statistics["mean"]) / statistics["std"]
    return Analysis(config.width, config.depth).apply({"params": bottleneck["analysis"]}, standardised)


def synthesise(config: BottleneckConfig, bottleneck: Tree, statistics: Tree, z: Float[Array, " k"]) -> Float[Array, " k"]:
    """φ̃ from symbols, or from z with noise: g_s, then the inverse of the standardisation (algorithm 2, line 13)."""
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
    """Bits per value + λ · 255² · MSE of one latent (algorithm 2, lines 10 to 14), with metrics.

    Args:
      config: of the bottleneck.
      bottleneck: parameters of the transforms and the prior.
      statistics: see `latent_statistics`.
      latent: φ of one patch.
      key: for the noise.
      lambda_: λ.
      rounding: round z, as in measurements, instead of relaxing it.
      distortion: latent → MSE of its signal, values in [0, 1]; unused where the config measures distortion on φ.
      num_values: samples × channels of the patch.
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
    """The optimal step Δ of each latent dimension at high rate, at most a thousand standard deviations.

    With step Δ on dimension k, distortion is h_k Δ²/12 and rate −log₂ Δ plus a constant. The loss of `rate_distortion` is then
    minimal at Δ² = 6 / (ln 2 · λ · 255² · h_k · n), where h_k is the sensitivity and n the number of values of the patch.
    """
    curvature = jnp.log(2.0) * lambda_ * PEAK**2 * num_values * jnp.maximum(statistics["sensitivity"], 1e-20)
    return jnp.minimum(jnp.sqrt(6.0 / curvature), 1e3 * statistics["std"])


def uniform_start(config: BottleneckConfig, lambda_: float, statistics: Tree, num_values: int, key: jax.Array) -> dict[str, Any]:
    """Initial transforms that together are a uniform quantiser with the steps of `best_steps`."""
    log_gain = jnp.log(statistics["std"] / best_steps(lambda_, statistics, num_values))
    zeros = jnp.zeros_like(statistics["mean"])
    analysis = Analysis(config.width, config.depth).init(jax.random.fold_in(key, 0), zeros)["params"]
    synthesis = Synthesis(config.width, config.depth).init(jax.random.fold_in(key, 1), zeros)["params"]
    return {"analysis": {**analysis, "log_gain": log_gain}, "synthesis": {**synthesis, "log_gain": -log_gain}}


def finer_start(neighbour: Tree, ratio: float) -> dict[str, Any]:
    """Transforms of a neighbouring operating point with steps finer by √ratio, where ratio = λ / λ of that point."""
    shift = 0.5 * np.log(ratio)
    analysis, synthesis = neighbour["analysis"], neighbour["synthesis"]
    return {
        "analysis": {**analysis, "log_gain": analysis["log_gain"] + shift},
        "synthesis": {**synthesis, "log_gain": synthesis["log_gain"] - shift},
    }


def fit_prior(
    config: BottleneckConfig, bottleneck: Tree, statistics: Tree, latents: Float[Array, "m k"], key: jax.Array
) -> dict[str, Any]:
    """The factorized prior of a set of latents: starts as logistic with the symbols' variance, then maximises the likelihood."""
    z = jax.vmap(lambda phi: analyse(config, bottleneck, statistics, phi))(latents)
    scale = jnp.sqrt(jnp.var(z, axis=0) + 1.0 / 12.0) * jnp.sqrt(3.0) / jnp.pi
    prior = factorized_prior.init(key, scale, z.shape[1])
    noisy = quantisers.noise(jax.random.fold_in(key, 99), z)

    def mean_bits(params):
        return jnp.mean(jnp.sum(jax.vmap(lambda row: factorized_prior.bin_bits(params, row))(noisy), axis=1))

    schedule = optax.cosine_decay_schedule(config.prior_lr, config.prior_steps)
    return fit(mean_bits, prior, optax.adam(schedule), config.prior_steps, remat=False)[0]


def integer_tables(prior: Tree) -> Tables:
    """Integer tables of a trained prior, evaluated in float64 on the host; files are coded with these."""
    dims = prior["kernel_0"].shape[0]
    far = np.full(dims, 2**20, np.int64)
    return tables_from_cdf(factorized_prior.host_cumulative(dict(prior)), -far, far)

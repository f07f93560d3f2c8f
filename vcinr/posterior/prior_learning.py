"""Learning the prior: coordinate ascent over the posteriors of all training signals and the prior that they share.

He 2023, algorithm 1 and section 4.1.3. The posteriors are a stage's state per training signal; the prior is set in closed form
between two steps; what else is shared (COMBINER+'s transforms and convolutions) is trained by the same gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vcinr.posterior.gaussians import NATS_PER_BIT, Gaussian, best_prior, from_tree, kl_nats, to_tree, unconstrained
from vcinr.posterior.networks import WeightNetwork, distortion
from vcinr.posterior.partition import next_fit
from vcinr.signals.principal_components import principal_components
from vcinr.stage import ArrayExamples, ClosedForm, Params, PerSignal, Stage, TrainingConfig, Workplace


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """How a prior is learned.

    training: steps over the posteriors; ``lr`` is that of what signals share besides the prior (A and the convolutions).
    num_patches: training patches; every one has a posterior.
    offsets_per_picture: random grids of patches cut from each training picture.
    go_on_steps: steps of a prior that starts from another one; 0: as many as ``training`` has.
    lr: first step size of the posteriors' own Adam.
    final_lr_fraction: step size after a signal's last update, divided by ``lr``; half a cosine leads there. 1: constant.
    first_update: steps before the prior is first updated; it always is after the last.
    update_every: steps between two updates of the prior.
    first_scale: standard deviation of the first posteriors, in those of the initial weights over random starts; positive. The
        thesis's variance of 9e-6 (table C.1) is 0.25 in COMBINER's hidden layers.
    per_layer: whether all dimensions of a layer share one deviation and the mean 0 (a control; MIRACLE's prior).
    start_components: principal components of the values from which the posterior of a new signal is predicted; 0: it starts at
        the prior, as in the thesis.
    """

    training: TrainingConfig = TrainingConfig(num_steps=1000, batch_size=32, average_decay=0.0, clip_norm=0.0, collapse_db=0.0)
    num_patches: int = 512
    offsets_per_picture: int = 1
    go_on_steps: int = 0
    lr: float = 2e-4
    final_lr_fraction: float = 1.0
    first_update: int = 250
    update_every: int = 100
    first_scale: float = 0.25
    per_layer: bool = False
    start_components: int = 128


def prior_stage(
    network: WeightNetwork, config: PriorConfig, beta: float, point: int, inputs: Any, examples: Any, go_on: bool, seed: int
) -> Stage:
    """The stage ``prior_<point>``: learns one operating point's prior.

    It leaves ``params["points"][str(point)]`` with the prior and what signals share, and all posteriors in ``params["fitted"]``.

    Args:
      network: what the posteriors are over.
      config: see `PriorConfig`.
      beta: β, nats of KL divergence weighed against the mean squared error of values in [0, 1].
      point: number of the operating point.
      inputs: encoded coordinates of a patch.
      examples: as of `Stage`; arrays ``values`` [m, n, c].
      go_on: whether to start from the posteriors and the prior of the stage before instead of from SIREN's initial weights.
      seed: of these; all signals begin at one random network, or their weights would not be comparable.
    """
    one_patch = (1,) * len(network.patch)
    training = config.training
    if go_on and config.go_on_steps:
        training = dataclasses.replace(training, num_steps=config.go_on_steps)
    # As many as a signal has where all patches that the config asks for are found, and more where fewer are.
    updates = max(1, training.num_steps * training.batch_size // config.num_patches)
    rate = optax.cosine_decay_schedule(config.lr, updates, alpha=config.final_lr_fraction)

    def init(key: jax.Array, params: Params, source: ArrayExamples) -> Any:
        del key, source
        if go_on:
            before = params["fitted"]
            return {"prior": before["prior"], "shared": before["shared"]}
        shared, mean = network.init(jax.random.key(seed))
        return {"prior": {"mean": mean, "scale": jnp.asarray(network.typical_scale())}, "shared": shared}

    def first_posteriors(key: jax.Array, params: Params, source: ArrayExamples) -> Any:
        del key
        if go_on:
            return params["fitted"]["posteriors"]
        _, mean = network.init(jax.random.key(seed))
        rows = jnp.broadcast_to(mean, (len(source), network.size))
        return to_tree(Gaussian(rows, np.broadcast_to(config.first_scale * network.typical_scale(), rows.shape)))

    def loss(trainable: Any, frozen: Any, example: Mapping[str, Any], key: jax.Array, own: Any):
        q = from_tree(own)
        prior = Gaussian(**jax.lax.stop_gradient(trainable["prior"]))
        one = Gaussian(q.mean[None], q.scale[None])
        error = distortion(network, trainable["shared"], one, frozen, example["values"][None], None, one_patch, key)
        kl = jnp.sum(kl_nats(q, prior))
        return error + beta * kl, {"distortion": error, "kl_bits": kl / NATS_PER_BIT}

    def update_prior(trainable: Any, signals: Any, step: int) -> tuple[Any, Any]:
        # After the last step it is set in any case: a short stage would else end with the prior that it began with.
        if step < min(config.first_update, training.num_steps):
            return trainable, signals
        prior = best_prior(from_tree(signals))
        if config.per_layer:
            prior = one_per_layer(network, prior)
        return {**trainable, "prior": prior._asdict()}, signals

    def finish(params: Params, trainable: Any, signals: Any) -> Params:
        learned = {"prior": trainable["prior"], "shared": trainable["shared"]}
        points = {**params["points"], str(point): learned}
        return {**params, "points": points, "fitted": {**learned, "posteriors": signals}}

    return Stage(
        name=f"prior_{point}",
        training=training,
        examples=examples,
        init=init,
        frozen=lambda params: np.asarray(inputs),
        loss=loss,
        finish=finish,
        per_signal=PerSignal(init=first_posteriors, lr=rate),
        host_update=update_prior,
        host_update_every=config.update_every,
    )


def one_per_layer(network: WeightNetwork, prior: Gaussian) -> Gaussian:
    """The prior with mean 0 and one deviation per layer, that of least KL divergence (Havasi et al. 2019 have one per layer)."""
    second = np.square(prior.scale) + np.square(prior.mean)
    ends = np.cumsum([*((a + 1) * b for a, b in network.sizes()), network.size - network.num_weights])
    parts = [part for part in np.split(second, ends[:-1]) if len(part)]
    scale = np.concatenate([np.full(len(part), np.sqrt(part.mean())) for part in parts])
    return Gaussian(np.zeros_like(prior.mean), scale.astype(np.float32))


def blocks_stage(config: PriorConfig, budget: int, point: int, last: bool, seed: int) -> ClosedForm:
    """The stage ``blocks_<point>``: partitions dimensions into blocks, and learns where posteriors of new signals start.

    budget: κ in bits.   last: whether no later stage needs the posteriors.   seed: of the random order of dimensions.
    """

    def solve(key: jax.Array, params: Params, source: ArrayExamples, workplace: Workplace) -> Params:
        del key, workplace
        fitted = params["fitted"]
        posteriors = Gaussian(*map(np.asarray, from_tree(fitted["posteriors"])))
        prior = Gaussian(**fitted["prior"])
        kl = np.zeros(prior.mean.shape, np.float64)
        for mean, scale in zip(*posteriors, strict=True):
            kl += np.asarray(kl_nats(Gaussian(mean, scale), prior)) / NATS_PER_BIT
        found = {"blocks": next_fit(np.maximum(kl / len(posteriors.mean), 0.0), budget, seed).to_arrays()}
        if config.start_components:
            values = source.arrays["values"].reshape(len(posteriors.mean), -1)
            found["start"] = linear_start(values, posteriors, config.start_components)
        points = {**params["points"], str(point): {**params["points"][str(point)], **found}}
        kept = {name: value for name, value in params.items() if name != "fitted" or not last}
        return {**kept, "points": points}

    return ClosedForm(name=f"blocks_{point}", examples=None, solve=solve)


def linear_start(values: np.ndarray, posteriors: Gaussian, components: int) -> dict[str, np.ndarray]:
    """Posterior means as a linear function of a patch's first principal components, by ridge regression.

    Args:
      values: training patches [m, n c].
      posteriors: theirs, [m, size].
      components: at most this many, and a quarter of the patches.

    Returns:
      ``mean`` [size], ``weights`` [k, size], ``centre`` [n c], ``basis`` [k, n c]: the predicted mean of a patch y is
      mean + basis (y − centre) weights; ``raw_scale`` [size] is that of the geometric mean of the deviations.
    """
    count = max(1, min(components, len(values) // 4, values.shape[1]))
    centre, basis = principal_components(values, count)
    coefficients = (values - centre) @ basis.T
    mean = posteriors.mean.mean(0)
    gram = coefficients.T.astype(np.float64) @ coefficients
    # The unexplained part of the posteriors is noise of about this size per signal: a ridge of a signal's worth of data.
    ridge = np.trace(gram) / len(values)
    weights = np.linalg.solve(gram + ridge * np.eye(count), coefficients.T @ (posteriors.mean - mean))
    raw = unconstrained(np.exp(np.mean(np.log(posteriors.scale), axis=0)))
    found = {"mean": mean, "weights": weights, "centre": centre, "basis": basis, "raw_scale": raw}
    return {name: np.asarray(array, np.float32) for name, array in found.items()}


def first_posterior(params: Mapping[str, Any], values: np.ndarray) -> dict[str, np.ndarray]:
    """Where posteriors of new patches [p, n, c] start: at `linear_start`'s prediction, or at the prior. A tree of [p, size]."""
    count = len(values)
    if "start" not in params:
        prior = params["prior"]
        return {"mean": np.tile(prior["mean"], (count, 1)), "raw_scale": np.tile(unconstrained(prior["scale"]), (count, 1))}
    start = params["start"]
    mean = start["mean"] + (values.reshape(count, -1) - start["centre"]) @ start["basis"].T @ start["weights"]
    return {"mean": mean.astype(np.float32), "raw_scale": np.tile(start["raw_scale"], (count, 1))}

"""Small codecs and stages: a linear regression, a MAML stage, one posterior per signal and a closed form."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.datasets.sources import ArraySource
from vcinr.stage import ClosedForm, PerSignal, Stage, TrainingConfig

CONFIG = TrainingConfig(
    num_steps=40, batch_size=8, lr=0.05, warmup_steps=4, clip_norm=1.0, log_every=5, checkpoint_every=10, max_rollbacks=2
)


class Patches:
    """Random "patches" of 8 values; counts its draws."""

    def __init__(self, dtype=np.float32):
        self.dtype = dtype
        self.draws = 0

    def batch(self, rng, size):
        self.draws += 1
        return {"values": rng.normal(size=(size, 8)).astype(self.dtype)}


def make_stage(name="fit", config=CONFIG, loss=None, init=None) -> Stage:
    """A stage that trains {"w"} against the given loss of one example, by default a noisy linear regression."""

    def finish(params, trainable):
        return {**params, name: jax.tree.map(np.asarray, trainable)}

    def zeros(key, params, source):
        return {"w": jnp.zeros(8)}

    return Stage(
        name=name,
        training=config,
        examples=lambda params, patches: patches,
        init=init or zeros,
        frozen=lambda params: {"target": jnp.arange(8.0)},
        loss=loss or regression_loss,
        finish=finish,
    )


def regression_loss(trainable, frozen, example, key):
    """Squared error of a linear model whose inputs get noise from the example's own key."""
    x = example["values"] + 0.1 * jax.random.normal(key, (8,), example["values"].dtype)
    error = jnp.dot(x, trainable["w"] - frozen["target"])
    return jnp.mean(error**2) + 1e-3, {"abs_error": jnp.abs(error)}


def maml_init(key, params, source):
    """θ of a small tanh network, a start and step sizes for its latent."""
    a, b, c = jax.random.split(key, 3)
    return {
        "hidden": 0.5 * jax.random.normal(a, (16, 4)),
        "out": 0.5 * jax.random.normal(b, (8, 16)),
        "latent": 0.1 * jax.random.normal(c, (4,)),
        "log_step": jnp.full((4,), -1.0),
    }


def adapt(trainable, example, key):
    """Latent [4] of one example: three inner gradient steps."""
    values = example["values"] + 0.05 * jax.random.normal(key, (8,), example["values"].dtype)

    def inner(latent):
        return jnp.mean((trainable["out"] @ jnp.tanh(trainable["hidden"] @ latent) - values) ** 2)

    def step(latent, _):
        return latent - jnp.exp(trainable["log_step"]) * jax.grad(inner)(latent), None

    latent, _ = jax.lax.scan(jax.checkpoint(step), trainable["latent"], None, length=3)
    return latent, inner(latent)


def maml_loss(trainable, frozen, example, key):
    """Loss after the inner steps: its gradient is a second-order one."""
    latent, loss = adapt(trainable, example, key)
    return loss, {"latent_norm": jnp.linalg.norm(latent)}


def maml_stage(config=CONFIG) -> Stage:
    """The MAML stage, which eight devices must train as one does."""
    return make_stage("maml", config, maml_loss, maml_init)


VARIANCE = 0.25


def posterior_init(key, params, source):
    """Mean and log standard deviation of one Gaussian per signal."""
    values = source.arrays["values"]
    noise = jax.random.normal(key, values.shape, values.dtype)
    return {"mean": 0.1 * noise, "log_std": jnp.full(values.shape, -1.0, values.dtype)}


def negative_elbo(shared, frozen, example, key, own):
    """−E_q[log N(x; gain·w, VARIANCE)] + KL(q‖p) of one signal up to constants, w by the reparametrisation trick."""
    prior = jax.lax.stop_gradient(shared["prior"])
    noise = jax.random.normal(key, own["mean"].shape, own["mean"].dtype)
    error = shared["gain"] * (own["mean"] + jnp.exp(own["log_std"]) * noise) - example["values"]
    kl = gaussian_kl(own["mean"], own["log_std"], prior["mean"], prior["log_std"])
    return jnp.sum(error**2 / (2 * VARIANCE) + kl), {"kl": jnp.sum(kl)}


def exact_negative_elbo(shared, frozen, example, key, own):
    """The same with the expectation in closed form and gain 1: its optimum is known."""
    prior = jax.lax.stop_gradient(shared["prior"])
    error = (own["mean"] - example["values"]) ** 2 + jnp.exp(2 * own["log_std"])
    kl = gaussian_kl(own["mean"], own["log_std"], prior["mean"], prior["log_std"])
    return jnp.sum(error / (2 * VARIANCE) + kl), {"kl": jnp.sum(kl)}


def gaussian_kl(mean, log_std, prior_mean, prior_log_std):
    """KL divergence per dimension, in nats."""
    ratio = jnp.exp(2 * (log_std - prior_log_std))
    return 0.5 * (ratio + ((mean - prior_mean) / jnp.exp(prior_log_std)) ** 2 - 1) + prior_log_std - log_std


def closed_form_prior(shared, posteriors, step):
    """The prior that minimises the mean KL divergence (Guo 2023, equation 3.8)."""
    mean = np.mean(posteriors["mean"], axis=0)
    variance = np.mean(np.exp(2 * posteriors["log_std"]) + (posteriors["mean"] - mean) ** 2, axis=0)
    return {**shared, "prior": {"mean": mean, "log_std": 0.5 * np.log(variance)}}, posteriors


def posterior_stage(config=CONFIG, loss=negative_elbo, lr=0.05, num_signals=20, every=5, **changes) -> Stage:
    """One posterior per signal, a gain that all share, and a prior in closed form."""

    def start(key, params, source):
        width = source.arrays["values"].shape[1:]
        return {"gain": jnp.ones(width), "prior": {"mean": jnp.zeros(width), "log_std": jnp.zeros(width)}}

    stage = Stage(
        name="posteriors",
        training=config,
        examples=lambda params, patches: ArraySource(patches.batch(np.random.default_rng(1), num_signals)),
        init=start,
        frozen=lambda params: {},
        loss=loss,
        finish=lambda params, shared, posteriors: {**params, "posteriors": {"shared": shared, "own": posteriors}},
        per_signal=PerSignal(posterior_init, lr),
        host_update=closed_form_prior,
        host_update_every=every,
    )
    return dataclasses.replace(stage, **changes)


def mean_stage() -> ClosedForm:
    """The mean of some patches."""

    def solve(key, params, source, workplace):
        return {**params, "mean": source.batch(np.random.default_rng(0), 32)["values"].mean(0)}

    return ClosedForm("mean", lambda params, patches: patches, solve)


@dataclasses.dataclass(frozen=True)
class FakeCodecConfig:
    width: int = 8


class FakeCodec:
    """Two trained stages around one in closed form, and one with a posterior per signal."""

    name, modality, patch = "fake", "picture", (8,)

    def __init__(self, config=CONFIG, width=8):
        self.config = FakeCodecConfig(width)
        self.training = config

    def init(self, key):
        return {"shared": {"start": jax.random.normal(key, (4,))}}

    def stages(self):
        training = self.training
        return make_stage("first", training), mean_stage(), maml_stage(training), posterior_stage(training)

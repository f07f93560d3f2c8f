"""Small codecs and stages: a linear regression and a MAML stage, with faults to order."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.stage import Stage, TrainingConfig

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


@dataclasses.dataclass(frozen=True)
class FakeCodecConfig:
    width: int = 8


class FakeCodec:
    """Two trained stages around one in closed form."""

    name, modality, patch = "fake", "picture", (8,)

    def __init__(self, config=CONFIG, width=8):
        self.config = FakeCodecConfig(width)
        self.training = config

    def init(self, key):
        return {"shared": {"start": jax.random.normal(key, (4,))}}

    def stages(self):
        mean = make_stage("mean", dataclasses.replace(self.training, num_steps=0), init=_mean_of_patches)
        return make_stage("first", self.training), dataclasses.replace(mean, loss=None), maml_stage(self.training)


def _mean_of_patches(key, params, source):
    return {"mean": source.batch(np.random.default_rng(0), 32)["values"].mean(0)}

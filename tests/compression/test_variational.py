"""The variational compression's stages on a codec whose signal is linear in its latent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.compression import bottleneck
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.compression.variational import VariationalCompression, measured_statistics
from vcinr.datasets.sources import ArraySource
from vcinr.entropy import factorized_prior
from vcinr.stage import Workplace

LAMBDAS = (0.01, 0.04)
MIXING = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32)
LATENTS = (np.random.default_rng(1).normal(size=(400, 3)) * [0.1, 1.0, 2.0] + [4.0, -3.0, 0.5]).astype(np.float32)


class Linear:
    """A codec of 2×2 pictures, values = latent · MIXING."""

    name, patch, modality, num_values = "linear", (2, 2), "picture", 12
    adapt_all = latents = lambda self, *_: NotImplemented

    def num_coded(self, params):
        return 3

    def decoder_params(self, params):
        return {"mixing": params["mixing"]}

    def values(self, params, latent):
        return (latent @ params["mixing"]).reshape(4, 3)

    def distortion(self, params, latent, values):
        return jnp.mean(jnp.square(self.values(params, latent) - values))


@pytest.fixture(scope="module")
def case():
    """(stages, params, source, the first point at its start)."""
    compression = VariationalCompression(BottleneckConfig(lambdas=LAMBDAS, width=6, depth=1, prior_steps=40))
    _, *stages = compression.stages(Linear())
    values = (LATENTS @ MIXING).reshape(-1, 4, 3)
    source = ArraySource({"latent": LATENTS, "values": values})
    nowhere = Workplace("", lambda what, done, total: None)
    params = measured_statistics(Linear(), jax.random.key(0), {"mixing": jnp.asarray(MIXING), "points": {}}, source, nowhere)
    return stages, params, source, stages[0].init(jax.random.key(1), params, source)


def test_statistics_are_those_of_the_latents_and_of_the_signals_jacobian(case):
    statistics = case[1]["latent_statistics"]
    np.testing.assert_allclose(statistics["mean"], LATENTS.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(statistics["std"], LATENTS.std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(statistics["sensitivity"], np.mean(MIXING**2, axis=1), rtol=0.2)


def test_training_sees_noise_and_measuring_what_is_decoded(case):
    (stage, _), params, source, trained = case
    frozen, example = stage.frozen(params), {name: jnp.asarray(array[0]) for name, array in source.arrays.items()}
    keys = jax.random.split(jax.random.key(2), 200)
    evaluated = jax.vmap(lambda key: stage.evaluate(trained, frozen, example, key)[0])(keys)
    trainings = jax.vmap(lambda key: stage.loss(trained, frozen, example, key)[0])(keys)
    assert jnp.ptp(evaluated) == 0
    assert jnp.unique(trainings).size > 150
    # The start is a uniform quantiser with the steps of `best_steps`.
    config, statistics = BottleneckConfig(lambdas=LAMBDAS, width=6, depth=1), params["latent_statistics"]
    z = jnp.round(bottleneck.analyse(config, trained, statistics, example["latent"]))
    decoded = bottleneck.synthesise(config, trained, statistics, z)
    bits = jnp.sum(factorized_prior.bin_bits(trained["prior"], z))
    error = jnp.mean(jnp.square((decoded - example["latent"]) @ MIXING))
    np.testing.assert_allclose(evaluated[0], bits / 12 + LAMBDAS[0] * 255**2 * error, rtol=1e-3)


def test_training_moves_the_steps(case):
    """Rounding has no gradient in the steps; what replaces it in training must have one."""
    (stage, _), params, source, trained = case
    example = {name: jnp.asarray(array[0]) for name, array in source.arrays.items()}
    gradient = jax.grad(lambda t: stage.loss(t, stage.frozen(params), example, jax.random.key(3))[0])(trained)
    assert (jnp.abs(gradient["analysis"]["log_gain"]) > 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_the_next_point_starts_at_its_own_best_steps(case):
    (_, second), params, source, trained = case
    params = {**params, "points": {"0": trained}}
    started = second.init(jax.random.key(4), params, source)
    expected = params["latent_statistics"]["std"] / bottleneck.best_steps(LAMBDAS[1], params["latent_statistics"], 12)
    np.testing.assert_allclose(jnp.exp(started["analysis"]["log_gain"]), expected, rtol=1e-4)
    np.testing.assert_allclose(started["synthesis"]["log_gain"], -started["analysis"]["log_gain"], rtol=1e-6)

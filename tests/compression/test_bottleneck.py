"""The bottleneck: a computed uniform start, a fitted prior, the loss of algorithm 2."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.compression import bottleneck
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.entropy import factorized_prior

CONFIG = BottleneckConfig(lambdas=(0.01, 0.04), width=8, prior_steps=60)
NUM_VALUES = 192


def test_sensitivity_is_the_mean_squared_jacobian():
    weights = jax.random.normal(jax.random.key(0), (5, 30))

    def synthesise(phi):
        return jnp.sin(phi @ weights).reshape(10, 3)

    latent = jax.random.normal(jax.random.key(3), (5,))
    exact = np.mean(np.square(np.asarray(jax.jacobian(synthesise)(latent))), axis=(0, 1))
    keys = jax.random.split(jax.random.key(4), 4000)
    estimate = jnp.mean(jax.vmap(lambda key: bottleneck.signal_sensitivity(synthesise, latent, key))(keys), axis=0)
    np.testing.assert_allclose(estimate, exact, rtol=0.15)


@pytest.fixture(scope="module")
def started():
    statistics = {
        "mean": jnp.array([0.0, 1.0, -2.0, 0.5, 3.0]),
        "std": jnp.array([1.0, 0.1, 2.0, 0.3, 1.0]),
        "sensitivity": jnp.array([1e-3, 1e-1, 1e-4, 1e-2, 1e-6]),
    }
    transforms = bottleneck.uniform_start(CONFIG, 0.01, statistics, NUM_VALUES, jax.random.key(0))
    latents = statistics["mean"] + statistics["std"] * jax.random.normal(jax.random.key(1), (3000, 5))
    prior = bottleneck.fit_prior(CONFIG, transforms, statistics, latents, jax.random.key(2))
    return statistics, {**transforms, "prior": prior}, latents


def steps_of(statistics, lambda_):
    return np.sqrt(6 / (np.log(2) * lambda_ * 255**2 * NUM_VALUES * np.asarray(statistics["sensitivity"])))


def test_the_quantiser_starts_uniform_with_the_best_step(started):
    statistics, trained, latents = started
    step = steps_of(statistics, 0.01)
    for latent in latents[:20]:
        z = bottleneck.analyse(CONFIG, trained, statistics, latent)
        np.testing.assert_allclose(z, (latent - statistics["mean"]) / step, rtol=1e-4, atol=1e-5)
        back = bottleneck.synthesise(CONFIG, trained, statistics, jnp.round(z))
        assert np.all(np.abs(back - latent) <= step * 0.5001)
        np.testing.assert_allclose(bottleneck.synthesise(CONFIG, trained, statistics, z), latent, rtol=1e-4, atol=1e-5)


def test_the_step_is_where_high_rate_theory_has_its_minimum(started):
    statistics, _, _ = started
    best = steps_of(statistics, 0.01)

    def loss(step):
        rate = -np.log2(step) / NUM_VALUES
        return rate + 0.01 * 255**2 * np.asarray(statistics["sensitivity"]) * step**2 / 12

    assert np.all(loss(best) < loss(best * 1.05))
    assert np.all(loss(best) < loss(best * 0.95))


def test_the_next_point_starts_with_finer_steps(started):
    statistics, trained, latents = started
    finer = bottleneck.finer_start(trained, 4.0)
    coarse = bottleneck.analyse(CONFIG, trained, statistics, latents[0])
    np.testing.assert_allclose(bottleneck.analyse(CONFIG, finer, statistics, latents[0]), 2 * coarse, rtol=1e-4)
    z = bottleneck.analyse(CONFIG, finer, statistics, latents[0])
    np.testing.assert_allclose(bottleneck.synthesise(CONFIG, finer, statistics, z), latents[0], rtol=1e-4, atol=1e-5)


def test_the_prior_is_fitted_to_the_symbols(started):
    statistics, trained, latents = started
    symbols = jnp.round(jax.vmap(lambda row: bottleneck.analyse(CONFIG, trained, statistics, row))(latents))
    bits = jax.vmap(lambda z: jnp.sum(factorized_prior.bin_bits(trained["prior"], z)))(symbols)
    entropy = 0.0
    for column in np.asarray(symbols).T:
        frequency = np.unique(column, return_counts=True)[1] / len(column)
        entropy -= np.sum(frequency * np.log2(frequency))
    assert abs(float(jnp.mean(bits)) - entropy) < 0.05 * entropy
    tables = bottleneck.integer_tables(trained["prior"])
    assert tables.num_tables == 5


def test_the_prior_learns_what_no_logistic_is():
    """Symbols of −8 and 8 alone: one bit each, where the logistic of their variance, which the fit starts from, takes five."""
    one = jnp.ones(1)
    statistics = {"mean": 0.0 * one, "std": one, "sensitivity": one}
    transforms = bottleneck.uniform_start(CONFIG, 0.01, statistics, NUM_VALUES, jax.random.key(0))
    latents = 8.0 * bottleneck.best_steps(0.01, statistics, NUM_VALUES) * jnp.where(jnp.arange(200) % 2, 1.0, -1.0)[:, None]

    def bits(steps):
        config = dataclasses.replace(CONFIG, prior_steps=steps, prior_lr=0.1)
        prior = jax.jit(lambda: bottleneck.fit_prior(config, transforms, statistics, latents, jax.random.key(1)))()
        return float(jnp.mean(factorized_prior.bin_bits(prior, jnp.asarray([8.0]))))

    np.testing.assert_allclose(bits(1), 5.2, atol=0.5)
    assert 1 - 1e-3 < bits(400) < 2


@pytest.mark.parametrize("rounding", [False, True])
def test_the_loss_is_bits_a_value_plus_lambda_times_distortion(started, rounding):
    statistics, trained, latents = started
    loss, metrics = bottleneck.rate_distortion(
        CONFIG, trained, statistics, latents[0], jax.random.key(0),
        lambda_=0.5, rounding=rounding, distortion=lambda phi: jnp.float32(0.01), num_values=NUM_VALUES,
    )  # fmt: skip
    np.testing.assert_allclose(loss, metrics["bits"] / NUM_VALUES + 0.5 * 255**2 * 0.01, rtol=1e-5)
    np.testing.assert_allclose(metrics["psnr_db"], 20.0, rtol=1e-5)


def test_distortion_on_the_latent_is_a_switch(started):
    statistics, trained, latents = started
    config = BottleneckConfig(lambdas=(0.01,), width=8, distortion="latent")
    gap = bottleneck.synthesise(
        config, trained, statistics, jnp.round(bottleneck.analyse(config, trained, statistics, latents[0]))
    )
    loss, metrics = bottleneck.rate_distortion(
        config, trained, statistics, latents[0], jax.random.key(0),
        lambda_=0.5, rounding=True, distortion=lambda phi: 1 / jnp.zeros(()), num_values=NUM_VALUES,
    )  # fmt: skip
    error = jnp.sum(statistics["sensitivity"] * (gap - latents[0]) ** 2)
    np.testing.assert_allclose(loss, metrics["bits"] / NUM_VALUES + 0.5 * 255**2 * error, rtol=1e-5)


def test_straight_through_is_a_switch(started):
    statistics, trained, latents = started
    config = BottleneckConfig(lambdas=(0.01,), width=8, relaxation="straight_through")

    def bits(parts, rounding):
        arguments = {"lambda_": 0.5, "rounding": rounding, "distortion": lambda phi: jnp.mean(phi**2), "num_values": NUM_VALUES}
        return bottleneck.rate_distortion(config, parts, statistics, latents[0], jax.random.key(0), **arguments)[1]["bits"]

    np.testing.assert_allclose(bits(trained, False), bits(trained, True), rtol=1e-6)
    gradient = jax.grad(bits)(trained, False)["analysis"]["log_gain"]
    assert float(jnp.abs(gradient).max()) > 0
    assert float(jnp.abs(jax.grad(bits)(trained, True)["analysis"]["log_gain"]).max()) == 0


@pytest.mark.parametrize(
    "values", [{"lambdas": (0.02, 0.01)}, {"lambdas": ()}, {"lambdas": (-1.0,)}, {"distortion": "pixels"}, {"relaxation": "soft"}]
)
def test_a_config_that_makes_no_sense_is_refused(values):
    with pytest.raises(ValueError, match="lambdas|distortion|relaxation"):
        BottleneckConfig(**values)

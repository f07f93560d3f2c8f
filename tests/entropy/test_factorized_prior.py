"""The deep factorized prior: analytic start, masses that sum to one, monotone cumulatives, host and device agreement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.entropy import factorized_prior, quantisers
from vcinr.entropy.tables import code_length_bits, tables_from_cdf

SCALES = np.array([0.02, 0.3, 1.0, 7.0, 300.0], np.float32)


def perturbed(seed=0):
    params = factorized_prior.init(jax.random.key(seed), SCALES, 5)
    keys = iter(jax.random.split(jax.random.key(seed + 1), 99))
    return {name: value + 0.3 * jax.random.normal(next(keys), value.shape) for name, value in params.items()}


def test_it_starts_as_a_logistic():
    params = factorized_prior.init(jax.random.key(0), SCALES, 5)
    z = np.linspace(-5, 5, 41)[None] * SCALES[:, None]
    logits = factorized_prior.cumulative_logits(params, jnp.asarray(z))
    np.testing.assert_allclose(logits, z / SCALES[:, None], rtol=2e-3, atol=2e-3)


def test_bits_of_a_logistic_are_those_of_its_bins():
    params = factorized_prior.init(jax.random.key(0), 2.0, 1)
    for z in (-6.0, 0.0, 0.3, 6.0):
        mass = 1 / (1 + np.exp(-(z + 0.5) / 2)) - 1 / (1 + np.exp(-(z - 0.5) / 2))
        np.testing.assert_allclose(factorized_prior.bin_bits(params, jnp.array([z])), [-np.log2(mass)], rtol=2e-3)


def test_a_narrow_density_is_a_box():
    bits = factorized_prior.bin_bits(factorized_prior.init(jax.random.key(0), 1e-3, 1), jnp.array([0.0]))
    assert float(bits[0]) < 1e-3


def test_masses_sum_to_one_and_cumulatives_rise():
    params = perturbed()
    grid = np.arange(-4000, 4001, dtype=np.float32)
    bits = jax.vmap(lambda z: factorized_prior.bin_bits(params, jnp.full(5, z)), out_axes=1)(grid)
    np.testing.assert_allclose(np.sum(2.0 ** -np.asarray(bits, np.float64), axis=1), 1.0, atol=1e-4)
    cdf = factorized_prior.host_cumulative(params)
    assert np.all(np.diff(cdf(np.broadcast_to(grid[:, None], (len(grid), 5)).astype(np.float64)), axis=0) >= 0)


def test_cumulatives_rise_whatever_the_parameters():
    rng, shapes = np.random.default_rng(0), factorized_prior.init(jax.random.key(0), SCALES, 5)
    for size in (1.0, 3.0, 10.0):
        params = {name: rng.normal(0, size, value.shape) for name, value in shapes.items()}
        logits = factorized_prior.cumulative_logits(params, np.tile(np.linspace(-9.0, 9.0, 400), (5, 1)), np)
        assert (np.diff(logits) >= 0).all()


def test_units_start_apart_and_learn_apart():
    """At the start the cumulative is linear, and the factors alone tell units apart; those of equal gradients stay one unit."""
    params = factorized_prior.init(jax.random.key(0), 1.0, 1)
    gradient = jax.grad(lambda p: factorized_prior.bin_bits(p, jnp.asarray([1.7]))[0])(params)
    for name in ("factor_0", "factor_1", "factor_2"):
        units = np.sort(np.asarray(gradient[name]).ravel())
        assert np.diff(units).min() > 1e-3 * np.abs(units).max(), name


def test_the_host_cumulative_is_the_device_one_in_float64():
    params = perturbed(3)
    z = np.random.default_rng(0).normal(size=(17, 5)) * 10
    device = jax.nn.sigmoid(factorized_prior.cumulative_logits(params, jnp.asarray(z.T, jnp.float32))).T
    host = factorized_prior.host_cumulative(params)(z)
    assert host.dtype == np.float64
    np.testing.assert_allclose(host, device, atol=1e-5)


def test_tables_cost_what_the_float_model_says():
    params = factorized_prior.init(jax.random.key(5), SCALES[1:4], 3)
    far = np.full(3, 2**20)
    tables = tables_from_cdf(factorized_prior.host_cumulative(params), -far, far)
    rng = np.random.default_rng(1)
    symbols = np.rint(rng.logistic(scale=SCALES[1:4], size=(4000, 3))).astype(np.int32)
    index = np.tile(np.arange(3), 4000)
    coded = code_length_bits(tables, symbols.ravel(), index).sum()
    modelled = float(jnp.sum(jax.vmap(lambda row: factorized_prior.bin_bits(params, row))(symbols.astype(np.float32))))
    assert abs(coded / modelled - 1) < 5e-3


def test_training_bits_are_an_upper_bound_where_modes_sit_on_integers():
    # E over noise of −log of the smoothed density at z + u is at least −log of the mass at z, by Jensen's inequality, for a
    # unimodal density whose mode is on an integer; this is no theorem elsewhere.
    params = factorized_prior.init(jax.random.key(0), 1.0, 1)
    keys = jax.random.split(jax.random.key(1), 4000)
    z = jnp.zeros(1)
    noisy = jnp.mean(jax.vmap(lambda key: factorized_prior.bin_bits(params, quantisers.noise(key, z)))(keys))
    assert float(noisy) >= float(factorized_prior.bin_bits(params, z)[0])


@pytest.mark.parametrize("far", [1e4, -1e4, 1e8])
def test_bits_stay_finite_far_out(far):
    params = factorized_prior.init(jax.random.key(0), SCALES, 5)
    bits, gradient = jax.value_and_grad(lambda z: jnp.sum(factorized_prior.bin_bits(params, z)))(jnp.full(5, far))
    assert np.isfinite(bits)
    assert np.isfinite(gradient).all()


def test_outliers_are_pulled_in():
    # Far in the tail of a logistic of scale s, bits grow by 1 / (s ln 2) for each unit.
    params = factorized_prior.init(jax.random.key(0), 1.0, 1)
    for z, sign in ((40.0, 1.0), (-40.0, -1.0), (400.0, 1.0)):
        bits, slope = jax.value_and_grad(lambda v: factorized_prior.bin_bits(params, v)[0])(jnp.array([z]))
        np.testing.assert_allclose(slope[0], sign / np.log(2), rtol=1e-2)
        np.testing.assert_allclose(bits, (abs(z) - 0.5 - np.log1p(-np.exp(-1.0))) / np.log(2), rtol=1e-2)

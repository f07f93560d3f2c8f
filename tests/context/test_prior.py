"""The float prior: without context at its start, with code lengths and gradients that are right however far out."""

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.context import prior as context_prior
from vcinr.context.order import Order
from vcinr.context.prior import bin_bits, predict

ORDER, OCTAVES = Order((2, 4, 8), 3), Order((2, 4, 8), 3, 2)
K, POINTS = 8, 2


def random_prior(rank=2, order=ORDER, width=6, seed=0, size=0.3):
    """Parameters whose contexts say much."""
    key, log_scale = jax.random.key(seed), jax.ShapeDtypeStruct((POINTS, order.ends[-1]), jnp.float32)
    shapes = jax.eval_shape(lambda s: context_prior.init(key, order, rank, width, s), log_scale)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.normal(0, size, a.shape).astype(np.float32), shapes)


def draw(shape, seed=0, size=6):
    return np.random.default_rng(seed).integers(-size, size + 1, shape)


def test_a_fresh_prior_says_what_it_was_given_and_nothing_of_context():
    log_scale = jnp.log(jnp.linspace(0.1, 5.0, K))[None]
    params = context_prior.init(jax.random.key(0), ORDER, 2, 6, log_scale)
    location, found = predict(ORDER, params, 0, jnp.asarray(draw((3, 4, K)), jnp.float32))
    np.testing.assert_array_equal(location, np.zeros((3, 4, K)))
    np.testing.assert_allclose(found, np.broadcast_to(log_scale, (3, 4, K)))


def test_a_whole_mean_has_the_gradient_of_the_mean():
    a, b = jnp.asarray([7.0, -7.0, 0.5]), np.asarray([2, 2, 8])
    np.testing.assert_array_equal(context_prior.FLOATS.floor_divide(a, b), [3, -4, 0])
    gradient = jax.grad(lambda a: jnp.sum(context_prior.FLOATS.floor_divide(a, b)))(a)
    np.testing.assert_array_equal(gradient, 1 / b)


def logistic_bits(location, scale, symbols):
    """In float64, from the log of the mass, of which no part cancels."""
    out = np.abs(symbols - location)
    mass = -np.logaddexp(0, (out - 0.5) / scale) - np.logaddexp(0, -(out + 0.5) / scale) + np.log(-np.expm1(-1 / scale))
    return -mass / np.log(2)


def test_bits_are_those_of_float64_and_bounded_far_out():
    location, log_scale = np.meshgrid([0.0, 0.3, -2.5], np.log([0.04, 0.2, 1.0, 7.0, 29.0]))
    for distance in (0.0, 0.4, 1.0, 3.0, 40.0, 300.0):
        symbols = np.rint(location + distance)
        exact = logistic_bits(location, np.exp(log_scale), symbols)
        found = np.asarray(bin_bits(*(jnp.asarray(x, jnp.float32) for x in (location, log_scale, symbols))))
        np.testing.assert_allclose(found, np.minimum(exact, 20) + 0.01 * np.maximum(exact - 20, 0), rtol=1e-4, atol=1e-6)


def test_bits_rise_with_the_distance_without_a_jump():
    distance = jnp.linspace(0.0, 900.0, 20_000)
    for scale in (0.04, 0.5, 5.0, 29.0):
        bits = np.asarray(bin_bits(jnp.zeros_like(distance), jnp.full_like(distance, np.log(scale)), distance))
        steps = np.diff(bits)
        assert steps.min() >= -1e-4
        assert steps.max() < 1.1 * (distance[1] / scale / np.log(2))


def test_gradients_far_out_are_finite_and_pull_the_location_in():
    def total(location, log_scale, symbols):
        return jnp.sum(bin_bits(location, log_scale, symbols))

    symbols = jnp.array([0.0, 1.0, -1.0, 50.0, -50.0, 1e4, -1e6, 2.0**31, -(2.0**31)])
    for scale in (0.01, 0.04, 1.0, 29.0, 1e3):
        log_scale = jnp.full_like(symbols, np.log(scale))
        by_location, by_scale = jax.jit(jax.grad(total, (0, 1)))(jnp.zeros_like(symbols), log_scale, symbols)
        assert np.isfinite(by_location).all()
        assert np.isfinite(by_scale).all()
        np.testing.assert_array_equal(np.sign(by_location[1:]), -np.sign(symbols[1:]))

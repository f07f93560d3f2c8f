"""Quantisers: what is rounded, what is not, and the gradients of both."""

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.entropy import quantisers

Z = jnp.array([-2.5, -1.2, -0.5, 0.0, 0.4, 0.5, 1.5, 2.7])


def test_hard_is_the_nearest_whole_number_with_halves_to_even():
    np.testing.assert_array_equal(quantisers.hard(Z), [-2, -1, 0, 0, 0, 0, 2, 3])
    np.testing.assert_array_equal(jax.grad(lambda z: quantisers.hard(z).sum())(Z), np.zeros(8))


def test_straight_through_rounds_and_passes_gradients():
    np.testing.assert_array_equal(quantisers.straight_through(Z), quantisers.hard(Z))
    np.testing.assert_array_equal(jax.grad(lambda z: quantisers.straight_through(z).sum())(Z), np.ones(8))


def test_noise_is_uniform_with_the_variance_of_rounding():
    added = quantisers.noise(jax.random.key(0), jnp.zeros(200_000))
    assert float(added.min()) >= -0.5
    assert float(added.max()) < 0.5
    np.testing.assert_allclose(jnp.mean(added), 0.0, atol=3e-3)
    np.testing.assert_allclose(jnp.var(added), 1 / 12, rtol=1e-2)

"""Meta-SGD's curvature: products with the Hessian, and its largest eigenvalue."""

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.adaptation.inner_loop import hessian_product, largest_curvature


def test_a_hessians_product_with_a_vector():
    def loss(x):
        return jnp.sum(x**4) + x[0] * x[1]

    found = hessian_product(loss, jnp.array([1.0, 2.0]))(jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(found, [12.0 - 1.0, 1.0 - 48.0], rtol=1e-6)


def test_power_iteration_finds_the_largest_eigenvalue_from_below():
    features = np.random.default_rng(0).normal(size=(40, 7)) / np.sqrt(40)
    matrix = jnp.asarray(features.T @ features, jnp.float32)
    exact = np.linalg.eigvalsh(np.asarray(matrix)).max()

    def found(iterations):
        return largest_curvature(lambda v: 0.5 * v @ matrix @ v, jnp.zeros(7), jax.random.key(1), iterations)

    assert 0.5 * exact < found(2) < found(8) <= 1.0001 * exact
    np.testing.assert_allclose(found(200), exact, rtol=1e-4)

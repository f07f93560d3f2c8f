"""Curvature: Lanczos' method against exact eigenvalues, and what power iteration reaches with as many products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.adaptation.inner_loop import hessian_product, largest_curvature, largest_ritz_value


def gram(rows, k, seed=0):
    features = np.random.default_rng(seed).normal(size=(rows, k)) / np.sqrt(rows)
    return jnp.asarray(features.T @ features, jnp.float32)


def test_a_hessians_product_with_a_vector():
    def loss(x):
        return jnp.sum(x**4) + x[0] * x[1]

    found = hessian_product(loss, jnp.array([1.0, 2.0]))(jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(found, [12.0 - 1.0, 1.0 - 48.0], rtol=1e-6)


def test_as_many_products_as_dimensions_give_the_eigenvalue_itself():
    matrix = gram(9, 7)
    found = largest_ritz_value(lambda v: matrix @ v, jnp.ones(7), 7)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(np.asarray(matrix)).max(), rtol=1e-5)


@pytest.mark.parametrize("rows", [64, 128, 400])
def test_six_products_come_within_a_tenth_from_below_where_power_iteration_does_not(rows):
    # Random features have the broad spectrum of Marchenko and Pastur, the hardest for either.
    matrix = gram(rows, 64, seed=rows)
    exact = np.linalg.eigvalsh(np.asarray(matrix)).max()
    start = jax.random.normal(jax.random.key(1), (64,))
    found = largest_ritz_value(lambda v: matrix @ v, start, 6)
    assert 0.9 * exact < found <= 1.0001 * exact
    powered = largest_curvature(lambda v: 0.5 * v @ matrix @ v, jnp.zeros(64), jax.random.key(1), 5)
    assert powered < found


@pytest.mark.parametrize("matrix", [2.0 * np.eye(5), np.diag([3.0, 0, 0, 0, 0]), np.zeros((5, 5))])
def test_a_krylov_space_that_ends_early_does_no_harm(matrix):
    found = largest_ritz_value(lambda v: jnp.asarray(matrix, jnp.float32) @ v, jnp.arange(1.0, 6.0), 5)
    np.testing.assert_allclose(found, matrix.max(), rtol=1e-5)


def test_more_iterations_than_dimensions_are_not_taken():
    found = largest_ritz_value(lambda v: jnp.array([1.0, 4.0]) * v, jnp.ones(2), 20)
    np.testing.assert_allclose(found, 4.0, rtol=1e-6)

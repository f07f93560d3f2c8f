"""The one loop, the inner loop and chunked objectives, against closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vcinr.adaptation.fit import fit
from vcinr.adaptation.inner_loop import HIGH, LOW, LinearStepSizes, adapt, init_step_sizes, largest_curvature, meta_sgd, step_size
from vcinr.adaptation.objective import chunked_mean_squared_error, mean_squared_error


def quadratic(seed=0, k=6):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(k, k))
    hessian, target = jnp.asarray(a @ a.T / k + np.eye(k) * 0.1, jnp.float32), jnp.asarray(rng.normal(size=k), jnp.float32)
    return hessian, target, lambda x: 0.5 * (x - target) @ hessian @ (x - target)


def test_gradient_descent_on_a_quadratic_has_its_closed_form():
    hessian, target, loss = quadratic()
    start = jnp.ones(6)
    found, _, losses = fit(loss, start, optax.sgd(0.1), 7)
    contraction = np.linalg.matrix_power(np.eye(6) - 0.1 * np.asarray(hessian), 7)
    np.testing.assert_allclose(found, target + contraction @ (start - target), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses[0], loss(start), rtol=1e-6)
    assert losses.shape == (7,)


def test_going_on_from_a_state_is_one_long_fit():
    _, _, loss = quadratic()
    optimiser = optax.adam(0.05)
    whole, _, _ = fit(loss, jnp.zeros(6), optimiser, 20)
    half, state, _ = fit(loss, jnp.zeros(6), optimiser, 12)
    rest, _, _ = fit(loss, half, optimiser, 8, state)
    np.testing.assert_allclose(whole, rest, rtol=1e-6)


def test_one_inner_step_of_a_linear_field_is_its_closed_form():
    rng = np.random.default_rng(1)
    features, values = rng.normal(size=(50, 4)), rng.normal(size=(50, 1))
    alpha = np.array([0.1, 0.2, 0.3, 0.4])

    def loss(phi):
        return mean_squared_error(jnp.asarray(features) @ phi[:, None], jnp.asarray(values))

    sizes = init_step_sizes(1, 4, 1.0)._replace(log_scale=jnp.log(jnp.asarray(alpha))[None])
    found, _ = adapt(loss, jnp.zeros(4), sizes, 1)
    np.testing.assert_allclose(found, alpha * (2 / 50) * (features.T @ values)[:, 0], rtol=1e-5)


def test_remat_changes_nothing_and_first_order_drops_the_hessian():
    hessian, _target, loss = quadratic()

    def outer(x, **kwargs):
        return jnp.sum(fit(loss, x, optax.sgd(0.1), 3, **kwargs)[0] * jnp.arange(6.0))

    start = jnp.ones(6)
    np.testing.assert_allclose(jax.grad(outer)(start), jax.grad(lambda x: outer(x, remat=False))(start), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: outer(x, first_order=True))(start), np.arange(6.0), rtol=1e-6)
    exact = np.linalg.matrix_power(np.eye(6) - 0.1 * np.asarray(hessian), 3) @ np.arange(6.0)
    np.testing.assert_allclose(jax.grad(outer)(start), exact, rtol=1e-4)


def test_step_sizes_are_clipped_and_the_last_row_is_used_again():
    sizes = init_step_sizes(2, 3, 2.0)._replace(log_scale=jnp.array([[-99.0, 0.0, 99.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(step_size(sizes), 2.0 * np.array([[LOW, 1.0, HIGH], [1.0, 1.0, 1.0]]), rtol=1e-5)
    rule = meta_sgd(jnp.array([[1.0], [2.0]]))
    state, taken = rule.init(None), []
    for _ in range(4):
        update, state = rule.update(jnp.ones(1), state)
        taken.append(float(update[0]))
    assert taken == [-1.0, -2.0, -2.0, -2.0]


def test_step_sizes_learned_as_they_are_have_the_gradient_of_a_step_and_stop_at_their_ends():
    """After one step φ = φ₀ − α ⊙ g the loss has the gradient −g ⊙ ∇L(φ) in α; beyond the ends it is 0."""
    _, _, loss = quadratic()
    start, alpha = jnp.ones(6), jnp.asarray([[0.1, 0.3, 0.05, 0.9, -0.2, 1.7]])
    moved = lambda a: adapt(loss, start, LinearStepSizes(a, 0.0, 1.0), 1)[0]
    first = jax.grad(loss)(start)
    inside = np.asarray([1, 1, 1, 1, 0, 0])
    np.testing.assert_allclose(moved(alpha), start - jnp.clip(alpha[0], 0, 1) * first, rtol=1e-6)
    found = jax.grad(lambda a: loss(moved(a)))(alpha)
    np.testing.assert_allclose(found[0], -inside * first * jax.grad(loss)(moved(alpha)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(adapt(loss, start, LinearStepSizes(alpha), 1)[0], start - alpha[0] * first, rtol=1e-6)


def test_largest_curvature_is_the_largest_eigenvalue():
    hessian, _, loss = quadratic()
    found = largest_curvature(loss, jnp.zeros(6), jax.random.key(0), 100)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(np.asarray(hessian)).max(), rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 7, 32, 50, 64])
@pytest.mark.parametrize("weighted", [False, True])
def test_chunks_change_neither_value_nor_gradient_nor_second_derivative(chunk, weighted):
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        coords, values = jnp.asarray(rng.normal(size=(50, 2))), jnp.asarray(rng.normal(size=(50, 3)))
        weight = jnp.asarray(rng.random(50)) if weighted else None
        start = jnp.asarray(rng.normal(size=(2, 3)))

        def loss(w, size):
            return chunked_mean_squared_error(lambda x: jnp.sin(x @ w), coords, values, weight, size)

        def bend(w, size):
            return jnp.sum(jax.grad(loss)(w, size) ** 2)

        for function in (loss, jax.grad(loss), jax.grad(bend)):
            np.testing.assert_allclose(function(start, chunk), function(start, 0), rtol=1e-12)


def test_weights_mask_and_scale():
    predicted, values = jnp.array([[1.0], [5.0], [2.0]]), jnp.array([[0.0], [0.0], [0.0]])
    np.testing.assert_allclose(mean_squared_error(predicted, values, jnp.array([1.0, 0.0, 3.0])), (1 + 3 * 4) / 4)
    np.testing.assert_allclose(mean_squared_error(predicted, values), (1 + 25 + 4) / 3)

"""Hard-concrete gates against Monte Carlo, their limits and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.sparsity import hard_concrete


@pytest.fixture(scope="module")
def draws():
    """(log α [7], gates [20,000, 7]) drawn independently."""
    log_alpha = jnp.array([-5.0, -2.4, -1.0, 0.0, 0.7, 2.5, 6.0])
    keys = jax.random.split(jax.random.key(0), 20_000)
    return log_alpha, np.asarray(jax.vmap(hard_concrete.sample, in_axes=(0, None))(keys, log_alpha))


def test_the_penalty_is_the_frequency_of_open_gates(draws):
    log_alpha, gates = draws
    probability = np.asarray(hard_concrete.open_probability(log_alpha), np.float64)
    error = np.sqrt(probability * (1 - probability) / len(gates))
    np.testing.assert_array_less(np.abs((gates > 0).mean(0) - probability), 4.5 * error + 1e-9)


def test_gates_are_exactly_zero_and_one_with_positive_probability(draws):
    _, gates = draws
    assert gates.min() == 0 and gates.max() == 1
    at_zero, at_one = (gates[:, 3] == 0).mean(), (gates[:, 3] == 1).mean()
    # log α = 0 is symmetric: sigmoid(2/3 · log(1/11)) on either side.
    expected = 1 / (1 + 11 ** (2 / 3))
    assert abs(at_zero - expected) < 0.015 and abs(at_one - expected) < 0.015
    assert ((gates[:, 3] > 0) & (gates[:, 3] < 1)).mean() > 0.5


def test_deterministic_gates_have_louizos_limits():
    edge = np.log(11.0)
    log_alpha = jnp.array([-50.0, -edge - 1e-3, -edge + 1e-3, 0.0, edge - 1e-3, edge + 1e-3, 50.0])
    gates = np.asarray(hard_concrete.deterministic(log_alpha))
    assert gates[0] == gates[1] == 0 and gates[2] > 0
    np.testing.assert_allclose(gates[3], 0.5, atol=1e-6)
    assert gates[4] < 1 and gates[5] == gates[6] == 1


def test_the_gradient_of_a_sampled_gate_is_the_true_one():
    key, eps = jax.random.key(3), 1e-6
    with jax.enable_x64(True):
        log_alpha = jnp.linspace(-3.0, 3.0, 41)
        gates = hard_concrete.sample(key, log_alpha)
        exact = jax.vmap(jax.grad(lambda a, i: hard_concrete.sample(key, log_alpha.at[i].set(a))[i]))(log_alpha, jnp.arange(41))
        numeric = (hard_concrete.sample(key, log_alpha + eps) - hard_concrete.sample(key, log_alpha - eps)) / (2 * eps)
        np.testing.assert_allclose(exact, numeric, atol=1e-8)
        between = (gates > 1e-4) & (gates < 1 - 1e-4)
        assert between.sum() > 10 and (exact[between] > 0).all()
        assert (exact[(gates == 0) | (gates == 1)] == 0).all()


def test_probability_and_log_alpha_are_inverse():
    probability = jnp.array([0.01, 0.3, 0.5, 0.999])
    np.testing.assert_allclose(hard_concrete.open_probability(hard_concrete.log_alpha_of(probability)), probability, rtol=1e-4)


def test_noise_at_the_ends_of_its_interval_stays_finite():
    for dtype in (jnp.float32, jnp.bfloat16):
        gates = hard_concrete.sample(jax.random.key(1), jnp.full(100_000, 60.0, dtype))
        gradient = jax.grad(lambda a: hard_concrete.sample(jax.random.key(1), a).sum())(jnp.zeros(100_000, dtype))
        assert jnp.isfinite(gates).all() and jnp.isfinite(gradient).all()

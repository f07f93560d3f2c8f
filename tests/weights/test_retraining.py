"""The straight-through estimator, and what retraining on the grid can reach that rounding each weight by itself cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.adaptation.long_fit import OptimiserSpec, overfit
from vcinr.weights.retraining import RetrainingConfig, flips_in_words, num_flipped, quantise_straight_through

LEVELS = np.array([[0.4, 2.4, -3.4]], np.float32)


def on_grid(levels):
    return jnp.clip(jnp.round(levels), -3, 3)


def sum_loss(config, shared, levels, data, step):
    """The whole levels' sum against a wanted one."""
    del config, shared, step
    return jnp.square(jnp.sum(quantise_straight_through(on_grid, levels)) - data)


def test_it_is_the_quantiser_in_value_and_the_identity_in_gradient():
    levels = {"a": jnp.array([0.4, 2.6, -8.0]), "b": jnp.array([[1.5]])}
    np.testing.assert_allclose(quantise_straight_through(on_grid, levels)["a"], [0, 3, -3], atol=1e-6)
    target = jnp.array([1.0, 1.0, 1.0])
    gradient = jax.grad(lambda x: jnp.sum(jnp.square(quantise_straight_through(on_grid, x) - target)))(levels["a"])
    # That of the squared error at the quantised levels, where the grid cuts off, too.
    np.testing.assert_allclose(gradient, 2 * (on_grid(levels["a"]) - target), atol=1e-5)


def test_levels_flip_until_the_loss_is_met():
    """Each to its nearest gives 0 + 2 − 3 = −1; retraining finds whole levels that sum to the wanted 1."""
    found = overfit(
        sum_loss, None, None, LEVELS, np.array([1.0], np.float32), OptimiserSpec(RetrainingConfig().lr, "cosine"), 300
    )
    after = np.asarray(on_grid(found.params))
    np.testing.assert_array_equal(after, [[1, 3, -3]])
    np.testing.assert_array_equal(num_flipped(np.asarray(on_grid(LEVELS)), after), [2])
    # The best is kept, so a start that is met already stays.
    found = overfit(sum_loss, None, None, LEVELS, np.array([-1.0], np.float32), OptimiserSpec(0.1), 50)
    np.testing.assert_array_equal(on_grid(found.params), on_grid(LEVELS))


def test_flips_are_counted_row_by_row():
    before = np.array([[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(num_flipped(before, np.array([[0, 1, 2], [3, 5, 6]])), [0, 2])


@pytest.mark.parametrize("wrong", [{"num_steps": -1}, {"lr": 0.0}, {"lr": float("nan")}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="retraining needs"):
        RetrainingConfig(**wrong)


def test_flips_are_told_as_shares():
    told = flips_in_words(np.array([10, 20, 60]), 1000)
    assert told == "retraining changed 3.0 % of the 1000 symbols per signal (1.0 to 6.0 % in 3 signals)"

"""Uniform quantisers: their levels, their largest error, what lies outside, and ranges without width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.entropy.uniform_quantiser import dequantise, quantise, quantise_symmetric, symmetric_step, uniform_range


@pytest.mark.parametrize("bits", [1, 2, 5, 8, 16])
def test_levels_span_the_range_evenly_and_are_their_own_symbols(bits):
    mean, std = np.float32([0.0, -3.0, 100.0]), np.float32([1.0, 0.01, 20.0])
    lower, step = uniform_range(mean, std, 3.0, bits)
    symbols = np.array([0, 1, 2**bits - 1])[:, None]
    levels = dequantise(symbols, lower, step)
    np.testing.assert_allclose(levels[0], mean - 3 * std, rtol=1e-6)
    np.testing.assert_allclose(levels[-1], mean + 3 * std, rtol=2e-6)
    np.testing.assert_array_equal(quantise(levels, lower, step, bits), np.broadcast_to(symbols, (3, 3)))


def test_the_error_within_the_range_is_half_a_step_and_outside_the_end_is_taken():
    lower, step = uniform_range(0.5, 0.25, 2.0, 6)
    x = jnp.linspace(-1.0, 2.0, 3001)
    symbols = quantise(x, lower, step, 6)
    assert (float(symbols.min()), float(symbols.max())) == (0.0, 63.0)
    assert symbols.dtype == jnp.float32
    np.testing.assert_array_equal(symbols, np.rint(symbols))
    error = jnp.abs(dequantise(symbols, lower, step) - jnp.clip(x, 0.0, 1.0))
    assert float(error.max()) <= 0.5 * float(step) + 1e-6
    assert float(error.max()) > 0.49 * float(step)


def test_a_dimension_that_never_varies_is_one_level():
    mean, std = np.float32([0.7, -2.0]), np.zeros(2, np.float32)
    lower, step = uniform_range(mean, std, 3.0, 4)
    assert (np.asarray(step) > 0).all()
    for x in (mean, mean + 1e-3, mean - 1e5):
        symbols = quantise(x, lower, step, 4)
        assert np.isfinite(symbols).all()
        np.testing.assert_array_equal(dequantise(symbols, lower, step), mean)
    np.testing.assert_array_equal(quantise_symmetric(jnp.zeros(3), symmetric_step(0.0, 8), 8), np.zeros(3))


@pytest.mark.parametrize("bits", [2, 7, 8])
def test_symmetric_levels_reach_the_largest_value_and_hold_zero(bits):
    x = jnp.array([-0.3, 0.0, 0.8, -0.8, 5.0])
    step = symmetric_step(0.8, bits)
    symbols = quantise_symmetric(x, step, bits)
    largest = 2 ** (bits - 1) - 1
    np.testing.assert_array_equal(symbols[1:], [0, largest, -largest, largest])
    np.testing.assert_allclose(symbols[2] * step, 0.8, rtol=1e-6)
    assert abs(float(symbols[0] * step) + 0.3) <= 0.5 * float(step)
    np.testing.assert_array_equal(quantise_symmetric(-x, step, bits), -symbols)


def test_one_compiled_function_serves_all_depths():
    quantised, symmetric = jax.jit(quantise), jax.jit(quantise_symmetric)
    x = jax.random.normal(jax.random.key(0), (50,))
    for bits in (2, 5, 9):
        lower, step = uniform_range(0.0, 1.0, 2.0, bits)
        np.testing.assert_array_equal(quantised(x, lower, step, np.int32(bits)), quantise(x, lower, step, bits))
        step = symmetric_step(2.0, bits)
        np.testing.assert_array_equal(symmetric(x, step, np.int32(bits)), quantise_symmetric(x, step, bits))
    assert quantised._cache_size() == symmetric._cache_size() == 1


def test_what_is_not_finite_is_not_hidden():
    lower, step = uniform_range(0.0, 1.0, 3.0, 4)
    assert np.isnan(quantise(jnp.array([jnp.nan]), lower, step, 4)).all()
    np.testing.assert_array_equal(quantise(jnp.array([jnp.inf, -jnp.inf]), lower, step, 4), [15, 0])


def test_depths_and_ranges_that_make_no_sense_are_refused():
    for bits in (0, 25, -1):
        with pytest.raises(ValueError, match="bits must lie in 1..24"):
            uniform_range(0.0, 1.0, 3.0, bits)
    with pytest.raises(ValueError, match="bits must lie in 2..24"):
        symmetric_step(1.0, 1)
    for num_std in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="num_std must be positive"):
            uniform_range(0.0, 1.0, num_std, 4)

"""The polynomial sine: value, both derivatives, stated domain, float64 fallback."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.fields.sine import DOMAIN, fast_cos, fast_sin

ANGLES = np.concatenate(
    [
        np.linspace(-10, 10, 20001),
        np.linspace(-DOMAIN, DOMAIN, 200001),
        np.arange(-300, 300) * np.pi / 2,
        np.array([0.0, 1e-8, -1e-8, 1e-30, DOMAIN, -DOMAIN]),
    ]
).astype(np.float32)


@pytest.mark.parametrize(("function", "exact"), [(fast_sin, np.sin), (fast_cos, np.cos)])
def test_value(function, exact):
    error = np.abs(np.asarray(jax.jit(function)(ANGLES), np.float64) - exact(ANGLES.astype(np.float64)))
    assert error.max() < 3e-7
    assert error[:20001].max() < 1.5e-7


@pytest.mark.parametrize(
    ("function", "first", "second"),
    [(fast_sin, np.cos, lambda x: -np.sin(x)), (fast_cos, lambda x: -np.sin(x), lambda x: -np.cos(x))],
)
def test_derivatives(function, first, second):
    x = ANGLES[::97]
    d1 = jax.vmap(jax.grad(lambda v: function(v)))(x)
    d2 = jax.vmap(jax.grad(jax.grad(lambda v: function(v))))(x)
    np.testing.assert_allclose(d1, first(x.astype(np.float64)), atol=3e-7)
    np.testing.assert_allclose(d2, second(x.astype(np.float64)), atol=3e-7)


def test_odd_and_zero():
    assert float(fast_sin(jnp.float32(0.0))) == 0.0
    np.testing.assert_array_equal(fast_sin(-jnp.asarray(ANGLES)), -fast_sin(jnp.asarray(ANGLES)))


def test_float64_is_the_library_sine():
    with jax.enable_x64(True):
        x = jnp.linspace(-30.0, 30.0, 101, dtype=jnp.float64)
        np.testing.assert_array_equal(fast_sin(x), jnp.sin(x))
        np.testing.assert_allclose(jax.vmap(jax.grad(fast_sin))(x), np.cos(np.asarray(x)), rtol=0, atol=1e-15)


def test_non_finite_stays_non_finite():
    assert not np.isfinite(np.asarray(fast_sin(jnp.array([np.inf, -np.inf, np.nan], jnp.float32)))).any()

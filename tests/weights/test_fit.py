"""The loss of a network that is fitted to one signal, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.fields import siren
from vcinr.fields.field import FieldConfig
from vcinr.signals.grids import pixel_grid
from vcinr.weights.fit import FitConfig, fit_loss

FIELD = FieldConfig(modulation="none", num_layers=2, width=5)


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_mean_squared_error_and_the_penalty_of_the_updates_sum(weighted):
    rng = np.random.default_rng(0)
    base, update = (jnp.asarray(rng.normal(0, 0.1, siren.num_weights(FIELD.sizes())), jnp.float32) for _ in range(2))
    inputs, values = jnp.asarray(pixel_grid((4, 6))), jnp.asarray(rng.random((24, 3)), jnp.float32)
    weight = jnp.asarray(rng.random(24), jnp.float32) if weighted else None
    data, shared = {"values": values, "weight": weight}, {"base": base, "inputs": inputs}
    made = np.asarray(siren.apply(siren.unflatten(base + update, FIELD.sizes()), inputs, 30.0, jnp.sin), np.float64)
    error = np.average(np.mean((made - values) ** 2, axis=1), weights=weight)
    loss = fit_loss(FitConfig(FIELD, l1=0.25), shared, update, data, jnp.int32(0))
    np.testing.assert_allclose(loss, error + 0.25 * np.abs(update).sum(), rtol=1e-4)
    slope = jax.grad(lambda u: fit_loss(FitConfig(FIELD, l1=0.25), shared, u, data, jnp.int32(0)))(update)
    plain = jax.grad(lambda u: fit_loss(FitConfig(FIELD), shared, u, data, jnp.int32(0)))(update)
    np.testing.assert_allclose(slope - plain, 0.25 * np.sign(update), atol=1e-4)

"""The inner loop of a linear field as products of matrices: the latents of the general inner loop, whatever the trunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.adaptation import linear_inner_loop
from vcinr.adaptation.linear_inner_loop import adapt_linear, components
from vcinr.adaptation.meta_learning import AdaptationConfig, adapt_latent, init
from vcinr.codecs.contextual_inr import ContextualINRConfig
from vcinr.context.config import ContextualConfig
from vcinr.fields.field import FieldConfig, make_field
from vcinr.signals.grids import pixel_grid

FIELDS = {
    "sines": {},
    "encoded": {"encoding": "nerf", "num_frequencies": 3},
    "relu": {"activation": "relu"},
}


def config_of(**field):
    own = FieldConfig(num_layers=2, width=8, last_width=10, linear_head=True, latent_dim=5, modulation="none", **field)
    return ContextualINRConfig(
        patch=(4, 6),
        field=own,
        adaptation=AdaptationConfig(num_steps=2, inner_lr=1.0),
        compression=ContextualConfig(groups=(2, 5)),
    )


def trained(config):
    """As after training: φ₀ is not 0, step sizes differ by step and dimension, and some reach beyond their clip."""
    params = jax.device_get(init(config, jax.random.key(0)))
    rng = np.random.default_rng(1)
    params["shared"]["head_kernel"] = rng.normal(0, 0.3, params["shared"]["head_kernel"].shape).astype(np.float32)
    params["shared"]["head_bias"] = rng.normal(0, 0.3, params["shared"]["head_bias"].shape).astype(np.float32)
    params["latent_init"] = rng.normal(0, 1, 5).astype(np.float32)
    params["step_sizes"]["log_scale"] = rng.uniform(-8, 1, (2, 5)).astype(np.float32)
    return params


@pytest.mark.parametrize("name", FIELDS)
def test_components_are_the_field(name):
    config, coords = config_of(**FIELDS[name]), pixel_grid((4, 6))
    params, latent = trained(config), np.arange(5, dtype=np.float32)
    offset, basis = components(config.field, params["shared"], coords)
    shared = jax.tree.map(jnp.asarray, params["shared"])
    expected = make_field(config.field).apply({"params": shared}, jnp.asarray(coords), jnp.asarray(latent))
    np.testing.assert_allclose(offset + basis @ latent, expected, atol=2e-5)


@pytest.mark.parametrize(("name", "num_steps"), [*((name, 2) for name in FIELDS), ("sines", 4)])
def test_latents_are_those_of_the_general_inner_loop(name, num_steps, monkeypatch):
    monkeypatch.setattr(linear_inner_loop, "PATCHES_AT_ONCE", 3)
    config = config_of(**FIELDS[name])
    params, values = trained(config), np.random.default_rng(2).uniform(0, 1, (7, 24, 3)).astype(np.float32)
    found = adapt_linear(config.field, params, values, pixel_grid((4, 6)), num_steps)
    arrays = jax.tree.map(jnp.asarray, params)
    expected = np.asarray(jax.jit(jax.vmap(lambda y: adapt_latent(config, arrays, y, num_steps=num_steps)))(values))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected - params["latent_init"]).max() > 0.05

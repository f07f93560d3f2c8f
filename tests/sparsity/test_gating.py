"""Gates mask what they say, wherever they are applied, shared or moved by the inner loop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.adaptation.meta_learning import AdaptationConfig, init
from vcinr.codecs.mscn import MSCNConfig
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig, evaluate, make_field
from vcinr.signals.grids import pixel_grid
from vcinr.sparsity.gates import APPLY, GROUP, GateConfig, gate_index, num_gates, spread
from vcinr.sparsity.gating import adapt_gated, adapt_with_gates, gated_layers, gated_loss

WEIGHTS = FieldConfig(modulation="weight_update", num_layers=3, width=4)
SHIFTS = dataclasses.replace(WEIGHTS, modulation="shifts")
COORDS = jnp.asarray(pixel_grid((6, 6)))
VALUES = jnp.asarray(np.random.default_rng(0).random((36, 3)), jnp.float32)


def config(apply, group="entry", field=None, **adaptation):
    field = field or (SHIFTS if apply == "modulation" else WEIGHTS)
    return MSCNConfig(
        patch=(6, 6),
        field=field,
        adaptation=AdaptationConfig(num_steps=2, learn_start=False, inner_lr=0.5, **adaptation),
        gates=GateConfig(apply=apply, group=group),
    )


def open_half(count, seed=1):
    z = np.random.default_rng(seed).integers(0, 2, count).astype(np.float32)
    z[:2] = 0, 1
    return jnp.asarray(z)


def flat(layers):
    return np.asarray(siren.flatten(layers))


@pytest.fixture(scope="module")
def trained():
    """θ of both fields, the same; φ₀ and step sizes of each."""
    shared = init(config("update"), jax.random.key(0))["shared"]
    return {apply: {**init(config(apply), jax.random.key(0)), "shared": shared} for apply in APPLY}


def adapted(c, trained, z):
    return np.asarray(jax.jit(lambda z: adapt_gated(c, c.gates, trained[c.gates.apply], z, VALUES))(z))


@pytest.mark.parametrize("group", GROUP)
def test_gated_updates_leave_closed_entries_where_they_are(trained, group):
    c = config("update", group)
    index = gate_index(c.field, "update", group)
    z = open_half(num_gates(index))
    latent = adapted(c, trained, z)
    is_open = np.asarray(spread(index, z)) > 0
    assert (latent[~is_open] == 0).all()
    assert (latent[is_open] != 0).mean() > 0.9


def test_a_gated_update_is_the_gated_sum_of_gradients(trained):
    """Equation 9, step by step."""
    c = config("update")
    z = jnp.asarray(np.random.default_rng(2).random(c.field.latent_size()), jnp.float32)
    loss = lambda phi: gated_loss(c.gates, z)(c, trained["update"]["shared"], phi, VALUES)
    phi = jnp.zeros(c.field.latent_size())
    for _ in range(2):
        phi = phi - 0.5 * z * jax.grad(loss)(phi)
    np.testing.assert_allclose(adapted(c, trained, z), phi, atol=1e-5)


def test_gated_modulations_enter_the_field_gated(trained):
    """Equation 10: f(W h + b + z ⊙ m), and no number of a closed gate matters or moves."""
    c = config("modulation")
    index, z = gate_index(c.field, "modulation", "entry"), open_half(12)
    m = jax.random.normal(jax.random.key(1), (12,))
    shared = trained["modulation"]["shared"]
    by_hand = make_field(c.field).apply({"params": shared}, z * m, method="layers")
    np.testing.assert_array_equal(flat(gated_layers(c.field, c.gates, index, shared, m, z)), flat(by_hand))
    latent = adapted(c, trained, z)
    assert (latent[np.asarray(z) == 0] == 0).all() and (latent[np.asarray(z) == 1] != 0).all()


@pytest.mark.parametrize("group", GROUP)
def test_gated_weights_are_zero_whatever_the_update(trained, group):
    c = config("weights", group)
    index = gate_index(c.field, "weights", group)
    z = open_half(num_gates(index))
    layers = gated_layers(c.field, c.gates, index, trained["weights"]["shared"], 3.0 * jnp.ones(c.field.latent_size()), z)
    is_open = np.asarray(spread(index, z)) > 0
    assert (flat(layers)[~is_open] == 0).all() and (flat(layers)[is_open] != 0).all()
    assert (adapted(c, trained, z)[~is_open] == 0).all()


@pytest.mark.parametrize("field", [WEIGHTS, SHIFTS])
def test_gated_activations_make_the_numbers_of_closed_units_irrelevant(trained, field):
    c = config("activations", "unit", field)
    shared, z = trained["weights"]["shared"], open_half(12)
    index = gate_index(field, "activations", "unit")
    is_open = np.asarray(spread(index, z)) > 0
    latent = 0.1 * jax.random.normal(jax.random.key(2), (field.latent_size(),))
    other = jnp.where(is_open, latent, 7.0)
    of = lambda phi: np.asarray(evaluate(field, gated_layers(field, c.gates, index, shared, phi, z), COORDS))
    np.testing.assert_array_equal(of(latent), of(other))
    for entry in np.flatnonzero(is_open):
        assert np.abs(of(latent) - of(latent.at[entry].add(0.5))).max() > 0, f"open entry {entry} does not matter"
    # All gates open change nothing.
    plain = make_field(field).apply({"params": shared}, latent, method="layers")
    np.testing.assert_array_equal(flat(gated_layers(field, c.gates, index, shared, latent, jnp.ones(12))), flat(plain))


def test_adapted_gates_that_cannot_move_are_the_pattern(trained):
    c = config("update")
    z = open_half(c.field.latent_size())
    learned = {"log_alpha": 30 * (z - 0.5), "log_lambda": jnp.asarray(-50.0), "log_step": jnp.asarray(0.0)}
    latent, log_alpha = jax.jit(lambda part: adapt_with_gates(c, c.gates, part, learned, VALUES))(trained["update"])
    np.testing.assert_allclose(latent, adapted(c, trained, z), atol=1e-6)
    np.testing.assert_allclose(log_alpha, learned["log_alpha"], atol=1e-6)


def test_adapted_gates_close_under_the_penalty_and_open_for_the_signal(trained):
    c = config("modulation")
    start = jnp.zeros(12)
    move = jax.jit(
        lambda log_lambda, log_step: adapt_with_gates(
            c, c.gates, trained["modulation"],
            {"log_alpha": start, "log_lambda": log_lambda, "log_step": log_step}, VALUES, noise=jax.random.key(5),
        )[1]
    )  # fmt: skip
    assert (move(jnp.log(10.0), jnp.log(1.0)) < 0).all()
    assert not np.array_equal(move(-50.0, jnp.log(100.0)), start)

"""Gates mask what they say, wherever they are applied; the pattern pays for no more than the target; λ reaches it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vcinr.adaptation.meta_learning import AdaptationConfig, init
from vcinr.codecs.mscn import MSCNConfig
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig, evaluate, make_field
from vcinr.signals.grids import pixel_grid
from vcinr.sparsity import gating, hard_concrete
from vcinr.sparsity.gating import GateConfig, adapt_gated, adapt_with_gates, gate_index, gated_layers, gated_loss, pattern, spread

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
    return {apply: {**init(config(apply), jax.random.key(0)), "shared": shared} for apply in gating.APPLY}


def adapted(c, trained, z):
    return np.asarray(jax.jit(lambda z: adapt_gated(c, c.gates, trained[c.gates.apply], z, VALUES))(z))


@pytest.mark.parametrize("group", gating.GROUP)
def test_gated_updates_leave_closed_entries_where_they_are(trained, group):
    c = config("update", group)
    index = gate_index(c.field, "update", group)
    z = open_half(gating.num_gates(index))
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


@pytest.mark.parametrize("group", gating.GROUP)
def test_gated_weights_are_zero_whatever_the_update(trained, group):
    c = config("weights", group)
    index = gate_index(c.field, "weights", group)
    z = open_half(gating.num_gates(index))
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


def test_a_unit_has_one_gate_for_all_that_leads_into_it():
    index = gate_index(WEIGHTS, "update", "unit")[0]
    for (kernel, bias), first in zip(siren.unflatten(index, WEIGHTS.sizes()), (0, 4, 8, 12), strict=True):
        np.testing.assert_array_equal(bias, first + np.arange(len(bias)))
        np.testing.assert_array_equal(kernel, np.broadcast_to(bias, kernel.shape))
    assert [set(b) | set(k.ravel()) for k, b in siren.unflatten(gate_index(WEIGHTS, "update", "layer")[0], WEIGHTS.sizes())] == [
        {0}, {1}, {2}, {3}
    ]  # fmt: skip
    np.testing.assert_array_equal(gate_index(SHIFTS, "modulation", "layer")[0], np.repeat([0, 1, 2], 4))


@pytest.mark.parametrize(("apply", "group"), [("update", "entry"), ("modulation", "layer"), ("activations", "unit")])
def test_the_expected_fraction_is_the_frequency_of_open_entries(apply, group):
    index = gate_index(SHIFTS if apply == "modulation" else WEIGHTS, apply, group)
    log_alpha = jnp.asarray(np.random.default_rng(0).normal(-1, 2, gating.num_gates(index)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 2000)
    sampled = jax.vmap(lambda key: jnp.mean(spread(index, hard_concrete.sample(key, log_alpha)) > 0))(keys)
    error = 5 * float(sampled.std()) / 2000**0.5
    assert abs(float(sampled.mean()) - float(gating.expected_open(index, log_alpha))) < error + 1e-6


@pytest.mark.parametrize(("apply", "group"), [("update", "entry"), ("update", "unit"), ("activations", "unit")])
def test_a_pattern_opens_by_rank_and_pays_no_more_than_the_target(apply, group):
    index = gate_index(WEIGHTS, apply, group)
    log_alpha = np.random.default_rng(3).normal(size=gating.num_gates(index)).astype(np.float32)
    gates, entries = pattern(index, log_alpha, 0.3)
    budget = round(0.3 * index.shape[1])
    np.testing.assert_array_equal(entries, np.flatnonzero(np.asarray(spread(index, jnp.asarray(gates, jnp.float32)))))
    assert set(gates) == {0, 1} and log_alpha[gates == 1].min() > log_alpha[gates == 0].max()
    assert len(entries) == budget if group == "entry" else len(entries) <= budget
    best_closed = np.flatnonzero(gates == 0)[np.argmax(log_alpha[gates == 0])]
    more = gates.copy()
    more[best_closed] = 1
    assert np.count_nonzero(spread(index, jnp.asarray(more, jnp.float32))) > budget


def test_a_target_that_no_gate_fits_is_refused():
    index = gate_index(WEIGHTS, "update", "layer")
    with pytest.raises(ValueError, match="not even the first gate"):
        pattern(index, np.zeros(4, np.float32), 0.01)


def test_gates_that_diverged_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        pattern(np.arange(3)[None], np.array([0, np.nan, 1], np.float32), 0.5)


@pytest.mark.parametrize("target", [0.05, 0.4])
def test_lambda_drives_the_open_fraction_to_the_target(target):
    """A separable problem: the error of entry i falls by c_i where its gate is open, c of very different sizes."""
    gates = GateConfig(target=target, start_open=0.5, start_lambda=1e-2, gate_lr=0.05, lambda_lr=0.02)
    index = np.arange(400)[None]
    gain = jnp.asarray(np.random.default_rng(0).lognormal(0, 2, 400), jnp.float32)
    gain = gain / gain.sum()

    def loss(state, key):
        fraction = gating.expected_open(index, state["log_alpha"])
        error = jnp.sum(gain * jnp.square(1 - hard_concrete.sample(key, state["log_alpha"])))
        return error + gating.neutral_penalty(gates, fraction, state["log_lambda"]), error

    rates = {"log_alpha": gates.gate_lr, "log_lambda": gates.lambda_lr}
    optimiser = optax.chain(optax.scale_by_adam(), optax.stateless(lambda u, _: jax.tree.map(lambda r, a: -r * a, rates, u)))
    state = {"log_alpha": jnp.full(400, hard_concrete.log_alpha_of(jnp.asarray(0.5))), "log_lambda": jnp.log(1e-2)}

    @jax.jit
    def train(state):
        def step(carry, key):
            state, moments = carry
            (value, error), gradient = jax.value_and_grad(loss, has_aux=True)(state, key)
            updates, moments = optimiser.update(gradient, moments)
            return (optax.apply_updates(state, updates), moments), value - error

        return jax.lax.scan(step, (state, optimiser.init(state)), jax.random.split(jax.random.key(0), 600))

    (state, _), difference = train(state)
    assert (np.asarray(difference) == 0).all(), "the reported loss is no longer the error"
    assert abs(float(gating.expected_open(index, state["log_alpha"])) / target - 1) < 0.2
    _, entries = pattern(index, np.asarray(state["log_alpha"]), target)
    best = np.argsort(-np.asarray(gain))[: len(entries)]
    assert len(np.intersect1d(entries, best)) > 0.8 * len(best), "the gates that pay most are not those that stay open"


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"apply": "weight"}, "unknown gates.apply"),
        ({"group": "neuron"}, "unknown gates.group"),
        ({"apply": "weights", "adapt_gates": True}, "adapt_gates needs"),
        ({"target": 0.0}, "gates.target"),
        ({"lambda_lr": -1.0}, "gates.lambda_lr"),
    ],
)
def test_gates_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GateConfig(**changes)


@pytest.mark.parametrize(("apply", "group", "field"), [("weights", "entry", SHIFTS), ("update", "unit", FieldConfig())])
def test_a_field_without_such_entries_is_refused(apply, group, field):
    with pytest.raises(ValueError, match="field.modulation"):
        gate_index(field, apply, group)

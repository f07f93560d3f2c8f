"""Which gate governs what, how many entries are open, and patterns that pay for no more than the target."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.fields import siren
from vcinr.fields.field import FieldConfig
from vcinr.sparsity import hard_concrete
from vcinr.sparsity.gates import GateConfig, expected_open, gate_index, num_gates, pattern, spread

WEIGHTS = FieldConfig(modulation="weight_update", num_layers=3, width=4)
SHIFTS = dataclasses.replace(WEIGHTS, modulation="shifts")


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
    log_alpha = jnp.asarray(np.random.default_rng(0).normal(-1, 2, num_gates(index)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 2000)
    sampled = jax.vmap(lambda key: jnp.mean(spread(index, hard_concrete.sample(key, log_alpha)) > 0))(keys)
    error = 5 * float(sampled.std()) / 2000**0.5
    assert abs(float(sampled.mean()) - float(expected_open(index, log_alpha))) < error + 1e-6


@pytest.mark.parametrize(("apply", "group"), [("update", "entry"), ("update", "unit"), ("activations", "unit")])
def test_a_pattern_opens_by_rank_and_pays_no_more_than_the_target(apply, group):
    index = gate_index(WEIGHTS, apply, group)
    log_alpha = np.random.default_rng(3).normal(size=num_gates(index)).astype(np.float32)
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"apply": "weight"}, "unknown gates.apply"),
        ({"group": "neuron"}, "unknown gates.group"),
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

"""Updates, shifts and gates as changes of layers; latent maps and low-rank gates are in test_field.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.fields import modulations, siren

SIZES = [(2, 6), (6, 5), (5, 3)]
COORDS = jax.random.uniform(jax.random.key(9), (11, 2), minval=-1)


def layers_of(seed):
    return siren.init_layers(jax.random.key(seed), SIZES, 20.0)


def test_an_update_is_added_tensor_by_tensor():
    base, other = layers_of(0), layers_of(1)
    updated = modulations.weight_update(base, siren.flatten(other) - siren.flatten(base))
    np.testing.assert_allclose(siren.flatten(updated), siren.flatten(other), atol=1e-7)
    same = modulations.weight_update(base, jnp.zeros(siren.num_weights(SIZES)))
    np.testing.assert_array_equal(siren.flatten(same), siren.flatten(base))


def test_gates_scale_what_leaves_each_layer():
    layers, gates = layers_of(2), jax.random.uniform(jax.random.key(3), (11,))
    found = siren.apply(modulations.gate_units(layers, gates), COORDS, 20.0)
    hidden = np.asarray(COORDS, np.float64)
    for (kernel, bias), gate in zip(layers[:-1], np.split(np.asarray(gates), [6]), strict=True):
        hidden = gate * np.sin(20.0 * (hidden @ np.asarray(kernel) + np.asarray(bias)))
    np.testing.assert_allclose(found, hidden @ np.asarray(layers[-1][0]) + np.asarray(layers[-1][1]), atol=1e-5)


def test_open_gates_change_nothing_and_a_closed_unit_is_as_if_it_were_not_there():
    layers = layers_of(4)
    opened = modulations.gate_units(layers, jnp.ones(11))
    np.testing.assert_array_equal(siren.flatten(opened), siren.flatten(layers))
    closed = siren.apply(modulations.gate_units(layers, jnp.ones(11).at[2].set(0.0)), COORDS, 20.0)
    without = [
        (jnp.delete(layers[0][0], 2, axis=1), jnp.delete(layers[0][1], 2)),
        (jnp.delete(layers[1][0], 2, axis=0), layers[1][1]),
        layers[2],
    ]
    np.testing.assert_allclose(closed, siren.apply(without, COORDS, 20.0), atol=1e-5)


def test_a_linear_head_adds_to_the_shared_one_in_proportion_to_the_latent():
    layers, rng = layers_of(5), np.random.default_rng(0)
    kernels, biases, latent = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 5, 3), (4, 3), (4,)))
    headed = modulations.linear_head(layers, jnp.asarray(kernels), jnp.asarray(biases), jnp.asarray(latent))
    hidden = np.asarray(siren.apply([*layers[:-1], (jnp.eye(5), jnp.zeros(5))], COORDS, 20.0))
    components = [hidden @ kernel + bias for kernel, bias in zip(kernels, biases, strict=True)]
    expected = np.asarray(siren.apply(layers, COORDS, 20.0)) + np.tensordot(latent, components, 1)
    np.testing.assert_allclose(siren.apply(headed, COORDS, 20.0), expected, atol=1e-4)


@pytest.mark.parametrize("length", [10, 12])
def test_vectors_over_other_units_are_refused(length):
    for function in (modulations.gate_units, modulations.split_units):
        with pytest.raises(ValueError, match="11 units"):
            function(layers_of(0), jnp.zeros(length))

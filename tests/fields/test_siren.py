"""A network's layers as one vector, and its start; the network itself is in test_field.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.fields import siren

SIZES = [(2, 5), (5, 4), (4, 3)]


def test_the_vector_is_kernels_row_by_row_and_biases_in_order():
    count = siren.num_weights(SIZES)
    assert count == 10 + 5 + 20 + 4 + 12 + 3
    vector = np.arange(count)
    layers = siren.unflatten(vector, SIZES)
    np.testing.assert_array_equal(layers[0][0], np.arange(10).reshape(2, 5))
    np.testing.assert_array_equal(layers[0][1], np.arange(10, 15))
    np.testing.assert_array_equal(layers[1][0][1], np.arange(19, 23))
    np.testing.assert_array_equal(layers[-1][1], np.arange(count - 3, count))
    tensors = [tensor for layer in layers for tensor in layer]
    for tensor, part in zip(tensors, siren.tensor_slices(SIZES), strict=True):
        np.testing.assert_array_equal(tensor.ravel(), vector[part])


def test_flatten_and_unflatten_are_inverse_under_vmap_too():
    vectors = jax.random.normal(jax.random.key(0), (3, siren.num_weights(SIZES)))
    np.testing.assert_array_equal(siren.flatten(siren.unflatten(vectors[0], SIZES)), vectors[0])
    layers = jax.vmap(lambda vector: siren.unflatten(vector, SIZES))(vectors)
    assert [kernel.shape for kernel, _ in layers] == [(3, *size) for size in SIZES]
    np.testing.assert_array_equal(jax.vmap(siren.flatten)(layers), vectors)


@pytest.mark.parametrize("shape", [(53,), (55,), (54, 1), ()])
def test_a_vector_of_another_length_is_refused(shape):
    with pytest.raises(ValueError, match="have 54 weights"):
        siren.unflatten(np.zeros(shape), SIZES)


@pytest.mark.parametrize("activation", ["sine", "relu"])
def test_the_start_fills_its_bounds(activation):
    sizes = siren.layer_sizes(40, 3, 3, 300)
    layers = siren.init_layers(jax.random.key(1), sizes, 30.0, 0.25, activation)
    for i, ((kernel, bias), (fan_in, fan_out)) in enumerate(zip(layers, sizes, strict=True)):
        bound = siren.kernel_bound(i, fan_in, 30.0, activation)
        assert kernel.shape == (fan_in, fan_out)
        assert bias.shape == (fan_out,)
        assert 0.97 * bound < float(jnp.abs(kernel).max()) <= bound
        np.testing.assert_allclose(jnp.std(kernel), bound / 3**0.5, rtol=0.06)
    np.testing.assert_array_equal(layers[-1][1], np.full(3, 0.25))
    assert float(jnp.abs(layers[1][1]).max()) <= 300**-0.5


def test_tensors_of_equal_shape_start_apart():
    layers = siren.init_layers(jax.random.key(0), [(4, 4)] * 3, 30.0)
    assert float(jnp.abs(layers[0][0] / layers[1][0]).std()) > 0.01
    assert float(jnp.abs(layers[0][1] - layers[1][1]).max()) > 0.01


def test_relu_keeps_the_second_moment_and_sine_the_normal_pre_activations():
    x = jax.random.normal(jax.random.key(2), (2000, 100))
    sizes = siren.layer_sizes(100, 64, 4, 256)
    layers = siren.init_layers(jax.random.key(3), sizes, 1.0, 0.0, "relu")
    free = [(kernel, 0.0 * bias) for kernel, bias in layers]
    output = siren.apply(free, x, 1.0, jax.nn.relu)
    # E h² of what enters is 1, and He's start doubles the variance of a layer's sum to make up for the half that is cut.
    assert 1.4 < float(jnp.mean(jnp.square(output))) < 2.8
    layers = siren.init_layers(jax.random.key(3), siren.layer_sizes(2, 3, 4, 256), 30.0)
    free = [(kernel, 0.0 * bias if i else bias) for i, (kernel, bias) in enumerate(layers)]
    for z in siren.pre_activations(free, jax.random.uniform(jax.random.key(4), (2000, 2), minval=-1), 30.0)[1:]:
        assert 0.8 < float(jnp.std(z)) < 1.2


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_first_layer_starts_with_waves_of_omega(dims):
    """Over [−1, 1]^d a first sum varies by ω₀² Σ w² / 3, and weights uniform within 1/d have Σ w² = 1/(3 d) on average."""
    layers = siren.init_layers(jax.random.key(6), siren.layer_sizes(dims, 3, 2, 4000), 30.0)
    coords = jax.random.uniform(jax.random.key(7), (500, dims), minval=-1)
    waves = siren.pre_activations(layers, coords, 30.0)[0]
    np.testing.assert_allclose(jnp.mean(jnp.var(waves, axis=0)), 30.0**2 / (9 * dims), rtol=0.1)


@pytest.mark.parametrize("apply", [siren.apply_rows, siren.apply_columns])
def test_every_layer_but_the_last_is_a_sine_of_its_scaled_sum(apply):
    layers = siren.init_layers(jax.random.key(5), SIZES, 7.0, 0.5)
    hidden = np.random.default_rng(0).uniform(-1, 1, (9, 2))
    found = apply(layers, jnp.asarray(hidden, jnp.float32), 7.0, jnp.sin)
    for kernel, bias in layers[:-1]:
        hidden = np.sin(7.0 * (hidden @ np.asarray(kernel) + np.asarray(bias)))
    np.testing.assert_allclose(found, hidden @ np.asarray(layers[-1][0]) + np.asarray(layers[-1][1]), atol=1e-5)


@pytest.mark.parametrize("width", [5, siren.NARROW, siren.NARROW + 1])
def test_narrow_fields_are_the_same_coordinates_last(width):
    layers = siren.init_layers(jax.random.key(width), siren.layer_sizes(2, 3, 3, width), 30.0, 0.5)
    coords = jax.random.uniform(jax.random.key(1), (50, 2), minval=-1.0, maxval=1.0)

    def values(apply):
        return jax.value_and_grad(lambda layers: jnp.sum(jnp.sin(apply(layers, coords, 30.0, jnp.sin))))(layers)

    (found, gradient), (expected, plain) = values(siren.apply), values(siren.apply_rows)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3), gradient, plain)

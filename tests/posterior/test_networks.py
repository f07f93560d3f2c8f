"""Random networks against the fixed ones that they contain, their moments, and gradients by finite differences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.fields import siren
from vcinr.fields.field import FieldConfig
from vcinr.posterior.gaussians import Gaussian, kl_nats
from vcinr.posterior.networks import PositionalConfig, TransformedNetwork, WeightNetwork, distortion, random_values, upsample

FIELD = FieldConfig(
    num_layers=2, width=5, modulation="none", latent_dim=1, encoding="geometric", num_frequencies=2, encoding_scale=4.0
)
PATCH = (4, 4)
WEIGHTS = WeightNetwork(FIELD, PATCH)
POSITIONAL = PositionalConfig(channels=3, stride=2, widths=(4,), outputs=2)
PLUS = TransformedNetwork(FIELD, PATCH, positional=POSITIONAL)
COORDS = np.stack(np.meshgrid(*[(np.arange(4) + 0.5) / 2 - 1] * 2, indexing="ij"), -1).reshape(16, 2).astype(np.float32)
INPUTS = WEIGHTS.inputs(COORDS)


def posterior(network, patches=1, scale=0.3, seed=0):
    """Around different first networks, with deviations of about ``scale`` of their spread."""
    keys = jax.random.split(jax.random.key(seed), patches)
    mean = jnp.stack([network.init(key)[1] for key in keys])
    spread = np.random.default_rng(seed).uniform(0.5, 1.5, mean.shape)
    return Gaussian(mean, jnp.asarray(scale * network.typical_scale() * spread, jnp.float32))


@functools.partial(jax.jit, static_argnums=0)
def draws(network, q, keys):
    return jax.vmap(lambda key: network.random({}, q, INPUTS, (1, 1), key)[0])(keys)


def many(network, q, number):
    """Values of one patch, [number, 16, 3]."""
    return np.asarray(draws(network, Gaussian(*map(jnp.asarray, q)), jax.random.split(jax.random.key(1), number)), np.float64)


def test_a_network_without_spread_is_its_mean():
    q = posterior(WEIGHTS)
    scale, function = FIELD.nonlinearity()
    expected = siren.apply(siren.unflatten(q.mean[0], FIELD.sizes()), INPUTS, scale, function)
    certain = Gaussian(q.mean[0], jnp.full_like(q.mean[0], 1e-9))
    np.testing.assert_allclose(random_values(FIELD, certain, INPUTS, jax.random.key(3)), expected, atol=2e-4)
    np.testing.assert_allclose(WEIGHTS.values({}, q.mean[0], None, INPUTS), expected, atol=1e-6)


def test_the_last_layers_sums_have_their_moments_where_hidden_units_are_certain():
    """A sum Σ w h + b of Gaussian weights: mean Σ μ h + μ_b, variance Σ σ² h² + σ_b²; independent over coordinates."""
    q = posterior(WEIGHTS)
    hidden_weights = siren.num_weights(FIELD.sizes()[:-1])
    scale = np.asarray(q.scale[0]).copy()
    scale[:hidden_weights] = 0.0
    # Kernels and biases have an equal say, which in the first networks biases alone have.
    scale[hidden_weights:] = np.random.default_rng(2).uniform(0.2, 0.4, len(scale) - hidden_weights)
    found = many(WEIGHTS, Gaussian(q.mean, scale[None]), 8000)

    layers = siren.unflatten(np.asarray(q.mean[0]), FIELD.sizes())
    omega, _ = FIELD.nonlinearity()
    hidden = INPUTS
    for kernel, bias in layers[:-1]:
        hidden = np.sin(omega * (hidden @ kernel + bias))
    kernel, bias = layers[-1]
    kernel_scale, bias_scale = siren.unflatten(scale, FIELD.sizes())[-1]
    variance = hidden**2 @ kernel_scale**2 + bias_scale**2
    np.testing.assert_array_less(np.abs(found.mean(0) - hidden @ kernel - bias), 5 * np.sqrt(variance / 8000) + 1e-4)
    np.testing.assert_allclose(found.var(0) / variance, 1.0, atol=5 * np.sqrt(2 / 8000))
    standard = (found[:, 0, 0] - found[:, 0, 0].mean()) * (found[:, 1, 0] - found[:, 1, 0].mean())
    assert abs(standard.mean()) / np.sqrt(variance[0, 0] * variance[1, 0]) < 5 / np.sqrt(8000)


@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_drawing_units_has_the_moments_of_drawing_weights_at_each_coordinate(spread):
    """One hidden layer: units are independent given a coordinate, so both have one distribution there."""
    network = WeightNetwork(dataclasses.replace(FIELD, num_layers=1, omega_0=5.0), PATCH)
    q = posterior(network, scale=spread)
    units = many(network, q, 8000)

    vectors = q.mean[0] + q.scale[0] * jax.random.normal(jax.random.key(2), (8000, network.size))
    weights = np.asarray(jax.vmap(lambda v: network.values({}, v, None, INPUTS))(vectors), np.float64)
    error = np.sqrt((units.var(0) + weights.var(0)) / 8000)
    np.testing.assert_array_less(np.abs(units.mean(0) - weights.mean(0)), 5 * error)
    np.testing.assert_allclose(units.var(0) / weights.var(0), 1.0, atol=0.12)


def test_every_patch_is_drawn_from_its_own_posterior_and_alone():
    q = posterior(WEIGHTS, patches=2)
    q = Gaussian(jnp.concatenate([q.mean, q.mean[:1]]), jnp.concatenate([q.scale, q.scale[:1]]))
    found = WEIGHTS.random({}, q, INPUTS, (3, 1), jax.random.key(0))
    assert found.shape == (3, 16, 3)
    assert float(jnp.abs(found[0] - found[2]).max()) > 0.01
    certain = WEIGHTS.random({}, q._replace(scale=0.0 * q.scale), INPUTS, (3, 1), jax.random.key(0))
    np.testing.assert_allclose(certain[0], certain[2], atol=1e-3)
    assert float(jnp.abs(certain[0] - certain[1]).max()) > 0.1


@pytest.mark.parametrize("network", [WEIGHTS, PLUS, dataclasses.replace(PLUS, transform=False)], ids=["w", "plus", "no A"])
def test_the_stated_spread_of_first_vectors_is_theirs(network):
    means = np.stack([network.init(key)[1] for key in jax.random.split(jax.random.key(0), 300)])
    stated = network.typical_scale()
    assert means.shape[1] == network.size == len(stated)
    constant = means.std(0) == 0
    assert (means[:, constant] == FIELD.output_bias).all()
    # SIREN's biases have a wider interval than its kernels; what is stated for them is that of the kernel.
    kernels = np.concatenate([np.r_[np.ones(a * b, bool), np.zeros(b, bool)] for a, b in network.sizes()])
    kernels = np.concatenate([kernels, np.ones(network.size - len(kernels), bool)])
    np.testing.assert_allclose(means.std(0)[kernels] / stated[kernels], 1.0, atol=0.25)
    assert means.std(0)[kernels].mean() / stated[kernels].mean() == pytest.approx(1.0, abs=0.05)


def test_an_identity_transform_changes_nothing():
    plain = dataclasses.replace(PLUS, positional=PositionalConfig(channels=0))
    assert (plain.size, plain.sizes(), plain.num_features) == (WEIGHTS.size, WEIGHTS.sizes(), 0)
    v = posterior(WEIGHTS).mean[0]
    identity = {f"transform_{i}": np.eye((a + 1) * b) for i, (a, b) in enumerate(FIELD.sizes())}
    shared = {**identity, "output_bias": np.zeros(3)}
    expected = WEIGHTS.values({}, v, None, INPUTS)
    np.testing.assert_allclose(plain.values(shared, v, None, INPUTS), expected, atol=1e-6)
    without = dataclasses.replace(plain, transform=False)
    np.testing.assert_array_equal(without.values({}, v, None, INPUTS), expected)
    moved = plain.values({**shared, "output_bias": np.array([1.0, 2.0, 3.0])}, v, None, INPUTS)
    np.testing.assert_allclose(moved - expected, np.broadcast_to([1, 2, 3], (16, 3)), atol=1e-5)


def test_every_layer_has_a_transform_of_its_own():
    """w = A h: a permutation matrix reorders the layer's entries, and leaves other layers alone."""
    plain = dataclasses.replace(PLUS, positional=PositionalConfig(channels=0))
    v = posterior(WEIGHTS).mean[0]
    rng, start, reordered, shared = np.random.default_rng(0), 0, [], {"output_bias": np.zeros(3)}
    for i, (a, b) in enumerate(FIELD.sizes()):
        order = rng.permutation((a + 1) * b)
        shared[f"transform_{i}"] = np.eye((a + 1) * b)[order]
        reordered.append(v[start : start + len(order)][order])
        start += len(order)
    expected = WEIGHTS.values({}, jnp.concatenate(reordered), None, INPUTS)
    np.testing.assert_allclose(plain.values(shared, v, None, INPUTS), expected, atol=1e-5)


def kernels_of(rank, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(3,) * rank + io).astype(np.float32), np.float32([0.1] * io[1])) for io in ((3, 4), (4, 2))]


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 1, 3)])
def test_upsampling_doubles_every_axis_per_convolution(shape):
    grid = jnp.asarray(np.random.default_rng(1).normal(size=(*shape, 3)), jnp.float32)
    assert upsample(kernels_of(len(shape)), grid).shape == (*(4 * n for n in shape), 2)


def test_upsampling_by_hand():
    """Nearest, 3-wide correlation with zeros beyond the border, LeakyReLU between the layers and not after the last."""

    def layer(x, kernel, bias):
        x = np.pad(np.repeat(x, 2, axis=0), ((1, 1), (0, 0)))
        return sum(x[i : len(x) - 2 + i] @ kernel[i] for i in range(3)) + bias

    grid, (one, two) = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32), kernels_of(1)
    hidden = layer(grid, *one)
    expected = layer(np.where(hidden > 0, hidden, 0.01 * hidden), *two)
    assert expected.min() < 0
    np.testing.assert_allclose(upsample([one, two], jnp.asarray(grid)), expected, rtol=1e-4, atol=1e-5)


def test_features_of_a_signal_are_one_grid_cut_into_patches():
    """Of 2 × 3 patches; a patch upsampled alone differs near its border alone, where it would not know its neighbours."""
    network = TransformedNetwork(FIELD, (8, 16), positional=dataclasses.replace(POSITIONAL, stride=4))
    shared, _ = network.init(jax.random.key(0))
    v = jnp.asarray(np.random.default_rng(0).normal(size=(6, network.size)), jnp.float32)
    found = np.asarray(network.features(shared, v, (2, 3))).reshape(2, 3, 8, 16, 2)
    z = v[:, network.num_weights :].reshape(2, 3, 2, 4, 3)
    whole = jnp.concatenate([jnp.concatenate(list(row), axis=1) for row in z], axis=0)
    layers = [(shared[f"upsample_{i}"]["kernel"], shared[f"upsample_{i}"]["bias"]) for i in range(2)]
    expected = np.asarray(upsample(layers, whole))
    assert expected.shape == (16, 48, 2)
    alone = np.asarray(network.features(shared, v[4:5], (1, 1))).reshape(8, 16, 2)
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(found[i, j], expected[8 * i : 8 * i + 8, 16 * j : 16 * j + 16], atol=1e-5)
    # Each convolution reaches one sample of its own grid: 2 + 1 of the finest, which doubling rounds up to 3.
    np.testing.assert_allclose(found[1, 1][3:-3, 3:-3], alone[3:-3, 3:-3], atol=1e-5)
    assert np.abs(found[1, 1] - alone)[:, [0, -1]].max() > 0.01
    assert np.abs(found[1, 1] - alone)[0].max() > 0.01


def test_features_come_before_coordinates_and_reach_the_values():
    """A first layer that reads the features alone is deaf to coordinates, and the other way round."""
    network = dataclasses.replace(PLUS, transform=False)
    layers = siren.init_layers(jax.random.key(0), network.sizes(), 30.0)
    features = jax.random.normal(jax.random.key(1), (16, 2))
    kernel = np.array(layers[0][0])
    kernel[2:] = 0.0
    v = siren.flatten([(kernel, layers[0][1]), *layers[1:]])
    one, other = (network.values({}, v, features, inputs) for inputs in (INPUTS, INPUTS[::-1]))
    np.testing.assert_array_equal(one, other)
    assert float(jnp.abs(network.values({}, v, features[::-1], INPUTS) - one).max()) > 0.01


def test_a_patch_that_the_stride_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="does not divide by positional.stride = 16"):
        TransformedNetwork(FIELD, (24, 32))
    for bad in ({"stride": 3}, {"stride": 1}, {"channels": -1}, {"widths": ()}, {"outputs": 0}):
        with pytest.raises(ValueError, match="positional"):
            PositionalConfig(**bad)


def measured(q, values, weight=None, **options):
    values, weight = jnp.asarray(values), None if weight is None else jnp.asarray(weight)
    return float(distortion(WEIGHTS, {}, q, INPUTS, values, weight, (2, 1), jax.random.key(0), **options))


@pytest.fixture(scope="module")
def certain():
    q = posterior(WEIGHTS, patches=2)
    q = q._replace(scale=0.0 * q.scale)
    return q, np.stack([WEIGHTS.values({}, mean, None, INPUTS) for mean in q.mean])


def test_distortion_is_the_mean_of_each_patch_and_their_sum(certain):
    q, exact = certain
    values = exact + np.array([0.1, 0.3], np.float32)[:, None, None]
    assert measured(q, values) == pytest.approx(0.01 + 0.09, rel=1e-3)
    assert measured(q, values, num_samples=3) == pytest.approx(0.1, rel=1e-3)
    one_channel = exact.copy()
    one_channel[0, :, 1] += 0.3
    assert measured(q, one_channel) == pytest.approx(0.03, rel=1e-3)


def test_weights_count_and_padding_has_no_say(certain):
    q, exact = certain
    values = exact + 0.1
    weight = np.ones((2, 16), np.float32)
    weight[0, 5:] = 0.0
    weight[1, :4] = 2.0
    assert measured(q, values, weight) == pytest.approx(0.01 * (5 + 20) / 16, rel=1e-3)
    values[0, 5:] = 1e3
    assert measured(q, values, weight) == pytest.approx(0.01 * (5 + 20) / 16, rel=1e-3)


@pytest.mark.slow
def test_more_samples_are_less_noise():
    q, values = posterior(WEIGHTS, scale=0.5), jnp.zeros((1, 16, 3))

    def estimates(number):
        keys = jax.random.split(jax.random.key(5), 400)

        def one(key):
            return distortion(WEIGHTS, {}, q, INPUTS, values, None, (1, 1), key, number)

        return np.asarray(jax.jit(jax.vmap(one))(keys), np.float64)

    few, more = estimates(1), estimates(8)
    assert few.mean() == pytest.approx(more.mean(), abs=5 * few.std() / 20)
    assert more.var() / few.var() == pytest.approx(1 / 8, rel=0.4)


@pytest.mark.parametrize("network", [WEIGHTS, pytest.param(PLUS, marks=pytest.mark.slow)], ids=["weights", "transformed"])
def test_gradients_of_the_loss_are_its_finite_differences(network):
    """Reparametrised: with a fixed key the loss is a smooth function of means and deviations."""
    with jax.enable_x64(True):
        shared, mean = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), network.init(jax.random.key(0)))
        shared = jax.tree.map(lambda a: a + 0.01, shared)
        exact = dataclasses.replace(network, field=dataclasses.replace(FIELD, sine="exact"))
        inputs, values = jnp.asarray(INPUTS, jnp.float64), jnp.full((2, 16, 3), 0.3)
        prior = Gaussian(jnp.zeros(network.size), jnp.ones(network.size))

        @jax.jit
        @jax.value_and_grad
        def loss(parts):
            q = Gaussian(*parts)
            error = distortion(exact, shared, q, inputs, values, None, (2, 1), jax.random.key(1), 2)
            return error + 1e-3 * jnp.sum(kl_nats(q, prior))

        rng = np.random.default_rng(0)
        parts = jnp.stack([mean, 1.1 * mean]), jnp.asarray(rng.uniform(0.01, 0.02, (2, network.size)))
        _, gradient = loss(parts)
        for which in range(2):
            for _ in range(3):
                direction = [jnp.zeros_like(part) for part in parts]
                direction[which] = jnp.asarray(rng.normal(size=parts[which].shape))
                ahead, behind = (tuple(p + t * d for p, d in zip(parts, direction, strict=True)) for t in (1e-7, -1e-7))
                expected = (float(loss(ahead)[0]) - float(loss(behind)[0])) / 2e-7
                found = sum(float(jnp.vdot(g, d)) for g, d in zip(gradient, direction, strict=True))
                assert found == pytest.approx(expected, rel=1e-4)

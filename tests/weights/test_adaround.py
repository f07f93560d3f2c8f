"""AdaRound against all roundings of small layers; where it starts, where it ends, and that it never loses to the nearest."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.weights.adaround import (
    AdaRoundConfig,
    adaround,
    annealed_beta,
    inverse_rectified_sigmoid,
    rectified_sigmoid,
    regulariser,
    round_layer,
    soft_levels,
)

LIMIT, ROWS = 7, 12
STEP = 0.1
CONFIG = AdaRoundConfig(num_steps=400, lr=3e-2, batch=0)


def linear(weights, x):
    return x @ weights[0] + weights[1]


def sine(weights, x):
    return jnp.sin(4.0 * linear(weights, x))


LAYERS = {"linear": linear, "sine": sine}


def layers_and_inputs(seed, fan_in=6, fan_out=1, n=64):
    """Levels of a layer and inputs that are strongly correlated, so that errors of weights can make up for one another."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(-5, 5, (fan_in + 1, fan_out)).astype(np.float32)
    x = rng.normal(size=(n, 1)) + 0.2 * rng.normal(size=(n, fan_in)) + 0.5
    return (levels[:-1], levels[-1]), x.astype(np.float32)


@pytest.fixture(scope="module")
def rounded():
    """Of each kind of layer, `ROWS` small ones: what was rounded and what came out."""

    def one(layer, levels, x):
        steps = (STEP, STEP)
        targets = layer(jax.tree.map(lambda level: level * STEP, levels), x)
        return round_layer(layer, levels, steps, x, targets, jax.random.key(0), CONFIG, LIMIT)

    rows = [layers_and_inputs(seed) for seed in range(ROWS)]
    levels, x = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    found = {name: jax.jit(jax.vmap(lambda a, b, f=layer: one(f, a, b)))(levels, x) for name, layer in LAYERS.items()}
    return levels, x, found


def test_the_stretched_sigmoid_reaches_both_ends_and_has_an_inverse():
    h = jnp.linspace(0.0, 1.0, 101)
    v = inverse_rectified_sigmoid(h)
    assert np.isfinite(v).all()
    np.testing.assert_allclose(rectified_sigmoid(v), h, atol=1e-6)
    np.testing.assert_array_equal(rectified_sigmoid(jnp.array([-3.0, 3.0])), [0.0, 1.0])
    # γ and ζ are -0.1 and 1.1: σ(0) = ½ stays where it is, and its slope is stretched by 1.2.
    np.testing.assert_allclose(jax.grad(rectified_sigmoid)(0.0), 1.2 * 0.25, rtol=1e-6)


def test_at_the_start_soft_weights_are_the_weights():
    levels = jnp.asarray(np.random.default_rng(0).uniform(-LIMIT, LIMIT, 200).astype(np.float32))
    start = inverse_rectified_sigmoid(levels - jnp.floor(levels))
    np.testing.assert_allclose(soft_levels(levels, start, LIMIT), levels, atol=1e-5)


def test_the_regulariser_vanishes_at_whole_levels_alone_and_sharpens():
    v = inverse_rectified_sigmoid(jnp.array([0.0, 0.5, 1.0]))
    for beta in (2.0, 20.0):
        np.testing.assert_allclose(regulariser(v, beta), [0.0, 1.0, 0.0], atol=1e-5)
    quarter = inverse_rectified_sigmoid(jnp.array([0.25]))
    np.testing.assert_allclose(regulariser(quarter, 2.0), 1 - 0.5**2, rtol=1e-5)
    np.testing.assert_allclose(regulariser(quarter, 20.0), 1 - 0.5**20, rtol=1e-5)
    assert np.isfinite(jax.grad(lambda x: regulariser(x, 20.0).sum())(v)).all()


def test_the_regulariser_sets_in_after_the_warm_start():
    config = AdaRoundConfig(num_steps=100, warm_start=0.2, beta_start=20.0, beta_end=2.0)
    beta, active = zip(*(annealed_beta(config, jnp.int32(step)) for step in (0, 19, 20, 60, 100)), strict=True)
    np.testing.assert_array_equal(active, [0, 0, 1, 1, 1])
    np.testing.assert_allclose(beta, [20, 20, 20, 11, 2], atol=1e-4)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_best_of_all_roundings_is_found_or_nearly(kind, rounded):
    levels, x, found = rounded
    hard, _, error, nearest_error = found[kind]
    layer = LAYERS[kind]
    best = []
    ups = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=7)))[:, :, None]
    for row in range(ROWS):
        kernel, bias = (part[row] for part in levels)
        targets = layer((kernel * STEP, bias * STEP), x[row])

        def error_of(up, kernel=kernel, bias=bias, targets=targets, row=row):
            weights = (jnp.floor(kernel) + up[:-1]) * STEP, (jnp.floor(bias) + up[-1]) * STEP
            return jnp.mean(jnp.square(layer(weights, x[row]) - targets))

        best.append(float(jax.vmap(error_of)(ups).min()))
        # What is reported is the error of what is returned.
        direct = jnp.mean(jnp.square(layer((hard[0][row] * STEP, hard[1][row] * STEP), x[row]) - targets))
        np.testing.assert_allclose(error[row], direct, rtol=1e-4)
    ratio, nearest_ratio = np.asarray(error) / best, np.asarray(nearest_error) / best
    assert (ratio > 0.999).all()
    assert (ratio <= nearest_ratio).all()
    # The best itself in most layers, and never far from it, where rounding to the nearest is ten times as bad and more.
    assert np.mean(ratio < 1.001) >= 0.5
    assert ratio.max() < 1.5
    assert np.sort(nearest_ratio)[-3:].min() > 10


@pytest.mark.parametrize("kind", LAYERS)
def test_levels_are_whole_next_to_the_weights_and_rounded_from_the_soft_ones(kind, rounded):
    levels, _, found = rounded
    hard, soft, *_ = found[kind]
    for before, whole, near in zip(levels, hard, soft, strict=True):
        np.testing.assert_array_equal(whole, np.round(near))
        assert (np.abs(whole - before) < 1).all()
        assert (np.floor(before) <= near).all()
        assert (near <= np.floor(before) + 1).all()


def test_a_network_is_rounded_on_inputs_that_are_rounded_already():
    """Each layer's error is against the float network, on what reaches it through the layers rounded before."""
    (one, x), (two, _) = layers_and_inputs(0, 3, 4), layers_and_inputs(1, 4, 3)
    levels, steps = [one, two], [(STEP, STEP), (0.2, 0.1)]
    found = jax.jit(lambda a, b: adaround([sine, linear], a, steps, b, jax.random.key(0), CONFIG, LIMIT))(levels, x)
    scaled = lambda parts: [
        tuple(p * s for p, s in zip(part, step, strict=True)) for part, step in zip(parts, steps, strict=True)
    ]
    exact, approximate = x, x
    for layer, weights, rounded, error in zip([sine, linear], scaled(levels), scaled(found.hard), found.error, strict=True):
        exact, approximate = layer(weights, exact), layer(rounded, approximate)
        np.testing.assert_allclose(np.mean((exact - approximate) ** 2), error, rtol=1e-4)
    assert (found.error <= found.nearest_error).all()


def test_levels_stay_within_the_limit():
    levels = (jnp.array([[6.9, -7.0, 7.0, 6.6]], jnp.float32), jnp.zeros(4))
    x = jnp.ones((5, 1))
    # Targets far beyond what the grid reaches pull every weight outwards.
    hard, soft, *_ = round_layer(
        linear, levels, (STEP, STEP), x, 100.0 * jnp.sign(levels[0]) + 0 * x, jax.random.key(0), CONFIG, LIMIT
    )
    np.testing.assert_array_equal(hard[0], [[7, -7, 7, 7]])
    assert np.abs(soft[0]).max() <= LIMIT


def test_without_steps_rounding_is_to_the_nearest():
    (kernel, bias), x = jax.tree.map(jnp.asarray, layers_and_inputs(3))
    targets = linear((kernel * STEP, bias * STEP), x)
    config = AdaRoundConfig(num_steps=0)
    hard, soft, error, nearest_error = round_layer(
        linear, (kernel, bias), (STEP, STEP), x, targets, jax.random.key(0), config, LIMIT
    )
    np.testing.assert_array_equal(hard[0], np.round(kernel))
    np.testing.assert_allclose(soft[0], kernel, atol=1e-5)
    assert error == nearest_error > 0


def test_halves_go_to_even_as_on_every_grid():
    kernel, bias, x = jnp.array([[0.5], [1.5], [2.5], [-0.5]]), jnp.zeros(1), jnp.eye(4)
    targets = linear((jnp.array([[0.0], [2.0], [2.0], [0.0]]) * STEP, bias), x)
    config = AdaRoundConfig(num_steps=0)
    hard, *_, nearest_error = round_layer(linear, (kernel, bias), (STEP, STEP), x, targets, jax.random.key(0), config, LIMIT)
    np.testing.assert_array_equal(hard[0][:, 0], [0, 2, 2, 0])
    assert nearest_error == 0


@pytest.mark.parametrize(
    "wrong", [{"num_steps": -1}, {"lr": 0.0}, {"warm_start": 1.0}, {"beta_start": 1.0}, {"regularisation": -1.0}, {"batch": -2}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="adaround needs"):
        AdaRoundConfig(**wrong)

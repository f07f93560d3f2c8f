"""Volume rendering against what integrals say."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.fields import rendering
from vcinr.fields.field import FieldConfig, evaluate, make_field
from vcinr.fields.rendering import ball_span, colour, composite, density, depths_along, render, render_in_parts

RED = np.array([0.9, 0.2, 0.1])


def raw_of(sigma, shade):
    """What a field gives for these: the inverses of softplus and sigmoid."""
    inverse = np.log(np.expm1(sigma)) if sigma < 30 else sigma
    logit = np.log(shade / (1 - shade)) / rendering.COLOUR_GAIN + 0.5
    return np.append(logit, (inverse - rendering.DENSITY_BIAS) / rendering.DENSITY_GAIN)


def uniform(sigma):
    raw = raw_of(sigma, RED)
    return lambda points: jnp.broadcast_to(jnp.asarray(raw, points.dtype), (len(points), 4))


def rays_at(*offsets):
    """Rays along x that pass the centre at these distances."""
    return jnp.array([[-3.0, offset, 0.0, 1.0, 0.0, 0.0] for offset in offsets])


def test_rays_enter_and_leave_the_ball_where_geometry_says():
    origins = jnp.array([[-3.0, 0, 0], [-3.0, 0.6, 0], [-3.0, 2, 0], [0.0, 0, 0], [3.0, 0, 0]])
    near, far = ball_span(origins, jnp.tile(jnp.array([1.0, 0, 0]), (5, 1)))
    np.testing.assert_allclose(near, [2, 2.2, 3, 0, 0], atol=1e-6)
    np.testing.assert_allclose(far, [4, 3.8, 3, 1, 0], atol=1e-6)


@pytest.mark.parametrize("sigma", [0.01, 0.7, 5.0])
def test_uniform_density_absorbs_exponentially_however_many_samples(sigma):
    chord = 2 * np.sqrt(1 - np.array([0.0, 0.6, 0.99]) ** 2)
    seen = np.exp(-sigma * chord)[:, None]
    for count in (1, 7, 64):
        found = render(uniform(sigma), rays_at(0.0, 0.6, 0.99), count)
        np.testing.assert_allclose(found, (1 - seen) * RED + seen, atol=2e-6)


def test_a_slab_lets_through_what_its_thickness_says():
    colours = jnp.tile(jnp.asarray(RED), (1, 10, 1))
    depths = jnp.zeros((1, 10)).at[0, 3:7].set(0.25 * 1.5)
    _, rest = composite(colours, depths)
    np.testing.assert_allclose(rest, np.exp(-1.5), rtol=1e-6)


def test_what_stands_before_an_opaque_wall_hides_it_and_nothing_behind_shows():
    blue, depths = [0.0, 0.0, 1.0], jnp.array([[0.0, 1e30, 1e30], [0.0, 0.0, 80.0], [0.0, 0.0, 0.0]])
    found, rest = composite(jnp.tile(jnp.array([blue, RED.tolist(), blue]), (3, 1, 1)), depths)
    np.testing.assert_allclose(found, [RED, blue, [1, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(rest, [0, 0, 1], atol=1e-6)
    gradient = jax.grad(lambda d: composite(jnp.ones((3, 3, 3)) * 0.5, d)[0].sum())(depths)
    assert np.isfinite(gradient).all()


def test_an_untrained_field_is_nearly_empty():
    config = FieldConfig(coord_dim=3, channels=4, width=32, num_layers=3, latent_dim=8)
    field = make_field(config)
    params = field.init(jax.random.key(0), jnp.zeros((1, 3)), jnp.zeros(8))
    layers = field.apply(params, jnp.zeros(8), method="layers")
    found = render(lambda points: evaluate(config, layers, points), rays_at(0.0, 0.3, 0.6), 32)
    assert found.min() > 0.9


def test_values_of_a_field_become_colours_and_densities():
    assert density(jnp.array([0.5]))[0] == pytest.approx(0.0486, rel=1e-2)
    assert (density(jnp.array([-1e3, 0.0, 1e3])) >= 0).all() and np.isfinite(density(jnp.array([1e3]))).all()
    np.testing.assert_allclose(colour(jnp.array([[0.5, 0.51, 1e3]])), [[0.5, 0.51, 1]], atol=1e-5)


def blob(points):
    """A soft ball off the centre, coloured by place."""
    nearness = jnp.exp(-6 * jnp.sum(jnp.square(points - 0.2), axis=-1, keepdims=True))
    return jnp.concatenate([0.5 + 0.3 * jnp.sin(3 * points), 0.5 + nearness], axis=-1)


@pytest.mark.slow
def test_more_samples_converge_and_the_middles_do_so_in_second_order():
    rays = rays_at(0.0, 0.2, 0.5)
    with jax.enable_x64(True):
        exact, *found = (np.asarray(render(blob, jnp.asarray(np.asarray(rays), jnp.float64), n)) for n in (4096, 8, 16, 32, 64))
    errors = [np.abs(each - exact).max() for each in found]
    assert all(finer < 0.35 * coarser for coarser, finer in itertools.pairwise(errors)), errors
    assert errors[2] < 2e-3


@pytest.mark.slow
def test_random_places_lie_in_their_intervals_and_give_the_same_mean():
    near, far = jnp.array([1.0, 2.0]), jnp.array([3.0, 2.5])
    distances, width = depths_along(near, far, 5, jax.random.key(1))
    number = np.floor((distances - near[:, None]) / width[:, None])
    np.testing.assert_array_equal(number, np.tile(np.arange(5), (2, 1)))
    keys = jax.random.split(jax.random.key(0), 400)
    mean = jax.vmap(lambda key: render(blob, rays_at(0.1), 32, key))(keys).mean(axis=0)
    np.testing.assert_allclose(mean, render(blob, rays_at(0.1), 1024), atol=4e-3)


def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        rays = jnp.asarray(np.asarray(rays_at(0.0, 0.4)), jnp.float64)
        weights = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), jnp.float64)

        def loss(w):
            return jnp.sum(jnp.square(render(lambda points: blob(points) + jnp.tanh(points @ w), rays, 16) - 0.3))

        gradient = jax.grad(loss)(weights)
        for i, j in ((0, 0), (2, 3), (1, 3)):
            step = jnp.zeros((3, 4)).at[i, j].set(1e-5)
            assert gradient[i, j] == pytest.approx(float((loss(weights + step) - loss(weights - step)) / 2e-5), rel=1e-6)


@pytest.mark.slow
def test_parts_are_the_whole_and_so_are_their_gradients():
    rays = rays_at(*np.linspace(-1.2, 1.2, 11))

    def loss(scale, at_once):
        return jnp.sum(jnp.square(render_in_parts(lambda points: scale * blob(points), rays, 8, at_once)))

    np.testing.assert_allclose(render_in_parts(blob, rays, 8, 4), render(blob, rays, 8), atol=1e-6)
    for at_once in (1, 4, 11):
        assert jax.grad(loss)(1.0, at_once) == pytest.approx(float(jax.grad(loss)(1.0, 100)), rel=1e-5)

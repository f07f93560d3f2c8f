"""Divergences against integrals and closed forms; the best prior against all its neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from vcinr.posterior.gaussians import SMALLEST_SCALE, Gaussian, best_prior, draw, kl_nats, positive, unconstrained


def kl(mean, scale, prior_mean=0.0, prior_scale=1.0):
    with jax.enable_x64(True):
        arrays = (jnp.asarray(a, jnp.float64) for a in (mean, scale, prior_mean, prior_scale))
        q_mean, q_scale, p_mean, p_scale = arrays
        return np.asarray(kl_nats(Gaussian(q_mean, q_scale), Gaussian(p_mean, p_scale)))


@pytest.mark.parametrize(
    ("q", "p", "nats"),
    [
        ((0.7, 0.3), (0.7, 0.3), 0.0),
        ((2.5, 0.5), (2.0, 0.5), 0.5),
        ((0.0, 1.0), (0.0, 2.0), np.log(2) - 3 / 8),
        ((0.0, 2.0), (0.0, 1.0), 3 / 2 - np.log(2)),
        ((-3.0, 1.0), (3.0, 1.0), 18.0),
    ],
)
def test_divergences_by_hand(q, p, nats):
    assert kl(*q, *p) == pytest.approx(nats, abs=1e-12)


@pytest.mark.parametrize(("q", "p"), [((0.3, 0.4), (-0.5, 1.3)), ((1.0, 2.0), (0.9, 0.7))])
def test_a_divergence_is_the_integral(q, p):
    def integrand(x):
        return stats.norm.pdf(x, *q) * (stats.norm.logpdf(x, *q) - stats.norm.logpdf(x, *p))

    expected, _ = integrate.quad(integrand, q[0] - 12 * q[1], q[0] + 12 * q[1], epsabs=1e-12)
    assert kl(*q, *p) == pytest.approx(expected, abs=1e-9)


def test_divergences_are_never_negative_and_go_entry_by_entry():
    rng = np.random.default_rng(0)
    mean, p_mean = rng.normal(size=(2, 500))
    scale, p_scale = np.exp(rng.normal(size=(2, 500)))
    found = kl(mean, scale, p_mean, p_scale)
    assert found.shape == (500,)
    assert found.min() >= 0
    assert kl(mean[7], scale[7], p_mean[7], p_scale[7]) == found[7]


@pytest.fixture(scope="module")
def posteriors():
    rng = np.random.default_rng(1)
    return Gaussian(rng.normal(2.0, 0.5, (9, 4)), np.exp(rng.normal(-1.0, 0.7, (9, 4))))


def test_the_best_prior_is_that_of_equation_3_8(posteriors):
    """Mean of the means; mean of the variances plus variance of the means."""
    prior = best_prior(posteriors)
    np.testing.assert_allclose(prior.mean, posteriors.mean.mean(0), rtol=1e-6)
    expected = np.sqrt((posteriors.scale**2).mean(0) + posteriors.mean.var(0))
    np.testing.assert_allclose(prior.scale, expected, rtol=1e-6)
    assert (prior.mean.dtype, prior.scale.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("change", [0.02, -0.02])
@pytest.mark.parametrize("what", ["mean", "scale"])
def test_no_neighbour_of_the_best_prior_is_better(posteriors, what, change):
    prior = best_prior(posteriors)
    other = prior._replace(**{what: getattr(prior, what) * (1 + change)})
    best, worse = (kl(*posteriors, *p).mean(0) for p in (prior, other))
    assert (worse > best).all()


def test_a_prior_of_equal_and_certain_posteriors_still_has_a_density():
    prior = best_prior(Gaussian(np.full((5, 2), 0.1), np.zeros((5, 2))))
    np.testing.assert_array_equal(prior.scale, np.float32(SMALLEST_SCALE))
    assert np.isfinite(1 / prior.scale).all()


def test_deviations_survive_the_way_to_unconstrained_numbers_and_back():
    scale = np.geomspace(1e-6, 10, 200)
    np.testing.assert_allclose(positive(unconstrained(scale)), scale, rtol=5e-6)
    assert float(positive(jnp.float32(0))) == pytest.approx(np.log(2) / 6)


def test_samples_have_the_posteriors_moments():
    q = Gaussian(jnp.array([1.0, -2.0]), jnp.array([0.5, 0.0]))
    samples = jax.vmap(lambda key: draw(key, q))(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(samples.mean(0), q.mean, atol=0.04)
    np.testing.assert_allclose(samples.std(0), q.scale, atol=0.03)

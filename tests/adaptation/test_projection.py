"""Damped Gauss–Newton steps: least squares in closed form, invariance to scaling, and never a worse latent."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.adaptation.meta_learning import AdaptationConfig, nearest_latent, signal_loss
from vcinr.adaptation.projection import project
from vcinr.codecs import make_codec
from vcinr.codecs.latent_codec import LatentCodecConfig
from vcinr.fields.field import FieldConfig, make_field
from vcinr.modalities import MODALITIES


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    # Columns of sizes from 1 to 1000: gradient descent would need a million steps.
    matrix = rng.normal(size=(40, 5)) * np.array([1.0, 1000.0, 3.0, 100.0, 10.0])
    return jnp.asarray(matrix, jnp.float32), jnp.asarray(rng.normal(size=40), jnp.float32)


def test_a_linear_problem_ends_at_least_squares(problem):
    matrix, target = problem
    expected = np.linalg.lstsq(np.asarray(matrix, np.float64), np.asarray(target, np.float64), rcond=None)[0]
    latent, errors = project(lambda phi: matrix @ phi - target, jnp.zeros(5), 6)
    np.testing.assert_allclose(latent, expected, rtol=1e-3)
    np.testing.assert_allclose(errors[-1], np.sum((matrix @ expected - target) ** 2), rtol=1e-5)


def test_the_first_step_has_the_stated_damping(problem):
    matrix, target = problem
    hessian = np.asarray(matrix.T @ matrix, np.float64)
    damped = hessian + 1e-2 * np.diag(np.diag(hessian))
    latent, _ = project(lambda phi: matrix @ phi - target, jnp.zeros(5), 1)
    np.testing.assert_allclose(latent, np.linalg.solve(damped, np.asarray(matrix.T @ target)), rtol=1e-3)


def test_units_of_the_latent_do_not_matter():
    def residuals(phi):
        return jnp.stack([jnp.sin(phi[0]) + phi[1] - 0.3, phi[0] * phi[1] - 0.2, jnp.exp(phi[1]) - 1.5])

    units = jnp.array([1e-2, 1e2])
    _, errors = project(residuals, jnp.array([0.5, 0.1]), 5)
    _, scaled = project(lambda phi: residuals(units * phi), jnp.array([0.5, 0.1]) / units, 5)
    np.testing.assert_allclose(scaled, errors, rtol=2e-3, atol=1e-6)


def test_errors_never_grow_and_nan_is_never_kept():
    def residuals(phi):
        # A Gauss–Newton step from 3 lands far below 0, where the logarithm is NaN.
        return jnp.log(phi) + 2.0

    latent, errors = project(residuals, jnp.array([3.0]), 25)
    assert np.isfinite(errors).all()
    assert (np.diff(np.asarray(errors)) <= 0).all()
    assert errors[0] == pytest.approx((np.log(3.0) + 2.0) ** 2, rel=1e-5), "the first step must have been refused"
    np.testing.assert_allclose(latent, np.exp(-2.0), rtol=1e-3)


def test_a_dimension_without_effect_stays():
    latent, _ = project(lambda phi: phi[:1] - 2.0, jnp.array([0.0, 7.0]), 5)
    np.testing.assert_allclose(latent, [2.0, 7.0], rtol=1e-4)


def test_a_sketch_changes_the_way_and_not_the_goal(problem):
    matrix, target = problem
    exact, _ = project(lambda phi: matrix @ phi - target, jnp.zeros(5), 10)

    def sketch(phi):
        return jnp.sqrt(2.0) * (matrix @ phi - target)[::2]

    latent, _ = project(lambda phi: matrix @ phi - target, jnp.zeros(5), 40, sketch=sketch)
    np.testing.assert_allclose(latent, exact, rtol=1e-2)
    misled, _ = project(sketch, jnp.zeros(5), 40)
    assert np.max(np.abs(misled / exact - 1)) > 0.05, "the sketch alone has another minimum, so this test can fail"


FIELD = FieldConfig(num_layers=3, width=16, latent_dim=8, hyper_width=16, hyper_depth=1)
CONFIG = LatentCodecConfig(patch=(4, 4), field=FIELD, adaptation=AdaptationConfig(projection_steps=6))


@pytest.fixture(scope="module")
def shared():
    """θ of a field whose gates matter from the start."""
    made = make_field(FIELD).init(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros(8))["params"]
    return {name: jax.tree.map(lambda x: 10.0 * x, part) if name.startswith("left") else part for name, part in made.items()}


def test_projection_recovers_a_signal_that_the_field_can_make(shared):
    coords = jnp.asarray(MODALITIES["picture"].coordinates(CONFIG.patch))
    true = 0.3 * jax.random.normal(jax.random.key(1), (8,))
    values = make_field(FIELD).apply({"params": shared}, coords, true)
    start = jnp.zeros(8)
    found = nearest_latent(CONFIG, shared, start, values)
    before, after = (float(signal_loss(CONFIG, shared, phi, values)) for phi in (start, found))
    assert after < 1e-5 * before


def test_padding_has_no_say(shared):
    values = jax.random.uniform(jax.random.key(2), (16, 3))
    weight = (jnp.arange(16) < 10).astype(jnp.float32)
    other = jnp.where(weight[:, None] > 0, values, 9.0)
    found = [nearest_latent(CONFIG, shared, jnp.zeros(8), rows, weight) for rows in (values, other)]
    np.testing.assert_array_equal(*found)


def test_sparse_latents_are_refused():
    with pytest.raises(ValueError, match="projection_steps is for field.modulation latent_shifts or low_rank_gates"):
        make_codec("mscn_structured", {"adaptation": {"projection_steps": 3, "learn_start": False}})


EVERY_CORE = """
import os, jax
jax.config.update("jax_num_cpu_devices", os.cpu_count())
import jax.numpy as jnp, numpy as np
from vcinr.adaptation.projection import project
from vcinr.devices import pmapped
rng = np.random.default_rng(0)
# Large enough for XLA to hand the products to its pool of threads.
first, second = (jnp.asarray(rng.normal(size=shape), jnp.float32) / 8 for shape in ((64, 64), (64, 3072)))
targets = jnp.asarray(rng.normal(size=(8 * os.cpu_count(), 3072)), jnp.float32)
solve = pmapped(jax.vmap(lambda target: project(lambda phi: jnp.tanh(phi @ first) @ second - target, jnp.zeros(64), 20)[1]))
errors = np.asarray(solve(targets))
assert (errors[:, -1] < np.sum(np.square(targets), axis=1)).all()
"""


def test_every_core_a_device_does_not_stand_still():
    """Nothing in a step waits for another thread of the pool whose threads are all busy with steps."""
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    subprocess.run([sys.executable, "-c", EVERY_CORE], env=environment, check=True, timeout=120)

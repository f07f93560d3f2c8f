"""Long fits against closed forms and optax; interrupted ones against uninterrupted ones, bit for bit."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vcinr.adaptation import long_fit as module
from vcinr.adaptation.long_fit import OptimiserSpec, overfit

ADAM = OptimiserSpec(0.1)


def least_squares(config, matrix, x, target, step):
    del config, step
    return jnp.mean(jnp.square(matrix @ x["x"] - target))


def chosen_otherwise(config, shared, x, target, step):
    """Chosen by the distance to 0, minimised by that to the target."""
    del config, shared, step
    return jnp.square(x), jnp.square(x - target)


def logarithm(config, shared, x, data, step):
    del config, shared, data, step
    return jnp.log(x)


def problem(rows=3, n=12, k=5, seed=0):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, k)).astype(np.float32)
    return matrix, {"x": np.zeros((rows, k), np.float32)}, rng.normal(size=(rows, n)).astype(np.float32)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, tuple(one), tuple(other))


def test_a_linear_problem_ends_at_its_optimum():
    matrix, start, targets = problem()
    found = overfit(least_squares, None, matrix, start, targets, OptimiserSpec(0.1, "cosine"), 2000)
    best = np.linalg.lstsq(matrix.astype(float), targets.T.astype(float), rcond=None)[0].T
    np.testing.assert_allclose(found.params["x"], best, atol=1e-4)
    np.testing.assert_allclose(found.loss, np.mean((best @ matrix.T - targets) ** 2, axis=1), rtol=1e-5)
    assert found.losses.shape == (3, 8)
    np.testing.assert_array_equal(found.losses[:, -1], found.loss)
    assert (np.diff(found.losses) <= 0).all()


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_best_of_optax_own_trajectory_is_kept(schedule):
    """At a rate far too high, which is best neither at the start nor at the end."""
    matrix, start, targets = problem(rows=2)
    found = overfit(least_squares, None, matrix, start, targets, OptimiserSpec(1.0, schedule, 0.5), 30, chunk_steps=7)
    rate = 1.0 if schedule == "constant" else optax.cosine_decay_schedule(1.0, 29, 0.5)
    adam = optax.adam(rate)
    for row in range(2):
        x, losses, trajectory = {"x": jnp.zeros(5)}, [], []
        state = adam.init(x)
        for _ in range(31):
            loss, gradient = jax.value_and_grad(lambda x, row=row: least_squares(None, matrix, x, targets[row], 0))(x)
            losses.append(float(loss))
            trajectory.append(x["x"])
            updates, state = adam.update(gradient, state)
            x = optax.apply_updates(x, updates)
        best = int(np.argmin(losses))
        assert 0 < best < 30 or schedule == "cosine"
        np.testing.assert_allclose(found.params["x"][row], trajectory[best], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.loss[row], losses[best], rtol=1e-4)
        np.testing.assert_allclose(found.losses[row], np.minimum.accumulate(losses)[[6, 13, 20, 27, 30]], rtol=1e-4)


def test_the_result_of_the_last_step_is_looked_at():
    targets = np.array([2.0, -3.0], np.float32)
    for steps in (0, 1):
        found = overfit(least_squares, None, np.eye(1, dtype=np.float32), {"x": np.zeros((2, 1))}, targets[:, None], ADAM, steps)
        np.testing.assert_allclose(found.params["x"][:, 0], steps * np.array([0.1, -0.1]), rtol=1e-5)
        np.testing.assert_allclose(found.loss, (targets - found.params["x"][:, 0]) ** 2, rtol=1e-5)


def test_what_is_chosen_by_may_differ_from_what_is_minimised():
    start, targets = np.array([-1.0, 2.0], np.float32), np.array([1.0, 3.0], np.float32)
    found = overfit(chosen_otherwise, None, {}, start, targets, ADAM, 100)
    # The first passes zero on its way to its target, the second moves away from it from the first step on.
    assert abs(found.params[0]) < 0.06
    np.testing.assert_array_equal(found.params[1], 2.0)


def test_a_signal_does_not_depend_on_its_neighbours():
    matrix, start, targets = problem()
    cosine = OptimiserSpec(0.1, "cosine")
    first = overfit(least_squares, None, matrix, start, targets, cosine, 500)
    targets[1] *= 1e6
    second = overfit(least_squares, None, matrix, start, targets, cosine, 500)
    for row in (0, 2):
        np.testing.assert_array_equal(first.params["x"][row], second.params["x"][row])
        alone = overfit(least_squares, None, matrix, {"x": start["x"][:1]}, targets[row : row + 1], cosine, 500)
        np.testing.assert_allclose(alone.params["x"][0], first.params["x"][row], atol=1e-4)


def test_the_length_of_chunks_changes_nothing():
    matrix, start, targets = problem()
    whole = overfit(least_squares, None, matrix, start, targets, ADAM, 40)
    for chunk in (1, 7, 40):
        pieces = overfit(least_squares, None, matrix, start, targets, ADAM, 40, chunk_steps=chunk)
        same(whole[:2], pieces[:2])


class Killed(BaseException):
    """What no `except Exception` holds up."""


def test_a_fit_that_is_killed_goes_on_bit_for_bit(tmp_path, monkeypatch):
    matrix, start, targets = problem()
    arguments = (least_squares, None, matrix, start, targets, OptimiserSpec(0.1, "cosine"), 50)
    whole = overfit(*arguments, chunk_steps=10)
    for kill_at in (10, 30):
        heard = []

        def progress(name, done, total, heard=heard, kill_at=kill_at):
            heard.append((name, done, total))
            if done == kill_at:
                raise Killed

        folder = tmp_path / str(kill_at)
        with pytest.raises(Killed):
            overfit(*arguments, chunk_steps=10, workdir=folder, name="one", progress=progress)
        assert heard == [("one", done, 50) for done in range(0, kill_at + 1, 10)]
        heard.clear()
        resumed = overfit(*arguments, chunk_steps=10, workdir=folder, name="one", progress=lambda *call, h=heard: h.append(call))
        assert heard == [("one", done, 50) for done in range(kill_at, 51, 10)]
        same(whole, resumed)
    # What is finished is read, not fitted again.
    monkeypatch.setattr(module, "_compiled", None)
    same(whole, overfit(*arguments, chunk_steps=10, workdir=folder, name="one"))


def test_fits_that_differ_in_anything_have_checkpoints_of_their_own(tmp_path, monkeypatch):
    matrix, start, targets = problem()

    def again(config=None, matrix=matrix, start=start, targets=targets, optimiser=ADAM, steps=5, **options):
        return overfit(least_squares, config, matrix, start, targets, optimiser, steps, workdir=tmp_path, **options)

    first = again()
    (own,) = tmp_path.iterdir()
    assert re.fullmatch(r"fit_[0-9a-f]{12}\.safetensors", own.name)
    kept = own.read_bytes()
    others = [
        {"config": 1},
        {"matrix": matrix * np.float32(1.0001)},
        {"start": {"x": start["x"] + 1}},
        {"targets": targets[:2], "start": {"x": start["x"][:2]}},
        {"targets": targets * 2},
        {"optimiser": OptimiserSpec(0.2)},
        {"steps": 6},
        {"chunk_steps": 2},
    ]
    for number, other in enumerate(others, 2):
        again(**other)
        assert len(list(tmp_path.iterdir())) == number
    # Numbers of another release of this module or of JAX are those of another fit.
    for thing, name, value in ((module, "FIT_VERSION", module.FIT_VERSION + 1), (jax, "__version__", "0.0")):
        with monkeypatch.context() as patch:
            patch.setattr(thing, name, value)
            again()
        number += 1
        assert len(list(tmp_path.iterdir())) == number
    assert own.read_bytes() == kept
    same(first, again())
    again(targets=targets * 2, name="another")
    own.write_bytes(next(tmp_path.glob("another_*")).read_bytes())
    with pytest.raises(ValueError, match=r"\.safetensors is a checkpoint of another fit .*: remove it"):
        again()
    own.write_bytes(b"cut short")
    with pytest.raises(ValueError, match="damaged"):
        again()


def test_a_loss_that_is_not_finite_names_its_signal_and_step():
    start, data = np.array([5.0, 0.25, 9.0], np.float32), np.zeros(3, np.float32)
    # Adam goes down by 0.1 a step: 0.25, 0.15, 0.05, and then there is no logarithm.
    with pytest.raises(ValueError, match=r"the fit of signal 1 has diverged: its loss at step 3 is not finite; lower .* 0\.1$"):
        overfit(logarithm, None, {}, start, data, ADAM, 20)
    with pytest.raises(ValueError, match="signal second has diverged"):
        overfit(logarithm, None, {}, start, data, ADAM, 20, labels=["first", "second", "third"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"x": np.zeros((2, 5))}}, "the same number of rows"),
        ({"data": np.float32(0)}, "one row per signal"),
        ({"params": {"x": np.zeros((0, 5))}, "data": np.zeros((0, 12))}, "one row per signal"),
        ({"num_steps": -1}, "num_steps ≥ 0"),
        ({"num_steps": 2**31 - 1}, "fewer than 2147483647 steps"),
        ({"num_steps": 2**40}, "lower num_steps or the effort"),
        ({"loss": lambda config, shared, x, data, step: x["x"]}, r"must be a scalar, not of shape \(5,\)"),
    ],
)
def test_bad_arguments_are_told(change, message):
    matrix, start, targets = problem()
    arguments = {"loss": least_squares, "config": None, "shared": matrix, "params": start, "data": targets}
    with pytest.raises(ValueError, match=message):
        overfit(**arguments | {"optimiser": ADAM, "num_steps": 3} | change)


def test_a_wrong_optimiser_is_told():
    with pytest.raises(ValueError, match="unknown schedule 'linear'; valid are constant, cosine"):
        OptimiserSpec(schedule="linear")
    for lr in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            OptimiserSpec(lr)
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"final_fraction lies in 0\.\.1"):
            OptimiserSpec(final_fraction=fraction)


DEVICES = """
import numpy as np, jax
from tests.adaptation.test_long_fit import ADAM, least_squares, module, overfit, problem
used, put = [], module.shard_batch
module.shard_batch = lambda tree, mesh: (used.append(mesh.size), put(tree, mesh))[1]
matrix, start, targets = problem()
found = overfit(least_squares, None, matrix, start, targets, ADAM, 50)
alone = overfit(least_squares, None, matrix, {"x": start["x"][:1]}, targets[:1], ADAM, 50)
np.testing.assert_allclose(alone.params["x"][0], found.params["x"][0], atol=1e-4)
print(jax.device_count(), used[0], used[-1], *found.params["x"].ravel(), *found.loss)
"""


def test_three_signals_on_four_devices_are_as_on_one():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", DEVICES], cwd=root, env=environment, capture_output=True, text=True, check=True)
    count, of_three, of_one, *numbers = map(float, done.stdout.split())
    # No signal is fitted twice where there are more devices than signals.
    assert (count, of_three, of_one) == (4, 3, 1)
    matrix, start, targets = problem()
    found = overfit(least_squares, None, matrix, start, targets, ADAM, 50)
    np.testing.assert_allclose(numbers, [*found.params["x"].ravel(), *found.loss], rtol=1e-4, atol=1e-5)

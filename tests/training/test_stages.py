"""Steps: microbatches, devices and processes change nothing; faults are caught; memory stays flat."""

import dataclasses
import socket

import fakes
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr import devices
from vcinr.training import stages
from vcinr.training.optimisers import make_optimiser
from vcinr.training.state import COLLAPSED, HEALTHY, NON_FINITE, init_state, ramped_decay


def _start(stage, trainable=None):
    optimiser = make_optimiser(stage.training)
    trainable = {"w": jnp.zeros(8)} if trainable is None else trainable
    state = devices.replicate(init_state(stage.training, optimiser, trainable, jax.random.key(0)))
    return state, stages.make_step(stage, optimiser), {"target": np.arange(8.0, dtype=np.float32)}


def _batch(step, size=8):
    return fakes.Patches().batch(np.random.default_rng(step), size)


def test_devices_and_processes_change_nothing(tmp_path, start_worker, finish):
    """Eight devices, and two processes of two, end where one device does: latents, second-order gradient, parameters, states."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    workers = [
        start_worker("five_steps", tmp_path / "one.npz", x64=True),
        start_worker("five_steps", tmp_path / "eight.npz", num_devices=8, x64=True),
        *[start_worker("five_steps", tmp_path / f"p{i}.npz", f"localhost:{port}", 2, i, num_devices=2, x64=True) for i in (0, 1)],
    ]
    for worker in workers:
        finish(worker)
    one = np.load(tmp_path / "one.npz")
    assert {"latents", "gradient/log_step", "params/latent", "average/out", "signals/0", "shared/0"} <= set(one.files)
    for name in ("eight", "p0", "p1"):
        other = np.load(tmp_path / f"{name}.npz")
        for key in one.files:
            np.testing.assert_allclose(other[key], one[key], rtol=1e-10, atol=1e-14, err_msg=f"{name}: {key}")


def test_gradient_is_the_plain_one():
    """The accumulated, averaged gradient is jax.grad of the mean loss, with example i's key folded from i."""
    stage = fakes.maml_stage(dataclasses.replace(fakes.CONFIG, microbatch=2))
    trainable, batch, key = fakes.maml_init(jax.random.key(1), None, None), _batch(0), jax.random.key(7)

    keys = jnp.stack([jax.random.fold_in(key, i) for i in range(8)])

    def plain(trainable):
        return jnp.mean(jax.vmap(lambda v, k: fakes.maml_loss(trainable, {}, {"values": v}, k)[0])(batch["values"], keys))

    def accumulated(trainable, batch):
        return stages.mean_gradient(stage, trainable, {}, batch, key)[0]

    found = devices.pmapped(accumulated, (None, 0), None)(trainable, batch)
    for name, expected in jax.jit(jax.grad(plain))(trainable).items():
        np.testing.assert_allclose(found[name], expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("share", "microbatch", "size"), [(8, 0, 8), (8, 4, 4), (8, 16, 8), (6, 4, 3), (7, 4, 1), (1, 3, 1)])
def test_microbatch_size(share, microbatch, size):
    assert stages.microbatch_size(share, microbatch) == size


def test_microbatches_are_the_whole_batch_in_float64():
    with jax.enable_x64(True):
        ends = []
        for microbatch in (0, 2):
            config = dataclasses.replace(fakes.CONFIG, microbatch=microbatch)
            stage = fakes.maml_stage(config)
            trainable = jax.tree.map(lambda x: x.astype(jnp.float64), fakes.maml_init(jax.random.key(1), None, None))
            state, step, frozen = _start(stage, trainable)
            for index in range(3):
                values = fakes.Patches(np.float64).batch(np.random.default_rng(index), 8)
                state, metrics = step(state, frozen, values)
            assert metrics["loss"].dtype == jnp.float64
            ends.append(jax.device_get(state.params))
        for name, expected in ends[0].items():
            np.testing.assert_allclose(ends[1][name], expected, rtol=1e-10)


def test_memory_grows_with_neither_batch_nor_microbatches():
    """XLA's own count of scratch memory: flat in the batch at a fixed microbatch, steep without microbatches."""

    def wide_loss(trainable, frozen, example, key):
        hidden = jnp.tanh(example["values"][:, None] * trainable["w"][None, :])
        return jnp.mean(jnp.sin(hidden @ hidden.T) ** 2), {}

    def scratch_bytes(batch_size, microbatch):
        config = dataclasses.replace(fakes.CONFIG, batch_size=batch_size, microbatch=microbatch)
        stage = fakes.make_stage(config=config, loss=wide_loss)
        state, step, frozen = _start(stage, {"w": jnp.ones(64)})
        batch = {"values": np.zeros((batch_size, 64), np.float32)}
        return step.lower(state, frozen, batch).compile().memory_analysis().temp_size_in_bytes

    small = scratch_bytes(4, 2)
    assert scratch_bytes(64, 2) <= small + 4096
    assert scratch_bytes(64, 0) > 8 * small


def test_a_non_finite_update_is_skipped_and_marked():
    """NaN in one example of one batch: nothing moves in that update, the first such step is named and stays named."""

    def loss(trainable, frozen, example, key):
        return jnp.sum(trainable["w"] * example["values"]) ** 2 + 1.0, {}

    state, step, frozen = _start(fakes.make_stage(loss=loss), {"w": jnp.ones(8)})
    for index in range(5):
        batch = _batch(index)
        if index in (2, 4):
            batch["values"][3, 0] = np.nan
        before = jax.device_get({"p": state.params, "o": state.opt_state, "a": state.aux["average"]})
        state, _ = step(state, frozen, batch)
        after = jax.device_get({"p": state.params, "o": state.opt_state, "a": state.aux["average"]})
        same = all(jax.tree.leaves(jax.tree.map(np.array_equal, before, after)))
        assert same == (index in (2, 4))
        assert int(state.aux["fault"]) == (NON_FINITE if index >= 2 else HEALTHY)
    assert int(state.aux["fault_step"]) == 3
    assert int(state.step) == 5
    assert np.isfinite(state.aux["smoothed_loss"])


def test_a_collapse_is_marked():
    """A loss of 1 that becomes 4 (6 dB) after 30 steps; smoothing delays the mark by some steps, noise never sets it."""

    def loss(trainable, frozen, example, key):
        return example["values"][0] + 0.0 * jnp.sum(trainable["w"]), {}

    def run(config, late):
        state, step, frozen = _start(fakes.make_stage(loss=loss, config=config))
        for index in range(45):
            level = late if index >= 30 else (1.0 if index % 2 else 1.2)
            state, _ = step(state, frozen, {"values": np.full((8, 8), level, np.float32)})
        return int(state.aux["fault"]), int(state.aux["fault_step"])

    kind, at = run(fakes.CONFIG, late=4.0)
    assert kind == COLLAPSED
    assert 31 < at < 45
    assert run(fakes.CONFIG, late=1.5) == (HEALTHY, 0)
    assert run(dataclasses.replace(fakes.CONFIG, collapse_db=0.0), late=4.0) == (HEALTHY, 0)


def test_parameter_average_follows_its_ramp():
    """Against the recursion written out; with decay 0 there is no average and the parameters themselves are kept."""
    config = dataclasses.replace(fakes.CONFIG, average_decay=0.3)
    state, step, frozen = _start(fakes.make_stage(config=config))
    average = np.zeros(8)
    for index in range(6):
        state, _ = step(state, frozen, _batch(index))
        decay = min(0.3, (1 + index) / (10 + index))
        average = decay * average + (1 - decay) * np.asarray(state.params["w"])
    np.testing.assert_allclose(state.evaluated_params["w"], average, rtol=1e-5)
    assert float(ramped_decay(0.999, jnp.int32(0))) == pytest.approx(0.1)
    assert float(ramped_decay(0.999, jnp.int32(10**6))) == pytest.approx(0.999)

    state, step, frozen = _start(fakes.make_stage(config=dataclasses.replace(config, average_decay=0.0)))
    state, _ = step(state, frozen, _batch(0))
    assert "average" not in state.aux
    assert state.evaluated_params is state.params


def test_lr_scale_scales_the_update_without_compiling_again():
    state, step, frozen = _start(fakes.make_stage())
    halved = state.replace(aux={**state.aux, "lr_scale": state.aux["lr_scale"] / 2})
    halved = jax.tree.map(jnp.array, halved)
    whole, _ = step(state, frozen, _batch(0))
    half, _ = step(halved, frozen, _batch(0))
    np.testing.assert_allclose(2 * half.params["w"], whole.params["w"], rtol=1e-6)
    assert float(jnp.abs(whole.params["w"]).max()) > 0


def test_validation_is_the_mean_over_its_fixed_examples():
    """The same examples each time, whatever the microbatch; a linear model without noise has a closed form."""

    def loss(trainable, frozen, example, key):
        return jnp.dot(example["values"], trainable["w"]) ** 2, {"first": example["values"][0]}

    stage = fakes.make_stage(loss=loss, config=dataclasses.replace(fakes.CONFIG, microbatch=4))
    validate = stages.make_validation(stage, {}, fakes.Patches(), 16)
    values = fakes.Patches().batch(np.random.default_rng(0), 16)["values"]
    weights = np.linspace(-1, 1, 8).astype(np.float32)
    for _ in range(2):
        found = validate({"w": weights})
        assert found["loss"] == pytest.approx(np.mean((values @ weights) ** 2), rel=1e-5)
        assert found["first"] == pytest.approx(values[:, 0].mean(), rel=1e-5)

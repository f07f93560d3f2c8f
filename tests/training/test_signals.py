"""State per signal and updates on the host: a known optimum, paths of single signals, faults, resuming."""

import dataclasses
import json

import fakes
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vcinr import devices
from vcinr.datasets.sources import ArraySource
from vcinr.training import signals, stages
from vcinr.training.host_update import with_host_update
from vcinr.training.loop import run_stage
from vcinr.training.optimisers import make_optimiser
from vcinr.training.state import HEALTHY, NON_FINITE, init_state


class Values:
    """A fixed set of signals, whatever the generator; some may be spoilt."""

    def __init__(self, values):
        self.values = values

    def batch(self, rng, size):
        return {"values": self.values[:size]}


class Interrupted(Exception):
    pass


def _draws(n=20, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(1.0, 1.5, size=(n, 3)).astype(dtype)


def _run(stage, values, workdir, **kwargs):
    return run_stage(stage, {}, Values(values), seed=3, workdir=workdir, index=1, **kwargs)


def _start(stage, values):
    """(state, step, source) of a stage before its first update."""
    source = stage.examples({}, Values(values))
    optimiser = make_optimiser(stage.training)
    start = stage.init(None, {}, source)
    states = signals.init_signals(stage, stage.per_signal.init(jax.random.key(5), {}, source))
    state = init_state(stage.training, optimiser, start, jax.random.key(0), signals=states)
    return devices.replicate(state), stages.make_step(stage, optimiser), source


def _rows(source, *index):
    return {name: array[list(index)] for name, array in source.arrays.items()} | {"index": np.array(index, np.int32)}


def test_posteriors_and_prior_reach_the_known_optimum(tmp_path):
    """Signals x ~ N(μ, τ² + σ²): the prior ends at their mean and variance less σ², the posteriors at Bayes' rule.

    Guo 2023, algorithm 1, on a linear Gaussian model: coordinate descent is then EM, whose fixed point is known.
    """
    values = _draws(32)
    config = dataclasses.replace(fakes.CONFIG, num_steps=800, batch_size=8, average_decay=0.9, log_every=100, checkpoint_every=0)
    stage = fakes.posterior_stage(
        config, fakes.exact_negative_elbo, lr=optax.cosine_decay_schedule(0.1, 200), num_signals=32, every=16
    )
    found = _run(stage, values, tmp_path)["posteriors"]
    mean, variance = values.mean(0), values.var(0) - fakes.VARIANCE
    prior = found["shared"]["prior"]
    np.testing.assert_allclose(prior["mean"], mean, rtol=1e-3)
    np.testing.assert_allclose(np.exp(2 * prior["log_std"]), variance, rtol=2e-3)
    precision = 1 / fakes.VARIANCE + 1 / variance
    np.testing.assert_allclose(np.exp(-2 * found["own"]["log_std"]), np.broadcast_to(precision, values.shape), rtol=2e-3)
    best = (values / fakes.VARIANCE + mean / variance) / precision
    np.testing.assert_allclose(found["own"]["mean"], best, atol=5e-3)
    # The last update on the host is one of the last posteriors.
    expected, _ = fakes.closed_form_prior(found["shared"], found["own"], 800)
    np.testing.assert_array_equal(prior["mean"], expected["prior"]["mean"])


def test_an_epoch_is_every_signal_once_and_a_batch_never_has_one_twice():
    source = ArraySource({"a": np.arange(10), "b": 2.0 * np.arange(10)[:, None]})
    batches = [signals.epoch_batch(source, [1, 2, 0], step, 3) for step in range(300)]
    for batch in batches:
        assert batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["a"], batch["index"])
        np.testing.assert_array_equal(batch["b"][:, 0], 2 * batch["index"])
    epochs = np.array([batch["index"] for batch in batches]).reshape(100, 9)
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    counts = np.bincount(epochs.ravel(), minlength=10)
    assert counts.min() > 75  # 90 of 100 epochs on average, standard deviation 3
    assert not np.array_equal(epochs[0], epochs[1])
    again = signals.epoch_batch(source, [1, 2, 0], 7, 3)
    np.testing.assert_array_equal(again["index"], batches[7]["index"])
    assert not np.array_equal(signals.epoch_batch(source, [1, 2, 1], 7, 3)["index"], again["index"])


@pytest.mark.parametrize("microbatch", [0, 2])
def test_a_signals_gradient_is_that_of_its_own_loss(microbatch):
    """Not of the batch's mean, nor clipped: Adam's first moment after one update is a tenth of it."""
    stage = fakes.posterior_stage(dataclasses.replace(fakes.CONFIG, clip_norm=1e-3, microbatch=microbatch))
    state, step, source = _start(stage, _draws())
    before = jax.device_get(state)
    state, metrics = step(state, {}, _rows(source, 7, 2, 11, 5))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 11), 0)  # attempt, signal, updates
    own = jax.tree.map(lambda a: a[11], before.aux["signals"].values)
    example = {"values": source.arrays["values"][11]}
    gradient = jax.grad(lambda own: fakes.negative_elbo(before.params, {}, example, key, own)[0])(own)
    moments = state.aux["signals"].opt_state[0].mu
    for name in gradient:
        np.testing.assert_allclose(moments[name][11], 0.1 * gradient[name], rtol=1e-5)
    # What all share gets the gradient of the mean, and the metrics are means.
    losses = []
    for i in (7, 2, 11, 5):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), i), 0)
        own = jax.tree.map(lambda a, i=i: a[i], before.aux["signals"].values)
        example = {"values": source.arrays["values"][i]}
        losses.append(jax.value_and_grad(lambda s: fakes.negative_elbo(s, {}, example, key, own)[0])(before.params))  # noqa: B023
    assert float(metrics["loss"]) == pytest.approx(np.mean([loss for loss, _ in losses]), rel=1e-5)
    shared = np.mean([gradient["gain"] for _, gradient in losses], axis=0)
    assert float(metrics["grad_norm"]) == pytest.approx(np.linalg.norm(shared), rel=1e-5)
    assert float(jnp.abs(state.params["prior"]["mean"]).max()) == 0


def test_a_signals_path_does_not_depend_on_who_shares_its_batch():
    """Signal 3 after three updates: alone, with others, at other steps, in other microbatches and places, with noise."""
    paths = {
        "alone": [(3,), (3,), (3,)],
        "others": [(3, 1, 8, 9), (5, 4, 3, 2), (1, 3, 2, 0)],
        "later": [(1, 0), (3, 0), (2, 5), (3, 9), (1, 2), (7, 3)],
    }
    with jax.enable_x64(True):
        ends = {}
        for name, batches in paths.items():
            config = dataclasses.replace(fakes.CONFIG, microbatch=2)
            stage = fakes.posterior_stage(config, fakes.negative_elbo, lr=optax.linear_schedule(0.1, 0.01, 5))
            state, step, source = _start(stage, _draws(dtype=np.float64))
            before = jax.device_get(state.aux["signals"])
            shared = jax.device_get(state.params)
            for batch in batches:
                state, _ = step(state, {}, _rows(source, *batch))
                state = state.replace(params=devices.replicate(shared))  # what is shared would move with the others
            after = jax.device_get(state.aux["signals"])
            ends[name] = jax.tree.map(lambda a: a[3], after)
            assert after.updates.tolist() == np.bincount(np.concatenate(batches), minlength=20).tolist()
            for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
                untouched = after.updates == 0
                assert old[untouched].tobytes() == new[untouched].tobytes()
        assert int(ends["alone"].updates) == 3
        for name in ("others", "later"):
            for expected, found in zip(jax.tree.leaves(ends["alone"]), jax.tree.leaves(ends[name]), strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=name)


def test_a_non_finite_update_moves_no_signal():
    """NaN in one signal: no row of the batch moves, nor its moments and counts."""
    values = _draws()
    values[4] = np.nan
    state, step, source = _start(fakes.posterior_stage(), values)
    state, _ = step(state, {}, _rows(source, 1, 2))
    before = jax.device_get((state.params, state.aux["signals"]))
    state, _ = step(state, {}, _rows(source, 2, 4))
    after = jax.device_get((state.params, state.aux["signals"]))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert (int(state.aux["fault"]), int(state.aux["fault_step"])) == (NON_FINITE, 2)


def test_a_gradient_too_large_for_its_square_is_a_fault():
    """Adam would take a step of 0 and keep an infinite second moment for good."""

    def loss(shared, frozen, example, key, own):
        return 1e20 * jnp.sum(own["mean"]) + jnp.sum(shared["gain"]), {}

    state, step, source = _start(fakes.posterior_stage(loss=loss), _draws())
    state, _ = step(state, {}, _rows(source, 1, 2))
    assert int(state.aux["fault"]) == NON_FINITE
    assert np.all(np.isfinite(state.aux["signals"].opt_state[0].nu["mean"]))


def test_a_host_update_replaces_what_it_changes_in_the_average_too():
    stage = fakes.posterior_stage(dataclasses.replace(fakes.CONFIG, average_decay=0.9))
    state, step, source = _start(stage, _draws())
    for index in range(3):
        state, _ = step(state, {}, _rows(source, index, index + 1))
    moved = with_host_update(stage, state, 3, devices.all_devices_mesh())
    expected, _ = fakes.closed_form_prior({}, jax.device_get(state.aux["signals"].values), 3)
    for params in (moved.params, moved.aux["average"]):
        jax.tree.map(np.testing.assert_array_equal, params["prior"], expected["prior"])
    assert moved.params["gain"] is state.params["gain"]
    assert moved.aux["average"]["gain"] is state.aux["average"]["gain"]
    assert moved.aux["signals"].values["mean"] is state.aux["signals"].values["mean"]
    assert float(jnp.abs(state.aux["average"]["gain"] - state.params["gain"]).max()) > 0
    assert int(moved.aux["fault"]) == HEALTHY


def test_a_host_update_may_change_the_signals_and_keeps_dtypes():
    def halve(shared, own, step):
        return shared, {**own, "mean": 0.5 * own["mean"].astype(np.float64) + step}

    stage = fakes.posterior_stage(host_update=halve)
    state, _, _ = _start(stage, _draws())
    before = jax.device_get(state.aux["signals"])
    after = with_host_update(stage, state, 7, devices.all_devices_mesh()).aux["signals"]
    assert after.values["mean"].dtype == jnp.float32
    np.testing.assert_allclose(after.values["mean"], 0.5 * before.values["mean"] + 7, rtol=1e-6)
    np.testing.assert_array_equal(after.opt_state[0].mu["mean"], before.opt_state[0].mu["mean"])


def test_a_host_update_of_another_shape_or_in_place_is_refused():
    def cut(shared, own, step):
        return shared, {**own, "mean": own["mean"][1:]}

    def in_place(shared, own, step):
        own["mean"][:] = 0.0
        return shared, own

    state, _, _ = _start(fakes.posterior_stage(), _draws())
    mesh = devices.all_devices_mesh()
    with pytest.raises(ValueError, match=r"host_update of stage 'posteriors' must give back .*\(20, 3\).*\(19, 3\)"):
        with_host_update(fakes.posterior_stage(host_update=cut), state, 1, mesh)
    with pytest.raises(ValueError, match="must give back"):
        with_host_update(fakes.posterior_stage(host_update=lambda shared, own, step: shared), state, 1, mesh)
    with pytest.raises(ValueError, match="read-only"):
        with_host_update(fakes.posterior_stage(host_update=in_place), state, 1, mesh)


def test_a_host_update_may_put_new_arrays_into_the_dicts_that_it_got():
    def replace(shared, own, step):
        own["mean"] = np.full_like(own["mean"], step)
        return shared, own

    state, _, _ = _start(fakes.posterior_stage(), _draws())
    after = with_host_update(fakes.posterior_stage(host_update=replace), state, 7, devices.all_devices_mesh())
    np.testing.assert_array_equal(after.aux["signals"].values["mean"], np.full((20, 3), 7.0))


def test_a_host_update_without_state_per_signal(tmp_path):
    """Every 5 steps and after the last, with None for the signals."""
    seen = []

    def reset(trainable, own, step):
        seen.append((step, own))
        return {"w": np.full(8, step)}, None

    config = dataclasses.replace(fakes.CONFIG, num_steps=12, warmup_steps=2)
    stage = dataclasses.replace(fakes.make_stage(config=config), host_update=reset, host_update_every=5)
    result = run_stage(stage, {}, fakes.Patches(), seed=1, workdir=tmp_path, index=0)
    assert seen == [(5, None), (10, None), (12, None)]
    np.testing.assert_array_equal(result["fit"]["w"], np.full(8, 12.0))


def test_interrupted_thrice_and_resumed_is_never_interrupted(tmp_path):
    """Equal bits of what is shared, of every posterior and of the log: stopped before a checkpoint, at one, between two."""
    config = dataclasses.replace(fakes.CONFIG, checkpoint_every=4)
    stage = fakes.posterior_stage(config, every=3)
    whole = _run(stage, _draws(), tmp_path / "whole")
    for end in (3, 12, 27):

        def dying(shared, own, step, end=end):
            if step >= end:
                raise Interrupted
            return fakes.closed_form_prior(shared, own, step)

        with pytest.raises(Interrupted):
            _run(dataclasses.replace(stage, host_update=dying), _draws(), tmp_path / "parts")
    parts = _run(stage, _draws(), tmp_path / "parts")
    for one, two in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert one.tobytes() == two.tobytes()
    logs = [(tmp_path / name / "posteriors" / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    first, second = ([{**json.loads(line), "examples_per_s": 0} for line in log] for log in logs)
    assert first == second


def test_a_rollback_takes_signals_and_prior_back(tmp_path):
    """A host update that spoils step 15 once: back to step 10, its posteriors included, at half the step size."""
    spoilt = []
    states = {}

    def update(shared, own, step):
        states.setdefault(step, []).append(own["mean"].copy())
        shared, own = fakes.closed_form_prior(shared, own, step)
        if step == 15 and not spoilt:
            spoilt.append(step)
            shared["prior"]["mean"] = shared["prior"]["mean"] * np.nan
        return shared, own

    result = _run(fakes.posterior_stage(host_update=update), _draws(), tmp_path)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(result))
    lines = [json.loads(line) for line in (tmp_path / "posteriors" / "metrics.jsonl").read_text().splitlines()]
    (event,) = [line for line in lines if "event" in line]
    assert (event["step"], event["fault_step"], event["lr_scale"]) == (10, 15, 0.5)
    assert [line["step"] for line in lines if "event" not in line] == list(range(5, 41, 5))
    first, second = states[15]
    assert not np.array_equal(first, second)
    # Five steps of 8 signals from the same place: no more than three updates each, at half the step size.
    assert 0 < np.abs(second - states[10][0]).max() < 0.75 * np.abs(first - states[10][0]).max()


def test_validation_needs_an_evaluation_without_state(tmp_path):
    config = dataclasses.replace(fakes.CONFIG, eval_every=20, log_every=0)
    with pytest.raises(ValueError, match=r"held-out examples lack: set its eval_every to 0, or give it"):
        _run(fakes.posterior_stage(config), _draws(), tmp_path / "without", validation=Values(_draws(40, 1)))

    def evaluate(shared, frozen, example, key):
        return jnp.sum((example["values"] - shared["prior"]["mean"]) ** 2), {}

    stage = fakes.posterior_stage(config, evaluate=evaluate, num_signals=32)
    result = _run(stage, _draws(32), tmp_path, validation=Values(_draws(40, 1)))
    lines = [json.loads(line) for line in (tmp_path / "posteriors" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40]
    held_out = stage.examples({}, Values(_draws(40, 1))).batch(np.random.default_rng(0), 32)["values"]
    expected = np.mean(np.sum((held_out - result["posteriors"]["shared"]["prior"]["mean"]) ** 2, axis=1))
    assert lines[-1]["validation_loss"] == pytest.approx(expected, rel=1e-5)


def test_misfits_are_refused_with_their_mend(tmp_path):
    with pytest.raises(ValueError, match="5 signals for a batch of 8 different ones; lower its batch_size"):
        _run(fakes.posterior_stage(), _draws(5), tmp_path)
    with pytest.raises(ValueError, match="such as an ArraySource; its examples are a Values"):
        _run(fakes.posterior_stage(examples=lambda params, patches: patches), _draws(), tmp_path)
    source = ArraySource({"values": _draws(), "index": np.arange(20)})
    with pytest.raises(ValueError, match="rename that array"):
        _run(fakes.posterior_stage(examples=lambda params, patches: source), _draws(), tmp_path)
    stage = fakes.posterior_stage()
    for made, shape in (({"mean": jnp.zeros(3)}, r"of shape \(3,\)"), ({}, "without arrays")):
        wrong = dataclasses.replace(stage.per_signal, init=lambda key, params, source, made=made: made)
        with pytest.raises(ValueError, match=f"{shape}; it needs a leading axis of 20 signals"):
            _run(dataclasses.replace(stage, per_signal=wrong), _draws(), tmp_path)
    for changes in ({"host_update": None}, {"host_update_every": 0}):
        with pytest.raises(ValueError, match="give both, every at least 1, or neither"):
            dataclasses.replace(stage, **changes)

"""Checkpoints: bit-exact, loadable after a kill at any moment, wary of another environment."""

import dataclasses
import logging
import time

import fakes
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.provenance import differences, environment
from vcinr.training.checkpoints import Checkpoints
from vcinr.training.optimisers import make_optimiser
from vcinr.training.state import init_state, step_key


def _state(width=8, config=fakes.CONFIG):
    params = {"w": jnp.linspace(0, 1, width) / 3, "layers": [{"b": jnp.float16(0.1)}, {"b": jnp.arange(3)}]}
    state = init_state(config, make_optimiser(config), params, jax.random.key(123), attempt=2)
    return state.replace(step=jnp.int32(7))


def test_bits_types_and_keys_come_back(tmp_path):
    state = _state()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(state) is None
        checkpoints.save(state)
    with Checkpoints(tmp_path) as checkpoints:
        template = jax.tree.map(jnp.zeros_like, state)
        found = checkpoints.restore(template)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert jnp.array_equal(jax.random.key_data(step_key(found)), jax.random.key_data(step_key(state)))
    assert np.isinf(found.aux["best_loss"])


def test_only_the_last_few_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 5, 9):
            checkpoints.save(_state().replace(step=jnp.int32(step)))
        assert checkpoints.latest_step == 9
    assert sorted(p.name for p in tmp_path.iterdir()) == ["5", "9"]


def test_another_environment_is_warned_of(tmp_path, monkeypatch, caplog):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(_state())
        with caplog.at_level(logging.WARNING, "vcinr"):
            checkpoints.restore(_state())
            assert not caplog.records
            monkeypatch.setenv("XLA_FLAGS", "--another=1")
            monkeypatch.setattr("vcinr.provenance.jax.device_count", lambda: 77)
            checkpoints.restore(_state())
    (record,) = caplog.records
    assert "device_count: 1 → 77" in record.getMessage()
    assert "--another=1" in record.getMessage()
    assert "python" not in record.getMessage()


@pytest.mark.parametrize("other", ["shape", "tree", "dtype"])
def test_another_configuration_is_refused(tmp_path, other):
    state = _state()
    template = {
        "shape": lambda: _state(width=9),
        "tree": lambda: _state(config=dataclasses.replace(fakes.CONFIG, average_decay=0.0)),
        "dtype": lambda: state.replace(params={**state.params, "w": state.params["w"].astype(jnp.float16)}),
    }[other]()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state)
        with pytest.raises(ValueError, match=r"of another configuration .* start in an empty workdir"):
            checkpoints.restore(template)


def test_environment_names_what_bits_depend_on():
    found = environment()
    assert {"device_kind", "device_count", "cpu_count", "xla_flags", "python"} <= set(found)
    assert {"jax", "jaxlib", "flax", "optax", "numpy"} <= set(found)
    assert differences({"a": 1, "b": 2}, {"b": 3, "c": 4}) == {"a": (1, None), "b": (2, 3), "c": (None, 4)}


@pytest.mark.slow
def test_killed_while_saving(tmp_path, start_worker):
    """A process that does nothing but save, killed four times at random moments: the last checkpoint is always whole."""
    folder = tmp_path / "checkpoints"
    rng = np.random.default_rng(0)
    template = init_state(fakes.CONFIG, make_optimiser(fakes.CONFIG), {"w": np.zeros(4096)}, jax.random.key(0))
    before = 0
    for _ in range(4):
        worker = start_worker("save_forever", folder)
        deadline = time.monotonic() + 120
        while not any(int(p.name) > before for p in folder.glob("[0-9]*") if p.name.isdigit()):
            assert worker.poll() is None, worker.log_path.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        worker.kill()
        worker.wait()
        with Checkpoints(folder) as checkpoints:
            found = checkpoints.restore(template)
        assert int(found.step) > before
        np.testing.assert_array_equal(found.params["w"], np.full(4096, float(found.step)))
        before = int(found.step)

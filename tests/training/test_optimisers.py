"""The schedule's values, clipping, and multipliers by group."""

import dataclasses

import fakes
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.stage import TrainingConfig
from vcinr.training.optimisers import make_optimiser, make_schedule


def test_schedule_at_its_landmarks():
    schedule = make_schedule(TrainingConfig(num_steps=110, lr=0.2, warmup_steps=10, final_lr_fraction=0.05))
    rates = np.array([float(schedule(t)) for t in range(112)])
    np.testing.assert_allclose(rates[:11], 0.2 * np.arange(1, 12) / 11, rtol=1e-5)
    half_way = 0.2 * (0.05 + 0.95 * 0.5)
    np.testing.assert_allclose(rates[[60, 110, 111]], [half_way, 0.01, 0.01], rtol=1e-5)
    assert np.all(np.diff(rates[10:111]) < 0)


def test_no_warmup_starts_at_the_peak():
    assert float(make_schedule(TrainingConfig(num_steps=5, lr=0.2, warmup_steps=0))(0)) == pytest.approx(0.2)


def test_warmup_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match=r"lower warmup_steps or raise num_steps"):
        make_schedule(TrainingConfig(num_steps=50, warmup_steps=50))


def _second_update(config, gradients, **kwargs):
    optimiser = make_optimiser(config, **kwargs)
    params = {"a": jnp.zeros(2), "b": {"c": jnp.zeros(1)}}
    state = optimiser.init(params)
    for gradient in gradients:
        updates, state = optimiser.update({"a": jnp.full(2, gradient), "b": {"c": jnp.full(1, gradient)}}, state, params)
    return updates


def test_clipping_tames_one_huge_gradient():
    """After a gradient of 1e6, Adam's second moment stands at it; clipped, the next update keeps its usual size."""
    config = dataclasses.replace(fakes.CONFIG, warmup_steps=0)
    clipped = _second_update(config, [1e6, -0.5])
    free = _second_update(dataclasses.replace(config, clip_norm=0.0), [1e6, -0.5])
    assert float(clipped["a"][0]) == pytest.approx(0.0, abs=0.2 * config.lr)  # two equal and opposite steps of norm 1
    assert float(free["a"][0]) < -0.5 * config.lr  # momentum of the huge one


def test_multipliers_scale_groups():
    plain = _second_update(fakes.CONFIG, [1.0])
    scaled = _second_update(fakes.CONFIG, [1.0], lr_multipliers={"a": 0.1, "b": 3.0})
    np.testing.assert_allclose(scaled["a"], 0.1 * plain["a"], rtol=1e-6)
    np.testing.assert_allclose(scaled["b"]["c"], 3.0 * plain["b"]["c"], rtol=1e-6)

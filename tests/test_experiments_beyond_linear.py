"""The study of what lies beyond a linear head: neutral starts, modulations by their formulas, time kept, paired tables."""

import argparse
import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import beyond_linear, beyond_linear_arms
from experiments.beyond_linear_arms import EXTRA, SIDE, Arm, HeadNetwork, Mixed, Warm, begin, error, meta_train, rates
from tests.conftest import smooth_picture
from vcinr.codecs.warm_start import features
from vcinr.fields.field import evaluate
from vcinr.signals.grids import pixel_grid
from vcinr.signals.sources import ArraySource

pytestmark = pytest.mark.slow

OPTIONS = argparse.Namespace(latent=4, last_width=80, warm_steps=2)
COORDS = jnp.asarray(pixel_grid((SIDE, SIDE)))
ALL = {arm.name: arm for arm in beyond_linear.ARMS + beyond_linear.VARIANTS}


@pytest.fixture(scope="module")
def warm():
    """A start whose head spans random orthonormal components exactly: by as many layers, one that it does not see."""

    def make(layers):
        config = Arm("", (("num_layers", layers), ("latent_dim", OPTIONS.latent + EXTRA))).config(OPTIONS)
        count = config.field.latent_dim
        basis = np.linalg.qr(np.random.default_rng(0).standard_normal((SIDE * SIDE * 3, count)))[0].T.reshape(count, -1, 3)
        shared = Arm("").model(config).init(jax.random.key(0), COORDS[:1], jnp.zeros(count))["params"]
        design = np.asarray(features(config.field, shared, COORDS), np.float64)
        weights = np.linalg.lstsq(design, np.moveaxis(basis, 0, 1).reshape(len(design), -1), rcond=1e-9)[0]
        kernels = np.moveaxis(weights.reshape(-1, count, 3), 1, 0).astype(np.float32)
        shared = {**shared, "head_kernel": jnp.asarray(kernels[:, :-1]), "head_bias": jnp.asarray(kernels[:, -1])}
        last = f"kernel_{layers}"
        shared = {**shared, last: jnp.zeros_like(shared[last])}
        mean = np.full((SIDE * SIDE, 3), 0.5, np.float32)
        return Warm(shared, mean, basis.astype(np.float32), np.linspace(2.0, 0.1, count).astype(np.float32))

    cached = functools.cache(make)
    return lambda arm: cached(arm.config(OPTIONS).field.num_layers)


def started(arm, warm):
    config = arm.config(OPTIONS)
    return config, begin(arm, config, warm, jax.random.key(1))


@pytest.mark.parametrize("name", ["linear head", "shifts", "gates, first layer too", "gates, 5 layers", "head network"])
def test_every_arm_begins_as_its_principal_components(name, warm):
    arm = ALL[name]
    config, trained = started(arm, warm(arm))
    latent = jnp.array([3.0, -1.0, 0.5, 2.0])
    layers = arm.model(config).apply({"params": trained["shared"]}, latent, method="layers")
    expected = 0.5 + np.tensordot(latent, warm(arm).basis[:4], 1)
    np.testing.assert_allclose(evaluate(config.field, layers, COORDS), expected, atol=3e-3)


@pytest.mark.parametrize("name", ["gates", "head network, projected"])
def test_the_inner_loop_begins_at_the_least_squares_error(name, warm):
    arm = ALL[name]
    config, trained = started(arm, warm(arm))
    values = jnp.asarray(np.random.default_rng(2).random((SIDE * SIDE, 3)), jnp.float32)
    missed = values - 0.5
    missed = missed - np.tensordot(np.tensordot(warm(arm).basis[:4], missed, 2), warm(arm).basis[:4], 1)
    np.testing.assert_allclose(error((arm, config), trained, values), np.mean(np.square(missed)), rtol=1e-3)


def test_the_first_layer_is_gated_too(warm):
    arm = ALL["gates, first layer too"]
    config, trained = started(arm, warm(arm))
    shared, latent = trained["shared"], jnp.ones(4)
    left = {"kernel": 0.05 * jax.random.normal(jax.random.key(2), shared["left_heads_0"]["kernel"].shape)}
    layers = arm.model(config).apply({"params": {**shared, "left_heads_0": left}}, latent, method="modulate")
    assert len(layers) == config.field.num_layers + 1
    ratio = np.asarray(layers[0][0] / shared["kernel_0"])
    assert ratio.std() > 0.01
    assert 0 < ratio.min() < ratio.max() < config.field.gate_gain
    np.testing.assert_allclose(layers[1][0], shared["kernel_1"], rtol=1e-6)


def test_a_head_network_adds_the_components_that_it_predicts(warm):
    arm = ALL["head network"]
    config, trained = started(arm, warm(arm))
    dense = trained["shared"]["predicted"]
    predicted = {**dense, "bias": dense["bias"].at[7].set(2.0)}
    layers = HeadNetwork(config.field).apply(
        {"params": {**trained["shared"], "predicted": predicted}}, jnp.zeros(4), method="layers"
    )
    expected = 0.5 + 2.0 * warm(arm).std[11] * warm(arm).basis[11]
    np.testing.assert_allclose(evaluate(config.field, layers, COORDS), expected, atol=3e-3)


@pytest.mark.parametrize("name", ["shifts", pytest.param("head network, projected", marks=pytest.mark.slow)])
def test_training_keeps_its_time_and_what_is_not_trained(name, warm):
    arm = dataclasses.replace(ALL[name], base_rate=0.0)
    config, trained = started(arm, warm(arm))
    values = np.random.default_rng(3).random((20, SIDE * SIDE, 3)).astype(np.float32)
    clock = itertools.count().__next__
    result, steps = meta_train(
        (arm, config), trained, rates(arm, warm(arm), trained), ArraySource({"values": values}), seconds=6, seed=0, clock=clock
    )
    # The clock is read once at the beginning and once before every step.
    assert steps == 5
    for part in ("kernel_0", "bias_1", "head_kernel"):
        np.testing.assert_allclose(result["shared"][part], trained["shared"][part], rtol=1e-5)
    np.testing.assert_allclose(result["basis"], trained["basis"], rtol=1e-5)
    moved = "projection" if name == "shifts" else "predicted"
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(result["shared"][moved])) > 0


def test_a_step_that_is_not_finite_names_the_arm(warm):
    arm = ALL["linear head"]
    config, trained = started(arm, warm(arm))
    source = ArraySource({"values": np.full((2, SIDE * SIDE, 3), np.nan, np.float32)})
    settings = {"seconds": 2, "seed": 0, "clock": itertools.count().__next__}
    with pytest.raises(RuntimeError, match="linear head: step 1 is not finite; lower its rates"):
        meta_train((arm, config), trained, rates(arm, warm(arm), trained), source, **settings)


def test_sources_are_mixed_in_equal_parts():
    sources = [ArraySource({"values": np.full((3, 2), value)}) for value in (1.0, 2.0)]
    batch = Mixed(sources).batch(np.random.default_rng(0), 5)["values"]
    assert batch[:, 0].tolist() == [1.0, 1.0, 1.0, 2.0, 2.0]


def test_the_interval_is_student_s():
    # 2.776 is the 97.5 % quantile at four degrees of freedom; the deviation of 1 … 5 is √2.5.
    mean, half = beyond_linear.interval(np.arange(1.0, 6.0))
    assert mean == 3.0
    np.testing.assert_allclose(half, 2.776445 * np.sqrt(2.5 / 5), rtol=1e-6)


def test_differences_are_paired_by_seed_and_picture():
    def run(levels):
        return {"psnr_db": levels, "oracle_db": [level + 0.5 for level in levels[:2]], "steps": 10}

    linear = [run([20.0, 25.0, 30.0]), run([21.0, 26.0, 31.0])]
    gates = [run([20.1, 25.1, 30.1]), run([21.3, 26.3, 31.3])]
    rows = beyond_linear.summary({beyond_linear.LINEAR: linear, "gates": gates, "wide": [run([20.0, 25.2, 30.4])]})
    # However far apart the pictures are, a constant difference has no interval.
    assert rows[1][3:] == [pytest.approx(25.7), "+0.200 ± 0.000", "+0.100, +0.300", "+0.500"]
    assert rows[2][1] == 1
    assert rows[2][4].startswith("+0.200 ± 0.497")


def test_missing_data_are_told(datasets_dir, tmp_path, capsys):
    cache = jax.config.jax_compilation_cache_dir
    try:
        assert beyond_linear.main([f"--workdir={tmp_path}"]) == 1
    finally:
        jax.config.update("jax_compilation_cache_dir", cache)
    assert "python -m experiments.prepare cifar10_small" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_study_small(tmp_path, monkeypatch):
    pictures = [smooth_picture(32, 32, seed) for seed in range(12)]
    monkeypatch.setattr(beyond_linear_arms, "load_split", lambda name, split: pictures)
    record = tmp_path / "studies" / "beyond_linear.json"
    sizes = ["--seeds=2", "--seconds=0.5", "--latent=3", "--last-width=200", "--warm-steps=30", "--pictures=5"]
    cache = jax.config.jax_compilation_cache_dir
    try:
        assert beyond_linear.main([f"--workdir={tmp_path / 'run'}", f"--record={record}", *sizes, "--arms", "shifts"]) == 0
    finally:
        jax.config.update("jax_compilation_cache_dir", cache)
    study = json.loads(record.read_text())
    assert [row[:2] for row in study["rows"]] == [["linear head", 2], ["shifts", 2]]
    assert str(tmp_path) not in json.dumps(study)

"""Fields taken apart: what no gate changes, what an affine field cannot do, and measures that are known in closed form."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import pdist

from experiments.dissect import coding, distortion, faces, gates
from vcinr.codecs.vc_inr import VCINR, VCINRConfig
from vcinr.compression import bottleneck
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.compression.uniform import UniformConfig
from vcinr.datasets.sources import ArraySource
from vcinr.fields.field import FieldConfig, evaluate
from vcinr.stage import TrainingConfig

GATED = FieldConfig(num_layers=3, width=8, latent_dim=4, rank=2, hyper_width=8, hyper_depth=1)
AFFINE = dataclasses.replace(GATED, modulation="none", linear_head=True)


def small(field, **changes):
    """(codec, random parameters) of a field of 8×8 patches."""
    codec = VCINR(VCINRConfig(patch=(8, 8), field=field, **changes))
    params = codec.init(jax.random.key(0))
    # From a start whose gates are near neutral, to ones that differ.
    return codec, {**params, "shared": jax.tree.map(lambda array: 1.5 * array, params["shared"])}


def latents_of(count, size=4, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, size)), jnp.float32)


@pytest.mark.parametrize("first", [False, True])
def test_without_u_the_field_knows_no_latent(first):
    codec, params = small(dataclasses.replace(GATED, gate_first=first, gate_gain=1.5))
    coords = jnp.linspace(-1, 1, 10).reshape(5, 2)
    one, other = latents_of(2)
    found = [evaluate(codec.config.field, gates.neutral_layers(codec, params, phi), coords) for phi in (one, other)]
    np.testing.assert_array_equal(*found)
    heads = {name: jax.tree.map(jnp.zeros_like, tree) for name, tree in params["shared"].items() if name.startswith("left")}
    assert heads
    silent = {**params, "shared": {**params["shared"], **heads}}
    np.testing.assert_allclose(found[0], evaluate(codec.config.field, codec.layers(silent, one), coords), atol=1e-6)
    with_gates = evaluate(codec.config.field, codec.layers(params, one), coords)
    assert np.abs(with_gates - found[0]).max() > 1e-3


@pytest.mark.parametrize("first", [False, True])
def test_gates_are_what_kernels_are_multiplied_with(first):
    codec, params = small(dataclasses.replace(GATED, gate_first=first))
    phi = latents_of(1)[0]
    found = gates.gates(codec, params, phi)
    assert len(found) == 3 - (not first)
    for gate, (modulated, _), i in zip(found, codec.layers(params, phi)[not first : -1], range(not first, 3), strict=True):
        np.testing.assert_allclose(gate * params["shared"][f"kernel_{i}"], modulated, rtol=1e-5)
        assert 0 < gate.min() < gate.max() < GATED.gate_gain


def test_the_jacobian_of_an_affine_field_never_changes():
    one, other = latents_of(2)
    assert gates.jacobian_change(*small(AFFINE), one, other) == 0
    assert gates.jacobian_change(*small(GATED), one, other) > 0.01


def test_jacobians_without_relation_differ_by_the_root_of_two():
    quadratic = SimpleNamespace(values=lambda params, phi: 0.5 * jnp.square(phi))
    change = lambda one, other: float(gates.jacobian_change(quadratic, None, jnp.array(one), jnp.array(other)))
    assert change([3.0, 0.0], [0.0, 3.0]) == pytest.approx(2**0.5)
    assert change([3.0, 1.0], [-3.0, -1.0]) == pytest.approx(2)


def test_an_affine_field_is_its_tangent_and_loses_nothing_to_it():
    codec, params = small(AFFINE)
    values = jnp.asarray(np.random.default_rng(1).uniform(size=(64, 3)), jnp.float32)
    found = gates.taken_apart(codec, params, values)
    assert found["tangent"] == pytest.approx(float(found["own"]), rel=1e-5)
    assert found["own"] < found["start"], "adaptation helps"


def test_step_sizes_are_told_relative_to_their_start():
    codec, params = small(GATED)
    model = SimpleNamespace(codec=codec, params=params)
    assert gates.moved_steps(model) == "1 … 1"
    sizes = params["step_sizes"]
    sizes = {**sizes, "log_scale": sizes["log_scale"].at[0, 0].add(np.log(3.0))}
    assert gates.moved_steps(SimpleNamespace(codec=codec, params={**params, "step_sizes": sizes})) == "1 … 3"
    assert gates.moved_steps(SimpleNamespace(codec=codec, params={})) is None


def test_a_rising_curve_has_no_point_that_a_cheaper_one_equals():
    points = [(3.0, 30.0), (1.0, 20.0), (2.0, 19.0), (4.0, 30.0), (5.0, 31.0)]
    assert coding.rising(points) == [(1.0, 20.0), (3.0, 30.0), (5.0, 31.0)]


def test_a_gain_is_that_of_the_curves():
    rates = 100.0 * 2.0 ** np.arange(5)
    bits = np.tile(rates[:, None], 20)
    mse = np.tile(0.01 / rates[:, None], 20)
    reference = coding.Coded(bits, mse)
    better = coding.Coded(bits, mse * 10**-0.05)
    decibels, rate = coding.gain(reference, better, 64)
    assert decibels == "+0.50 ± 0.00"
    assert float(rate) == pytest.approx(100 * (10**-0.05 - 1), abs=0.1)
    assert coding.gain(reference, coding.Coded(bits[:3], mse[:3]), 64) == [None, None], "three points make no curve"


@pytest.fixture(scope="module")
def affine():
    """(codec, parameters with statistics, latents, values that are those of the latents' fields)."""
    codec, params = small(AFFINE, compression=BottleneckConfig(width=8, depth=1))
    latents = np.asarray(latents_of(600)) * np.array([1.0, 0.5, 2.0, 0.1], np.float32)
    values = np.asarray(jax.vmap(lambda phi: codec.values(params, phi))(latents))
    # In range, for what is decoded is clamped.
    assert 0 < values.min() < values.max() < 1
    jacobian = jax.jacfwd(lambda phi: codec.values(params, phi).ravel())(jnp.zeros(4))
    sensitivity = np.mean(np.square(jacobian), axis=0)
    statistics = {"mean": latents.mean(0), "std": latents.std(0), "sensitivity": np.asarray(sensitivity)}
    return codec, {**params, "latent_statistics": statistics}, latents, values


def test_a_fine_quantisers_error_is_a_twelfth_of_the_squared_steps(affine):
    codec, params, latents, values = affine
    lambdas = (1.0, 16.0)
    found = coding.stepped(codec, params, lambdas, latents, latents, values)
    for lambda_, mse in zip(lambdas, found.mse, strict=True):
        steps = bottleneck.best_steps(lambda_, params["latent_statistics"], codec.num_values)
        expected = np.sum(params["latent_statistics"]["sensitivity"] * np.square(steps)) / 12
        assert mse.mean() == pytest.approx(expected, rel=0.1)
    # Half the step, a bit more for each number.
    assert np.diff(found.bits.mean(1))[0] == pytest.approx(2 * 4, rel=0.1)


def test_uniform_quantisers_cost_no_more_than_their_bits_and_end_at_the_field_itself(affine):
    codec, params, latents, values = affine
    found = coding.uniform(codec, params, UniformConfig(bits=(1, 4, 12), num_std=6.0), latents, latents, values)
    assert np.all(np.diff(found.mse.mean(1)) < 0)
    assert found.mse[-1].mean() < 1e-7
    assert np.all(found.bits[:2].mean(1) < 4 * np.array([1, 4]) + 0.1)


def test_one_weight_for_all_dimensions_keeps_the_weight_of_the_variance(affine):
    statistics = affine[1]["latent_statistics"]
    flat = distortion.alike(statistics)
    variance = np.square(statistics["std"])
    assert np.ptp(flat["sensitivity"]) == 0
    assert np.sum(flat["sensitivity"] * variance) == pytest.approx(np.sum(statistics["sensitivity"] * variance), rel=1e-5)


def test_bottlenecks_start_alike_and_only_the_loss_knows_what_distortion_counts(affine):
    codec, params, latents, values = affine
    source = ArraySource({"latent": latents[:64], "values": values[:64]})
    training = TrainingConfig(2, 4, warmup_steps=0)
    started, losses = {}, {}
    for arm, (kind, weighted) in distortion.DISTORTIONS.items():
        config = dataclasses.replace(codec.config.compression, lambdas=(1.0,), prior_steps=2, distortion=kind, training=training)
        made = distortion.bottleneck_of(SimpleNamespace(codec=codec, params=params), config, weighted, source)
        (stage,) = made.stages()
        start = made.init(jax.random.key(0))
        started[arm] = stage.init(jax.random.key(1), start, stage.examples(start, None))
        example = {name: jnp.asarray(array[0]) for name, array in source.arrays.items()}
        losses[arm] = stage.loss(started[arm], stage.frozen(start), example, jax.random.key(2))[1]
    first, *others = started.values()
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)
    assert len({float(metrics["psnr_db"]) for metrics in losses.values()}) == 3
    assert len({float(metrics["bits"]) for metrics in losses.values()}) == 1


def test_distances_agree_with_themselves_and_not_with_shuffled_ones():
    points = np.random.default_rng(0).normal(size=(60, 5))
    distance = pdist(points)
    assert faces.correlation(distance, distance**3) == pytest.approx(1)
    control = faces.shuffled(distance, distance, 50, seed=0)
    assert abs(control.mean()) < 0.02 and control.max() < 0.2
    assert faces.neighbours_share(distance, distance) < 0.6
    line = pdist(np.array([[0.0], [1.0], [3.0]]))
    # Nearest: 1 for 0, 0 for 1, 1 for 3; at 1, 1 and 2, where two are 2 apart on average.
    assert faces.neighbours_share(line, line) == pytest.approx((1 + 1 + 2) / 3 / 2)


def test_attributes_are_of_their_regions():
    grey = np.full((2, 64, 64, 3), 0.5)
    red = grey.copy()
    red[1][faces.REGIONS["hair"]] = [1.0, 0.0, 0.0]
    found = faces.attributes(red)
    np.testing.assert_allclose(found["colour, hair"], [[0.5] * 3, [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(found["colour, background"], 0.5)
    np.testing.assert_allclose(found["light from the side"], 0, atol=1e-12)
    drawn = faces.blocks(red)
    np.testing.assert_allclose(drawn[1, 4, 8], [1, 0, 0])
    np.testing.assert_allclose(drawn[0], 0.5)


def test_points_in_a_plane_keep_their_distances():
    flat = np.random.default_rng(0).normal(size=(20, 2)) @ np.linalg.qr(np.random.default_rng(1).normal(size=(6, 2)))[0].T
    at, shares = faces.plane(flat)
    np.testing.assert_allclose(pdist(at), pdist(flat), atol=1e-9)
    assert shares.sum() == pytest.approx(1)

"""The linear warm start: variable projection, a solved head, neutral gates, the KLT's own quality."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.adaptation import warm_start
from vcinr.adaptation.meta_learning import AdaptationConfig, adapt_latent, signal_loss
from vcinr.adaptation.warm_start import WarmStartConfig
from vcinr.codecs.vc_inr import VCINR, VCINRConfig
from vcinr.datasets.sources import PatchSource
from vcinr.fields.field import FieldConfig, make_field
from vcinr.modalities import MODALITIES
from vcinr.signals.grids import pixel_grid
from vcinr.stage import TrainingConfig
from vcinr.training.loop import run_stage
from vcinr.training.run import train
from vcinr.trees import load_tree

FIELD = FieldConfig(num_layers=2, width=24, last_width=70, latent_dim=6, linear_head=True, rank=2, hyper_width=12, hyper_depth=1)
COORDS = jnp.asarray(pixel_grid((8, 8)))


def solved_start():
    shared = make_field(FIELD).init(jax.random.key(0), COORDS, jnp.zeros(6))["params"]
    values = np.random.default_rng(0).random((200, 64, 3)).astype(np.float32)
    found = warm_start.components(values, 6)
    return warm_start.solve_head(FIELD, shared, found, COORDS), found, values


def test_components_have_the_deviations_of_their_coefficients():
    _, found, values = solved_start()
    flat = found["basis"].reshape(6, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(6), atol=1e-4)
    coefficients = (values - found["mean"]).reshape(200, -1) @ flat.T
    np.testing.assert_allclose(found["std"], coefficients.std(0), rtol=1e-3)
    padded = warm_start.components(values[:, :1, :1], 4)
    assert padded["basis"].shape == (4, 1, 1)
    assert padded["std"][1:].max() == 0


def test_with_enough_features_the_start_is_the_klt():
    shared, found, values = solved_start()
    coefficients = (values[0] - found["mean"]).reshape(-1) @ found["basis"].reshape(6, -1).T
    expected = found["mean"] + np.tensordot(coefficients, found["basis"], 1)
    made = make_field(FIELD).apply({"params": shared}, COORDS, jnp.asarray(coefficients))
    np.testing.assert_allclose(made, expected, atol=5e-3)


def test_one_inner_step_at_the_exact_step_size_finds_the_coefficients():
    shared, found, values = solved_start()
    config = VCINRConfig(patch=(8, 8), field=FIELD, adaptation=AdaptationConfig(num_steps=1))
    # The inner loss is (1/n) Σ_k φ_k² + …, n values: its curvature is 2/n on every dimension.
    sizes = {"log_scale": jnp.zeros((1, 6)), "reference": jnp.float32(64 * 3 / 2)}
    latent = adapt_latent(config, {"shared": shared, "latent_init": jnp.zeros(6), "step_sizes": sizes}, jnp.asarray(values[0]))
    coefficients = (values[0] - found["mean"]).reshape(-1) @ found["basis"].reshape(6, -1).T
    np.testing.assert_allclose(latent, coefficients, atol=2e-2)


def test_steps_that_suit_all_coordinates_diverge_on_a_few_unless_they_are_relative_to_their_curvature():
    shared, _, values = solved_start()
    config = VCINRConfig(patch=(8, 8), field=FIELD, adaptation=AdaptationConfig(num_steps=12))
    trained = {"shared": shared, "latent_init": jnp.zeros(6)}
    coords, picture = COORDS[::25], jnp.asarray(values[0][::25])

    @jax.jit
    def error(reference):
        sizes = {"log_scale": jnp.zeros((1, 6)), "reference": reference}
        latent = adapt_latent(config, {**trained, "step_sizes": sizes}, picture, coords=coords)
        return signal_loss(config, shared, latent, picture, None, coords)

    def exact_step(points, target):
        loss = lambda phi: signal_loss(config, shared, phi, target, None, points)
        return 1 / jnp.linalg.eigvalsh(jax.hessian(loss)(jnp.zeros(6))).max()

    whole, own = exact_step(COORDS, jnp.asarray(values[0])), exact_step(coords, picture)
    # On all coordinates the basis is orthonormal: the exact step is n / 2 for n values.
    np.testing.assert_allclose(whole, 64 * 3 / 2, rtol=0.02)
    assert own < whole / 2
    before = error(jnp.float32(0))
    assert error(own) < 0.8 * before
    assert error(whole) > 3 * before


@pytest.mark.parametrize("columns", [8, 5, 2, 1])
def test_step_sizes_for_whole_patches_stay_stable_where_few_samples_are_inside(columns):
    shared, found, values = solved_start()
    config = VCINRConfig(patch=(8, 8), field=FIELD, adaptation=AdaptationConfig(num_steps=6))
    sizes = {"log_scale": jnp.zeros((6, 6)), "reference": jnp.float32(64 * 3 / 2)}
    trained = {"shared": shared, "latent_init": jnp.zeros(6), "step_sizes": sizes}
    weight = jnp.tile(jnp.arange(8) < columns, 8).astype(jnp.float32)
    for picture in values[:5]:
        latent = adapt_latent(config, trained, jnp.asarray(picture), weight)
        before = signal_loss(config, shared, jnp.zeros(6), jnp.asarray(picture), weight)
        assert signal_loss(config, shared, latent, jnp.asarray(picture), weight) < before
        assert float(jnp.linalg.norm(latent)) < 20 * np.linalg.norm(found["std"])


def test_gates_start_neutral():
    shared, _, _ = solved_start()
    field = make_field(FIELD)
    for latent in (jnp.zeros(6), 3 * jnp.ones(6)):
        layers = field.apply({"params": shared}, latent, method="modulate")
        for i, (kernel, _) in enumerate(layers):
            np.testing.assert_allclose(kernel, shared[f"kernel_{i}"], rtol=1e-6)


def test_the_gradient_with_the_weights_held_fixed_is_the_whole_gradient():
    with jax.enable_x64(True):
        config = dataclasses.replace(FIELD, last_width=9)
        shared = make_field(config).init(jax.random.key(1), COORDS, jnp.zeros(6))["params"]
        trunk = {k: jnp.asarray(v, jnp.float64) for k, v in shared.items() if k in ("kernel_0", "bias_0", "kernel_1", "bias_1")}
        rng = np.random.default_rng(2)
        sketch = jnp.asarray(rng.normal(size=(64, 5)))
        coords = jnp.asarray(COORDS, jnp.float64)

        def loss(parts):
            return warm_start.projection_loss(config, parts, coords, sketch)[0]

        direction = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), trunk)
        exact = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), jax.grad(loss)(trunk), direction)))
        plus, minus = (jax.tree.map(lambda a, d, h=h: a + h * d, trunk, direction) for h in (1e-6, -1e-6))
        # The ridge is no part of the loss, so the envelope theorem holds up to its size.
        np.testing.assert_allclose(exact, (loss(plus) - loss(minus)) / 2e-6, rtol=1e-3)


def test_a_constant_needs_no_feature_but_the_bias():
    trunk = {"kernel_0": jnp.zeros((2, 24)), "bias_0": jnp.zeros(24), "kernel_1": jnp.zeros((24, 70)), "bias_1": jnp.zeros(70)}
    assert warm_start.projection_loss(FIELD, trunk, COORDS, jnp.full((64, 2), 0.7))[0] < 1e-3
    # Of a function without a mean it explains nothing.
    assert warm_start.projection_loss(FIELD, trunk, COORDS, COORDS)[0] > 0.999


def test_sketches_are_unbiased():
    _, found, _ = solved_start()
    source = warm_start.SketchSource(found, 16)
    drawn = source.batch(np.random.default_rng(0), 100)["sketch"]
    assert drawn.shape == (100, 64, 16)
    weighted = np.concatenate([found["mean"][None], found["std"][:, None, None] * found["basis"]])
    np.testing.assert_allclose(np.sum(drawn.astype(np.float64) ** 2) / 1600, np.sum(weighted.astype(np.float64) ** 2), rtol=0.05)


def test_relative_rates_follow_the_size_of_each_array():
    tree = {"kernel": jnp.full((16, 4), 0.02), "zeros": jnp.zeros((25, 3)), "bias": jnp.full(5, 3.0), "nothing": jnp.zeros(5)}
    found = warm_start.lr_multipliers(tree)
    for name, value in {"kernel": 0.025, "zeros": 0.02, "bias": 3.0, "nothing": 0.01}.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def basis_of_rank(rank, channels=3, k=10, n=40):
    """Components whose channels are combinations of ``rank`` functions without a mean, of equal energies; a constant mean."""
    functions = np.random.default_rng(0).normal(size=(n, rank))
    functions, _ = np.linalg.qr(functions - functions.mean(axis=0))
    mixing, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(k * channels, rank)))
    basis = np.moveaxis((functions @ mixing.T).reshape(n, k, channels), 1, 0).astype(np.float32)
    return {
        "mean": np.full((n, channels), 0.3, np.float32),
        "basis": basis,
        "std": np.ones(k, np.float32),
        "rest": np.float32(2.0),
    }


@pytest.mark.parametrize("rank", [1, 4, 12])
def test_a_basis_of_known_rank_needs_that_last_width(rank):
    found = basis_of_rank(rank)
    losses = warm_start.width_losses_db(found)
    assert losses.shape == (41,)
    # Each function has energy 1, and 2 are left over: H functions miss rank - H, on top of 2. The bias makes the mean.
    expected = 10 * np.log10(1 + np.maximum(rank - np.arange(41), 0) / 2.0)
    np.testing.assert_allclose(losses, expected, atol=1e-4)
    assert warm_start.required_last_width(found) == rank
    halfway = 0.5 * (expected[rank - 1] + expected[rank])
    assert warm_start.required_last_width(found, halfway) == rank
    if rank > 1:
        assert warm_start.required_last_width(found, expected[rank - 1] * 1.01) == rank - 1
    # Where components are complete, nothing but their rank will do.
    assert warm_start.required_last_width({**found, "rest": np.float32(0.0)}) == rank


def test_the_loss_of_a_width_is_that_of_the_best_features():
    values = np.random.default_rng(3).random((300, 30, 3)).astype(np.float32)
    found = warm_start.components(values, 8)
    functions = warm_start.weighted_basis(found).astype(np.float64)
    left, _, _ = np.linalg.svd(functions - functions.mean(axis=0), full_matrices=False)
    design = np.concatenate([left[:, :5], np.ones((30, 1))], axis=1)
    missed = np.sum((functions - design @ np.linalg.lstsq(design, functions, rcond=None)[0]) ** 2)
    flat = values.reshape(300, -1) - found["mean"].reshape(-1)
    basis = found["basis"].reshape(8, -1)
    rest = np.mean(np.sum((flat - flat @ basis.T @ basis) ** 2, axis=1))
    np.testing.assert_allclose(found["rest"], rest, rtol=1e-4)
    np.testing.assert_allclose(warm_start.width_losses_db(found)[5], 10 * np.log10(1 + missed / rest), rtol=1e-3)


def test_too_narrow_a_trunk_is_told_with_the_width_that_would_do(caplog):
    found = basis_of_rank(7)
    with caplog.at_level("INFO", logger="vcinr.adaptation.warm_start"):
        assert warm_start.report_width(found, 5) == pytest.approx(10 * np.log10(2.0), abs=1e-4)
        assert "5 loses at least 3.01 dB of the 10 components; set field.last_width to 7 to lose under 0.05 dB" in caplog.text
        assert caplog.records[-1].levelname == "WARNING"
        assert warm_start.report_width(found, 64) == 0
        assert caplog.records[-1].levelname == "INFO"


def test_what_a_width_loses_is_measured_where_training_starts(tmp_path):
    config = VCINRConfig(
        patch=(8, 8),
        field=dataclasses.replace(FIELD, last_width=2),
        warm_start=WarmStartConfig(enabled=True, num_patches=50, training=TrainingConfig(2, 2, warmup_steps=1, log_every=1)),
    )
    patches = PatchSource([np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)], (8, 8))
    params = {"shared": VCINR(config).init(jax.random.key(0))["shared"]}
    for index, stage in enumerate(VCINR(config).stages()[:2]):
        params = run_stage(stage, params, patches, seed=0, workdir=tmp_path, index=index)
    found = load_tree(tmp_path / "components" / "finished.safetensors")["components"]
    assert found["width_loss_db"] == pytest.approx(warm_start.width_losses_db(found)[2], rel=1e-5)
    assert found["width_loss_db"] > 0.05
    assert "components" not in params
    logged = [json.loads(line) for line in (tmp_path / "warm_start" / "metrics.jsonl").read_text().splitlines()]
    assert logged[-1]["width_loss_db"] == pytest.approx(float(found["width_loss_db"]), rel=1e-5)


def test_patches_without_a_common_grid_start_plainly_and_say_so(monkeypatch, caplog):
    config = VCINRConfig(patch=(8, 8), field=FIELD, warm_start=WarmStartConfig(enabled=True))
    assert [stage.name for stage in VCINR(config).field_stages()] == ["components", "warm_start", "meta"]
    monkeypatch.setitem(MODALITIES, "picture", dataclasses.replace(MODALITIES["picture"], common_grid=False))
    assert [stage.name for stage in VCINR(config).field_stages()] == ["meta"]
    assert "no warm start: patches of a picture share no grid" in caplog.text


def test_rates_are_relative_with_a_warm_start_and_plain_without():
    def rates(**changes):
        config = VCINRConfig(patch=(8, 8), field=FIELD, adaptation=AdaptationConfig(step_rate=5.0), **changes)
        params = VCINR(config).init(jax.random.key(0))
        trained = {name: params[name] for name in ("shared", "latent_init", "step_sizes")}
        found = VCINR(config).field_stages()[-1].lr_multipliers(trained)
        assert found["step_sizes"] == {"log_scale": 5.0, "reference": 0.0}
        return found["shared"]["kernel_0"], trained["shared"]["kernel_0"]

    assert rates()[0] == 1.0
    relative, kernel = rates(warm_start=WarmStartConfig(enabled=True))
    assert relative == pytest.approx(float(jnp.sqrt(jnp.mean(kernel**2))), rel=1e-5)


def test_a_warm_start_needs_a_linear_head():
    with pytest.raises(ValueError, match="linear_head"):
        VCINRConfig(warm_start=WarmStartConfig(enabled=True))


@pytest.mark.slow
def test_on_real_pictures_the_start_reconstructs_as_the_klt_does(vcinr_data, tmp_path):
    archive = np.load(vcinr_data / "cifar10_small.npz")
    k = 64
    config = VCINRConfig(
        field=FieldConfig(num_layers=3, width=64, last_width=128, latent_dim=k, linear_head=True),
        adaptation=AdaptationConfig(initial_step=1.0),
        warm_start=WarmStartConfig(
            enabled=True, num_patches=4000, offsets_per_picture=1,
            training=dataclasses.replace(WarmStartConfig().training, num_steps=1000),
        ),
    )  # fmt: skip
    codec = VCINR(config)
    stages = codec.stages()[:2]
    only = type("Only", (), {"name": "vc_inr", "config": config, "modality": "picture", "patch": (32, 32)})()
    only.init, only.stages = codec.init, lambda: stages
    patches = PatchSource(list(archive["x_train"][:4000]), (32, 32))
    params = train(only, patches, seed=0, workdir=tmp_path, quiet=True)
    found = load_tree(tmp_path / "components" / "finished.safetensors")["components"]
    pictures = archive["x_train"][4500:4600].astype(np.float32).reshape(100, 1024, 3) / 255
    meta = codec.stages()[2]
    trained = meta.init(jax.random.key(1), params, meta.examples(params, patches))

    @jax.jit
    def error(values):
        return signal_loss(config, trained["shared"], adapt_latent(config, trained, values), values)

    ours = -10 * np.log10([float(error(values)) for values in pictures])
    flat, basis = (pictures - found["mean"]).reshape(100, -1), found["basis"].reshape(k, -1)
    theirs = -10 * np.log10(np.mean((flat - flat @ basis.T @ basis) ** 2, axis=1))
    assert abs(np.mean(ours) - np.mean(theirs)) < 0.1
    assert VCINR(config).values(trained, trained["latent_init"]).shape == (1024, 3)

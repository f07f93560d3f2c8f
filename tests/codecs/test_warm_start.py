"""The linear warm start: variable projection, a solved head, neutral gates, the KLT's own quality."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.codecs import warm_start
from vcinr.codecs.meta_learning import AdaptationConfig, adapt_latent, signal_loss
from vcinr.codecs.vc_inr import VCINR, VCINRConfig
from vcinr.codecs.warm_start import WarmStartConfig
from vcinr.fields.field import FieldConfig, make_field
from vcinr.signals.grids import pixel_grid
from vcinr.signals.sources import PatchSource
from vcinr.training.run import train
from vcinr.trees import load_tree

FIELD = FieldConfig(num_layers=2, width=24, last_width=70, latent_dim=6, linear_head=True, rank=2, hyper_width=12, hyper_depth=1)
COORDS = jnp.asarray(pixel_grid((8, 8)))


def started_at_random():
    shared = make_field(FIELD).init(jax.random.key(0), COORDS, jnp.zeros(6))["params"]
    values = np.random.default_rng(0).random((200, 64, 3)).astype(np.float32)
    found = warm_start.components(values, 6)
    return warm_start.started(FIELD, shared, found, COORDS), found, values


def test_components_have_the_deviations_of_their_coefficients():
    _, found, values = started_at_random()
    flat = found["basis"].reshape(6, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(6), atol=1e-4)
    coefficients = (values - found["mean"]).reshape(200, -1) @ flat.T
    np.testing.assert_allclose(found["std"], coefficients.std(0), rtol=1e-3)
    padded = warm_start.components(values[:, :1, :1], 4)
    assert padded["basis"].shape == (4, 1, 1)
    assert padded["std"][1:].max() == 0


def test_with_enough_features_the_start_is_the_klt():
    shared, found, values = started_at_random()
    coefficients = (values[0] - found["mean"]).reshape(-1) @ found["basis"].reshape(6, -1).T
    expected = found["mean"] + np.tensordot(coefficients, found["basis"], 1)
    made = make_field(FIELD).apply({"params": shared}, COORDS, jnp.asarray(coefficients))
    np.testing.assert_allclose(made, expected, atol=5e-3)


def test_one_inner_step_at_the_exact_step_size_finds_the_coefficients():
    shared, found, values = started_at_random()
    config = VCINRConfig(patch=(8, 8), field=FIELD, adaptation=AdaptationConfig(num_steps=1))
    # The inner loss is (1/n) Σ_k φ_k² + …, n values: its curvature is 2/n on every dimension.
    sizes = {"log_scale": jnp.zeros((1, 6)), "reference": jnp.float32(64 * 3 / 2)}
    latent = adapt_latent(config, {"shared": shared, "latent_init": jnp.zeros(6), "step_sizes": sizes}, jnp.asarray(values[0]))
    coefficients = (values[0] - found["mean"]).reshape(-1) @ found["basis"].reshape(6, -1).T
    np.testing.assert_allclose(latent, coefficients, atol=2e-2)


@pytest.mark.parametrize("columns", [8, 5, 2, 1])
def test_step_sizes_for_whole_patches_stay_stable_where_few_samples_are_inside(columns):
    shared, found, values = started_at_random()
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
    shared, _, _ = started_at_random()
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


def test_sketches_are_unbiased():
    _, found, _ = started_at_random()
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

"""VC-INR: the true meta-gradient, memory that does not grow, a quantiser that starts uniform, files that decode elsewhere."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.adaptation.meta_learning import AdaptationConfig, adapt_latent, meta_loss, signal_loss
from vcinr.bitstream.payload import estimated_bits
from vcinr.codec import Code
from vcinr.codecs.vc_inr import VCINR, VCINRConfig
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.datasets.sources import PatchSource
from vcinr.fields.field import FieldConfig, make_field
from vcinr.model.finding import load
from vcinr.model.model import make_model
from vcinr.signals.grids import pixel_grid
from vcinr.signals.patches import to_signal
from vcinr.stage import TrainingConfig
from vcinr.training.run import train

TINY = VCINRConfig(
    patch=(8, 8),
    field=FieldConfig(num_layers=3, width=12, latent_dim=5, rank=2, hyper_width=16, hyper_depth=1),
    meta=TrainingConfig(num_steps=6, batch_size=4, warmup_steps=2, checkpoint_every=3, log_every=2),
    compression=BottleneckConfig(
        lambdas=(0.003, 0.03), width=8, num_latents=64, prior_steps=60,
        training=TrainingConfig(num_steps=4, batch_size=4, warmup_steps=1),
    ),
    encode_batch=8,
)  # fmt: skip


def trained_parts(config, seed=0):
    params = VCINR(config).init(jax.random.key(seed))
    return {name: params[name] for name in ("shared", "latent_init", "step_sizes")}


def values_of(config, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((config.patch[0] * config.patch[1], 3)), jnp.float32)


def with_adaptation(config, **changes):
    return dataclasses.replace(config, adaptation=dataclasses.replace(config.adaptation, **changes))


@pytest.mark.parametrize("chunk", [0, 24])
def test_the_meta_gradient_is_the_true_one(chunk):
    with jax.enable_x64(True):
        config = with_adaptation(TINY, chunk=chunk)
        trained = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), trained_parts(config))
        # Steps that move the latent far, so that the second-order part is no rounding error.
        trained["step_sizes"]["reference"] = jnp.asarray(5000.0)
        example = {"values": jnp.asarray(values_of(config), jnp.float64)}

        @jax.jit
        def loss(parts):
            return meta_loss(config, parts, example)[0]

        gradient = jax.jit(jax.grad(loss))(trained)
        first_order = jax.grad(lambda parts: meta_loss(with_adaptation(config, first_order=True), parts, example)[0])(trained)
        groups = {
            "latent_init": lambda path: "latent_init" in path,
            "theta": lambda path: "kernel_" in path or "bias_" in path,
            "step_sizes": lambda path: "log_scale" in path,
            "hypernetwork": lambda path: "heads" in path or "network" in path,
        }
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(trained)]
        for name, belongs in groups.items():
            rng = np.random.default_rng(3)
            leaves, structure = jax.tree.flatten(trained)
            chosen = [belongs(path) and not (name == "theta" and ("heads" in path or "network" in path)) for path in paths]
            assert any(chosen), name
            direction = structure.unflatten(
                [jnp.asarray(rng.normal(size=np.shape(a))) * float(c) for a, c in zip(leaves, chosen, strict=True)]
            )
            eps = 1e-6
            plus, minus = (jax.tree.map(lambda a, d, h=h: a + h * d, trained, direction) for h in (eps, -eps))
            numeric = (loss(plus) - loss(minus)) / (2 * eps)
            exact = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)))
            np.testing.assert_allclose(exact, numeric, rtol=2e-6, err_msg=name)
            dropped = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), first_order, direction)))
            if name != "step_sizes":
                assert abs(dropped - numeric) > 1e-3 * abs(numeric), f"{name}: the second order part is missing from this test"


def temp_bytes(config, trained, values):
    gradient = jax.jit(jax.grad(lambda parts, y: meta_loss(config, parts, {"values": y})[0]))
    return gradient.lower(trained, values).compile().memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_number_of_inner_steps():
    def measured(steps):
        wide = dataclasses.replace(TINY, patch=(32, 32), field=dataclasses.replace(TINY.field, width=32))
        config = with_adaptation(wide, num_steps=steps)
        return temp_bytes(config, trained_parts(config), values_of(config))

    assert measured(16) < 1.05 * measured(2)


def test_memory_does_not_grow_with_the_signal_where_coordinates_come_in_chunks():
    def measured(side, chunk):
        config = dataclasses.replace(
            with_adaptation(TINY, chunk=chunk), patch=(side, side), field=dataclasses.replace(TINY.field, width=32)
        )
        # What must be there is the signal itself: values, coordinates and weights, a few times over.
        return temp_bytes(config, trained_parts(config), values_of(config)) - 16 * 4 * side * side

    small, large, whole = measured(32, 256), measured(96, 256), measured(96, 0)
    assert large < 1.2 * small
    assert large < whole / 6


@pytest.mark.slow
def test_memory_of_a_large_latent_does_not_grow_with_the_signal():
    def measured(side):
        field = dataclasses.replace(TINY.field, latent_dim=2048, linear_head=True, last_width=16)
        adaptation = AdaptationConfig(chunk=256)
        config = dataclasses.replace(TINY, patch=(side, side), field=field, adaptation=adaptation)
        params = jax.eval_shape(VCINR(config).init, jax.random.key(0))
        trained = {name: params[name] for name in ("shared", "latent_init", "step_sizes")}
        values = jax.ShapeDtypeStruct((side * side, 3), jnp.float32)
        return temp_bytes(config, trained, values), 4 * params["shared"]["head_kernel"].size

    (small, head), (large, _) = measured(32), measured(96)
    # What may grow is the signal itself, a few times over: its coordinates, and the field's own values for the curvature.
    assert large - small < 6 * 4 * 3 * (96**2 - 32**2)
    # No copy of the head a chunk, a coordinate or an inner step.
    assert large < 5 * head


def test_padding_weighs_nothing():
    trained = trained_parts(TINY)
    trained["step_sizes"]["reference"] = 100.0
    values = values_of(TINY)
    weight = (jnp.arange(64) < 40).astype(jnp.float32)
    other = jnp.where(weight[:, None] > 0, values, 77.0)
    np.testing.assert_array_equal(adapt_latent(TINY, trained, values, weight), adapt_latent(TINY, trained, other, weight))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vc_inr")
    pictures = [np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8) for i in range(3)]
    codec = VCINR(TINY)
    params = train(codec, PatchSource(pictures, (8, 8)), seed=0, workdir=folder / "run", quiet=True)
    make_model(codec, params, {}).save(folder / "model")
    return folder / "model"


def test_training_makes_two_points_and_files_that_another_process_reads(model_dir, tmp_path):
    model = load(model_dir)
    assert [point["name"] for point in model.points] == ["0", "1"]
    picture = np.random.default_rng(9).integers(0, 256, (21, 13, 3), dtype=np.uint8)
    for point in (0, 1):
        data = model.encode(picture, point)
        (tmp_path / "x.vcinr").write_bytes(data)
        script = (
            "import sys, numpy as np, vcinr; m = vcinr.load(sys.argv[1]);"
            "p, codes, grids = m.read_codes(open(sys.argv[2], 'rb').read());"
            "np.savez(sys.argv[3], symbols=codes[0].streams['latent'], values=m.decode(open(sys.argv[2], 'rb').read()))"
        )
        subprocess.run([sys.executable, "-c", script, model_dir, tmp_path / "x.vcinr", tmp_path / "y.npz"], check=True)
        other = np.load(tmp_path / "y.npz")
        signal = to_signal(picture.astype(np.float32) / 255, (8, 8))
        code = model.codec.encode(model.params, [signal], point)[0]
        np.testing.assert_array_equal(other["symbols"], code.streams["latent"])
        assert other["values"].shape == picture.shape
        assert np.abs(other["values"].astype(int) - model.decode(data)).max() <= 1


def test_file_size_agrees_with_the_estimate(model_dir):
    model = load(model_dir)
    pictures = [np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8) for i in range(4)]
    data = model.encode_together(pictures, 1)
    assert 0 <= 8 * model.payload_bytes(data) - model.estimated_bits(data) < 40 + 0.005 * model.estimated_bits(data)


def test_the_tables_cost_what_the_float_prior_says(model_dir):
    model = load(model_dir)
    files = model.encode_batch([np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8) for i in range(2)], 1)
    for data, modelled in zip(files, model.modelled_bits(files), strict=True):
        assert abs(model.estimated_bits(data) / modelled - 1) < 0.01


def test_wild_symbols_survive(model_dir):
    model = load(model_dir)
    grid = to_signal(np.zeros((8, 16, 3), np.float32), (8, 8)).grid
    wild = Code({"latent": np.array([0, 2**31 - 1, -(2**31), 5, -70000, 1, 2, 3, 4, 5], np.int32)})
    data = model.write_codes(0, [wild], [grid])
    np.testing.assert_array_equal(model.read_codes(data)[1][0].streams["latent"], wild.streams["latent"])
    assert estimated_bits(model.codec, model.params, 0, grid, wild) > 64


def test_an_encoder_that_diverges_says_so(model_dir):
    model = load(model_dir)
    params = {**model.params, "step_sizes": {**model.params["step_sizes"], "reference": np.float32(1e30)}}
    signal = to_signal(np.random.default_rng(0).random((8, 8, 3), np.float32), (8, 8))
    with pytest.raises(ValueError, match="diverged"):
        model.codec.encode(params, [signal], 0)


def test_other_effort_is_refused(model_dir):
    with pytest.raises(ValueError, match="effort"):
        load(model_dir).encode(np.zeros((8, 8, 3), np.uint8), effort=3)


def test_signal_loss_is_the_mean_squared_error_of_the_field():
    trained, values = trained_parts(TINY), values_of(TINY)
    latent = jax.random.normal(jax.random.key(1), (5,))
    predicted = make_field(TINY.field).apply({"params": trained["shared"]}, jnp.asarray(pixel_grid((8, 8))), latent)
    loss = signal_loss(TINY, trained["shared"], latent, values)
    np.testing.assert_allclose(loss, np.mean((predicted - values) ** 2), rtol=1e-5)


def test_more_inner_steps_and_true_curvature_lower_the_loss_from_the_start():
    config = with_adaptation(TINY, num_steps=3, initial_step=0.5)
    codec = VCINR(config)
    source = PatchSource([np.tile(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None], (1, 24, 3))], (8, 8))
    stage = codec.stages()[0]
    params = codec.init(jax.random.key(0))
    trained = stage.init(jax.random.key(1), params, stage.examples(params, source))
    values = stage.examples(params, source).batch(np.random.default_rng(0), 1)["values"][0]
    values = jnp.asarray(values)
    before = signal_loss(config, trained["shared"], trained["latent_init"], values)
    after, _ = meta_loss(config, trained, {"values": values})
    assert float(after) < float(before)

"""What codecs with a meta-learned latent share: which parts are trained, how long they adapt, how latents become files."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.adaptation.meta_learning import AdaptationConfig, adapt_latent, draw, meta_loss, signal_loss, subset
from vcinr.bitstream import container
from vcinr.bitstream.payload import estimated_bits
from vcinr.codecs import make_codec
from vcinr.codecs.coinpp import CoinPP, CoinPPConfig
from vcinr.codecs.functa import Functa, FunctaConfig
from vcinr.codecs.latent_codec import LatentCodecConfig, kept_entries, whole_latent
from vcinr.compression.patch_by_patch import check_count
from vcinr.compression.uniform import UniformCompression, UniformConfig
from vcinr.datasets.sources import ArraySource, PatchSource
from vcinr.entropy.uniform_quantiser import quantise
from vcinr.fields.field import FieldConfig
from vcinr.model.model import make_model
from vcinr.signals.signal import Grid
from vcinr.stage import TrainingConfig
from vcinr.training.run import train

TINY = {
    "patch": (6, 6),
    "field": FieldConfig(num_layers=2, width=8, latent_dim=4, modulation="latent_shifts"),
    "meta": TrainingConfig(num_steps=3, batch_size=4, warmup_steps=1, lr=1e-2),
    "compression": UniformConfig(bits=(3, 5), num_latents=64),
    "encode_batch": 8,
}
FIXED = AdaptationConfig(step_sizes="fixed", learn_start=False)
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 20, 26, 3), np.uint8)


@pytest.fixture(scope="module", params=["coinpp", "functa"])
def codec(request):
    return CoinPP(CoinPPConfig(**TINY)) if request.param == "coinpp" else Functa(FunctaConfig(**TINY))


@pytest.fixture(scope="module")
def model(codec, tmp_path_factory):
    params = train(codec, PatchSource(PICTURES, codec.patch), seed=0, workdir=tmp_path_factory.mktemp("run"), quiet=True)
    return make_model(codec, params, {})


def test_only_what_the_config_says_is_trained(codec, model):
    start = codec.init(jax.random.fold_in(jax.random.key(0), 0))
    np.testing.assert_array_equal(model.params["latent_init"], 0)
    sizes, first = model.params["step_sizes"], start["step_sizes"]
    if codec.name == "functa":
        assert np.abs(sizes["alpha"] - first["alpha"]).max() > 0
    else:
        np.testing.assert_array_equal(sizes["log_scale"], first["log_scale"])
        assert sizes["reference"] != 1.0, "step sizes are relative to the curvature where training starts"
    assert np.abs(model.params["shared"]["projection"] - start["shared"]["projection"]).max() > 0


@pytest.mark.parametrize("shape", [(20, 26), (26, 20), (5, 3)])
def test_portrait_landscape_and_small_pictures_come_back(model, shape):
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    for point in range(2):
        data = model.encode(picture, point)
        _, (code,), (grid,) = model.read_codes(data)
        (original,), _ = model.make_codes([picture], point)
        np.testing.assert_array_equal(code.streams["latent"], original.streams["latent"])
        assert code.streams["latent"].min() >= 0 and code.streams["latent"].max() < 2 ** (3, 5)[point]
        assert model.decode(data).shape == picture.shape
        bits = estimated_bits(model.codec, model.params, point, grid, code)
        assert abs(8 * model.payload_bytes(data) - bits) < 16


def test_another_process_reads_the_same_symbols(model, tmp_path):
    model.save(tmp_path / "model")
    data = model.encode(PICTURES[0], 1)
    (tmp_path / "x.vcinr").write_bytes(data)
    program = """
import sys, numpy as np, vcinr
model, data = vcinr.load(sys.argv[1]), open(sys.argv[2], "rb").read()
_, (code,), _ = model.read_codes(data)
np.savez(sys.argv[3], values=model.decode(data), **code.streams)
"""
    arguments = [str(tmp_path / name) for name in ("model", "x.vcinr", "y.npz")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    other = np.load(tmp_path / "y.npz")
    (code,), _ = model.make_codes([PICTURES[0]], 1)
    np.testing.assert_array_equal(other["latent"], code.streams["latent"])
    assert np.abs(other["values"].astype(int) - model.decode(data)).max() <= 1


def test_uniform_codes_report_no_modelled_bits(model):
    assert model.modelled_bits([model.encode(PICTURES[0])]) is None


def parts_of(config, seed=0):
    params = Functa(config).init(jax.random.key(seed))
    return {name: params[name] for name in ("shared", "latent_init", "step_sizes")}


def test_more_steps_in_encoding_repeat_the_last_step_sizes():
    config = FunctaConfig(**{**TINY, "adaptation": AdaptationConfig(num_steps=2, encode_steps=4)})
    trained = parts_of(config)
    trained["step_sizes"] = {"log_scale": jnp.log(jnp.asarray([[1.0] * 4, [0.5] * 4])), "reference": jnp.asarray(2.0)}
    values = jnp.asarray(np.random.default_rng(2).random((36, 3)), jnp.float32)
    latent = trained["latent_init"]
    for step in (2.0, 1.0, 1.0, 1.0):
        latent = latent - step * jax.grad(lambda phi: signal_loss(config, trained["shared"], phi, values))(latent)
    np.testing.assert_allclose(Functa(config).adapt(trained, values), latent, rtol=1e-4, atol=1e-6)


def test_functas_steps_share_one_size_per_dimension_between_0_and_1():
    """φ ← φ − clip(α, 0, 1) ⊙ ∇L, three times."""
    config = FunctaConfig(**TINY)
    trained = parts_of(config)
    assert trained["step_sizes"]["alpha"].shape == (1, 4)
    trained["step_sizes"] = {"alpha": jnp.asarray([[0.3, -0.2, 5.0, 1.0]])}
    values = jnp.asarray(np.random.default_rng(2).random((36, 3)), jnp.float32)
    latent = trained["latent_init"]
    for _ in range(3):
        gradient = jax.grad(lambda phi: signal_loss(config, trained["shared"], phi, values))(latent)
        latent = latent - jnp.asarray([0.3, 0.0, 1.0, 1.0]) * gradient
    np.testing.assert_allclose(Functa(config).adapt(trained, values), latent, rtol=1e-4, atol=1e-7)


def test_a_mask_holds_entries_where_they_are():
    config = FunctaConfig(**TINY)
    values = jnp.asarray(np.random.default_rng(2).random((36, 3)), jnp.float32)
    latent = adapt_latent(config, parts_of(config), values, mask=jnp.asarray([1.0, 0.0, 1.0, 0.0]))
    assert (np.asarray(latent)[[1, 3]] == 0).all()
    assert (np.asarray(latent)[[0, 2]] != 0).all()


def test_a_random_subset_of_the_coordinates_is_an_unbiased_loss():
    config = FunctaConfig(**{**TINY, "adaptation": AdaptationConfig(subset=9)})
    shared = parts_of(config)["shared"]
    values = jnp.asarray(np.random.default_rng(2).random((36, 3)), jnp.float32)

    @jax.jit
    def one(key):
        chosen, coords = subset(config, values, key)
        return signal_loss(config, shared, jnp.ones(4), chosen, None, coords)

    losses = np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(0), 2000)))
    whole = float(signal_loss(config, shared, jnp.ones(4), values))
    assert abs(losses.mean() - whole) < 4 * losses.std() / np.sqrt(len(losses))
    assert losses.std() > 0
    assert subset(config, values, None)[0] is values, "measuring takes all coordinates"


def test_points_to_adapt_to_and_points_to_measure_on_are_drawn_apart():
    config = FunctaConfig(**{**TINY, "adaptation": AdaptationConfig(subset=9)})
    values = jnp.asarray(np.random.default_rng(2).random((36, 3)), jnp.float32)
    (_, first), (_, second) = draw(config, values, jax.random.key(0))
    assert first.shape == second.shape == (9, 2) and (np.sort(first, axis=0) != np.sort(second, axis=0)).any()
    (whole, coords), (again, _) = draw(config, values, None)
    assert whole is again is values and coords.shape == (36, 2)


def test_step_sizes_have_a_rate_of_their_own():
    config = FunctaConfig(**{**TINY, "adaptation": AdaptationConfig(step_rate=7.0)})
    (stage,) = Functa(config).field_stages()
    rates = stage.lr_multipliers(parts_of(config))
    assert rates["step_sizes"] == {"log_scale": 7.0, "reference": 0.0}
    assert set(jax.tree.leaves((rates["shared"], rates["latent_init"]))) == {1.0}


def test_a_signal_of_too_many_numbers_is_refused_before_memory_is_taken(model):
    grid = Grid((2**14, 2**14), (6, 6))
    with pytest.raises(ValueError, match="at most 67108864 are coded"):
        check_count(64, grid)
    head = container.head_bytes(bytes.fromhex(model.points[0]["fingerprint"]), [(2**15, 2**15)], [{}], {})
    with pytest.raises(container.BitstreamError):
        model.decode(container.write(head, b"", 0), max_pixels=2**40)


def test_a_range_without_width_quantises_to_its_one_level():
    symbols = quantise(jnp.asarray([0.3, 0.3]), jnp.asarray([0.3, 0.2]), jnp.asarray([0.0, 0.0]), 4)
    np.testing.assert_array_equal(symbols, [0, 15])


def test_the_meta_gradient_passes_through_fixed_steps_but_not_to_them():
    config = CoinPPConfig(**TINY)
    (stage,) = CoinPP(config).field_stages()
    parts = parts_of(FunctaConfig(**{**TINY, "adaptation": FIXED}))
    values = {"values": jnp.asarray(np.random.default_rng(2).random((36, 3)), jnp.float32)}
    gradient = jax.grad(lambda trained: stage.loss(trained, {}, values, jax.random.key(0))[0])(parts)
    whole = jax.grad(lambda trained: meta_loss(config, trained, values)[0])(parts)
    np.testing.assert_array_equal(gradient["shared"]["kernel_0"], whole["shared"]["kernel_0"])
    assert (np.asarray(gradient["step_sizes"]["log_scale"]) == 0).all()
    assert (np.asarray(whole["step_sizes"]["log_scale"]) != 0).any()


def test_coded_numbers_go_where_they_came_from():
    params = {"coded": np.asarray([3, 0], np.int32)}
    numbers = kept_entries(params, jnp.asarray([5.0, 6.0, 7.0, 8.0]))
    np.testing.assert_array_equal(numbers, [8.0, 5.0])
    np.testing.assert_array_equal(whole_latent(params, numbers, 4), [5.0, 0.0, 0.0, 8.0])


def test_the_uniform_quantiser_reaches_k_deviations_and_clips_there():
    rows = np.random.default_rng(0).normal(size=(4000, 2)).astype(np.float32) * [1.0, 10.0] + [3.0, 0.0]
    uniform = UniformCompression(UniformConfig(bits=(4,), num_std=3.0))
    points = uniform.points(ArraySource({"latent": rows}))
    parts = uniform.encoder_parts({"points": points}, 0)
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    np.testing.assert_allclose(parts["lower"], mean - 3 * std, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(parts["lower"] + 15 * parts["step"], mean + 3 * std, rtol=1e-4, atol=1e-4)
    far = jnp.asarray(mean + np.asarray([9.0, -9.0]) * std, jnp.float32)
    np.testing.assert_array_equal(uniform.analyse(parts, far), [15, 0])
    inside = jnp.asarray(mean + np.asarray([0.7, -1.3]) * std, jnp.float32)
    error = np.abs(uniform.synthesise(parts, uniform.analyse(parts, inside)) - inside)
    assert (error <= np.asarray(parts["step"]) / 2 * 1.001).all()


def test_one_range_and_one_table_for_all():
    rows = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32) * [1.0, 2.0, 3.0]
    points = UniformCompression(UniformConfig(bits=(4,), one_range=True, one_table=True)).points(ArraySource({"latent": rows}))
    assert len(set(points["0"]["step"].tolist())) == 1
    assert len(points["0"]["tables"]["first"]) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: UniformConfig(bits=(5, 4)), "bits must be ascending"),
        (lambda: UniformConfig(num_std=0.0), "num_std"),
        (lambda: AdaptationConfig(step_sizes="adam"), "step_sizes"),
        (lambda: AdaptationConfig(inner_lr=-1.0), "inner_lr"),
        (lambda: make_codec("coinpp", {"compression": {"kind": "zip"}}), r"no kind 'zip' \(valid: uniform, variational"),
        (lambda: LatentCodecConfig(field=FieldConfig(modulation="none")), "changes nothing"),
        (lambda: FieldConfig(omega_0=0.0), "omega_0"),
        (lambda: FieldConfig(last_width=-1), "last_width"),
        (lambda: LatentCodecConfig(field=dataclasses.replace(FieldConfig(), channels=1)), "channels"),
    ],
)
def test_bad_configs_name_what_is_wrong(make, words):
    with pytest.raises(ValueError, match=words):
        make()

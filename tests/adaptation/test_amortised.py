"""The analysis that takes the inner loop's place: what it starts as, what trains it, and a model of it from file to file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.adaptation.amortised import amortised_stage, analyse, whitening
from vcinr.adaptation.meta_learning import nearest_latent, signal_loss
from vcinr.codecs import make_codec
from vcinr.datasets.sources import PatchSource, Samples
from vcinr.modalities import MODALITIES
from vcinr.model.model import make_model
from vcinr.stage import Stage
from vcinr.training.run import train
from vcinr.trees import load_tree, save_tree

QUICK = {"num_steps": 30, "batch_size": 8, "lr": 3e-3, "warmup_steps": 3, "eval_every": 0, "checkpoint_every": 0}
CONFIG = {
    "patch": (8, 8),
    "field": {"num_layers": 3, "width": 16, "latent_dim": 6, "hyper_width": 16, "hyper_depth": 1},
    "adaptation": {"subset": 24, "projection_steps": 2},
    "amortised": {"enabled": True, "num_patches": 500},
    "meta": {**QUICK, "num_steps": 150},
    "compression": {"lambdas": (0.002, 0.02), "width": 16, "depth": 1, "num_latents": 100, "training": QUICK},
    "encode_batch": 8,
}


@pytest.fixture(scope="module")
def patches():
    """Smooth pictures, and what the codec sees of them."""
    rng = np.random.default_rng(0)
    waves = np.stack(np.meshgrid(*[np.linspace(0, 3, 24)] * 2), -1) @ rng.normal(size=(2, 60))
    pictures = [np.uint8(127 + 90 * np.sin(waves[..., [i, i + 20, i + 40]])) for i in range(20)]
    return PatchSource(Samples(pictures, MODALITIES["picture"]), (8, 8))


@pytest.fixture(scope="module")
def trained(patches, tmp_path_factory):
    codec = make_codec("vc_inr", CONFIG)
    return codec, train(codec, patches, seed=0, workdir=tmp_path_factory.mktemp("run"), quiet=True)


def latents_of(analysis, values):
    return np.stack([analyse(analysis, jnp.asarray(row, jnp.float32)) for row in values])


def test_the_analysis_starts_as_uncorrelated_latents_of_unit_variance():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 12, 1)) @ rng.normal(size=(1, 3)) + 0.1 * rng.normal(size=(400, 12, 3))
    analysis = whitening(values.astype(np.float32), 5)
    latents = latents_of(analysis, values)
    np.testing.assert_allclose(latents.mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(np.cov(latents.T, bias=True), np.eye(5), atol=1e-2)


def test_components_that_do_not_exist_give_zero_latents():
    """Patches on a line have one component."""
    values = np.outer(np.linspace(-1, 1, 50), np.arange(6.0)).reshape(50, 2, 3).astype(np.float32)
    analysis = whitening(values, 4)
    latents = latents_of(analysis, values)
    assert np.std(latents[:, 0]) == pytest.approx(1.0, rel=1e-3)
    np.testing.assert_array_equal(latents[:, 1:], 0.0)


def test_padding_counts_as_the_mean():
    draw = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
    analysis = {"mean": draw(0, 4, 3), "kernel": draw(1, 12, 2)}
    values, weight = draw(2, 4, 3), jnp.array([1.0, 1.0, 0.0, 0.0])
    mended = jnp.where(weight[:, None] > 0, values, analysis["mean"])
    np.testing.assert_allclose(analyse(analysis, values, weight), analyse(analysis, mended), rtol=1e-5)
    assert not np.allclose(analyse(analysis, values), analyse(analysis, mended))


def test_the_stage_trains_field_and_analysis_through_one_product(trained):
    """The gradient of the analysis is that of the error with respect to φ, times the patch."""
    codec, params = trained
    stage = amortised_stage(codec.config, 10.0)
    held = {name: jax.tree.map(jnp.asarray, params[name]) for name in ("shared", "analysis")}
    values = jax.random.uniform(jax.random.key(0), (64, 3))
    gradient = jax.grad(lambda p: stage.evaluate(p, {}, {"values": values}, None)[0])(held)
    latent = analyse(held["analysis"], values)
    of_latent = jax.grad(lambda phi: signal_loss(codec.config, held["shared"], phi, values))(latent)
    expected = np.outer((values - held["analysis"]["mean"]).ravel(), of_latent)
    np.testing.assert_allclose(gradient["analysis"]["kernel"], expected, rtol=1e-3, atol=1e-7)
    rates = stage.lr_multipliers(held)["analysis"]
    assert rates["mean"] == 0.0
    assert rates["kernel"] == pytest.approx(10.0 * float(np.abs(held["analysis"]["kernel"]).mean()))


def test_training_lowers_the_error_and_projection_lowers_it_further(trained, patches):
    codec, params = trained[0], jax.tree.map(jnp.asarray, trained[1])
    values = jnp.asarray(patches.all_patches(np.random.default_rng(0), 1, 40).reshape(40, 64, 3), jnp.float32) / 255
    stage = next(s for s in codec.stages() if s.name == "amortised")
    before = codec.init(jax.random.fold_in(jax.random.key(0), 0))["shared"]

    def error(shared, project):
        latents = jax.vmap(lambda v: analyse(params["analysis"], v))(values)
        if project:
            latents = jax.vmap(lambda phi, v: nearest_latent(codec.config, shared, phi, v))(latents, values)
        return float(jnp.mean(jax.vmap(lambda phi, v: signal_loss(codec.config, shared, phi, v))(latents, values)))

    assert isinstance(stage, Stage)
    started, ended, projected = error(before, False), error(params["shared"], False), error(params["shared"], True)
    assert ended < 0.8 * started
    assert projected < ended


def test_files_decode_and_the_decoder_never_reads_the_analysis(trained):
    codec, params = trained
    rng = np.random.default_rng(3)
    picture = np.uint8(rng.integers(0, 255, (13, 21, 3)))
    model = make_model(codec, params, {})
    data = model.encode(picture, point=1)
    bare = make_model(codec, {**params, "analysis": jax.tree.map(np.zeros_like, params["analysis"])}, {})
    decoded = model.decode(data)
    assert decoded.shape == picture.shape
    np.testing.assert_array_equal(bare.decode(data), decoded)


def test_points_share_the_latents_that_a_workdir_keeps(trained, tmp_path):
    codec, params = trained
    model = make_model(codec, params, {})
    picture = np.uint8(np.random.default_rng(4).integers(0, 255, (16, 16, 3)))
    files = [model.encode(picture, point=point, workdir=tmp_path) for point in (0, 1)]
    (kept,) = tmp_path.iterdir()
    assert files == [model.encode(picture, point=point) for point in (0, 1)]
    tree = load_tree(kept)
    save_tree(kept, {"latents": np.zeros_like(tree["latents"])})
    assert model.encode(picture, point=1, workdir=tmp_path) != files[1], "the kept latents are what is coded"
    assert model.encode(255 - picture, point=1, workdir=tmp_path) == model.encode(255 - picture, point=1)
    assert len(list(tmp_path.iterdir())) == 2


def test_two_starts_at_once_are_refused():
    with pytest.raises(ValueError, match="two ways to start"):
        make_codec("vc_inr", {"field": {"linear_head": True}, "warm_start": {"enabled": True}, "amortised": {"enabled": True}})

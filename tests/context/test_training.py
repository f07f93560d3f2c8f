"""What the stages of contextual compression are shown, what they minimise, and all of them in turn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import smooth_picture
from tests.context.test_compression import CONFIG, SHAPES, training_pictures
from vcinr.codecs.contextual_inr import ContextualINR
from vcinr.context import training as context_training
from vcinr.model.model import make_model
from vcinr.stage import ClosedForm, Workplace
from vcinr.training.run import train


def test_training_sees_crops_and_the_field_single_patches():
    codec = ContextualINR(CONFIG)
    params, stages = codec.init(jax.random.key(0)), {stage.name: stage for stage in codec.stages()}
    assert list(stages) == ["components", "warm_start", "meta", "latents", "context", "tables"]
    batch = stages["meta"].examples(params, training_pictures()).batch(np.random.default_rng(0), 2)
    assert batch["values"].shape == (2, 16, 3)


def test_adaptation_that_diverges_on_training_pictures_says_so():
    codec = ContextualINR(CONFIG)
    params = codec.init(jax.random.key(0))
    params["step_sizes"] = {**params["step_sizes"], "reference": np.float32(1e38)}
    params["shared"] = jax.tree.map(lambda a: a + 1.0, params["shared"])
    stage = next(stage for stage in codec.stages() if stage.name == "latents")
    with pytest.raises(ValueError, match="adaptation diverges"):
        stage.examples(params, training_pictures())


@pytest.fixture(scope="module")
def begun():
    """(codec, its parameters before the stage ``context``, the latents of its crops): an exact field."""
    codec, crops = ContextualINR(CONFIG), training_pictures()
    params, source = jax.device_get(codec.init(jax.random.key(0))), None
    for index, stage in enumerate(codec.stages()[:4]):
        source = source if stage.examples is None else stage.examples(params, crops)
        if isinstance(stage, ClosedForm):
            params = stage.solve(jax.random.key(index), params, source, Workplace("", lambda *_: None))
        else:
            params = stage.finish(params, jax.tree.map(jnp.asarray, stage.init(jax.random.key(index), params, source)))
    return codec, jax.device_get(params), source


@pytest.mark.slow
def test_latents_are_those_of_the_patches_of_a_crop(begun):
    codec, params, source = begun
    latents, raw = source.arrays["latent"], training_pictures().all_patches(np.random.default_rng(0), 2, 200)
    assert latents.shape == (len(raw), 4, 4, 12)
    patch = raw[5, 8:12, 12:16].reshape(1, 16, 3) / np.float32(255)
    np.testing.assert_allclose(codec.adapt_all(params, patch)[0], latents[5, 2, 3], atol=1e-4)


@pytest.mark.slow
def test_the_loss_is_the_rate_and_the_distortion_that_rounding_adds(begun):
    """At its start, the synthesis being the identity: λ · 255² · MSE of the field of rounded latents, less the field's own."""
    codec, params, source = begun
    stage = next(stage for stage in codec.stages() if stage.name == "context")
    trained, frozen = jax.tree.map(jnp.asarray, stage.init(jax.random.key(0), params, source)), stage.frozen(params)
    found, expected = [], []
    nearest = dataclasses.replace(CONFIG.compression, rounding="nearest")
    arrays = jax.tree.map(jnp.asarray, params)
    distortion = jax.jit(jax.vmap(codec.distortion, (None, 0, 0)))
    for latent in source.arrays["latent"][:2]:
        point = 1
        _, metrics = context_training._terms(codec, nearest, trained, frozen, jnp.asarray(latent), point)
        found.append(10 ** (-float(metrics["psnr_db"]) / 10))
        assert metrics["bits_per_value"] > 0
        step, mean = np.asarray(frozen["steps"][point]), frozen["statistics"]["mean"]
        rows = latent.reshape(16, -1)
        rounded = mean + step * np.rint((rows - mean) / step)
        values = jax.vmap(lambda row: codec.values(arrays, row))(rows)
        expected.append(np.mean(distortion(arrays, rounded, values)))
    assert np.mean(found) == pytest.approx(np.mean(expected), rel=0.02)


@pytest.mark.slow
def test_all_stages_train_by_themselves(tmp_path):
    codec = ContextualINR(CONFIG)
    params = train(codec, training_pictures(), seed=0, workdir=tmp_path, quiet=True)
    trained = make_model(codec, params, {})
    data = trained.encode_together([smooth_picture(*shape) for shape in SHAPES], 1)
    assert [picture.shape[:2] for picture in trained.decode_together(data)] == SHAPES
    # And a run that was finished is found finished.
    again = train(codec, training_pictures(), seed=0, workdir=tmp_path, quiet=True)
    assert make_model(codec, again, {}).points == trained.points

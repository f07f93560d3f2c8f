"""Configs of contextual codecs, what their stages are shown, and all of them in turn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import smooth_picture
from tests.context.test_compression import CONFIG, SHAPES, training_pictures
from vcinr.codec import training_patch
from vcinr.codecs import make_codec
from vcinr.codecs.vc_inr import VCINR
from vcinr.datasets.sources import ArraySource
from vcinr.model.model import make_model
from vcinr.stage import TrainingConfig
from vcinr.training.loop import run_stage
from vcinr.training.run import train


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"contextual": {"groups": (2, 5, 11)}}, "must end at the latent's 12 dimensions, not at 11"),
        ({"contextual": {"groups": (12,)}}, "two or more"),
        ({"contextual": {"groups": (5, 2, 12)}}, "ascending"),
        ({"contextual": {"groups": (0, 12)}}, "ascending from at least 1"),
        ({"contextual": {"neighbour_dims": -1}}, "neighbour_dims"),
        ({"contextual": {"lambdas": (0.02, 0.003)}}, "positive and rise"),
        ({"contextual": {"lambdas": ()}}, "positive and rise"),
        ({"contextual": {"octaves": 9}}, "octaves lies in 0..8"),
        ({"contextual": {"tuned": "all"}}, "valid are field, nothing, steps"),
        ({"contextual": {"field_rate": 0.0}}, "field_rate must be positive"),
        ({"contextual": {"rounding": "up"}}, "valid are nearest, rate_distortion"),
        ({"crop": (16, 10)}, "whole patches"),
        ({"crop": (16,)}, "whole patches"),
        ({"crop": (0, 16)}, "whole patches"),
        ({"compression": "uniform"}, "crop is for compression contextual"),
    ],
)
def test_configs_that_make_no_sense_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        make_codec("vc_inr", {**dataclasses.asdict(CONFIG), **change, **nested(change)})


def nested(change):
    part = change.get("contextual")
    return {} if part is None else {"contextual": {**dataclasses.asdict(CONFIG.contextual), **part}}


def test_training_sees_crops_and_the_field_single_patches():
    codec = VCINR(CONFIG)
    assert training_patch(codec) == (16, 16)
    assert training_patch(VCINR(dataclasses.replace(CONFIG, crop=()))) == (4, 4)
    params, stages = codec.init(jax.random.key(0)), {stage.name: stage for stage in codec.stages()}
    assert list(stages) == ["components", "warm_start", "meta", "latents", "context", "tables"]
    batch = stages["meta"].examples(params, training_pictures()).batch(np.random.default_rng(0), 2)
    assert batch["values"].shape == (2, 16, 3)


def test_adaptation_that_diverges_on_training_pictures_says_so():
    codec = VCINR(CONFIG)
    params = codec.init(jax.random.key(0))
    params["step_sizes"] = {**params["step_sizes"], "reference": np.float32(1e38)}
    params["shared"] = jax.tree.map(lambda a: a + 1.0, params["shared"])
    stage = next(stage for stage in codec.stages() if stage.name == "latents")
    with pytest.raises(ValueError, match="adaptation diverges"):
        stage.examples(params, training_pictures())


def end_to_end(tuned):
    """A codec that tunes so, for a few steps."""
    stage = TrainingConfig(3, 4, lr=1e-3, warmup_steps=1, collapse_db=0.0)
    return VCINR(dataclasses.replace(CONFIG, contextual=dataclasses.replace(CONFIG.contextual, end_to_end=stage, tuned=tuned)))


@pytest.fixture(scope="module")
def begun():
    """(parameters before `end_to_end`, its crops): an exact field, networks as they start."""
    codec, crops = end_to_end("field"), training_pictures()
    params = jax.device_get(codec.init(jax.random.key(0)))
    stages, source = {stage.name: stage for stage in codec.stages()}, None
    assert list(stages) == ["components", "warm_start", "meta", "latents", "context", "end_to_end", "tables"]
    for index, stage in enumerate(list(stages.values())[:5]):
        source = source if stage.examples is None else stage.examples(params, crops)
        started = jax.tree.map(jnp.asarray, stage.init(jax.random.key(index), params, source))
        params = jax.device_get(stage.finish(params, started))
    return params, stages["end_to_end"].examples(params, crops)


def test_crops_are_cut_into_their_patches(begun):
    pictures = training_pictures()
    raw = pictures.batch(np.random.default_rng(3), 2)["values"]
    got = begun[1].batch(np.random.default_rng(3), 2)["values"]
    assert got.shape == (2, 4, 4, 16, 3)
    np.testing.assert_allclose(got[1, 2, 3].reshape(4, 4, 3) * 255, raw[1, 8:12, 12:16], atol=1e-3)


def test_from_pixels_to_pixels_it_is_the_rate_and_distortion_of_latents_and_what_the_field_misses(begun):
    params, crops = begun
    codec = end_to_end("field")
    stages = {stage.name: stage for stage in codec.stages()}
    values = crops.batch(np.random.default_rng(0), 1)["values"][0]
    latent = codec.adapt_all(params, values.reshape(-1, *values.shape[2:]))
    rows = (jnp.asarray(latent), jnp.asarray(values.reshape(-1, 16, 3)))
    arrays = jax.tree.map(jnp.asarray, params)
    missed = float(np.mean(jax.vmap(lambda row, y: codec.distortion(arrays, row, y))(*rows)))
    sources = {"context": ArraySource({"latent": latent.reshape(1, 4, 4, -1)}), "end_to_end": crops}
    examples = {"context": {"latent": jnp.asarray(latent.reshape(4, 4, -1))}, "end_to_end": {"values": jnp.asarray(values)}}
    found = {}
    for name, example in examples.items():
        trained = jax.tree.map(jnp.asarray, stages[name].init(jax.random.key(0), params, sources[name]))
        _, metrics = stages[name].loss(trained, stages[name].frozen(params), example, jax.random.key(5))
        found[name] = (float(metrics["bits_a_value"]), 10 ** (-float(metrics["psnr_db"]) / 10))
    assert found["end_to_end"][0] == pytest.approx(found["context"][0], rel=1e-3)
    assert found["end_to_end"][1] == pytest.approx(found["context"][1] + missed, rel=0.02)


@pytest.mark.parametrize("tuned", ["nothing", "steps", "field"])
def test_only_what_is_to_be_tuned_is(begun, tuned):
    params, crops = begun
    stage = next(stage for stage in end_to_end(tuned).stages() if stage.name == "end_to_end")
    trained = jax.tree.map(jnp.asarray, stage.init(jax.random.key(0), params, crops))
    example = {"values": jnp.asarray(crops.batch(np.random.default_rng(0), 1)["values"][0])}
    gradient = jax.grad(lambda t: stage.loss(t, stage.frozen(params), example, jax.random.key(5))[0])(trained)
    moved = {name: any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(part)) for name, part in gradient.items()}
    assert moved == {
        "prior": True, "synthesis": True, "loss_scale": False, "log_step": tuned != "nothing", "field": tuned == "field"
    }  # fmt: skip
    kept = [name for name, part in gradient["field"].items() if not any(np.abs(x).max() > 0 for x in jax.tree.leaves(part))]
    assert kept == ([] if tuned == "field" else list(trained["field"]))
    rates = stage.lr_multipliers(trained)
    assert jax.tree.structure(rates) == jax.tree.structure(trained)
    assert rates["field"]["step_sizes"] == {"log_scale": CONFIG.contextual.field_rate, "reference": 0.0}


def test_what_adaptation_does_not_learn_stays_in_tuning_too(begun):
    params, crops = begun
    codec = end_to_end("field")
    fixed = dataclasses.replace(CONFIG.adaptation, step_sizes="fixed", learn_start=False)
    codec = VCINR(dataclasses.replace(codec.config, adaptation=fixed))
    stage = next(stage for stage in codec.stages() if stage.name == "end_to_end")
    trained = jax.tree.map(jnp.asarray, stage.init(jax.random.key(0), params, crops))
    example = {"values": jnp.asarray(crops.batch(np.random.default_rng(0), 1)["values"][0])}
    gradient = jax.grad(lambda t: stage.loss(t, stage.frozen(params), example, jax.random.key(5))[0])(trained)["field"]
    moved = {name: any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(part)) for name, part in gradient.items()}
    assert moved == {"shared": True, "latent_init": False, "step_sizes": False}


@pytest.mark.slow
def test_tuning_ends_in_a_model_whose_steps_and_field_are_its_own(begun, tmp_path):
    codec, params = end_to_end("field"), begun[0]
    before, stages = params["shared"], codec.stages()
    for index, stage in enumerate(stages[5:], start=5):
        params = run_stage(stage, params, training_pictures(), seed=0, workdir=tmp_path, index=index)
    assert np.abs(params["shared"]["head_kernel"] - before["head_kernel"]).max() > 0
    trained = make_model(codec, params, {})
    assert set(trained.params) == {"shared", "latent_init", "step_sizes", "latent_mean", "synthesis", "network", "points"}
    picture = smooth_picture(20, 30)
    assert trained.decode(trained.encode(picture, 1)).shape == picture.shape


@pytest.mark.slow
def test_all_stages_train_by_themselves(tmp_path):
    codec = VCINR(CONFIG)
    params = train(codec, training_pictures(), seed=0, workdir=tmp_path, quiet=True)
    trained = make_model(codec, params, {})
    data = trained.encode_together([smooth_picture(*shape) for shape in SHAPES], 1)
    assert [picture.shape[:2] for picture in trained.decode_together(data)] == SHAPES
    # And a run that was finished is found finished.
    again = train(codec, training_pictures(), seed=0, workdir=tmp_path, quiet=True)
    assert make_model(codec, again, {}).points == trained.points

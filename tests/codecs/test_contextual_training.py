"""Configs of contextual codecs, what their stages are shown, and all of them in turn."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.codecs.test_contextual import CONFIG, SHAPES, training_pictures
from tests.conftest import smooth_picture
from vcinr.codecs import make_codec
from vcinr.codecs.codec import training_patch
from vcinr.codecs.vc_inr import VCINR
from vcinr.model import make_model
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

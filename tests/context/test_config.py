"""Configs of contextual compression that make no sense are refused, and in words."""

import dataclasses

import pytest

from tests.context.test_compression import CONFIG
from vcinr.codecs import make_codec
from vcinr.codecs.contextual_inr import ContextualINR


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"groups": (2, 5, 11)}, "must end at the latent's 12 dimensions, not at 11"),
        ({"groups": (12,)}, "two or more"),
        ({"groups": (5, 2, 12)}, "ascending"),
        ({"groups": (0, 12)}, "ascending from at least 1"),
        ({"neighbour_dims": -1}, "neighbour_dims"),
        ({"lambdas": (0.02, 0.003)}, "positive and rise"),
        ({"lambdas": (0.02, 0.02)}, "positive and rise"),
        ({"lambdas": (0.0, 0.02)}, "positive and rise"),
        ({"lambdas": ()}, "positive and rise"),
        ({"octaves": 9}, "octaves lies in 0..8"),
        ({"rounding": "up"}, "valid are nearest, rate_distortion"),
        ({"crop": (16, 10)}, "whole patches"),
        ({"crop": (16,)}, "whole patches"),
        ({"crop": (0, 16)}, "whole patches"),
    ],
)
def test_configs_that_make_no_sense_are_refused(change, match):
    settings = dataclasses.asdict(CONFIG)
    assert make_codec("contextual_inr", settings).config == CONFIG
    with pytest.raises(ValueError, match=match):
        make_codec("contextual_inr", {**settings, "compression": {**settings["compression"], **change}})


def test_a_crop_is_one_patch_where_none_is_named():
    alone = dataclasses.replace(CONFIG, compression=dataclasses.replace(CONFIG.compression, crop=()))
    assert ContextualINR(CONFIG).training_patch == (16, 16)
    assert ContextualINR(alone).training_patch == (4, 4)

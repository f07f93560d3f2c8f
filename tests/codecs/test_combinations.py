"""Every combination of field, adaptation, quantiser and coder: the valid ones train a step and come back from a file, the
others are refused in words."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.codecs.combinations import COMBINATIONS
from vcinr.bitstream.payload import estimated_bits
from vcinr.codecs import CODECS, Codec, make_codec
from vcinr.datasets.sources import PatchSource
from vcinr.model.finding import load
from vcinr.model.model import make_model
from vcinr.training.run import train

ONE_STEP = {"num_steps": 1, "batch_size": 2, "warmup_steps": 0, "lr": 1e-3}
PICTURE = np.random.default_rng(0).integers(0, 256, (11, 7, 3), np.uint8)

# Sizes that make each codec quick; whatever a combination says comes on top.
SMALL = {
    "patch": (6, 6),
    "crop": (6, 6),
    "num_components": 4,
    "steps": (40.0,),
    "architectures": ((2, 5),),
    "widths": (5,),
    "num_steps": 2,
    "num_layers": 2,
    "num_frequencies": 2,
    "target": 0.3,
    "rounds": 1,
    "betas": (1e-4, 1e-5),
    "prior": {"training": ONE_STEP, "num_patches": 8, "lr": 0.1, "first_update": 9, "update_every": 1},
    "field": {"num_layers": 2, "width": 6, "latent_dim": 3, "rank": 1, "hyper_width": 6, "hyper_depth": 1, "num_frequencies": 2},
    "gates": {"target": 0.3},
    "meta": ONE_STEP,
    "sparsify": ONE_STEP,
    "retrain": ONE_STEP,
}
SMALL_CODING = {
    "strumpler": {"adaround": {"num_steps": 2}, "retraining": {"num_steps": 2}},
    "combiner": {"num_steps": 2, "fine_tune_steps": 1, "budget": 8},
}
SMALL_COMPRESSION = {
    "uniform": {"bits": (5,), "num_latents": 16},
    "contextual": {
        "crop": (6, 6),
        "lambdas": (0.01,),
        "groups": (1, 2, 3),
        "neighbour_dims": 2,
        "width": 4,
        "synthesis_width": 4,
        "num_latents": 16,
        "num_counted": 4,
        "training": ONE_STEP,
    },
    "variational": {"lambdas": (0.01,), "width": 4, "num_latents": 16, "prior_steps": 2, "training": ONE_STEP},
}


def config_of(combination):
    """The codec's defaults made small, then the combination's own words."""
    keys = {field.name for field in dataclasses.fields(CODECS[combination.codec][1])}
    config = {}
    for key, value in SMALL.items():
        if key in keys:
            config[key] = dict(value) if isinstance(value, dict) else value
    if "coding" in keys:
        config["coding"] = SMALL_CODING[combination.codec.partition("_")[0]]
    if "compression" in keys:
        kind = combination.config.get("compression", {}).get("kind", CODECS[combination.codec][1]().compression.kind)
        config["compression"] = SMALL_COMPRESSION[kind]
    if "warm_start" in keys:
        config["warm_start"] = {"num_patches": 64, "training": ONE_STEP}
    for key, value in combination.config.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    return config


def title(combination):
    return f"{combination.codec}: {combination.field} × {combination.adaptation} × {combination.quantiser} × {combination.coder}"


VALID = [combination for combination in COMBINATIONS if not combination.refused]
REFUSED = [combination for combination in COMBINATIONS if combination.refused]


def test_the_table_covers_every_codec_and_enough_pairs():
    assert {combination.codec for combination in VALID} == set(CODECS)
    assert len({(c.field, c.adaptation, c.quantiser, c.coder) for c in VALID}) == len(VALID) >= 12


@pytest.mark.slow
@pytest.mark.parametrize("combination", VALID, ids=title)
def test_a_valid_combination_trains_a_step_and_comes_back(combination, tmp_path):
    codec = make_codec(combination.codec, config_of(combination))
    assert isinstance(codec, Codec)
    if codec.stages():
        pictures = np.random.default_rng(1).integers(0, 256, (2, 13, 12, 3), np.uint8)
        params = train(codec, PatchSource(pictures, codec.training_patch), seed=0, workdir=tmp_path / "run", quiet=True)
    else:
        params = jax.device_get(codec.init(jax.random.key(0)))
    make_model(codec, params, {}).save(tmp_path / "model")
    model = load(tmp_path / "model")
    (code,), (grid,) = model.make_codes([PICTURE], 0)
    data = model.write_codes(0, [code], [grid])
    _, (read,), _ = model.read_codes(data)
    for name in codec.streams:
        np.testing.assert_array_equal(read.streams[name], code.streams[name])
    assert model.decode(data).shape == PICTURE.shape
    assert abs(8 * model.payload_bytes(data) - estimated_bits(codec, model.params, 0, grid, code)) < 24


@pytest.mark.parametrize("combination", REFUSED, ids=title)
def test_an_invalid_combination_is_refused(combination):
    with pytest.raises(ValueError, match=combination.refused):
        make_codec(combination.codec, config_of(combination))

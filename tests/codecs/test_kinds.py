"""Codecs on kinds of signal with one, two and three axes: whole patches, remainders, signals smaller than a patch."""

import numpy as np
import pytest

from benchmarks.small_models import untrained
from vcinr.codecs import make_codec
from vcinr.datasets.sources import PatchSource
from vcinr.modalities import MODALITIES
from vcinr.modalities.climate import ClimateField
from vcinr.modalities.sound import Recording
from vcinr.model.model import make_model

TRAINING = {"num_steps": 1, "batch_size": 2, "warmup_steps": 0}
RAYS = {"coord_dim": 3, "channels": 4}
FIELD = {"num_layers": 2, "width": 6, "latent_dim": 3, "rank": 1, "hyper_width": 4, "hyper_depth": 1}
VARIATIONAL = {"lambdas": (0.1,), "width": 4, "num_latents": 16, "prior_steps": 2, "training": TRAINING}
CONTEXT = {"lambdas": (0.1,), "groups": (1, 2, 3), "neighbour_dims": 2, "octaves": 1, "width": 4, "synthesis_width": 4}
CODECS = {
    "klt": {"num_components": 5, "steps": (40.0,), "num_patches": 16},
    "vc_inr": {"field": FIELD, "meta": TRAINING, "compression": VARIATIONAL},
    "coinpp": {"field": FIELD, "meta": TRAINING, "compression": {"bits": (4,), "num_latents": 16}},
    "mscn_structured": {
        "field": {**FIELD, "modulation": "shifts"},
        "gates": {"target": 0.5},
        "sparsify": TRAINING,
        "meta": TRAINING,
        "compression": {"bits": (4,), "num_latents": 16},
    },
    "combiner_plus": {
        "field": {"num_layers": 2, "width": 4, "num_frequencies": 2},
        "positional": {"channels": 2, "stride": 2, "outputs": 2},
        "betas": (1e-3,),
        "prior": {"training": TRAINING, "num_patches": 8, "lr": 0.1},
        "coding": {"num_steps": 1, "fine_tune_steps": 0, "budget": 6},
    },
    "contextual_inr": {
        "field": {"num_layers": 2, "width": 6, "last_width": 8, "latent_dim": 3},
        "meta": TRAINING,
        "warm_start": {"training": TRAINING},
        "compression": {**CONTEXT, "num_latents": 16, "num_counted": 4, "training": TRAINING},
    },
}
PATCHES = {"sound": (8,), "climate": (6, 8), "climate_region": (4, 4), "voxels": (4, 4, 4), "video": (2, 4, 4)}
SHAPES = {
    "sound": [(24,), (29,), (3,)],
    "climate": [(6, 8)],
    "climate_region": [(8, 8), (9, 6), (2, 3)],
    "voxels": [(4, 8, 4), (5, 4, 9), (2, 3, 2)],
    "video": [(2, 4, 8), (3, 5, 4), (1, 2, 2)],
}


def raw(kind, shape, seed):
    rng = np.random.default_rng(seed)
    if kind == "sound":
        return Recording(rng.integers(-9000, 9000, (*shape, 1)).astype(np.int16), 8000)
    if kind == "climate":
        height, width = shape
        values = 280 + rng.normal(size=shape).astype(np.float32)
        return ClimateField(values, 90 - (np.arange(height) + 0.5) * 180 / height, np.arange(width) * 360.0 / width)
    if kind == "climate_region":
        return ClimateField(
            280 + rng.normal(size=shape).astype(np.float32), 40.0 + np.arange(shape[0]), 5.0 + np.arange(shape[1])
        )
    row = MODALITIES[kind]
    return row.pack(row.denormalise(rng.random((*shape, row.channels))), row.example_metadata)


QUICK = {("klt", kind) for kind in PATCHES} | {("vc_inr", "sound"), ("vc_inr", "climate")}
CASES = [(codec, kind) for codec in CODECS for kind in PATCHES]


@pytest.mark.parametrize(
    ("codec", "kind"), [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]
)
def test_signals_of_any_shape_come_back_in_it(codec, kind):
    row, patch = MODALITIES[kind], PATCHES[kind]
    config = {"modality": kind, "patch": patch, **CODECS[codec]}
    if "field" in config:
        config["field"] = {**config["field"], "coord_dim": row.coord_dim, "channels": row.outputs}
    if codec == "contextual_inr":
        if kind == "climate":
            pytest.skip("a globe is one patch, which has no neighbours")
        config["compression"] = {**config["compression"], "crop": tuple(2 * n for n in patch)}
    built = make_codec(codec, config)
    large = built.training_patch if kind == "climate" else tuple(2 * n for n in built.training_patch)
    samples = [row.unpack(raw(kind, large, seed))[0] for seed in range(4)]
    model = make_model(built, untrained(built, PatchSource(samples, built.training_patch)), {})
    signals = [raw(kind, shape, 9) for shape in SHAPES[kind]]
    files = model.encode_batch(signals, 0)
    for signal, data in zip(signals, files, strict=True):
        decoded, metadata = row.unpack(model.decode(data))
        wanted, own = row.unpack(signal)
        assert (decoded.shape, decoded.dtype) == (wanted.shape, wanted.dtype)
        assert set(metadata) == set(own)
    together = model.encode_together(signals, 0)
    assert [row.unpack(each)[0].shape for each in model.decode_together(together)] == [row.unpack(s)[0].shape for s in signals]


@pytest.mark.parametrize("codec", ["combiner", "combiner_plus", "strumpler_basic", "strumpler_meta", "contextual_inr"])
def test_codecs_that_evaluate_fields_at_samples_refuse_what_is_seen_through_cameras(codec):
    patch = {"strumpler_basic": {}, "strumpler_meta": {"crop": (2, 4, 4)}}.get(codec, {"patch": (2, 4, 4)})
    with pytest.raises(ValueError, match="has no radiance_field: its samples are no values of a field"):
        make_codec(codec, {"modality": "radiance_field", **patch, **({} if codec == "strumpler_basic" else {"field": RAYS})})

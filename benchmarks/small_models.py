"""A model of every codec, small enough that a file is read in about a millisecond; trained for no step at all."""

from __future__ import annotations

import dataclasses
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.codec import Codec
from vcinr.codecs import CODECS, make_codec
from vcinr.datasets.sources import PatchSource
from vcinr.model.model import Model, make_model
from vcinr.stage import ClosedForm, Params, Workplace

_TRAINING = {"num_steps": 1, "batch_size": 2, "warmup_steps": 0}
_SMALL: dict[str, Any] = {
    "patch": (4, 4),
    "crop": (6, 6),
    "num_components": 6,
    "steps": (60.0, 20.0),
    "architectures": ((1, 3), (2, 5)),
    "widths": (4, 6),
    "num_steps": 2,
    "num_layers": 2,
    "num_frequencies": 2,
    "betas": (1e-3, 1e-4),
    "prior": {"training": _TRAINING, "num_patches": 8, "lr": 0.1},
    "positional": {"channels": 2, "stride": 2, "outputs": 2},
    "target": 0.3,
    "rounds": 1,
    "field": {"num_layers": 2, "width": 5, "latent_dim": 3, "rank": 1, "hyper_width": 4, "hyper_depth": 1, "num_frequencies": 2},
    "gates": {"target": 0.3},
    "meta": _TRAINING,
    "sparsify": _TRAINING,
    "retrain": _TRAINING,
}
"""Values of keys that many configs share."""
_SMALL_CODINGS: dict[str, dict[str, Any]] = {
    "CodingConfig": {"num_steps": 1, "fine_tune_steps": 0, "budget": 6},
    "WeightCodingConfig": {"adaround": {"num_steps": 1}, "retraining": {"num_steps": 1}},
}
_SMALL_COMPRESSIONS: dict[str, dict[str, Any]] = {
    "uniform": {"bits": (3, 6), "num_latents": 64},
    "variational": {"lambdas": (0.01, 0.1), "width": 4, "num_latents": 64, "prior_steps": 2, "training": _TRAINING},
    "contextual": {
        "lambdas": (0.01, 0.1),
        "groups": (1, 2, 3),
        "neighbour_dims": 2,
        "octaves": 1,
        "width": 4,
        "synthesis_width": 4,
        "num_latents": 64,
        "num_counted": 8,
        "training": _TRAINING,
    },
}


def small_codec(name: str) -> Codec:
    """A codec of `CODECS` with little in it."""
    fields = dataclasses.fields(CODECS[name][1])
    config = {field.name: _SMALL[field.name] for field in fields if field.name in _SMALL}
    for field in fields:
        if field.name == "compression":
            config["compression"] = {"kind": field.default.kind, **_SMALL_COMPRESSIONS[field.default.kind]}
        if field.name == "coding":
            config["coding"] = _SMALL_CODINGS[type(field.default).__name__]
    return make_codec(name, config)


def untrained(codec: Codec, patches: Any) -> Params:
    """Parameters after every stage as it starts: their sizes and tables are real, their quality is not."""
    params = codec.init(jax.random.key(0))
    source = patches
    for stage in codec.stages():
        source = source if stage.examples is None else stage.examples(params, patches)
        if isinstance(stage, ClosedForm):
            with tempfile.TemporaryDirectory() as workdir:
                params = stage.solve(jax.random.key(1), params, source, Workplace(workdir, lambda *_: None))
        else:
            started = stage.init(jax.random.key(1), params, source)
            own = [] if stage.per_signal is None else [stage.per_signal.init(jax.random.key(2), params, source)]
            params = stage.finish(params, *jax.tree.map(jnp.asarray, (started, *own)))
        params = jax.device_get(params)
    return params


def small_model(name: str) -> Model:
    """An untrained model of `small_codec`."""
    codec = small_codec(name)
    pictures = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), np.uint8)
    patch = codec.training_patch
    params = untrained(codec, PatchSource(list(pictures), patch) if codec.stages() else None)
    return make_model(codec, params, {"about": "untrained"})

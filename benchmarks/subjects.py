"""Subjects of the benchmarks: synthetic pictures, a VC-INR config, and an untrained model of it."""

from __future__ import annotations

import dataclasses

import numpy as np

from benchmarks.small_models import untrained
from vcinr.codecs.vc_inr import VCINR, VCINRConfig
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.datasets.sources import PatchSource
from vcinr.fields.field import FieldConfig
from vcinr.model.model import Model, make_model
from vcinr.stage import TrainingConfig


def vc_inr_config(num_layers: int = 5, width: int = 64, batch_size: int = 16, patch: int = 32) -> VCINRConfig:
    """A config with low-rank gates from a latent of 64, and one operating point."""
    return VCINRConfig(
        patch=(patch, patch),
        field=FieldConfig(num_layers=num_layers, width=width, latent_dim=64),
        meta=TrainingConfig(batch_size=batch_size),
        compression=BottleneckConfig(lambdas=(0.01,), width=128, num_latents=128, prior_steps=100),
    )


def describe(config: VCINRConfig) -> str:
    """The sizes of a config in one line."""
    f = config.field
    return (
        f"{f.num_layers} layers × {f.width}, {f.modulation} of rank {f.rank}, latent {f.latent_dim}, "
        f"hypernetwork {f.hyper_depth} × {f.hyper_width}, patches {'×'.join(map(str, config.patch))}, "
        f"{config.adaptation.num_steps} inner steps"
    )


def pictures(count: int, height: int, width: int) -> list[np.ndarray]:
    """Different pictures of smooth waves with a little noise, uint8 [height, width, 3] each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / 16.0
    made = []
    for _ in range(count):
        fy, fx, phase = rng.uniform(-1.5, 1.5, (3, 3, 4, 1, 1))
        waves = 30 * np.sin(fy * y + fx * x + 2 * np.pi * phase).sum(axis=1)
        noisy = 127.5 + np.moveaxis(waves, 0, -1) + rng.normal(0, 4, (height, width, 3))
        made.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return made


def patch_source(config: VCINRConfig) -> PatchSource:
    """Training patches of synthetic pictures."""
    return PatchSource(pictures(8, 4 * config.patch[0], 4 * config.patch[1]), config.patch)


def untrained_model(config: VCINRConfig) -> Model:
    """A model whose stages made no training step: its sizes and tables are realistic, its quality is not."""
    codec = VCINR(config)
    params = untrained(codec, patch_source(config))
    return make_model(codec, params, {"about": "untrained, to measure speed"})


def with_batch(model: Model, batch_size: int) -> Model:
    """The same model with another batch size in encoding and decoding."""
    config = dataclasses.replace(model.codec.config, encode_batch=batch_size)
    return Model(VCINR(config), model.params, model.points, model.info, model.precision)

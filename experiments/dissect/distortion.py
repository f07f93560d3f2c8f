"""A bottleneck trained again on the same latents, with distortion measured on φ instead of on the signal."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.dissect.coding import curve_cells, gain, learned
from experiments.dissect.models import Part, held_out, label, of_each_model, training_patches
from vcinr.codecs.latent_codec import LatentCodec
from vcinr.compression.variational import VariationalCompression
from vcinr.datasets.sources import ArraySource
from vcinr.model.finding import load
from vcinr.model.model import Model
from vcinr.stage import AnyStage, Params
from vcinr.training.run import train


@dataclasses.dataclass(frozen=True)
class BottleneckOnly:
    """A finished field for `vcinr.training`, with the stages of a bottleneck on given examples."""

    codec: LatentCodec
    config: Any
    params: Params
    steps: tuple[AnyStage, ...]
    name = "bottleneck"

    @property
    def modality(self) -> str:
        return self.codec.modality

    @property
    def patch(self) -> tuple[int, ...]:
        return self.codec.patch

    def init(self, key: jax.Array) -> Params:
        del key
        return {**{name: tree for name, tree in self.params.items() if name != "points"}, "points": {}}

    def stages(self) -> tuple[AnyStage, ...]:
        return self.steps


DISTORTIONS = {
    "the signal": ("signal", True),
    "φ, by sensitivity": ("latent", True),
    "φ, all dimensions alike": ("latent", False),
}
"""What distortion is measured on → (``compression.distortion``, whether dimensions of φ count by their sensitivity)."""


def alike(statistics: Params) -> Params:
    """Statistics with one sensitivity for all dimensions, such that the latents' variance weighs as much as before."""
    variance = np.square(statistics["std"])
    share = np.sum(statistics["sensitivity"] * variance) / np.sum(variance)
    return {**statistics, "sensitivity": np.full_like(statistics["sensitivity"], share)}


def bottleneck_of(model: Model, config: Any, weighted: bool, source: ArraySource) -> BottleneckOnly:
    """The training of a bottleneck for a finished field; it starts from the same steps whatever distortion counts."""

    def frozen(stage: Any, params: Params) -> Params:
        found = stage.frozen(params)
        return found if weighted else {**found, "latent_statistics": alike(params["latent_statistics"])}

    stages = [
        dataclasses.replace(
            stage, examples=lambda params, patches: source, frozen=lambda params, stage=stage: frozen(stage, params)
        )
        for stage in VariationalCompression(config).stages(model.codec)[1:]
    ]
    return BottleneckOnly(model.codec, config, model.params, tuple(stages))


def distortion_rows(name: str, options: argparse.Namespace) -> list[list[Any]]:
    """One model's bottleneck, trained again on the same latents with distortion measured otherwise."""
    model = load(name)
    codec, config = model.codec, model.codec.config.compression
    values = held_out(model, options.patches)
    latents = codec.adapt_all(model.params, values)
    source = codec.latents(options.latents, config.offsets_per_picture, model.params, training_patches(model))
    samples, found, seconds = int(np.prod(codec.patch)), {}, {}
    changes = {"num_steps": options.steps, "batch_size": 16, "warmup_steps": options.steps // 10, "eval_every": 0}
    training = dataclasses.replace(config.training, **changes, average_decay=0.99, checkpoint_every=0)
    for arm, (distortion, weighted) in DISTORTIONS.items():
        chosen = dataclasses.replace(config, distortion=distortion, training=training)
        started = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            trainable = bottleneck_of(model, chosen, weighted, source)
            params = train(trainable, source, seed=options.seed, workdir=Path(folder), quiet=True)
        seconds[arm] = round(time.process_time() - started)
        found[arm] = learned(codec, params, chosen, latents, values)
    first, *_ = found.values()
    return [
        [label(name), arm, seconds[arm], *curve_cells(c, samples), *([None, None] if c is first else gain(first, c, samples))]
        for arm, c in found.items()
    ]


PART = Part(
    title="Distortion of φ against distortion of the signal, in training the bottleneck",
    about="""Bottlenecks for one finished field: same {latents} training latents, same start, same λ, {steps} steps of 16 for each
    point, seed {seed}; only what distortion counts differs. By sensitivity: squared errors of φ weighted by the mean
    of |∂f/∂φ_k|², which is the signal's error to first order where ∂f/∂φ depends little on φ; all dimensions alike:
    one weight, such that the latents' variance weighs as much. At most {patches} validation patches, bits by the
    tables, PSNR of the mean squared error. Gains over the rows whose distortion is the signal's: Bjøntegaard's, ±
    standard deviation over draws of the patches.""",
    columns=("model", "distortion of", "CPU s", "bpp", "PSNR dB", "over the signal's, dB", "over the signal's, % rate"),
    options=("patches", "latents", "steps", "seed"),
    rows=of_each_model(distortion_rows),
)

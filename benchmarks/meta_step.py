"""A meta-training step of a VC-INR, compared with the same step without each of its optimisations, and without all."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from benchmarks.subjects import describe, patch_source
from benchmarks.timing import milliseconds, paired_times, ratio
from vcinr.adaptation.inner_loop import StepSizes, step_size
from vcinr.adaptation.meta_learning import signal_loss
from vcinr.codecs.vc_inr import VCINR, VCINRConfig
from vcinr.devices import all_devices_mesh, replicate, shard_batch
from vcinr.stage import Stage
from vcinr.training.optimisers import make_optimiser
from vcinr.training.stages import make_step
from vcinr.training.state import init_state


@dataclasses.dataclass(frozen=True)
class Variant:
    """One implementation of the step.

    sine: key of `SINES`.
    looped: inner steps as a Python loop that keeps all intermediates, instead of a scan that recomputes them.
    microbatch: examples per device at once; 0: the device's whole share of the batch.
    """

    sine: str = "fast"
    looped: bool = False
    microbatch: int = 4


OURS, NAIVE = "vcinr", "all three: the naive step"
VARIANTS = {
    OURS: Variant(),
    "jnp.sin for the polynomial sine": Variant(sine="exact"),
    "Python loop for scan + remat": Variant(looped=True),
    "whole batch for microbatches": Variant(microbatch=0),
    NAIVE: Variant("exact", True, 0),
}


def looped_meta_loss(config: VCINRConfig, trained: Mapping[str, Any], example: Mapping[str, jax.Array]) -> tuple[jax.Array, dict]:
    """A naive implementation of `vcinr.adaptation.meta_learning.meta_loss`."""

    def loss(phi: jax.Array) -> jax.Array:
        return signal_loss(config, trained["shared"], phi, example["values"])

    latent = trained["latent_init"]
    for alpha in step_size(StepSizes(**trained["step_sizes"])):
        latent = latent - alpha * jax.grad(loss)(latent)
    final = loss(latent)
    return final, {"psnr_db": -10.0 * jnp.log10(final)}


def meta_stage(config: VCINRConfig, variant: Variant) -> Stage:
    """The meta-training stage in one implementation; loss and gradient are the same in all."""
    config = dataclasses.replace(config, field=dataclasses.replace(config.field, sine=variant.sine))
    stage = _stage(VCINR(config))
    stage = dataclasses.replace(stage, training=dataclasses.replace(stage.training, microbatch=variant.microbatch))
    if variant.looped:
        return dataclasses.replace(stage, loss=lambda trained, frozen, example, key: looped_meta_loss(config, trained, example))
    return stage


def _stage(codec: VCINR) -> Stage:
    return next(stage for stage in codec.stages() if stage.name == "meta")


class Stepper:
    """A compiled meta-training step with its state; a call takes one step.

    temp_bytes: memory besides arguments and results, by XLA's memory analysis.
    """

    def __init__(self, stage: Stage, trainable: Any, batch: Mapping[str, np.ndarray]):
        mesh = all_devices_mesh()
        optimiser = make_optimiser(stage.training)
        self._state = replicate(init_state(stage.training, optimiser, trainable, jax.random.key(0)), mesh)
        self._batch = shard_batch(batch, mesh)
        self._step = make_step(stage, optimiser, mesh).lower(self._state, {}, self._batch).compile()
        self.temp_bytes = self._step.memory_analysis().temp_size_in_bytes

    def __call__(self) -> dict[str, jax.Array]:
        self._state, metrics = self._step(self._state, {}, self._batch)
        return metrics


def steppers(config: VCINRConfig, variants: Mapping[str, Variant]) -> dict[str, Stepper]:
    """The compiled step of each variant, all with the same initial state and batch."""
    codec = VCINR(config)
    stage = _stage(codec)
    params = codec.init(jax.random.key(0))
    source = stage.examples(params, patch_source(config))
    trainable = jax.device_get(stage.init(jax.random.key(1), params, source))
    batch = source.batch(np.random.default_rng(0), config.meta.batch_size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(lambda variant: Stepper(meta_stage(config, variant), trainable, batch), variants.values())
        return dict(zip(variants, made, strict=True))


def compare(config: VCINRConfig, repeats: int, ablations: bool = True) -> Table:
    """Table of time and temporary memory of our step and the naive one, and with ``ablations`` of every other variant."""
    made = steppers(config, VARIANTS if ablations else {name: VARIANTS[name] for name in (OURS, NAIVE)})
    times = paired_times(made, repeats)
    batches = f"batch {config.meta.batch_size}, microbatches of {VARIANTS[OURS].microbatch}"
    title = f"A meta-training step: {describe(config)}, {batches}"
    table = Table("the step with …", "ms", "time, of vcinr's", "temp MB", "memory, of vcinr's", title=title, title_justify="left")
    for name, stepper in made.items():
        memory = f"{stepper.temp_bytes / made[OURS].temp_bytes:.2f}×"
        table.add_row(name, milliseconds(times[name]), ratio(times[name], times[OURS]), f"{stepper.temp_bytes / 1e6:.1f}", memory)
    return table

"""Run as a process of its own: `python worker.py JOB OUT [coordinator num_processes process_id]`."""

from __future__ import annotations

import dataclasses
import sys

import fakes
import jax
import numpy as np

from vcinr import devices
from vcinr.training import optimisers, stages, state
from vcinr.training.checkpoints import Checkpoints
from vcinr.training.host_update import with_host_update
from vcinr.training.run import train
from vcinr.training.signals import epoch_batch, init_signals, initial_values


def five_steps(out: str) -> None:
    """Latents, one gradient, and parameters after five updates, of the MAML stage."""
    config = dataclasses.replace(fakes.CONFIG, num_steps=5, batch_size=16, microbatch=4, warmup_steps=1)
    stage = fakes.maml_stage(config)
    mesh = devices.all_devices_mesh()
    rows = devices.local_rows(config.batch_size, mesh)
    trainable = fakes.maml_init(jax.random.key(1), None, None)
    optimiser = optimisers.make_optimiser(config)
    frozen = devices.replicate({"target": np.arange(8.0)}, mesh)
    current = devices.replicate(state.init_state(config, optimiser, trainable, jax.random.key(2)), mesh)
    key = jax.random.key_data(jax.random.key(3))

    def batch(step):
        values = fakes.Patches(np.float64).batch(np.random.default_rng(step), config.batch_size)["values"]
        return devices.shard_batch({"values": values[rows]}, mesh)

    def latents(trainable, batch):
        own = jax.vmap(lambda values: fakes.adapt(trainable, {"values": values}, key)[0])(batch["values"])
        return jax.lax.all_gather(own, devices.AXIS, tiled=True)

    def gradient(trainable, frozen, batch):
        return stages.mean_gradient(stage, trainable, frozen, batch, key)[0]

    found = {"latents": devices.pmapped(latents, (None, 0), None)(current.params, batch(0)).addressable_data(0)}
    gradients = devices.pmapped(gradient, (None, None, 0), None)(current.params, frozen, batch(0))
    step = stages.make_step(stage, optimiser, mesh)
    for index in range(config.num_steps):
        current, metrics = step(current, frozen, batch(index))
    shared, signals = five_posterior_steps(mesh)
    found |= {f"signals/{place}": value for place, value in enumerate(jax.tree.leaves(signals))}
    found |= {f"shared/{place}": value for place, value in enumerate(jax.tree.leaves(shared))}
    trees = {"gradient": gradients, "params": current.params, "average": current.aux["average"], "metrics": metrics}
    for name, tree in trees.items():
        found |= {f"{name}/{leaf}": value for leaf, value in jax.device_get(tree).items()}
    np.savez(out, **found)


def five_posterior_steps(mesh):
    """What is shared, and all that is kept per signal, after five updates and one on the host."""
    config = dataclasses.replace(fakes.CONFIG, num_steps=5, batch_size=16, microbatch=2, warmup_steps=1)
    stage = fakes.posterior_stage(config, num_signals=40)
    source = stage.examples({}, fakes.Patches(np.float64))
    optimiser = optimisers.make_optimiser(config)
    values = jax.tree.map(np.float64, initial_values(stage, jax.random.key(5), {}, source))
    shared = jax.tree.map(np.float64, stage.init(None, {}, source))
    current = state.init_state(config, optimiser, shared, jax.random.key(2), signals=init_signals(stage, values))
    current = devices.replicate(jax.device_get(current), mesh)
    step, rows = stages.make_step(stage, optimiser, mesh), devices.local_rows(config.batch_size, mesh)
    for index in range(config.num_steps):
        batch = epoch_batch(source, [1, 2, 0], index, config.batch_size)
        current, _ = step(current, {}, devices.shard_batch({name: array[rows] for name, array in batch.items()}, mesh))
        if index == 2:
            current = with_host_update(stage, current, index + 1, mesh)
    return jax.device_get((current.params, current.aux["signals"]))


def train_fake(out: str) -> None:
    """The whole fake codec, in the workdir `out`, slowly enough to be killed."""
    config = dataclasses.replace(fakes.CONFIG, num_steps=60, checkpoint_every=7, log_every=3)
    train(fakes.FakeCodec(config), fakes.Patches(), seed=5, workdir=out, quiet=True)


def save_forever(out: str) -> None:
    """Checkpoints whose every number is their step, as fast as they can be written."""
    current = state.init_state(fakes.CONFIG, optimisers.make_optimiser(fakes.CONFIG), {"w": np.zeros(4096)}, jax.random.key(0))
    with Checkpoints(out) as checkpoints:
        first = (checkpoints.latest_step or 0) + 1
        for step in range(first, first + 100_000):
            checkpoints.save(current.replace(step=jax.numpy.int32(step), params={"w": jax.numpy.full(4096, float(step))}))


if __name__ == "__main__":
    job, out, *distributed = sys.argv[1:]
    if distributed:
        devices.initialise_distributed(distributed[0], int(distributed[1]), int(distributed[2]))
    {"five_steps": five_steps, "train_fake": train_fake, "save_forever": save_forever}[job](out)

"""Ways to be non-linear in a latent beside a linear head: fields, starts, training, measuring."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from experiments.data import tiles
from vcinr.adaptation.fit import fit
from vcinr.codecs.batching import map_batches
from vcinr.codecs.codec import ExampleSource, Stage, TrainingConfig
from vcinr.codecs.examples import NormalisedSource, normalise_batch
from vcinr.codecs.meta_learning import AdaptationConfig, adapt_latent, layers_loss
from vcinr.codecs.vc_inr import VCINR, VCINRConfig
from vcinr.codecs.warm_start import WarmStartConfig, components, lr_multipliers
from vcinr.devices import all_devices_mesh, replicate, shard_batch
from vcinr.evaluation.metrics import psnr_db
from vcinr.fields import modulations
from vcinr.fields.field import FIELDS, FieldConfig, LowRankGateField, ResidualNetwork, Siren
from vcinr.fields.siren import Layer
from vcinr.signals.datasets import load_split
from vcinr.signals.sources import PatchSource
from vcinr.training.optimisers import make_optimiser
from vcinr.training.run import train
from vcinr.training.stages import make_step
from vcinr.training.state import HEALTHY, init_state

SIDE = 8
EXTRA = 64
"""Components after the latent's own that the warm start fits, too."""

HELD_BATCH = 128
"""Patches a step without an inner loop."""

ORACLE_STEPS, ORACLE_PICTURES = 50, 25
EVALUATION_BATCH = 100
WARMUP = 20
"""Outer steps over which the rate rises; it then falls as a cosine of the time that is spent."""


class FirstLayerGates(LowRankGateField):
    """Low-rank gates on every sine layer, the first one too, which the paper leaves ungated."""

    def setup(self):
        Siren.setup(self)
        c = self.config
        shapes = c.sizes()[:-1]
        self.network = ResidualNetwork(c.hyper_width, c.hyper_depth)
        self.left_heads = [nn.Dense(fan_in * c.rank, use_bias=False) for fan_in, _ in shapes]
        self.right_heads = [nn.Dense(fan_out * c.rank, bias_init=nn.initializers.normal(1.0)) for _, fan_out in shapes]

    def modulate(self, latent: Float[Array, " k"]) -> Sequence[Layer]:
        """Shared layers with their kernels gated."""
        c = self.config
        seen = self.network(latent)
        left = [head(seen).reshape(-1, c.rank) for head in self.left_heads]
        right = [head(seen).reshape(-1, c.rank) for head in self.right_heads]
        # The gates' function leaves out the first layer that it is given.
        return modulations.low_rank_gates([self.base[0], *self.base], left, right, c.gate_gain)[1:]


class HeadNetwork(Siren):
    """A residual network predicts the components that the latent does not hold: f(x) = mean(x) + Σ φ_k ψ_k(x) + Σ N_j(φ) ψ_j(x).

    The trunk, which spans them all, does not depend on the latent and is evaluated once for a batch.
    """

    def setup(self):
        super().setup()
        c = self.config
        self.extra_kernel = self.param("extra_kernel", nn.initializers.zeros, (EXTRA, c.sizes()[-1][0], c.channels))
        self.extra_bias = self.param("extra_bias", nn.initializers.zeros, (EXTRA, c.channels))
        self.network = ResidualNetwork(c.hyper_width, c.hyper_depth)
        self.predicted = nn.Dense(EXTRA, kernel_init=nn.initializers.zeros)

    def modulate(self, latent: Float[Array, " k"]) -> Sequence[Layer]:
        """Shared layers, the last with the predicted components."""
        predicted = self.predicted(self.network(latent))
        return modulations.linear_head(self.base, self.extra_kernel, self.extra_bias, predicted)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to be non-linear in the latent.

    name: of its row and files.  field: keys of `FieldConfig` that differ from the study's.  module: instead of that of the
    field's modulation.  inner_steps: of the inner loop.  batch: patches a step with an inner loop.
    projected: begin the inner loop at the patch's principal coefficients instead of φ₀, and train without an inner loop, at
    these coefficients, for the first half of the time.
    data: prepared sets that a batch is drawn from in equal parts.
    base_rate, rate: outer rates of what the warm start has fitted, relative to its size, and of what modulates.
    """

    name: str
    field: tuple[tuple[str, Any], ...] = ()
    module: type[Siren] | None = None
    inner_steps: int = 3
    projected: bool = False
    batch: int = 16
    data: tuple[str, ...] = ("cifar10_small",)
    base_rate: float = 1e-5
    rate: float = 1e-3

    def config(self, options: argparse.Namespace) -> VCINRConfig:
        """Its codec's config."""
        sizes = {"num_layers": 3, "width": 64, "last_width": options.last_width, "latent_dim": options.latent}
        modulation = {"modulation": "none", "linear_head": True}
        return VCINRConfig(
            patch=(SIDE, SIDE),
            field=FieldConfig(**{**sizes, **modulation, **dict(self.field)}),
            adaptation=AdaptationConfig(self.inner_steps, initial_step=1.0),
            warm_start=WarmStartConfig(
                enabled=True,
                training=TrainingConfig(
                    options.warm_steps,
                    8,
                    lr=3e-3,
                    warmup_steps=min(50, options.warm_steps // 10),
                    clip_norm=0.0,
                    average_decay=0.0,
                    collapse_db=0.0,
                ),
            ),
        )

    def model(self, config: VCINRConfig) -> Siren:
        """Its field."""
        return (self.module or FIELDS[config.field.modulation])(config.field)


def arm_loss(
    arm: Arm, config: VCINRConfig, shared: Any, latent: jax.Array, values: jax.Array, weight: Any = None, coords: Any = None
) -> jax.Array:
    """MSE of the arm's field on one patch [n, c]."""
    layers = arm.model(config).apply({"params": shared}, latent, method="layers")
    return layers_loss(config, layers, values, weight, coords)


def adapted(task: tuple[Arm, VCINRConfig], trained: Any, values: jax.Array) -> jax.Array:
    """The latent [k] of a patch [n, c] after the inner loop."""
    arm, config = task
    if arm.projected:
        trained = {**trained, "latent_init": coefficients(trained, values)}
    return adapt_latent(config, trained, values, loss=partial(arm_loss, arm))


def coefficients(trained: Any, values: jax.Array) -> jax.Array:
    """The principal coefficients [k] of a patch [n, c]; they are not trained."""
    return jnp.tensordot(jax.lax.stop_gradient(trained["basis"]), values - jax.lax.stop_gradient(trained["mean"]), 2)


def meta_loss(task: tuple[Arm, VCINRConfig], held: bool, trained: Any, values: jax.Array) -> jax.Array:
    """MSE after adaptation, or where the latent is ``held`` at the patch's principal coefficients."""
    latent = coefficients(trained, values) if held else adapted(task, trained, values)
    return arm_loss(*task, trained["shared"], latent, values)


def error(task: tuple[Arm, VCINRConfig], trained: Any, values: jax.Array) -> jax.Array:
    """MSE of a patch after adaptation."""
    return meta_loss(task, False, trained, values)


def oracle_error(task: tuple[Arm, VCINRConfig], trained: Any, values: jax.Array) -> jax.Array:
    """The least MSE of a patch within `ORACLE_STEPS` steps after adaptation, of half the inverse curvature at the start."""
    descent = optax.sgd(0.5 * trained["step_sizes"]["reference"])
    loss = lambda phi: arm_loss(*task, trained["shared"], phi, values)
    _, _, losses = fit(loss, adapted(task, trained, values), descent, ORACLE_STEPS, remat=False)
    # A step that diverges is no better than none.
    return jnp.min(jnp.where(jnp.isfinite(losses), losses, jnp.inf))


@dataclasses.dataclass(frozen=True)
class WarmStarted:
    """What `vcinr.training` asks of a codec, with the stages of its warm start alone."""

    codec: VCINR

    def __getattr__(self, name: str) -> Any:
        return getattr(self.codec, name)

    def stages(self) -> tuple[Stage, ...]:
        return self.codec.field_stages()[:-1]


@dataclasses.dataclass(frozen=True)
class Warm:
    """What all arms begin from: θ of a linear head for all components, and these: mean [n, c], basis [k, n, c] and the
    deviations std [k] of their coefficients; the latent's own come first."""

    shared: Mapping[str, Any]
    mean: np.ndarray
    basis: np.ndarray
    std: np.ndarray


def begin(arm: Arm, config: VCINRConfig, warm: Warm, key: jax.Array) -> dict[str, Any]:
    """The arm's parameters with a warm-started trunk and head, neutral modulations, and a network that sees latents of unit
    size."""
    field, k = config.field, config.field.latent_dim
    shared = dict(arm.model(config).init(key, jnp.zeros((1, field.coord_dim)), jnp.zeros(k))["params"])
    for name in shared:
        if name.startswith(("left_heads", "projection")):
            shared[name] = jax.tree.map(jnp.zeros_like, shared[name])
    if "network" in shared:
        embed = shared["network"]["embed"]
        scaled = unit_size(warm.std[:k])[:, None] * embed["kernel"]
        shared["network"] = {**shared["network"], "embed": {**embed, "kernel": scaled}}
    kernels, biases = warm.shared["head_kernel"], warm.shared["head_bias"]
    if "extra_kernel" in shared:
        shared["extra_kernel"] = warm.std[k:, None, None] * kernels[k:]
        shared["extra_bias"] = warm.std[k:, None] * biases[k:]
    # Components are orthonormal, so that the inner loss has the curvature 2 / (n c) along every latent.
    sizes = {"log_scale": jnp.zeros((config.adaptation.num_steps, k)), "reference": jnp.float32(warm.mean.size / 2)}
    return {
        "shared": {**shared, **warm.shared, "head_kernel": kernels[:k], "head_bias": biases[:k]},
        "latent_init": jnp.zeros(k),
        "step_sizes": sizes,
        "mean": jnp.asarray(warm.mean),
        "basis": jnp.asarray(warm.basis[:k]),
    }


def unit_size(std: np.ndarray) -> np.ndarray:
    """Factors [k] that bring latents of these deviations to about unit size."""
    return 1.0 / (std + 0.1 * np.max(std))


def rates(arm: Arm, warm: Warm, trained: Any) -> dict[str, Any]:
    """Outer rates: ``base_rate`` relative to the size of each array for what the warm start has fitted, ``rate`` itself for what
    modulates, where latents are brought to unit size and shifts to radians."""
    fitted = (*warm.shared, "extra_kernel", "extra_bias")
    relative = jax.tree.map(lambda m: arm.base_rate * m, lr_multipliers(trained))
    own = {name: arm.rate for name in trained["shared"] if name not in fitted}
    size = jnp.asarray(unit_size(warm.std[: len(trained["basis"])]))[:, None]
    shared = {**relative["shared"], **own}
    if "projection" in own:
        shared["projection"] = arm.rate / FieldConfig.omega_0 * size
    if "network" in own:
        network = jax.tree.map(lambda _: arm.rate, trained["shared"]["network"])
        shared["network"] = {**network, "embed": {**network["embed"], "kernel": arm.rate * size}}
    still = {"mean": 0.0, "basis": 0.0}
    return {**relative, "shared": shared, "step_sizes": {"log_scale": arm.rate, "reference": 0.0}, **still}


class Mixed:
    """Batches in equal parts from each of several sources."""

    def __init__(self, sources: Sequence[ExampleSource]):
        self._sources = sources

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        """``{"values": …}``; the first source gives what is over."""
        share, over = divmod(size, len(self._sources))
        parts = [source.batch(rng, share + (over if i == 0 else 0)) for i, source in enumerate(self._sources)]
        return {"values": np.concatenate([part["values"] for part in parts])}


def meta_train(
    task: tuple[Arm, VCINRConfig],
    trained: Any,
    multipliers: Any,
    source: ExampleSource,
    *,
    seconds: float,
    seed: int,
    clock: Callable[[], float] = time.process_time,
) -> tuple[Any, int]:
    """Meta-trains for that much of the clock's time, compilation aside; (the average of the parameters, steps made).

    The rate rises over `WARMUP` steps and falls to nothing as a cosine of the share of time that is spent. RuntimeError where a
    step is not finite.
    """
    # The rate itself is in the multipliers, its course in the state's scale.
    training = TrainingConfig(2, 1, lr=1.0, warmup_steps=0, final_lr_fraction=1.0, average_decay=0.99, collapse_db=0.0)
    mesh, optimiser = all_devices_mesh(), make_optimiser(training, multipliers)
    fresh = lambda: replicate(init_state(training, optimiser, trained, jax.random.key(seed)), mesh)

    def step_of(held: bool) -> tuple[Callable, int]:
        def loss(trained, frozen, example, key):
            return meta_loss(task, held, trained, example["values"]), {}

        identity = lambda params, trained: trained
        stage = Stage("meta", training, None, lambda key, params, source: trained, lambda params: {}, loss, identity)
        return make_step(stage, optimiser, mesh), HELD_BATCH if held else task[0].batch

    def advance(half: tuple[Callable, int], state: Any, step: int, scale: float) -> Any:
        take_step, size = half
        batch = shard_batch(source.batch(np.random.default_rng([seed, step]), size), mesh)
        scaled = replicate(jnp.float32(scale), mesh)
        return jax.block_until_ready(take_step(state.replace(aux={**state.aux, "lr_scale": scaled}), {}, batch)[0])

    halves = (step_of(True), step_of(False)) if task[0].projected else (step_of(False),) * 2
    for half in set(halves):
        advance(half, fresh(), 0, 0.0)
    state, step, began = fresh(), 0, clock()
    while (spent := (clock() - began) / seconds) < 1.0:
        scale = min(1.0, (step + 1) / WARMUP) * 0.5 * (1.0 + np.cos(np.pi * spent))
        state = advance(halves[int(2 * spent)], state, step, scale)
        step += 1
    if int(state.aux["fault"]) != HEALTHY:
        raise RuntimeError(f"{task[0].name}: step {int(state.aux['fault_step'])} is not finite; lower its rates")
    return jax.device_get(state.evaluated_params), step


@dataclasses.dataclass(frozen=True)
class Data:
    """sources: name → normalised training patches of a set.  patches: of the first set, raw.  held_out [p, t, n, c]: validation
    pictures in tiles, in [0, 1]."""

    sources: Mapping[str, ExampleSource]
    patches: PatchSource
    held_out: np.ndarray

    @classmethod
    def load(cls, names: Sequence[str], limit: int) -> Data:
        """Prepared sets; the first one's validation pictures, at most ``limit``, 0 for all."""
        raw = {name: PatchSource(list(load_split(name, "train")), (SIDE, SIDE)) for name in names}
        pictures = list(load_split(names[0], "validation"))[: limit or None]
        held_out = np.stack([normalise_batch("picture", np.stack(tiles(picture, SIDE))) for picture in pictures])
        return cls({name: NormalisedSource(source, "picture") for name, source in raw.items()}, raw[names[0]], held_out)

    def psnr(self, function: Callable, task: tuple[Arm, VCINRConfig], trained: Any, count: int) -> list[float]:
        """PSNR in dB of each of the first ``count`` validation pictures; function: `error` or `oracle_error`."""
        pictures = self.held_out[:count]
        found = map_batches(function, task, trained, (pictures.reshape(-1, *pictures.shape[2:]),), EVALUATION_BATCH)
        return psnr_db(found.reshape(len(pictures), -1).mean(1)).tolist()

    def linear_psnr(self, warm: Warm, count: int) -> np.ndarray:
        """PSNR in dB of each validation picture of which the first ``count`` components are kept."""
        basis = warm.basis[:count].reshape(count, -1)
        rows = (self.held_out - warm.mean).reshape(-1, warm.mean.size)
        missed = np.mean(np.square(rows - rows @ basis.T @ basis), axis=1)
        return psnr_db(missed.reshape(len(self.held_out), -1).mean(1))

    def warm(self, layers: int, seed: int, options: argparse.Namespace) -> Warm:
        """The start of the arms of a seed whose field has that many sine layers; its stages are kept in the workdir."""
        count = options.latent + EXTRA
        config = Arm("", (("num_layers", layers), ("latent_dim", count))).config(options)
        workdir = Path(options.workdir) / f"warm_start_{layers}_layers_seed{seed}"
        params = train(WarmStarted(VCINR(config)), self.patches, seed=seed, workdir=workdir, quiet=True)
        values = normalise_batch("picture", self.patches.all_patches(np.random.default_rng(0), 2, 20000))
        found = components(values, count)
        return Warm(params["shared"], found["mean"], found["basis"], found["std"])

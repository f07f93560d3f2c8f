"""Meta-learning: a field from which a few gradient steps on the latent reach any signal.

The inner loop, its loss, and the stage that trains everything through it, for every codec whose latent is one flat vector: a
few numbers that modulate the field, all of its shifts, or an update of all its weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vcinr.adaptation.inner_loop import (
    HIGH,
    LOW,
    LinearStepSizes,
    StepSizes,
    adapt,
    init_step_sizes,
    largest_curvature,
)
from vcinr.adaptation.objective import chunked_mean_squared_error
from vcinr.adaptation.projection import project
from vcinr.fields.field import FieldConfig, evaluate, make_field
from vcinr.modalities import MODALITIES
from vcinr.modalities.examples import NormalisedSource
from vcinr.stage import ExampleSource, Params, Stage, TrainingConfig

Trained = Mapping[str, Any]
"""What meta-learning makes: θ ("shared"), φ₀ ("latent_init") and the step sizes of the inner loop ("step_sizes")."""

REACH = {"linear": (-math.inf, math.inf), "shared": (0.0, 1.0)}
"""``adaptation.step_sizes`` of those that are learned as they are → least and largest step size."""


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """Config of the inner loop.

    num_steps: inner steps in training, at least 1.
    encode_steps: inner steps in encoding; 0: as in training. Steps beyond ``num_steps`` use the last step's sizes.
    step_sizes: how Meta-SGD learns them. "learned": as logarithms, one per step and latent dimension; "linear": as they are, one
        per step and latent dimension (Strümpler et al. 2022); "shared": as they are within (0, 1), one per latent dimension for
        all steps (Functa); "fixed": at their initial values.
    initial_step: initial step sizes in multiples of 1/λ_max of the inner loss, 1e-3 to 1e2.
    inner_lr: initial step sizes in latent² per unit of loss, instead of ``initial_step``; 0: use ``initial_step``.
    learn_start: whether φ₀ is trained; False keeps it at 0.
    step_rate: learning rate of what is learned of step sizes, in multiples of the learning rate of θ; positive.
    chunk: coordinates evaluated at once; 0: all.
    subset: random coordinates per training step; 0: all. See `draw`.
    first_order: drop second derivatives (an ablation).
    projection_steps: damped Gauss–Newton steps after the inner loop, in encoding only; see `nearest_latent`.
    """

    num_steps: int = 3
    encode_steps: int = 0
    step_sizes: str = "learned"
    initial_step: float = 0.5
    inner_lr: float = 0.0
    learn_start: bool = True
    step_rate: float = 1.0
    chunk: int = 0
    subset: int = 0
    first_order: bool = False
    projection_steps: int = 0

    def __post_init__(self):
        if self.num_steps < 1 or self.chunk < 0:
            raise ValueError(f"adaptation needs num_steps >= 1 and chunk >= 0, not {self.num_steps} and {self.chunk}")
        for key in ("encode_steps", "subset", "projection_steps"):
            if getattr(self, key) < 0:
                raise ValueError(f"adaptation.{key} must be at least 0, not {getattr(self, key)}")
        if not LOW <= self.initial_step <= HIGH:
            raise ValueError(f"adaptation.initial_step must lie in [{LOW:g}, {HIGH:g}], not {self.initial_step:g}")
        if not 0.0 <= self.inner_lr < math.inf:
            raise ValueError(f"adaptation.inner_lr must be 0 or a positive number, not {self.inner_lr}")
        if not 0.0 < self.step_rate < math.inf:
            raise ValueError(f"adaptation.step_rate must be positive, not {self.step_rate}")
        if self.step_sizes not in ("learned", "fixed", *REACH):
            raise ValueError(f"unknown step_sizes {self.step_sizes!r}; valid are fixed, learned, {', '.join(REACH)}")


OVERSAMPLING = 4
"""Residuals per latent dimension from which a coarser grid's Jacobian is good enough for Gauss–Newton steps."""


@runtime_checkable
class MetaConfig(Protocol):
    """The part of a codec's config that meta-learning reads."""

    patch: tuple[int, ...]
    modality: str
    field: FieldConfig
    adaptation: AdaptationConfig
    meta: TrainingConfig


def signal_loss(
    config: MetaConfig,
    shared: Any,
    latent: Float[Array, " k"],
    values: Float[Array, "n c"],
    weight: Float[Array, " n"] | None = None,
    coords: Float[Array, "n d"] | None = None,
) -> Float[Array, ""]:
    """Weighted MSE of the field at ``latent`` on one patch; values in [0, 1]; ``coords`` defaults to the whole patch's grid."""
    layers = make_field(config.field).apply({"params": shared}, latent, method="layers")
    return layers_loss(config, layers, values, weight, coords)


def layers_loss(
    config: MetaConfig,
    layers: Any,
    values: Float[Array, "n c"],
    weight: Float[Array, " n"] | None = None,
    coords: Float[Array, "n d"] | None = None,
) -> Float[Array, ""]:
    """Weighted MSE of the field with these layers; arguments as `signal_loss`."""
    coords = jnp.asarray(MODALITIES[config.modality].coordinates(config.patch), values.dtype) if coords is None else coords
    return chunked_mean_squared_error(lambda x: values_at(config, layers, x), coords, values, weight, config.adaptation.chunk)


def values_at(config: MetaConfig, layers: Any, coords: Float[Array, "n d"]) -> Float[Array, "n c"]:
    """Samples at coordinates of the field with these layers, as the modality observes it."""
    return MODALITIES[config.modality].observe(lambda points: evaluate(config.field, layers, points), coords)


Loss = Callable[..., jax.Array]
"""A function with the arguments of `signal_loss`."""


def adapt_latent(
    config: MetaConfig,
    trained: Trained,
    values: Float[Array, "n c"],
    weight: Float[Array, " n"] | None = None,
    coords: Float[Array, "n d"] | None = None,
    *,
    num_steps: int = 0,
    loss: Loss = signal_loss,
    mask: Float[Array, " k"] | None = None,
) -> Float[Array, " k"]:
    """The latent of one patch: gradient steps from φ₀ with the learned step sizes (Schwarz et al. 2023, algorithm 1, line 5).

    The inner loss is the squared error summed over the samples inside the signal and divided by the number of samples in a whole
    patch. Its curvature is then at most that of a whole patch, so that step sizes learned on whole patches stay stable on patches
    with only a few samples inside.

    Args:
      config: of the codec.
      trained: θ, φ₀ and step sizes.
      values: samples of the patch, in [0, 1].
      weight: weight of each sample, 0 for padding; None: 1 everywhere.
      coords: coordinates of the samples; by default the whole patch's grid.
      num_steps: number of steps; 0: as in training.
      loss: a replacement of `signal_loss`.
      mask: multiplies every update; entries where it is 0 stay at φ₀.
    """
    a = config.adaptation
    inside = 1.0 if weight is None else jnp.mean(weight)
    latent, _ = adapt(
        lambda phi: inside * loss(config, trained["shared"], phi, values, weight, coords),
        trained["latent_init"],
        step_sizes_of(a, trained),
        num_steps or a.num_steps,
        first_order=a.first_order,
        mask=mask,
    )
    return latent


def step_sizes_of(adaptation: AdaptationConfig, trained: Trained) -> StepSizes | LinearStepSizes:
    """The step sizes of the inner loop from what meta-learning makes."""
    if adaptation.step_sizes in REACH:
        return LinearStepSizes(trained["step_sizes"]["alpha"], *REACH[adaptation.step_sizes])
    return StepSizes(**trained["step_sizes"])


def nearest_latent(
    config: MetaConfig,
    shared: Any,
    latent: Float[Array, " k"],
    values: Float[Array, "n c"],
    weight: Float[Array, " n"] | None = None,
) -> Float[Array, " k"]:
    """The latent after ``adaptation.projection_steps`` damped Gauss–Newton steps on the weighted MSE of one whole patch.

    Where every other sample along each axis still gives `OVERSAMPLING` residuals per latent dimension, their Jacobian stands for
    that of all samples, at a fraction of its cost. The error never grows.
    """
    coords = jnp.asarray(MODALITIES[config.modality].coordinates(config.patch), values.dtype)
    root = jnp.ones(len(values), values.dtype) if weight is None else jnp.sqrt(weight)
    coarse = np.arange(len(coords)).reshape(config.patch)[(slice(None, None, 2),) * len(config.patch)].ravel()
    enough = len(coarse) * values.shape[-1] >= OVERSAMPLING * latent.shape[0]

    def residuals(chosen: Any, phi: jax.Array) -> jax.Array:
        layers = make_field(config.field).apply({"params": shared}, phi, method="layers")
        missed = values_at(config, layers, coords[chosen]) - values[chosen]
        return (root[chosen, None] * missed).ravel() / math.sqrt(missed.size)

    sketch = partial(residuals, coarse) if enough else None
    return project(partial(residuals, slice(None)), latent, config.adaptation.projection_steps, sketch=sketch)[0]


def subset(config: MetaConfig, values: Float[Array, "n c"], key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """(values, coords) for one training step: all, or ``adaptation.subset`` of them drawn without replacement."""
    coords = jnp.asarray(MODALITIES[config.modality].coordinates(config.patch), values.dtype)
    count = config.adaptation.subset
    if key is None or not 0 < count < len(coords):
        return values, coords
    chosen = jax.random.choice(key, len(coords), (count,), replace=False)
    return values[chosen], coords[chosen]


def draw(
    config: MetaConfig, values: Float[Array, "n c"], key: jax.Array | None
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """(values, coords) to adapt to, and (values, coords) to measure the error on: all, or two independent draws of `subset`.

    A single draw for both would reward fitting the drawn samples instead of the signal between them.
    """
    if key is None:
        return (subset(config, values, None),) * 2
    first, second = jax.random.split(key)
    return subset(config, values, first), subset(config, values, second)


def meta_loss(
    config: MetaConfig, trained: Trained, example: Mapping[str, jax.Array], key: jax.Array | None = None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """MSE after adaptation, whose gradient is the meta-gradient through the inner steps (algorithm 1, lines 6 and 7)."""
    (inner, inner_coords), (outer, outer_coords) = draw(config, example["values"], key)
    latent = adapt_latent(config, trained, inner, coords=inner_coords)
    error = signal_loss(config, trained["shared"], latent, outer, None, outer_coords)
    return error, {"psnr_db": -10.0 * jnp.log10(error)}


def init(config: MetaConfig, key: jax.Array) -> Params:
    """Initial θ, φ₀ = 0 and step sizes at ``initial_step``; 1/λ_max, their reference, is measured when training starts."""
    c, a, size = config, config.adaptation, config.field.latent_size()
    shared = make_field(c.field).init(key, jnp.zeros((1, c.field.coord_dim)), jnp.zeros(size))["params"]
    if a.step_sizes in REACH:
        rows = 1 if a.step_sizes == "shared" else a.num_steps
        sizes = {"alpha": jnp.full((rows, size), a.inner_lr or a.initial_step)}
    else:
        sizes = init_step_sizes(a.num_steps, size, a.inner_lr or 1.0, 1.0 if a.inner_lr else a.initial_step)._asdict()
    return {"shared": shared, "latent_init": jnp.zeros(size), "step_sizes": sizes}


def start(config: MetaConfig, key: jax.Array, params: Params, source: ExampleSource, loss: Loss = signal_loss) -> dict[str, Any]:
    """θ, φ₀ and step sizes at the start of training; those relative to 1/λ_max follow from it, measured on eight patches."""
    params = jax.tree.map(jnp.asarray, {name: params[name] for name in ("shared", "latent_init", "step_sizes")})
    if config.adaptation.inner_lr:
        return params
    values = source.batch(np.random.default_rng(0), 8)["values"]

    def of_patch(y: jax.Array) -> jax.Array:
        return largest_curvature(lambda phi: loss(config, params["shared"], phi, y, None, None), params["latent_init"], key)

    largest = jnp.max(jax.jit(lambda rows: jax.lax.map(of_patch, rows))(values))
    sizes = params["step_sizes"]
    relative = {"alpha": sizes["alpha"] / largest} if "alpha" in sizes else {**sizes, "reference": 1.0 / largest}
    return {**params, "step_sizes": relative}


def lr_multipliers(config: MetaConfig, trained: Any) -> dict[str, Any]:
    """Learning-rate multipliers: 1 for θ and φ₀, those of `step_rates` for step sizes."""
    rates = {part: jax.tree.map(lambda _: 1.0, trained[part]) for part in ("shared", "latent_init")}
    return {**rates, "step_sizes": step_rates(config, trained)}


def step_rates(config: MetaConfig, trained: Any) -> dict[str, float]:
    """Learning-rate multipliers of step sizes: ``adaptation.step_rate``, and 0 for the reference of logarithms."""
    return {name: 0.0 if name == "reference" else config.adaptation.step_rate for name in trained["step_sizes"]}


def stop_fixed_gradients(config: MetaConfig, trained: Trained) -> Trained:
    """The same arrays, with gradients stopped for those that the config does not train."""
    a = config.adaptation
    fixed = (() if a.learn_start else ("latent_init",)) + (("step_sizes",) if a.step_sizes == "fixed" else ())
    return {part: jax.lax.stop_gradient(tree) if part in fixed else tree for part, tree in trained.items()}


def meta_stage(config: MetaConfig, *, rates: Callable[[Any], Any] | None = None) -> Stage:
    """The stage that trains θ, and φ₀ and step sizes if the config says so, through the inner loop (algorithm 1).

    rates: a replacement of `lr_multipliers`.
    """
    return Stage(
        name="meta",
        training=config.meta,
        examples=lambda params, patches: NormalisedSource(patches, config.modality),
        init=lambda key, params, source: start(config, key, params, source),
        frozen=lambda params: {},
        loss=lambda trained, frozen, example, key: meta_loss(config, stop_fixed_gradients(config, trained), example, key),
        finish=lambda params, trained: {**params, **trained},
        evaluate=lambda trained, frozen, example, key: meta_loss(config, trained, example, None),
        lr_multipliers=rates or partial(lr_multipliers, config),
    )

"""Where gates z act on a field and its latent, what a file then pays for, and how they are learned.

Schwarz and Teh 2022, "Meta-Learning Sparse Compression Networks", section 3: gradient, structured, weight,
group and representation sparsity are choices of where z is applied and of what shares a gate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from vcinr.adaptation import meta_learning
from vcinr.adaptation.fit import fit
from vcinr.adaptation.inner_loop import StepSizes, meta_sgd, step_size
from vcinr.adaptation.meta_learning import (
    MetaConfig,
    Trained,
    adapt_latent,
    draw,
    layers_loss,
    lr_multipliers,
    stop_fixed_gradients,
)
from vcinr.fields import modulations, siren
from vcinr.fields.field import FieldConfig, make_field
from vcinr.modalities.examples import NormalisedSource
from vcinr.sparsity import hard_concrete
from vcinr.stage import ExampleSource, Params, Stage, TrainingConfig

APPLY = ("update", "modulation", "weights", "activations")
GROUP = ("entry", "unit", "layer")

Gates = Float[Array, " g"]

PARTS = ("shared", "latent_init", "step_sizes")
"""What meta-learning trains."""


@dataclasses.dataclass(frozen=True)
class GateConfig:
    """apply: what is multiplied with z: "update", every step of the inner loop (equation 9); "modulation", the latent that enters
    the field (equation 10); "weights", all weights, updated ones; "activations", what leaves the units.
    group: what shares a gate: every entry has its own, all that lead into a unit, or a whole layer.
    target: fraction of the latent's entries that a file pays for.
    adapt_gates: whether the inner loop moves log α too, so that every signal has a pattern of its own, which its file holds;
        then all open entries share one histogram.
    gate_step: of log α in the inner loop, per unit of the summed loss, as it starts; learned where step sizes are.
    start_open: P(z > 0) where training starts.
    start_lambda: weight of the L0 penalty (mean open probability of the entries) against the MSE where training starts.
    gate_lr, lambda_lr: peak outer rates of log α and of log λ."""

    apply: str = "update"
    group: str = "entry"
    target: float = 0.1
    adapt_gates: bool = False
    gate_step: float = 10.0
    start_open: float = 0.95
    start_lambda: float = 1e-4
    gate_lr: float = 0.05
    lambda_lr: float = 0.04

    def __post_init__(self):
        for key, valid in (("apply", APPLY), ("group", GROUP)):
            if getattr(self, key) not in valid:
                raise ValueError(f"unknown gates.{key} {getattr(self, key)!r}; valid are {', '.join(sorted(valid))}")
        if self.adapt_gates and self.apply not in ("update", "modulation"):
            raise ValueError(f"adapt_gates needs gates.apply to be update or modulation, not {self.apply}")
        for key in ("target", "start_open"):
            if not 0.0 < getattr(self, key) < 1.0:
                raise ValueError(f"gates.{key} must lie between 0 and 1, not {getattr(self, key)}")
        for key in ("gate_step", "start_lambda", "gate_lr", "lambda_lr"):
            if not getattr(self, key) > 0.0:
                raise ValueError(f"gates.{key} must be positive, not {getattr(self, key)}")


def gate_index(field: FieldConfig, apply: str, group: str) -> Int[np.ndarray, "r k"]:
    """The gates that rule each entry of the latent: it is open where all of them are; −1 for none.

    One gate an entry, except for "activations": a weight there matters where the units at both of its ends do.
    ValueError for a field that has no such entries.
    """
    check_field(field, apply, group)
    sizes = field.sizes()
    if apply == "activations":
        return _unit_index(field, group)
    if group == "entry":
        return np.arange(field.latent_size(), dtype=np.int32)[None]
    if field.modulation == "shifts":
        layer = np.repeat(np.arange(len(sizes) - 1), [fan_out for _, fan_out in sizes[:-1]])
        return (np.arange(layer.size) if group == "unit" else layer).astype(np.int32)[None]
    ends = np.cumsum([0] + [fan_out for _, fan_out in sizes])
    parts = []
    for layer, (fan_in, fan_out) in enumerate(sizes):
        units = np.arange(ends[layer], ends[layer + 1]) if group == "unit" else np.full(fan_out, layer)
        parts += [np.tile(units, fan_in), units]
    return np.concatenate(parts).astype(np.int32)[None]


def _unit_index(field: FieldConfig, group: str) -> np.ndarray:
    sizes = field.sizes()
    widths = [fan_out for _, fan_out in sizes[:-1]]
    unit = unit_gates(field, group)
    if field.modulation == "shifts":
        return unit[None]
    per_layer = [*np.split(unit, np.cumsum(widths)[:-1]), np.full(sizes[-1][1], -1, np.int32)]
    before = [np.full(sizes[0][0], -1, np.int32), *per_layer[:-1]]
    columns = []
    for (fan_in, fan_out), rows, own in zip(sizes, before, per_layer, strict=True):
        columns += [np.stack([np.repeat(rows, fan_out), np.tile(own, fan_in)]), np.stack([np.full(fan_out, -1), own])]
    return np.concatenate(columns, axis=1).astype(np.int32)


def unit_gates(field: FieldConfig, group: str) -> Int[np.ndarray, " units"]:
    """The gate of each unit before the output, for "activations"."""
    widths = [fan_out for _, fan_out in field.sizes()[:-1]]
    return (
        np.repeat(np.arange(len(widths)), widths).astype(np.int32) if group == "layer" else np.arange(sum(widths), dtype=np.int32)
    )


def check_field(field: FieldConfig, apply: str, group: str) -> None:
    """ValueError where gates applied like this, in such groups, have no meaning for the field, or save nothing of its latent."""
    if field.linear_head:
        raise ValueError("closed entries would reach the field through its linear head: set field.linear_head to False")
    needed = {"weights": ("weight_update",), "activations": ("shifts", "weight_update")}.get(apply)
    if needed is None and group != "entry":
        needed = ("shifts", "weight_update")
    if needed and field.modulation not in needed:
        raise ValueError(
            f"gates on {apply} by {group} need field.modulation to be {' or '.join(needed)}, not {field.modulation}: "
            "no other latent has its numbers belong to units"
        )


def num_gates(index: Int[np.ndarray, "*r k"]) -> int:
    """How many gates there are."""
    return int(index.max()) + 1


def spread(index: Int[np.ndarray, "r k"], gates: Gates) -> Float[Array, " k"]:
    """Each entry's product over the gates that rule it: of values z, or of probabilities, gates being independent."""
    return jnp.prod(jnp.concatenate([gates, jnp.ones(1, gates.dtype)])[index], axis=0)


def expected_open(index: Int[np.ndarray, "r k"], log_alpha: Gates) -> Float[Array, ""]:
    """Expected fraction of the entries that are open: the L0 penalty over the latent's length (equation 6)."""
    return jnp.mean(spread(index, hard_concrete.open_probability(log_alpha)))


def open_fraction(index: Int[np.ndarray, "r k"], log_alpha: Gates) -> Float[Array, ""]:
    """Fraction of the entries that deterministic gates leave open."""
    return jnp.mean(spread(index, (hard_concrete.deterministic(log_alpha) > 0).astype(log_alpha.dtype)))


def gated_layers(
    field: FieldConfig, gates: GateConfig, index: Int[np.ndarray, "r k"], shared: Any, latent: Float[Array, " k"], z: Gates
) -> Any:
    """The layers of a signal whose gates are z; gates on the update do nothing here (see `adapt_gated`)."""
    if gates.apply == "modulation":
        latent = spread(index, z) * latent
    layers = make_field(field).apply({"params": shared}, latent, method="layers")
    if gates.apply == "weights":
        masks = siren.unflatten(spread(index, z), field.sizes())
        return [(kernel * a, bias * b) for (kernel, bias), (a, b) in zip(layers, masks, strict=True)]
    if gates.apply == "activations":
        return modulations.gate_units(layers, z[unit_gates(field, gates.group)])
    return layers


def gated_loss(gates: GateConfig, z: Gates) -> meta_learning.Loss:
    """`meta_learning.signal_loss` of the field with gates z."""

    def loss(config, shared, latent, values, weight=None, coords=None):
        index = gate_index(config.field, gates.apply, gates.group)
        return layers_loss(config, gated_layers(config.field, gates, index, shared, latent, z), values, weight, coords)

    return loss


def adapt_gated(
    config: MetaConfig,
    gates: GateConfig,
    trained: Trained,
    z: Gates,
    values: Float[Array, "n c"],
    weight: Float[Array, " n"] | None = None,
    coords: Float[Array, "n d"] | None = None,
    *,
    num_steps: int = 0,
) -> Float[Array, " k"]:
    """The latent of one patch under one z, the same in all inner steps: the φ that `gated_layers` takes.

    "update": φ = φ₀ − β Σ z ⊙ ∇ (equation 9), elsewhere z acts inside the loss. num_steps: 0 for as many as in training.
    """
    mask = spread(gate_index(config.field, gates.apply, gates.group), z) if gates.apply == "update" else None
    loss = gated_loss(gates, z)
    return adapt_latent(config, trained, values, weight, coords, num_steps=num_steps, loss=loss, mask=mask)


def adapt_with_gates(
    config: MetaConfig,
    gates: GateConfig,
    trained: Trained,
    learned: Mapping[str, jax.Array],
    values: Float[Array, "n c"],
    weight: Float[Array, " n"] | None = None,
    coords: Float[Array, "n d"] | None = None,
    *,
    noise: jax.Array | None = None,
    num_steps: int = 0,
) -> tuple[Float[Array, " k"], Gates]:
    """(φ, log α) of one patch whose gates are adapted too (equations 7 and 8): φ = z(log α) ⊙ d, z always of the same noise.

    d and log α both descend on MSE + λ · expected open fraction; log α by ``log_step`` per unit of that loss summed over entries.
    For gates of 0 and 1 that do not move, φ is that of `adapt_gated`, be they on the update or on the modulation.
    learned: log_alpha [g], log_lambda [], log_step [].   noise: key of the one draw of z; None for deterministic gates.
    """
    index = gate_index(config.field, gates.apply, gates.group)
    inside = 1.0 if weight is None else jnp.mean(weight)
    rate, pressure = jnp.exp(learned["log_step"]), jnp.exp(learned["log_lambda"])
    if config.adaptation.step_sizes == "fixed":
        rate = jax.lax.stop_gradient(rate)

    def latent_of(state):
        z = hard_concrete.deterministic(state[1]) if noise is None else hard_concrete.sample(noise, state[1])
        return spread(index, z) * state[0]

    def loss(state):
        error = meta_learning.signal_loss(config, trained["shared"], latent_of(state), values, weight, coords)
        return inside * error + jax.lax.stop_gradient(pressure) * expected_open(index, state[1])

    descend = meta_sgd(step_size(StepSizes(**trained["step_sizes"])))

    def update(gradient, count, params=None):
        step, count = descend.update(gradient[0], count)
        return (step, -rate * index.shape[1] * gradient[1]), count

    optimiser = optax.GradientTransformation(lambda params: descend.init(params[0]), update)
    start_of = (trained["latent_init"], learned["log_alpha"])
    steps = num_steps or config.adaptation.num_steps
    state, _, _ = fit(loss, start_of, optimiser, steps, first_order=config.adaptation.first_order)
    return latent_of(state), state[1]


def neutral_penalty(
    gates: GateConfig, open_fraction: jax.Array, log_lambda: jax.Array, paid: jax.Array | None = None
) -> Float[Array, ""]:
    """Zero in value; its gradients are those of λ · penalty, and of an ascent of log λ until the target is reached.

    paid: fraction of the entries that a file pays for, where that is not the expected open one.
    With the violation v = log(paid / target), clipped to ±1: λ (1 + 5 v) times the gradient of the penalty (the second
    part damps what would swing, and opens gates again where too many have closed), and −v / 100 for log λ.
    Platt and Barr 1987, "Constrained differential optimization", section 4.
    """
    paid = jnp.maximum(open_fraction if paid is None else paid, 1e-9)
    violation = jax.lax.stop_gradient(jnp.clip(jnp.log(paid / gates.target), -1.0, 1.0))
    pressure = jax.lax.stop_gradient(jnp.exp(log_lambda)) * (1.0 + 5.0 * violation)
    # A hundredth, so that clipping the global norm leaves θ its share; Adam makes up for it.
    terms = pressure * open_fraction - 0.01 * violation * log_lambda
    return terms - jax.lax.stop_gradient(terms)


def pattern(index: Int[np.ndarray, "r k"], log_alpha: Float[np.ndarray, " g"], target: float) -> tuple[np.ndarray, np.ndarray]:
    """(gates int32 [g] of 0 and 1, open entries int32 [m] ascending): by rank of log α, at most round(target · k) entries.

    Of equal gates the earlier ones are open. ValueError where not even one gate fits, or log α is not finite.
    """
    if not np.isfinite(log_alpha).all():
        raise ValueError("training of the gates has diverged: log α is not finite; lower gates.gate_lr")
    order = np.argsort(-log_alpha, kind="stable")
    rank = np.full(order.size + 1, -1)
    rank[order] = np.arange(order.size)
    # An entry opens with the last of the gates that rule it.
    last = rank[index].max(axis=0)
    opened = np.searchsorted(np.sort(last), np.arange(order.size + 1))
    budget = round(target * index.shape[1])
    kept = int(np.searchsorted(opened, budget, side="right")) - 1
    if kept < 1:
        raise ValueError(f"gates.target = {target:g} pays for {budget} entries, and not even the first gate fits; raise it")
    gates = np.zeros(order.size, np.int32)
    gates[order[:kept]] = 1
    return gates, np.flatnonzero(last < kept).astype(np.int32)


def start(config: MetaConfig, gates: GateConfig, z: Gates, key: jax.Array, params: Params, source: ExampleSource) -> dict:
    """θ, φ₀ and step sizes as training under gates z starts from them: relative to 1/λ_max over what z leaves open."""
    mask = spread(gate_index(config.field, gates.apply, gates.group), z) if gates.apply == "update" else 1.0

    def loss(config, shared, latent, *rest):
        return gated_loss(gates, z)(config, shared, params["latent_init"] + mask * (latent - params["latent_init"]), *rest)

    return meta_learning.start(config, key, params, source, loss)


def meta_error(
    config: MetaConfig, gates: GateConfig, trained: Trained, z: Gates, values: Float[Array, "n c"], key: jax.Array | None
) -> Float[Array, ""]:
    """MSE after adaptation under gates z; of random points (`draw`) where there is a key."""
    (inner, inner_coords), (outer, outer_coords) = draw(config, values, key)
    latent = adapt_gated(config, gates, trained, z, inner, coords=inner_coords)
    return gated_loss(gates, z)(config, trained["shared"], latent, outer, None, outer_coords)


def with_psnr(error: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(loss, metrics) of a stage."""
    return error, {"psnr_db": -10.0 * jnp.log10(error)}


def sparse_meta_stage(config: MetaConfig, gates: GateConfig, name: str, training: TrainingConfig, *, restart: bool) -> Stage:
    """Meta-learning under the pattern in ``params["gates"]``: of θ, and of φ₀ and step sizes as the config says.

    restart: whether step sizes are measured anew, under the pattern; False to go on with those there are.
    """

    def begin(key: jax.Array, params: Params, source: ExampleSource) -> dict[str, Any]:
        params = jax.tree.map(jnp.asarray, {part: params[part] for part in (*PARTS, "gates")})
        if restart:
            return start(config, gates, jnp.asarray(params["gates"], jnp.float32), key, params, source)
        return {part: params[part] for part in PARTS}

    def error(trained: Any, frozen: Any, example: Mapping[str, jax.Array], key: jax.Array | None):
        values = example["values"]
        return with_psnr(meta_error(config, gates, trained, jnp.asarray(frozen["gates"], values.dtype), values, key))

    return Stage(
        name=name,
        training=training,
        examples=lambda params, patches: NormalisedSource(patches, config.modality),
        init=begin,
        frozen=lambda params: {"gates": params["gates"]},
        loss=lambda trained, *rest: error(stop_fixed_gradients(config, trained), *rest),
        finish=lambda params, trained: {**params, **trained},
        evaluate=lambda trained, frozen, example, key: error(trained, frozen, example, None),
        lr_multipliers=partial(lr_multipliers, config),
    )

"""Which gate governs which entry of a latent, and which entries a file pays for.

Schwarz and Teh 2022, "Meta-Learning Sparse Compression Networks", section 3: gradient, structured, weight, group and
representation sparsity are choices of what is multiplied with the gates z and of what shares a gate.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vcinr.fields.field import FieldConfig
from vcinr.sparsity import hard_concrete

APPLY = ("update", "modulation", "weights", "activations")
GROUP = ("entry", "unit", "layer")

Gates = Float[Array, " g"]


@dataclasses.dataclass(frozen=True)
class GateConfig:
    """Config of L0 gates.

    apply: what is multiplied with z: "update", every step of the inner loop (equation 9); "modulation", the latent that enters
        the field (equation 10); "weights", all weights, after their update; "activations", the outputs of the units.
    group: what shares a gate: "entry", nothing; "unit", all entries that lead into a unit; "layer", all entries of a layer.
    target: fraction of the latent's entries that a file pays for, 0 to 1.
    start_open: P(z > 0) where training starts, 0 to 1.
    start_lambda: weight of the L0 penalty (mean open probability of the entries) against the MSE where training starts; positive.
    gate_lr: peak outer step size of log α; positive.
    lambda_lr: peak outer step size of log λ; positive.
    """

    apply: str = "update"
    group: str = "entry"
    target: float = 0.1
    start_open: float = 0.95
    start_lambda: float = 1e-4
    gate_lr: float = 0.05
    lambda_lr: float = 0.04

    def __post_init__(self):
        for key, valid in (("apply", APPLY), ("group", GROUP)):
            if getattr(self, key) not in valid:
                raise ValueError(f"unknown gates.{key} {getattr(self, key)!r}; valid are {', '.join(sorted(valid))}")
        for key in ("target", "start_open"):
            if not 0.0 < getattr(self, key) < 1.0:
                raise ValueError(f"gates.{key} must lie between 0 and 1, not {getattr(self, key)}")
        for key in ("start_lambda", "gate_lr", "lambda_lr"):
            if not getattr(self, key) > 0.0:
                raise ValueError(f"gates.{key} must be positive, not {getattr(self, key)}")


def gate_index(field: FieldConfig, apply: str, group: str) -> Int[np.ndarray, "r k"]:
    """The gates that govern each entry of the latent: it is open where all of its r gates are; −1 stands for no gate.

    r = 1, except for "activations" of weights, where r = 2: a weight matters where the units at both of its ends are open.

    Args:
      field: its modulation says what the entries are.
      apply, group: as in `GateConfig`.

    Raises:
      ValueError: the field has no such entries.
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
    index = np.repeat(np.arange(len(widths)), widths) if group == "layer" else np.arange(sum(widths))
    return index.astype(np.int32)


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
    """Each entry's product over the gates that govern it: of values z, or of probabilities, as gates are independent."""
    return jnp.prod(jnp.concatenate([gates, jnp.ones(1, gates.dtype)])[index], axis=0)


def expected_open(index: Int[np.ndarray, "r k"], log_alpha: Gates) -> Float[Array, ""]:
    """Expected fraction of the entries that are open: the L0 penalty over the latent's length (equation 6)."""
    return jnp.mean(spread(index, hard_concrete.open_probability(log_alpha)))


def open_fraction(index: Int[np.ndarray, "r k"], log_alpha: Gates) -> Float[Array, ""]:
    """Fraction of the entries that deterministic gates leave open."""
    return jnp.mean(spread(index, (hard_concrete.deterministic(log_alpha) > 0).astype(log_alpha.dtype)))


def pattern(index: Int[np.ndarray, "r k"], log_alpha: Float[np.ndarray, " g"], target: float) -> tuple[np.ndarray, np.ndarray]:
    """The pattern that files pay for: the gates of largest log α, as long as they open at most round(target · k) entries.

    Args:
      index: as `gate_index` gives.
      log_alpha: of each gate; of equal ones the earlier open first.
      target: fraction of the k entries, 0 to 1.

    Returns:
      (gates int32 [g] of 0 and 1, open entries int32 [m], ascending).

    Raises:
      ValueError: not even one gate fits, or log α is not finite.
    """
    if not np.isfinite(log_alpha).all():
        raise ValueError("training of the gates has diverged: log α is not finite; lower gates.gate_lr")
    order = np.argsort(-log_alpha, kind="stable")
    rank = np.full(order.size + 1, -1)
    rank[order] = np.arange(order.size)
    # An entry opens with the last of the gates that govern it.
    last = rank[index].max(axis=0)
    opened = np.searchsorted(np.sort(last), np.arange(order.size + 1))
    budget = round(target * index.shape[1])
    kept = int(np.searchsorted(opened, budget, side="right")) - 1
    if kept < 1:
        raise ValueError(f"gates.target = {target:g} pays for {budget} entries, and not even the first gate fits; raise it")
    gates = np.zeros(order.size, np.int32)
    gates[order[:kept]] = 1
    return gates, np.flatnonzero(last < kept).astype(np.int32)

"""AdaRound: every weight is rounded up or down as suits its layer's output best, not to the nearest (Nagel et al. 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Layer = Callable[[Any, jax.Array], jax.Array]
"""``layer(weights, inputs [n, d]) -> outputs [n, e]``, after the activation; weights are any pytree of tensors."""

STRETCH_LOW, STRETCH_HIGH = -0.1, 1.1
"""γ and ζ: the sigmoid is stretched from (0, 1) to this and cut off, so that 0 and 1 are reached."""


@dataclasses.dataclass(frozen=True)
class AdaRoundConfig:
    """Config of AdaRound.

    num_steps: of Adam, per layer; 0 rounds to the nearest.
    lr: of Adam on V, positive.
    batch: inputs per step; 0: all.
    regularisation: weight of the term that drives every h(V) to 0 or 1, beside an error in units of nearest rounding's; at
        least 0.
    warm_start: share of the steps before that term sets in, 0 to 1.
    beta_start, beta_end: β falls from one to the other after it; both positive.
    """

    num_steps: int = 1000
    lr: float = 1e-2
    batch: int = 1024
    regularisation: float = 1.0
    warm_start: float = 0.2
    beta_start: float = 20.0
    beta_end: float = 2.0

    def __post_init__(self):
        if self.num_steps < 0 or self.batch < 0:
            raise ValueError(f"adaround needs num_steps and batch >= 0, not {self.num_steps} and {self.batch}")
        if not (self.lr > 0 and self.regularisation >= 0 and 0 <= self.warm_start < 1):
            raise ValueError("adaround needs lr > 0, regularisation >= 0 and a warm_start in [0, 1)")
        if not self.beta_start >= self.beta_end > 0:
            raise ValueError(f"adaround needs beta_start >= beta_end > 0, not {self.beta_start} and {self.beta_end}")


class Rounded(NamedTuple):
    """What `adaround` found, layer by layer; levels are weights in units of their step size.

    hard: whole levels.
    soft: levels at the end of the optimisation, not yet rounded; rounding them, halves to even, gives ``hard``. Where nearest
        rounding was kept they are the weights themselves.
    error, nearest_error: mean squared error of each layer's output, [layers], with ``hard`` and with the nearest levels, both on
        inputs through the layers already rounded.
    """

    hard: list[Any]
    soft: list[Any]
    error: Float[Array, " layers"]
    nearest_error: Float[Array, " layers"]


def rectified_sigmoid(v: jax.Array) -> jax.Array:
    """h(V) = clip(σ(V)(ζ − γ) + γ, 0, 1) (Nagel et al. 2020, equation 23)."""
    return jnp.clip(jax.nn.sigmoid(v) * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW, 0.0, 1.0)


def inverse_rectified_sigmoid(h: jax.Array) -> jax.Array:
    """The V with h(V) = h, for h in [0, 1]."""
    return -jnp.log((STRETCH_HIGH - STRETCH_LOW) / (h - STRETCH_LOW) - 1.0)


def soft_levels(levels: jax.Array, v: jax.Array, limit: int) -> jax.Array:
    """clip(⌊W/Δ⌋ + h(V), −n, n) (equation 22), at levels W/Δ and n = ``limit``."""
    return jnp.clip(jnp.floor(levels) + rectified_sigmoid(v), -limit, limit)


def regulariser(v: jax.Array, beta: jax.Array | float) -> jax.Array:
    """1 − |2 h(V) − 1|^β of each weight (equation 24)."""
    return 1.0 - jnp.abs(2.0 * rectified_sigmoid(v) - 1.0) ** beta


def annealed_beta(config: AdaRoundConfig, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(β, 1 where the regulariser has set in, else 0) at a step: a half cosine after the warm start."""
    done = step / max(config.num_steps, 1)
    share = jnp.clip((done - config.warm_start) / (1.0 - config.warm_start), 0.0, 1.0)
    beta = config.beta_end + 0.5 * (config.beta_start - config.beta_end) * (1.0 + jnp.cos(jnp.pi * share))
    return beta, (done >= config.warm_start).astype(jnp.float32)


def round_layer(
    layer: Layer,
    levels: Any,
    steps: Any,
    inputs: Float[Array, "n d"],
    targets: Float[Array, "n e"],
    key: jax.Array,
    config: AdaRoundConfig,
    limit: int,
) -> tuple[Any, Any, jax.Array, jax.Array]:
    """Rounds one layer's weights for min ‖targets − layer(Δ · levels, inputs)‖² (equation 25, with its regulariser).

    Args:
      layer: the layer.
      levels: W/Δ, a pytree of tensors.
      steps: Δ > 0 of each tensor, a pytree of the same structure.
      inputs: through the layers already rounded.
      targets: the float layer's output.
      key: of the batches.
      config: how long and how hard.
      limit: n, the largest whole level.

    Returns:
      (hard, soft, error, nearest_error) as in `Rounded`. The result is never worse than the nearest levels on these inputs: where
      the optimisation loses to them, they are kept.
    """

    def error(chosen: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        weights = jax.tree.map(lambda level, step: level * step, chosen, steps)
        return jnp.mean(jnp.square(layer(weights, x) - y))

    soft_of = lambda v: jax.tree.map(lambda level, each: soft_levels(level, each, limit), levels, v)
    hard_of = lambda soft: jax.tree.map(jnp.round, soft)
    clipped = jax.tree.map(lambda level: jnp.clip(level, -limit, limit), levels)
    nearest = hard_of(clipped)
    nearest_error = error(nearest, inputs, targets)
    unit = jnp.maximum(nearest_error, jnp.finfo(inputs.dtype).tiny)
    count = sum(leaf.size for leaf in jax.tree.leaves(levels))
    adam = optax.adam(config.lr)
    batch = config.batch if 0 < config.batch < len(inputs) else 0

    def objective(v: Any, x: jax.Array, y: jax.Array, step: jax.Array) -> jax.Array:
        beta, active = annealed_beta(config, step)
        penalty = sum(jnp.sum(regulariser(leaf, beta)) for leaf in jax.tree.leaves(v)) / count
        return error(soft_of(v), x, y) / unit + config.regularisation * active * penalty

    def update(step: jax.Array, carry: tuple) -> tuple:
        v, state = carry
        x, y = inputs, targets
        if batch:
            chosen = jax.random.randint(jax.random.fold_in(key, step), (batch,), 0, len(inputs))
            x, y = inputs[chosen], targets[chosen]
        updates, state = adam.update(jax.grad(objective)(v, x, y, step), state)
        return optax.apply_updates(v, updates), state

    v = jax.tree.map(lambda level: inverse_rectified_sigmoid(level - jnp.floor(level)), levels)
    v, _ = jax.lax.fori_loop(0, config.num_steps, update, (v, adam.init(v)))
    soft = soft_of(v)
    hard = hard_of(soft)
    found_error = error(hard, inputs, targets)
    better = found_error < nearest_error
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)
    return keep(hard, nearest), keep(soft, clipped), jnp.where(better, found_error, nearest_error), nearest_error


def adaround(
    layers: Sequence[Layer],
    levels: Sequence[Any],
    steps: Sequence[Any],
    inputs: Float[Array, "n d"],
    key: jax.Array,
    config: AdaRoundConfig,
    limit: int,
) -> Rounded:
    """Rounds a network layer by layer: each for the float network's output, on inputs through the layers rounded before it.

    Nagel et al. 2020, section 3.3: asymmetric reconstruction with the activation.

    Args:
      layers: of one network, in order.
      levels: W/Δ of each layer, a pytree of tensors.
      steps: Δ > 0 of each layer, a pytree of the same structure.
      inputs: of the first layer.
      key: of the batches.
      config: how long and how hard.
      limit: n; whole levels lie in −n … n.
    """
    rounded = Rounded([], [], jnp.zeros(0), jnp.zeros(0))
    exact = approximate = inputs
    errors = []
    for index, (layer, level, step) in enumerate(zip(layers, levels, steps, strict=True)):
        exact = layer(jax.tree.map(jnp.multiply, level, step), exact)
        found = round_layer(layer, level, step, approximate, exact, jax.random.fold_in(key, index), config, limit)
        hard, soft, *of_layer = found
        approximate = layer(jax.tree.map(jnp.multiply, hard, step), approximate)
        rounded.hard.append(hard)
        rounded.soft.append(soft)
        errors.append(of_layer)
    error, nearest_error = jnp.array(errors).T
    return rounded._replace(error=error, nearest_error=nearest_error)

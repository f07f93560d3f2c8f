"""The outer optimiser: clipping, Adam, warm-up and cosine decay."""

from __future__ import annotations

from typing import Any

import jax
import optax

from vcinr.stage import TrainingConfig


def make_schedule(config: TrainingConfig) -> optax.Schedule:
    """Outer step size as a function of the number of updates made, t.

    Linear from lr/(warmup_steps + 1) at t = 0 (0 would waste an update) to lr at t = warmup_steps, then a cosine to
    lr·final_lr_fraction at t = num_steps.
    Raises ValueError where warmup_steps is not less than num_steps.
    """
    if config.warmup_steps >= config.num_steps:
        raise ValueError(
            f"warmup_steps = {config.warmup_steps} leaves nothing of num_steps = {config.num_steps}; "
            "lower warmup_steps or raise num_steps"
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=config.lr / (config.warmup_steps + 1),
        peak_value=config.lr,
        warmup_steps=config.warmup_steps,
        decay_steps=config.num_steps,
        end_value=config.lr * config.final_lr_fraction,
    )


def make_optimiser(config: TrainingConfig, lr_multipliers: Any | None = None) -> optax.GradientTransformation:
    """Clip by global norm, then Adam, then the schedule of `make_schedule`.

    lr_multipliers: factors on the step size, a tree like the parameters' or a prefix of it: ``{"trunk": 0.1, "heads": 1.0}``.
    Kingma and Ba, "Adam", 2015, algorithm 1 (β = 0.9, 0.999, ε = 1e-8).
    """
    links = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    links += [optax.scale_by_adam(), optax.scale_by_learning_rate(make_schedule(config))]
    if lr_multipliers is not None:
        links.append(optax.stateless(lambda updates, params: _scale(lr_multipliers, updates)))
    return optax.chain(*links)


def _scale(multipliers: Any, updates: Any) -> Any:
    return jax.tree.map(lambda m, group: jax.tree.map(lambda u: m * u, group), multipliers, updates)

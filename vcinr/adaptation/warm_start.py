"""A warm start for fields with a linear head: the field begins as the principal components of the training patches.

The trunk is trained so that its features span the components (variable projection: at every step the head's weights are the
least-squares solution). Then the head is solved for, and the gates start neutral. Meta-training thus begins at the quality of the
KLT with as many components, minus what the features cannot represent.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vcinr.fields.field import FieldConfig, evaluate
from vcinr.signals.principal_components import principal_components
from vcinr.stage import TrainingConfig

RIDGE = 1e-5
"""Ridge of the least-squares solution in float32 while the trunk is trained, relative to the features' mean square. The final
head is solved for in float64, with 10⁻³ of this ridge."""

MAX_WIDTH_LOSS_DB = 0.05
"""Training warns where a field's last width loses more than this, in dB, however well the trunk is trained."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class WarmStartConfig:
    """Config of the warm start.

    enabled: whether training begins with it.
    num_patches: largest number of training patches that the components are computed from.
    offsets_per_picture: random grids of patches cut from each training picture.
    sketches: random combinations of the components per training example of the trunk.
    training: training of the trunk on these examples.
    """

    enabled: bool = False
    num_patches: int = 20000
    offsets_per_picture: int = 2
    sketches: int = 64
    training: TrainingConfig = TrainingConfig(
        num_steps=400,
        batch_size=8,
        lr=3e-3,
        warmup_steps=20,
        clip_norm=0.0,
        average_decay=0.0,
        collapse_db=0.0,
        checkpoint_every=200,
    )


def components(values: np.ndarray, num_components: int) -> dict[str, np.ndarray]:
    """Principal components of patches [m, n, c]; missing ones, where m or n·c is smaller than ``num_components``, are zero.

    Returns:
      ``mean`` [n, c]; ``basis`` [k, n, c], orthonormal; ``std`` [k], standard deviations of the coefficients; ``rest`` [], the
      mean squared norm of the residual.
    """
    flat = values.reshape(len(values), -1)
    mean, basis = principal_components(flat, num_components)
    centred = flat - mean
    std = np.std(centred @ basis.T, axis=0)
    total = np.sum(np.square(centred), dtype=np.float64) / len(values)
    rest = np.float32(max(total - np.sum(np.square(std), dtype=np.float64), 0.0))
    missing = num_components - len(basis)
    basis = np.pad(basis, ((0, missing), (0, 0))).reshape(num_components, *values.shape[1:])
    return {"mean": mean.reshape(values.shape[1:]), "basis": basis, "std": np.pad(std, (0, missing)), "rest": rest}


def weighted_basis(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean and the components, each times its standard deviation, as functions of the coordinates: [n, (1 + k) c]."""
    weighted = np.concatenate([found["mean"][None], found["std"][:, None, None] * found["basis"]])
    return np.moveaxis(weighted, 0, 1).reshape(weighted.shape[1], -1)


def width_losses_db(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """PSNR in dB that a last width of H loses at least against the components, [n + 1] for H = 0, 1, …, n; it falls to 0.

    A linear head builds every component of every channel from the same H functions of the coordinates and a bias. Whatever the
    trunk, its best approximation of the weighted basis therefore has rank H (Eckart and Young 1936).
    """
    functions = weighted_basis(found).astype(np.float64)
    functions -= functions.mean(axis=0)
    energies = np.maximum(np.linalg.eigvalsh(functions @ functions.T), 0.0)
    missed = np.concatenate([[0.0], np.cumsum(energies)])[::-1]
    # Shares below 1e-9 are rounding errors of the float32 components, and so is the residual of a complete basis.
    floor = 1e-9 * (float(found["rest"]) + missed[0]) + np.finfo(np.float64).tiny
    missed = np.where(missed < floor, 0.0, missed)
    return 10.0 * np.log10(1.0 + missed / max(float(found["rest"]), floor))


def required_last_width(found: Mapping[str, np.ndarray], max_loss_db: float = MAX_WIDTH_LOSS_DB) -> int:
    """The smallest width H ≥ 1 of the last sine layer that loses at most ``max_loss_db``; see `width_losses_db`."""
    return max(1, int(np.argmax(width_losses_db(found) <= max_loss_db)))


def report_width(found: Mapping[str, np.ndarray], width: int) -> float:
    """Logs and returns what this last width loses at least, in dB; above `MAX_WIDTH_LOSS_DB` the log names a sufficient width."""
    loss = float(width_losses_db(found)[min(width, found["mean"].shape[0])])
    if loss > MAX_WIDTH_LOSS_DB:
        message = "a last width of %d loses at least %.2f dB of the %d components; set field.last_width to %d to lose under %g dB"
        _log.warning(message, width, loss, len(found["std"]), required_last_width(found), MAX_WIDTH_LOSS_DB)
    else:
        _log.info("a last width of %d loses at least %.3f dB of the %d components", width, loss, len(found["std"]))
    return loss


class SketchSource:
    """Training examples of the trunk: random combinations of the mean and the components, each times its standard deviation.

    For Gaussian Ω, E‖Y Ω‖² is ‖Y‖² times the number of columns, and the same holds for the residual of a projection. The share of
    an example that the features miss is thus an unbiased estimate for the training patches.
    """

    def __init__(self, found: Mapping[str, np.ndarray], sketches: int):
        self._targets = weighted_basis(found)
        self._sketches = sketches

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        """``{"sketch": float32 [size, n, sketches]}``."""
        omega = rng.standard_normal((self._targets.shape[1], size * self._sketches), np.float32)
        drawn = (self._targets @ omega).reshape(len(self._targets), size, self._sketches)
        return {"sketch": np.ascontiguousarray(np.moveaxis(drawn, 0, 1))}


def features(config: FieldConfig, shared: Mapping[str, Any], coords: Float[Array, "n d"]) -> Float[Array, "n h1"]:
    """Inputs of the linear head with neutral gates: the last sine layer's units, and a column of ones for the bias."""
    layers = [(shared[f"kernel_{i}"], shared[f"bias_{i}"]) for i in range(config.num_layers)]
    width = layers[-1][1].shape[0]
    hidden = evaluate(config, [*layers, (jnp.eye(width), jnp.zeros(width))], coords)
    return jnp.concatenate([hidden, jnp.ones((len(coords), 1))], axis=1)


def solve(design: Any, targets: Any, ridge: float, xp: Any = jnp) -> Any:
    """Least-squares weights [h1, m] for design [n, h1] and targets [n, m]; xp: `jax.numpy`, or `numpy` on the host."""
    gram = design.T @ design
    damped = gram + ridge * xp.trace(gram) / gram.shape[0] * xp.eye(gram.shape[0], dtype=gram.dtype)
    return xp.linalg.solve(damped, design.T @ targets)


def projection_loss(
    config: FieldConfig, trunk: Mapping[str, Any], coords: Float[Array, "n d"], sketch: Float[Array, "n m"]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The share of a sketch that the features miss, 0 to 1.

    The loss is stationary in the least-squares weights, so the gradient treats them as constants (the envelope theorem; Golub and
    Pereyra 1973).
    """
    design = features(config, trunk, coords)
    weights = jax.lax.stop_gradient(solve(design, sketch, RIDGE))
    missed = jnp.sum(jnp.square(sketch - design @ weights)) / jnp.sum(jnp.square(sketch))
    return missed, {"basis_db": -10.0 * jnp.log10(missed)}


def solve_head(
    config: FieldConfig, shared: Mapping[str, Any], found: Mapping[str, np.ndarray], coords: Float[Array, "n d"]
) -> dict[str, Any]:
    """θ with the head that reproduces the components, neutral gates, and a hypernetwork whose input is scaled to unit size.

    The latent is then the vector of principal coefficients, and the inner problem is perfectly conditioned.
    """
    design = np.asarray(features(config, shared, coords), np.float64)
    k, n, channels = found["basis"].shape
    targets = np.concatenate([found["mean"], np.moveaxis(found["basis"], 0, 1).reshape(n, k * channels)], axis=1)
    weights = jnp.asarray(solve(design, targets.astype(np.float64), 1e-3 * RIDGE, np), jnp.float32)
    kernels = weights[:, channels:].reshape(-1, k, channels)
    shared = {
        **shared,
        f"kernel_{config.num_layers}": weights[:-1, :channels],
        f"bias_{config.num_layers}": weights[-1, :channels],
        "head_kernel": jnp.moveaxis(kernels[:-1], 1, 0),
        "head_bias": kernels[-1],
    }
    for name in [name for name in shared if name.startswith("left_heads")]:
        shared[name] = jax.tree.map(jnp.zeros_like, shared[name])
    if "network" in shared:
        std = jnp.asarray(found["std"])
        size = 1.0 / (std + 0.1 * jnp.max(std))
        embed = shared["network"]["embed"]
        shared["network"] = {**shared["network"], "embed": {**embed, "kernel": size[:, None] * embed["kernel"]}}
    return shared


def lr_multipliers(trainable: Any) -> Any:
    """One learning-rate multiplier per leaf: its root mean square, so that the outer rate is a relative change.

    The multiplier is at least a tenth of the leaf's usual initial size, 1/√fan-in for kernels and 0.1 for vectors, so that zero
    leaves move too.
    """

    def multiplier(leaf):
        size = float(jnp.sqrt(jnp.mean(jnp.square(leaf))))
        return max(size, 0.1 * (leaf.shape[-2] ** -0.5 if leaf.ndim > 1 else 0.1))

    return jax.tree.map(multiplier, trainable)

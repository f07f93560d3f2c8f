"""The grid that weights are rounded to: one step size per tensor, symmetric about zero, kept as bfloat16 in the file."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.entropy.uniform_quantiser import quantise_symmetric, symmetric_step
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig


def grid_steps(updates: np.ndarray, field: FieldConfig, bits: int) -> np.ndarray:
    """The step size of each tensor that just reaches its largest weight, rounded up to bfloat16.

    Args:
      updates: weights of each signal, [b, p].
      field: their network, of t tensors.
      bits: per weight, 2 to 16.

    Returns:
      float32 [b, t].
    """
    largest = np.stack([np.abs(updates[:, part]).max(1) for part in siren.tensor_slices(field.sizes())], axis=1)
    return from_bfloat16(bfloat16_above(np.asarray(symmetric_step(largest, bits))))


def per_weight(field: FieldConfig, steps: np.ndarray) -> np.ndarray:
    """The step size of each weight [..., p] from that of each tensor [..., t]."""
    return steps[..., tensor_index(tuple(field.sizes()))]


def on_grid(levels: Any, bits: int) -> jax.Array:
    """The nearest whole levels that ``bits`` bits have; levels are weights in units of their step size."""
    return quantise_symmetric(jnp.asarray(levels), 1.0, bits)


def bfloat16_above(values: np.ndarray) -> np.ndarray:
    """The least bfloat16 not below each positive finite float32, as uint16 bits; ValueError where there is none."""
    bits = (np.ascontiguousarray(values, np.float32).view(np.uint32) + np.uint32(0xFFFF)) >> np.uint32(16)
    from_bfloat16(bits)
    return bits.astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 of bfloat16 bits; ValueError where one is not positive, finite and normal: it can be no step size."""
    bits = np.asarray(bits)
    if not ((bits >= 0x0080) & (bits < 0x7F80)).all():
        raise ValueError("a quantiser step is not a positive finite number")
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


@functools.lru_cache(maxsize=64)
def tensor_index(sizes: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The tensor that each weight belongs to, int32 [p]; sizes: (fan-in, fan-out) of each layer."""
    lengths = [part.stop - part.start for part in siren.tensor_slices(sizes)]
    index = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    index.setflags(write=False)
    return index

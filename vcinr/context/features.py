"""What the context prior sees of decoded symbols, in floats and in whole numbers by the same code.

`prior.FLOATS` and `integer_prior.integer_arithmetic` are the two number systems.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vcinr.context.lattice import face_offsets, neighbour_offsets, neighbours
from vcinr.context.order import Order

MAX_CONTEXT_SYMBOL = 255
"""Symbols are clipped to ± this before a context sees them."""
MAX_BASE = 2**29
"""The mean that symbols of the first group are counted from is clipped to ± this."""

Features = tuple[Any, Any, Any]
"""(sign(q) log(1 + |q|), log(1 + |q|), q) of symbols q clipped to ±`MAX_CONTEXT_SYMBOL`, arrays of one shape."""


class Arithmetic(NamedTuple):
    """A number system that contexts are computed in.

    xp: `jax.numpy` or `numpy`.
    one: how 1 is written; 2^8 in whole numbers with 8 fractional bits.
    features: symbols → `Features`, the first two in multiples of 1 / ``one``.
    floor_divide: (a, b) → ⌊a / b⌋.
    """

    xp: Any
    one: float
    features: Callable[[Any], Features]
    floor_divide: Callable[[Any, Any], Any]


def group_context(order: Order, rank: int, group: int, seen: Features, odd: Any, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """Context of every patch for a group after the first.

    Args:
        order: the order of coding.
        rank: axes of patches.
        group: number of the group, 1 or more.
        seen: features of the symbols [*batch, *counts, k' ≥ end of the group]; later groups are not looked at.
        odd: [*counts], 1 where the step is odd and sees the group's own symbols in the patches at its faces, else 0.
        arithmetic: of the features.

    Returns:
        Inputs of the hidden layer and of the linear part, [*batch, *counts, …] with the lengths of `context_sizes`.
    """
    xp = arithmetic.xp
    start, stop = order.span(group)
    near = min(start, order.neighbour_dims)
    signed, size, clipped = seen
    flag = xp.broadcast_to(odd[..., None] * arithmetic.one, (*size.shape[:-1], 1))

    def of_neighbours(x: Any) -> Any:
        return neighbours(x[..., :near], neighbour_offsets(rank), xp)

    def of_faces(x: Any) -> Any:
        return neighbours(x[..., start:stop], face_offsets(rank), xp) * odd[..., None]

    hidden = [signed[..., :start], size[..., :start], of_neighbours(signed), of_neighbours(size), of_faces(size), flag]
    linear = [clipped[..., :start], of_neighbours(clipped)]
    if start < order.neighbour_dims:
        hidden.append(of_faces(signed))
        linear.append(of_faces(clipped))
    return xp.concatenate(hidden, axis=-1), xp.concatenate(linear, axis=-1)


def lattice_context(near: Any, known: np.ndarray, number: int, num_steps: int, arithmetic: Arithmetic) -> tuple[Any, Any, Any]:
    """Context of the m patches of a step of the first group.

    Symbols are counted from the floor of the mean of their known neighbours, the base: what remains is small however large
    the symbols are.

    Args:
        near: symbols of the group in the neighbours, [..., m, 3^rank − 1, n].
        known: which neighbours are known, bool [m, 3^rank − 1], at least one per patch.
        number: of the step among the steps of the first group.
        num_steps: steps of the first group.
        arithmetic: of the context.

    Returns:
        The base [..., m, n], and the inputs of the hidden layer and of the linear part, as `group_context`.
    """
    xp = arithmetic.xp
    mask = known[..., None]
    mean = arithmetic.floor_divide(xp.sum(near * mask, axis=-2), np.sum(mask, axis=-2))
    base = xp.clip(mean, -MAX_BASE, MAX_BASE)
    flat = (*near.shape[:-2], -1)
    signed, size, clipped = (part.reshape(flat) for part in arithmetic.features((near - base[..., None, :]) * mask))
    base_signed, base_size, _ = arithmetic.features(base)
    one_hot = np.broadcast_to(np.arange(num_steps) == number, (len(known), num_steps))
    flags = np.concatenate([known, one_hot], axis=-1) * arithmetic.one
    flags = xp.broadcast_to(xp.asarray(flags, size.dtype), (*near.shape[:-2], flags.shape[-1]))
    return base, xp.concatenate([signed, size, base_signed, base_size, flags], axis=-1), clipped


def context_sizes(order: Order, rank: int, group: int) -> tuple[int, int]:
    """Lengths of the inputs of the hidden layer and of the linear part, of `group_context` or, for group 0, `lattice_context`."""
    start, stop = order.span(group)
    num_neighbours = len(neighbour_offsets(rank))
    if group == 0:
        near = stop * num_neighbours
        return 2 * near + 2 * stop + num_neighbours + len(order.lattice_steps), near
    near, faces = min(start, order.neighbour_dims) * num_neighbours, (stop - start) * len(face_offsets(rank))
    signed = faces if start < order.neighbour_dims else 0
    return 2 * (start + near) + faces + signed + 1, start + near + signed

"""The context prior in whole numbers, for files: `vcinr.context.prior` with rounded weights, equal on every machine.

Weights are int16 and int32. Sums of products stay far under 2^53, so float64 holds them exactly in any order of summation.
NumPy alone, no JAX. docs/bitstream.md, section "Symbols in context", specifies it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from vcinr.context.features import MAX_CONTEXT_SYMBOL, Arithmetic, Features, group_context, lattice_context
from vcinr.context.lattice import differences, lattice_neighbours
from vcinr.context.order import CodingStep, Order
from vcinr.context.tables import LOG_SCALE_MIN, LOG_SCALE_STEP, NUM_FRACTIONS, NUM_SCALES, counted_tables
from vcinr.entropy.tables import Tables

FEATURE_BITS, WEIGHT_BITS, LINEAR_BITS = 8, 12, 14
"""Fractional bits of features and hidden units; of weights; of the weights of the linear part, whose inputs are whole."""
SUM_BITS = FEATURE_BITS + WEIGHT_BITS
"""Fractional bits of sums and biases."""
PATCHES_PER_BLOCK = 1024
"""Contexts are made of about as many patches at a time, to bound memory."""

Slices = tuple[slice, ...]


def companding() -> np.ndarray:
    """⌊2^8 log(1 + |q|)⌉ for |q| = 0 … 255, int16: the logarithm that contexts see symbols through."""
    return np.rint(2**FEATURE_BITS * np.log1p(np.arange(MAX_CONTEXT_SYMBOL + 1))).astype(np.int16)


def integer_features(table: np.ndarray, symbols: np.ndarray) -> Features:
    """`Features` of whole symbols, the first two times 2^8: whole numbers in float64.   table: that of `companding`."""
    clipped = np.clip(symbols, -MAX_CONTEXT_SYMBOL, MAX_CONTEXT_SYMBOL)
    size = table[np.abs(clipped)].astype(np.float64)
    return np.sign(clipped) * size, size, clipped.astype(np.float64)


def integer_arithmetic(table: np.ndarray) -> Arithmetic:
    """Whole numbers in NumPy arrays, with a companding table."""
    return Arithmetic(np, 2.0**FEATURE_BITS, partial(integer_features, table), np.floor_divide)


def integer_network(order: Order, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `prior.predict` → whole numbers: int16 weights, int32 biases; scales in units of `LOG_SCALE_STEP`.

    What does not fit its type becomes the type's largest or smallest number.
    """

    def whole(array: Any, bits: int, kind: Any) -> np.ndarray:
        limits = np.iinfo(kind)
        return np.clip(np.rint(np.asarray(array, np.float64) * 2.0**bits), limits.min, limits.max).astype(kind)

    log_scale = (np.asarray(params["log_scale"], np.float64) - LOG_SCALE_MIN) / LOG_SCALE_STEP
    network: dict[str, Any] = {"companding": companding(), "log_scale": whole(log_scale, SUM_BITS, np.int32)}
    for group in order.predicted_groups:
        part, size = params[f"group_{group}"], order.span(group)[1] - order.span(group)[0]
        out = np.array(part["out"], np.float64)
        out[:, size:] /= LOG_SCALE_STEP
        network[f"group_{group}"] = {
            "kernel": whole(part["kernel"], WEIGHT_BITS, np.int16),
            "bias": whole(part["bias"], SUM_BITS, np.int32),
            "out": whole(out, WEIGHT_BITS, np.int16),
            "linear": whole(part["linear"], LINEAR_BITS, np.int16),
        }
    return network


def float_network(order: Order, network: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `integer_network`, up to its rounding: float32 parameters of `prior.predict`."""
    log_scale = LOG_SCALE_MIN + LOG_SCALE_STEP * np.asarray(network["log_scale"], np.float64) * 2.0**-SUM_BITS
    params: dict[str, Any] = {"log_scale": log_scale.astype(np.float32)}
    for group in order.predicted_groups:
        part, size = network[f"group_{group}"], order.span(group)[1] - order.span(group)[0]
        out = np.asarray(part["out"], np.float64) * 2.0**-WEIGHT_BITS
        out[:, size:] *= LOG_SCALE_STEP
        bits = {"kernel": WEIGHT_BITS, "bias": SUM_BITS, "linear": LINEAR_BITS}
        params[f"group_{group}"] = {
            "out": out.astype(np.float32),
            **{name: (np.asarray(part[name], np.float64) * 2.0**-n).astype(np.float32) for name, n in bits.items()},
        }
    return params


def predict_table(
    order: Order, network: Mapping[str, Any], point: int, symbols: np.ndarray, step: CodingStep
) -> tuple[np.ndarray, np.ndarray]:
    """Tables and whole parts of the locations of the symbols that a step codes.

    Args:
        order: the order of coding.
        network: of `integer_network`.
        point: number of the operating point.
        symbols: of n signals of one shape, int [n, *counts, k]; those not known at this step are not looked at.
        step: one of ``order.steps``, with m patches of size dimensions each.

    Returns:
        (table, ⌊μ⌋), int32 [n, m, size] each: a symbol q is coded as q − ⌊μ⌋ by that table.
    """
    counts = symbols.shape[1:-1]
    start, stop = order.span(step.group)
    part = {name: np.asarray(array, np.float64) for name, array in network[f"group_{step.group}"].items()}
    part["bias"], part["log_scale"] = part["bias"][point], np.asarray(network["log_scale"], np.float64)[point, start:stop]
    arithmetic = integer_arithmetic(network["companding"])
    if step.group == 0:
        return _predict_lattice(order, part, symbols[..., :stop], step, arithmetic)
    chosen = step.patches(counts)
    tables, wholes = (np.empty((*symbols.shape[:-1], stop - start), np.int32) for _ in range(2))
    for with_margin, inner, block in _blocks(len(symbols), counts):
        here = np.broadcast_to(chosen[block[1:]], symbols[block].shape[:-1])
        near = symbols[with_margin][..., :stop]
        odd = np.full(near.shape[1:-1], float(step.odd))
        inputs = group_context(order, len(counts), step.group, arithmetic.features(near), odd, arithmetic)
        tables[block][here], wholes[block][here] = _evaluate(part, *(x[inner][here] for x in inputs))
    return tables[:, chosen], wholes[:, chosen]


def _predict_lattice(
    order: Order, part: Mapping[str, np.ndarray], symbols: np.ndarray, step: CodingStep, arithmetic: Arithmetic
) -> tuple[np.ndarray, np.ndarray]:
    """`predict_table` for a step of the first group; symbols: of that group, [n, *counts, size]."""
    counts, steps = symbols.shape[1:-1], order.lattice_steps
    _, near, known = lattice_neighbours(step.patches(counts), step.known(counts), step.stride)
    flat = symbols.reshape(len(symbols), -1, symbols.shape[-1]).astype(np.int64)
    tables, wholes = (np.empty((len(flat), len(near), flat.shape[-1]), np.int32) for _ in range(2))
    together = max(1, PATCHES_PER_BLOCK // max(1, len(near)))
    for i, j in itertools.product(range(0, len(flat), together), range(0, len(near), PATCHES_PER_BLOCK)):
        signals, patches = slice(i, i + together), slice(j, j + PATCHES_PER_BLOCK)
        base, *inputs = lattice_context(
            flat[signals][:, near[patches]], known[patches], steps.index(step), len(steps), arithmetic
        )
        tables[signals, patches], offset = _evaluate(part, *inputs)
        wholes[signals, patches] = base + offset
    return tables, wholes


def _blocks(num_signals: int, counts: tuple[int, ...]) -> Iterator[tuple[Slices, Slices, Slices]]:
    """Blocks of about `PATCHES_PER_BLOCK` patches that cover [signals, *counts].

    Yields three indices each: the block with a margin of one patch, the block inside of that, and the block itself.
    """
    axis, num_patches = int(np.argmax(counts)), int(np.prod(counts))
    together, thick = max(1, PATCHES_PER_BLOCK // num_patches), max(1, PATCHES_PER_BLOCK * counts[axis] // num_patches)
    before, after = (slice(None),) * axis, (slice(None),) * (len(counts) - axis - 1)
    for i, j in itertools.product(range(0, num_signals, together), range(0, counts[axis], thick)):
        low, high, signals = max(j - 1, 0), min(j + thick, counts[axis]), slice(i, i + together)
        yield (
            (signals, *before, slice(low, high + 1), *after),
            (slice(None), *before, slice(j - low, high - low), *after),
            (signals, *before, slice(j, high), *after),
        )


def _evaluate(part: Mapping[str, np.ndarray], hidden: np.ndarray, linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(table, ⌊μ⌋), int32 [..., n] each, from the inputs [..., …] of a group's network at one point, in float64."""
    unit = np.maximum(hidden @ part["kernel"] + part["bias"], 0.0)
    unit = np.minimum(np.floor(unit * 2.0**-WEIGHT_BITS), 2.0**15)
    location, scale = np.split(unit @ part["out"], 2, axis=-1)
    location = location + (linear @ part["linear"]) * 2.0 ** (SUM_BITS - LINEAR_BITS)
    location = np.floor(location * (NUM_FRACTIONS * 2.0**-SUM_BITS) + 0.5)
    location = np.clip(location, -(2.0**20), 2.0**20).astype(np.int32)
    scale = np.floor((scale + part["log_scale"]) * 2.0**-SUM_BITS + 0.5)
    scale = np.clip(scale, 0, NUM_SCALES - 1).astype(np.int32)
    return scale * NUM_FRACTIONS + location % NUM_FRACTIONS, location // NUM_FRACTIONS


def count_tables(order: Order, network: Mapping[str, Any], point: int, symbols: np.ndarray, coarsest: np.ndarray) -> Tables:
    """Tables of an operating point, counted on training symbols: those that `predict_table` names, then one per dimension of
    the first group for its differences.

    symbols: of n signals, int [n, *counts, k].
    coarsest: the first group on the coarsest lattice, int [n', *counts', size]. Each signal has few of these symbols, so n'
        is better larger than n.
    """
    residual, index = [], []
    for step in order.steps:
        start, stop = order.span(step.group)
        table, whole = predict_table(order, network, point, symbols, step)
        residual.append((symbols[:, step.patches(symbols.shape[1:-1]), start:stop].astype(np.int64) - whole).ravel())
        index.append(table.ravel())
    first = np.concatenate([differences(part).reshape(-1, order.ends[0]) for part in coarsest])
    return counted_tables(np.concatenate(residual), np.concatenate(index), first)

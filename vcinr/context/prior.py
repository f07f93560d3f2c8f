"""A prior whose location and scale come from what is already decoded: of the patch itself, and of its neighbours.

For symbol q of dimension i, p(q) = F(q + ½ − μ_i) − F(q − ½ − μ_i) with a logistic F of scale s_i; μ and log s come from one
hidden layer a group of dimensions. Training knows it as floats (`predict`); files are coded with the same network in whole
numbers (`integer_network`, `predict_table`), which every machine evaluates alike (Ballé et al. 2019, section 3).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.context.order import Order, Turn, around, beside, between, differences, is_odd, neighbours
from vcinr.entropy.tables import Tables, tables_from_columns, tables_from_counts

REACH = 255
"""Symbols further out enter a context as this."""
FEATURE_BITS, WEIGHT_BITS, LINEAR_BITS = 8, 12, 14
"""Fractional bits of companded symbols and hidden units; of weights; of weights that symbols meet as they are."""
SHIFTS = 8
"""A location is a whole number of 1/8."""
NUM_SCALES, LOG_SCALE_MIN, LOG_SCALE_STEP = 48, float(np.log(0.04)), 0.14
"""Scales of the tables: exp(LOG_SCALE_MIN + LOG_SCALE_STEP · j), 0.04 to 29 symbols."""
_ACCUMULATED = FEATURE_BITS + WEIGHT_BITS
_BLOCK = 1024
_FURTHEST = 2**29

Slices = tuple[slice, ...]
See = Callable[[Any], tuple[Any, Any, Any]]
"""What contexts see of symbols: `features`, or `integer_features` of a table."""


def companding() -> np.ndarray:
    """⌊2^8 log(1 + |q|)⌉ of |q| = 0 … 255, which contexts see symbols through; int16."""
    return np.rint(2**FEATURE_BITS * np.log1p(np.arange(REACH + 1))).astype(np.int16)


def features(symbols: Any) -> tuple[Any, Any, Any]:
    """(sign · log(1 + |q|), log(1 + |q|), q held within ±255) of symbols or their noisy stand-ins, as JAX floats."""
    held = jnp.clip(symbols, -REACH, REACH)
    size = jnp.log1p(jnp.abs(held))
    return jnp.sign(held) * size, size, held


def integer_features(table: np.ndarray, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of whole symbols, the first two times 2^8; whole numbers held in float64."""
    held = np.clip(symbols, -REACH, REACH)
    size = table[np.abs(held)].astype(np.float64)
    return np.sign(held) * size, size, held.astype(np.float64)


def context(order: Order, rank: int, group: int, seen: tuple[Any, Any, Any], odd: Any, one: float, xp: Any) -> tuple[Any, Any]:
    """What a group's network and its linear part see: [*batch, *counts, …] each.

    seen: the features of all symbols, of which later groups are not looked at.   odd: [*counts], 1 where the group itself is
    known next door, else 0.   one: how 1 is written.
    """
    start, stop = order.span(group)
    near = min(start, order.neighbour_dims)
    signed, size, held = seen
    flag = xp.broadcast_to(odd[..., None] * one, (*size.shape[:-1], 1))

    def lent(x: Any) -> Any:
        return neighbours(x[..., :near], around(rank), xp)

    def beside_it(x: Any) -> Any:
        return neighbours(x[..., start:stop], beside(rank), xp) * odd[..., None]

    hidden = [signed[..., :start], size[..., :start], lent(signed), lent(size), beside_it(size), flag]
    linear = [held[..., :start], lent(held)]
    if start < order.neighbour_dims:
        hidden.append(beside_it(signed))
        linear.append(beside_it(held))
    return xp.concatenate(hidden, axis=-1), xp.concatenate(linear, axis=-1)


def first_context(near: Any, known: np.ndarray, turn: int, num_turns: int, see: See, one: float, xp: Any) -> tuple[Any, Any, Any]:
    """(what the symbols are counted from, …) and the two vectors of `context`, of a turn of the first group: [..., m, …] each.

    near: its symbols in the patches around, [..., m, s, n].   known: which of these are known, [m, s], one at least.
    Counted from the whole part of the mean of those that are known: the rest is small however large the symbols are.
    """
    mask = known[..., None]
    total, number = xp.sum(near * mask, axis=-2), np.sum(mask, axis=-2)
    base = xp.clip(total // number if xp is np else _floor(total / number), -_FURTHEST, _FURTHEST)
    flat = (*near.shape[:-2], -1)
    signed, size, held = (part.reshape(flat) for part in see((near - base[..., None, :]) * mask))
    own_signed, own_size, _ = see(base)
    constant = np.concatenate([known, np.broadcast_to(np.arange(num_turns) == turn, (len(known), num_turns))], axis=-1) * one
    constant = xp.broadcast_to(xp.asarray(constant, size.dtype), (*near.shape[:-2], constant.shape[-1]))
    return base, xp.concatenate([signed, size, own_signed, own_size, constant], axis=-1), held


def _floor(x: jax.Array) -> jax.Array:
    """⌊x⌋ with the gradient of x."""
    return x + jax.lax.stop_gradient(jnp.floor(x) - x)


def context_sizes(order: Order, rank: int, group: int) -> tuple[int, int]:
    """Lengths of the two vectors of `context`, or of `first_context`."""
    start, stop = order.span(group)
    if group == 0:
        near = stop * len(around(rank))
        return 2 * near + 2 * stop + len(around(rank)) + len(first_turns(order)), near
    near, close = min(start, order.neighbour_dims) * len(around(rank)), (stop - start) * len(beside(rank))
    signed = close if start < order.neighbour_dims else 0
    return 2 * (start + near) + close + signed + 1, start + near + signed


def first_turns(order: Order) -> tuple[Turn, ...]:
    """Turns of the first group."""
    return tuple(turn for turn in order.turns if turn.group == 0)


def groups(order: Order) -> list[int]:
    """Those that have a network."""
    return sorted({turn.group for turn in order.turns})


def init(key: jax.Array, order: Order, rank: int, width: int, log_scale: jax.Array) -> dict[str, Any]:
    """A prior that starts without context.   log_scale: [points, k], log s of each dimension."""
    params: dict[str, Any] = {"log_scale": log_scale}
    for group in groups(order):
        start, stop = order.span(group)
        fan_in, linear = context_sizes(order, rank, group)
        params[f"group_{group}"] = {
            "kernel": jax.random.normal(jax.random.fold_in(key, group), (fan_in, width)) * fan_in**-0.5,
            "bias": jnp.zeros((len(log_scale), width)),
            "out": jnp.zeros((width, 2 * (stop - start))),
            "linear": jnp.zeros((linear, stop - start)),
        }
    return params


def predict(order: Order, params: Mapping[str, Any], point: Any, symbols: Any) -> tuple[jax.Array, jax.Array]:
    """(μ, log s), [*counts, k] each, of every symbol given those before it; symbols may be noisy. One signal.

    Of those that files code as differences, they are 0 and their own scale.
    """
    rank = symbols.ndim - 1
    seen, odd = features(symbols), jnp.asarray(is_odd(symbols.shape[:-1]), symbols.dtype)
    first, rest = _predict_first(order, params, point, symbols[..., : order.ends[0]])
    locations, changes = [first], [rest]
    for group in range(1, len(order.ends)):
        hidden, linear = context(order, rank, group, seen, odd, 1.0, jnp)
        location, change = _network(params[f"group_{group}"], point, hidden, linear)
        locations.append(location)
        changes.append(change)
    return jnp.concatenate(locations, -1), params["log_scale"][point] + jnp.concatenate(changes, -1)


def _predict_first(order: Order, params: Mapping[str, Any], point: Any, symbols: jax.Array) -> tuple[jax.Array, jax.Array]:
    """μ of the first group, and what its log s is more than its own."""
    *counts, size = symbols.shape
    flat = symbols.reshape(-1, size)
    location = change = jnp.zeros_like(flat)
    for number, turn in enumerate(first_turns(order)):
        places, near, known = between(turn, counts)
        if places.size:
            base, *rows = first_context(flat[near], known, number, len(first_turns(order)), features, 1.0, jnp)
            moved, wider = _network(params["group_0"], point, *rows)
            location, change = location.at[places].set(base + moved), change.at[places].set(wider)
    return location.reshape(symbols.shape), change.reshape(symbols.shape)


def _network(part: Mapping[str, Any], point: Any, hidden: jax.Array, linear: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(μ, what log s is more than its own) of rows of `context`."""
    out = jax.nn.relu(hidden @ part["kernel"] + part["bias"][point]) @ part["out"]
    location, change = jnp.split(out, 2, axis=-1)
    return location + linear @ part["linear"], change


def bin_bits(location: jax.Array, log_scale: jax.Array, symbols: jax.Array) -> jax.Array:
    """−log₂ of the logistic mass of [q − ½, q + ½]; of what is over 20 bits, which is what an escape costs, a hundredth."""
    scale = jnp.exp(within_tables(log_scale))
    out = jnp.abs(symbols - location)
    # σ(x) − σ(y) = σ(x) σ(−y) (1 − e^(y − x)), of which no part cancels, however far out.
    inside = jax.nn.softplus((out - 0.5) / scale) + jax.nn.softplus(-(out + 0.5) / scale)
    bits = (inside - jnp.log(-jnp.expm1(-1.0 / scale))) / jnp.log(2.0)
    # Some gradient is left further out.
    return jnp.minimum(bits, 20.0) + 0.01 * jnp.maximum(bits - 20.0, 0.0)


def within_tables(log_scale: jax.Array) -> jax.Array:
    """log s held to what tables are made for; beyond, it has no gradient."""
    return jnp.clip(log_scale, LOG_SCALE_MIN, LOG_SCALE_MIN + LOG_SCALE_STEP * NUM_SCALES)


def integer_network(order: Order, params: Mapping[str, Any]) -> dict[str, Any]:
    """The prior in whole numbers: int16 weights, int32 biases [points, …]; scales in steps of `LOG_SCALE_STEP`."""

    def whole(array: Any, bits: int, kind: Any) -> np.ndarray:
        limits = np.iinfo(kind)
        return np.clip(np.rint(np.asarray(array, np.float64) * 2.0**bits), limits.min, limits.max).astype(kind)

    log_scale = (np.asarray(params["log_scale"], np.float64) - LOG_SCALE_MIN) / LOG_SCALE_STEP
    network: dict[str, Any] = {"companding": companding(), "log_scale": whole(log_scale, _ACCUMULATED, np.int32)}
    for group in groups(order):
        part, size = params[f"group_{group}"], order.span(group)[1] - order.span(group)[0]
        out = np.array(part["out"], np.float64)
        out[:, size:] /= LOG_SCALE_STEP
        network[f"group_{group}"] = {
            "kernel": whole(part["kernel"], WEIGHT_BITS, np.int16),
            "bias": whole(part["bias"], _ACCUMULATED, np.int32),
            "out": whole(out, WEIGHT_BITS, np.int16),
            "linear": whole(part["linear"], LINEAR_BITS, np.int16),
        }
    return network


def float_network(order: Order, network: Mapping[str, Any]) -> dict[str, Any]:
    """`predict`'s parameters from whole numbers: the inverse of `integer_network`, up to its rounding."""
    log_scale = LOG_SCALE_MIN + LOG_SCALE_STEP * np.asarray(network["log_scale"], np.float64) * 2.0**-_ACCUMULATED
    params: dict[str, Any] = {"log_scale": jnp.asarray(log_scale, jnp.float32)}
    for group in groups(order):
        part, size = network[f"group_{group}"], order.span(group)[1] - order.span(group)[0]
        out = np.asarray(part["out"], np.float64) * 2.0**-WEIGHT_BITS
        out[:, size:] *= LOG_SCALE_STEP
        bits = {"kernel": WEIGHT_BITS, "bias": _ACCUMULATED, "linear": LINEAR_BITS}
        params[f"group_{group}"] = {
            "out": jnp.asarray(out, jnp.float32),
            **{n: jnp.asarray(np.asarray(part[n], np.float64) * 2.0**-b, jnp.float32) for n, b in bits.items()},
        }
    return params


def predict_table(
    order: Order, network: Mapping[str, Any], point: int, symbols: np.ndarray, turn: Turn
) -> tuple[np.ndarray, np.ndarray]:
    """(table, whole part of μ), int32 [n, m, size] each, of the symbols of a turn, m patches of n signals.

    symbols: int [n, *counts, k]; what is not known yet is not looked at. Sums of products of whole numbers stay far under
    2^53, so float64 holds them exactly, in any order of summation.
    """
    counts = symbols.shape[1:-1]
    start, stop = order.span(turn.group)
    part = {name: np.asarray(array, np.float64) for name, array in network[f"group_{turn.group}"].items()}
    part["bias"], part["log_scale"] = part["bias"][point], np.asarray(network["log_scale"], np.float64)[point, start:stop]
    see = partial(integer_features, network["companding"])
    if turn.group == 0:
        return _first_tables(order, part, symbols[..., :stop], turn, see)
    chosen = turn.patches(counts)
    tables, wholes = (np.empty((*symbols.shape[:-1], stop - start), np.int32) for _ in range(2))
    for seen, inner, own in _blocks(len(symbols), counts):
        here = np.broadcast_to(chosen[own[1:]], symbols[own].shape[:-1])
        mask = np.full(symbols[seen].shape[1:-1], float(turn.odd))
        rows = context(order, len(counts), turn.group, see(symbols[seen][..., :stop]), mask, 2.0**FEATURE_BITS, np)
        tables[own][here], wholes[own][here] = _evaluate(part, *(x[inner][here] for x in rows))
    return tables[:, chosen], wholes[:, chosen]


def _first_tables(
    order: Order, part: Mapping[str, np.ndarray], symbols: np.ndarray, turn: Turn, see: See
) -> tuple[np.ndarray, np.ndarray]:
    """`predict_table` of a turn of the first group; symbols: its own, [n, *counts, size]."""
    _, near, known = between(turn, symbols.shape[1:-1])
    turns = first_turns(order)
    flat = symbols.reshape(len(symbols), -1, symbols.shape[-1]).astype(np.int64)
    tables, wholes = (np.empty((len(flat), len(near), flat.shape[-1]), np.int32) for _ in range(2))
    together = max(1, _BLOCK // max(1, len(near)))
    for i, j in itertools.product(range(0, len(flat), together), range(0, len(near), _BLOCK)):
        some, there = slice(i, i + together), slice(j, j + _BLOCK)
        base, *rows = first_context(
            flat[some][:, near[there]], known[there], turns.index(turn), len(turns), see, 2.0**FEATURE_BITS, np
        )
        tables[some, there], moved = _evaluate(part, *rows)
        wholes[some, there] = base + moved
    return tables, wholes


def _blocks(num_signals: int, counts: tuple[int, ...]) -> Iterator[tuple[Slices, Slices, Slices]]:
    """Cuts [signals, *counts] into blocks of about `_BLOCK` patches, for what neighbours say takes much memory: where a block
    with its margins is, where in that the block is, and where the block itself is."""
    axis, num_patches = int(np.argmax(counts)), int(np.prod(counts))
    together, thick = max(1, _BLOCK // num_patches), max(1, _BLOCK * counts[axis] // num_patches)
    before, after = (slice(None),) * axis, (slice(None),) * (len(counts) - axis - 1)
    for i, j in itertools.product(range(0, num_signals, together), range(0, counts[axis], thick)):
        low, high, some = max(j - 1, 0), min(j + thick, counts[axis]), slice(i, i + together)
        yield (
            (some, *before, slice(low, high + 1), *after),
            (slice(None), *before, slice(j - low, high - low), *after),
            (some, *before, slice(j, high), *after),
        )


def _evaluate(part: Mapping[str, np.ndarray], hidden: np.ndarray, linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(table, whole part of μ), [m, n] each, of rows of `context`, by the network of a group at one point, in float64."""
    unit = np.maximum(hidden @ part["kernel"] + part["bias"], 0.0)
    unit = np.minimum(np.floor(unit * 2.0**-WEIGHT_BITS), 2.0**15)
    location, scale = np.split(unit @ part["out"], 2, axis=-1)
    location = location + (linear @ part["linear"]) * 2.0 ** (_ACCUMULATED - LINEAR_BITS)
    location = np.floor(location * (SHIFTS * 2.0**-_ACCUMULATED) + 0.5)
    location = np.clip(location, -(2.0**20), 2.0**20).astype(np.int32)
    scale = np.floor((scale + part["log_scale"]) * 2.0**-_ACCUMULATED + 0.5)
    scale = np.clip(scale, 0, NUM_SCALES - 1).astype(np.int32)
    return scale * SHIFTS + location % SHIFTS, location // SHIFTS


def logistic_tables(num_first: int) -> Tables:
    """Tables before anything is counted: `NUM_SCALES` × `SHIFTS` logistic ones, and ``num_first`` of the first group."""
    return _tables(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((1, num_first), np.int64))


def count_tables(order: Order, network: Mapping[str, Any], point: int, symbols: np.ndarray, coarsest: np.ndarray) -> Tables:
    """Tables of a point, counted on training symbols int [n, *counts, k]: `NUM_SCALES` × `SHIFTS` of what is left of symbols
    after the whole part of μ, by `predict_table`'s index; then one a dimension of the first group's differences.

    coarsest: the first group of training signals on the coarsest lattice, int [n, *counts, size]; of more signals, for only
    few symbols of each are there.
    """
    left, index = [], []
    for turn in order.turns:
        start, stop = order.span(turn.group)
        table, whole = predict_table(order, network, point, symbols, turn)
        left.append((symbols[:, turn.patches(symbols.shape[1:-1]), start:stop].astype(np.int64) - whole).ravel())
        index.append(table.ravel())
    first = np.concatenate([differences(part).reshape(-1, order.ends[0]) for part in coarsest])
    return _tables(np.concatenate(left), np.concatenate(index), first)


def _tables(left: np.ndarray, index: np.ndarray, first: np.ndarray) -> Tables:
    """Counts smoothed towards the logistic distribution that each table stands for."""
    number = np.arange(NUM_SCALES * SHIFTS)
    scale = np.exp(LOG_SCALE_MIN + LOG_SCALE_STEP * (number // SHIFTS))
    shift = (number % SHIFTS) / SHIFTS

    def logistic(edges: np.ndarray) -> np.ndarray:
        return 0.5 + 0.5 * np.tanh((edges - shift) / (2 * scale))

    parts = tables_from_counts(left, index, number.size, logistic).to_arrays(), tables_from_columns(first).to_arrays()
    return Tables(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

"""Tables that a file brings along as one parameter each; the decoder rebuilds their frequencies.

Symbol k has the weight 2^−(|k| / s)^p, and zero an additional mass. A parameter names

* p, the shape: ½ (heavy tails), 1 (two-sided geometric), 2 (Gaussian) or 8 (nearly uniform);
* s, the scale: one of 64 values in geometric order from 2^−3 to 2^11 symbols;
* the additional mass, for symbols that L1 or pruning made zero: one of 16 values sin²(π i / 32), which are equally spaced for
  a likelihood.

Frequencies are computed in integers alone, so every machine has the same ones.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from vcinr.entropy.tables import INT32_MAX, INT32_MIN, TOTAL, Tables, code_length_bits

SHAPE_BITS, SCALE_BITS, ZERO_BITS = 2, 6, 4
PARAMETER_BITS = SHAPE_BITS + SCALE_BITS + ZERO_BITS
"""A parameter is (shape << 6 | scale) << 4 | zero, in 0..2^12 − 1."""

MAX_TABLE_SYMBOL = 4095
"""Largest |k| with an entry of its own; larger symbols are escaped."""

# 2^16 sin²(π i / 32).
_ZERO_COUNTS = (0, 630, 2494, 5522, 9598, 14563, 20228, 26375, 32768, 39161, 45308, 50973, 55938, 60014, 63042, 64906)
_SMALLEST_LOG_SCALE, _LARGEST_LOG_SCALE = -3, 11
# Weights are summed up to this symbol. What is beyond is ignored: the escape has a count in any case.
_HORIZON = 1 << 14
# Fractional bits of exponents, and of weights.
_X, _W = 16, 31
# Parameters whose exact code lengths are compared: the best by an estimate that ignores the least count of 1.
_CANDIDATES = 16


def tables_from_parameters(parameters: np.ndarray) -> Tables:
    """Tables of parameters, integer [t] in 0..2^`PARAMETER_BITS` − 1: all of these are valid. ValueError for anything else."""
    parameters = np.asarray(parameters)
    if parameters.ndim != 1 or parameters.size == 0 or parameters.dtype.kind not in "iu":
        raise ValueError(f"parameters must be a vector of integers, got {parameters.dtype} of shape {parameters.shape}")
    if parameters.min() < 0 or parameters.max() >= 1 << PARAMETER_BITS:
        raise ValueError(f"parameters must lie in 0..{(1 << PARAMETER_BITS) - 1}, got {parameters.min()}..{parameters.max()}")
    frequencies = [_frequencies(parameter) for parameter in parameters.tolist()]
    sizes = np.array([part.size for part in frequencies])
    return Tables(-((sizes - 2) // 2), sizes, np.concatenate(frequencies))


def fit_parameters(symbols: np.ndarray, tensor: np.ndarray, num_tensors: int) -> np.ndarray:
    """The parameter of each tensor that codes its symbols in the fewest bits, escapes included; int32 [num_tensors].

    symbols: integer [n], any int32.  tensor: integer [n], the tensor of each symbol, in 0..num_tensors − 1.
    All parameters are compared by an estimate without rounding, the best few of them by their exact code lengths. A tensor
    without symbols gets 0. ValueError on arrays that don't fit.
    """
    symbols, tensor = np.asarray(symbols), np.asarray(tensor)
    if symbols.ndim != 1 or symbols.shape != tensor.shape or symbols.dtype.kind not in "iu" or tensor.dtype.kind not in "iu":
        raise ValueError(f"symbols and tensor must be integer vectors of one length, got {symbols.shape} and {tensor.shape}")
    if symbols.size and (symbols.min() < INT32_MIN or symbols.max() > INT32_MAX):
        raise ValueError("symbols must fit int32")
    if tensor.size and (tensor.min() < 0 or tensor.max() >= num_tensors):
        raise ValueError(f"tensor must lie in 0..{num_tensors - 1}, got {tensor.min()}..{tensor.max()}")
    return np.array([_fit(*np.unique(symbols[tensor == i], return_counts=True)) for i in range(num_tensors)], np.int32)


def _fit(values: np.ndarray, counts: np.ndarray) -> int:
    """The best parameter for a histogram: distinct symbols and the count of each."""
    if not values.size:
        return 0
    base = _without_mass_at_zero()
    bits = _bits(base, values)
    # With the additional mass m, a zero costs −log2(m + (1 − m) 2^−bits), and any other symbol −log2(1 − m) more than before.
    mass = np.array(_ZERO_COUNTS) / TOTAL
    zero = values == 0
    rough = (bits[:, ~zero] @ counts[~zero])[:, None] - counts[~zero].sum() * np.log2(1 - mass)
    if zero.any():
        rough -= counts[zero] * np.log2(mass + (1 - mass) * 2.0 ** -bits[:, zero])
    candidates = np.sort(np.argsort(rough, axis=None, kind="stable")[:_CANDIDATES])
    return int(candidates[np.argmin(_bits(tables_from_parameters(candidates), values) @ counts)])


def _bits(tables: Tables, values: np.ndarray) -> np.ndarray:
    """Code length of every value by every table, float64 [t, v]."""
    index = np.repeat(np.arange(tables.num_tables), values.size)
    return code_length_bits(tables, np.tile(values, tables.num_tables), index).reshape(tables.num_tables, values.size)


@functools.cache
def _without_mass_at_zero() -> Tables:
    """One table per shape and scale, without additional mass."""
    return tables_from_parameters(np.arange(0, 1 << PARAMETER_BITS, 1 << ZERO_BITS))


@functools.lru_cache(maxsize=1024)
def _frequencies(parameter: int) -> np.ndarray:
    """Frequencies int32 [2 r + 2] of the symbols −r..r and the escape; they sum to 2^16."""
    zero_count = _ZERO_COUNTS[parameter & ((1 << ZERO_BITS) - 1)]
    weights, beyond = _weights(parameter >> ZERO_BITS)
    total = TOTAL - zero_count
    # An entry takes a count at least: symbols worth less than half of one are escaped, and entries are half the counts at most.
    whole = 2 * int(beyond[0]) + int(weights[0])
    last = min(int(np.count_nonzero(2 * weights[1:] * total >= whole)), MAX_TABLE_SYMBOL, total // 4 - 1)
    side = weights[1 : last + 1]
    masses = np.concatenate([side[::-1], weights[:1], side, [2 * beyond[last]]])
    frequencies = _apportion(masses, total)
    frequencies[last] += zero_count
    frequencies.setflags(write=False)
    return frequencies


@functools.lru_cache(maxsize=32)
def _weights(shape_and_scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of k = 0, 1, … until they are 0, with 31 fractional bits, int64 [h], and the sum of all weights beyond each k."""
    shape, j = divmod(shape_and_scale, 1 << SCALE_BITS)
    scale = _scale(j)
    vanish = _W << _X
    if shape == 0:
        exponent = (_roots() << _X) // math.isqrt(scale << _X)
    else:
        # Clipped to where weights are 0 for any shape, so that squares stay within int64.
        exponent = np.minimum((np.arange(_HORIZON, dtype=np.int64) << 2 * _X) // scale, vanish)
        for _ in range((0, 1, 3)[shape - 1]):
            exponent = np.minimum(exponent * exponent >> _X, vanish)
    weights = _power_of_half(exponent[: int(np.searchsorted(exponent, vanish)) + 1])
    return weights, np.cumsum(weights[::-1])[::-1] - weights


def _scale(j: int) -> int:
    """Scale j with 16 fractional bits."""
    octaves, last = _LARGEST_LOG_SCALE - _SMALLEST_LOG_SCALE, (1 << SCALE_BITS) - 1
    below = np.array([(octaves * (last - j) << _X) // last], np.int64)
    return int(_power_of_half(below)[0]) >> (_W - _X - _LARGEST_LOG_SCALE)


@functools.cache
def _roots() -> np.ndarray:
    """√k of k = 0, 1, …, with 16 fractional bits."""
    return _square_root(np.arange(_HORIZON, dtype=np.int64) << 2 * _X)


@functools.cache
def _factors() -> tuple[int, ...]:
    """2^−2^−i with 31 fractional bits, i = 1..16, each the floor of the square root of the one before."""
    factors = [1 << (_W - 1)]
    for _ in range(_X):
        factors.append(math.isqrt(factors[-1] << _W))
    return tuple(factors[1:])


def _power_of_half(exponent: np.ndarray) -> np.ndarray:
    """2^−x with 31 fractional bits, for x ≥ 0 with 16."""
    result = np.full(exponent.shape, 1 << _W, np.int64)
    for i, factor in enumerate(_factors(), 1):
        result = np.where(exponent >> (_X - i) & 1, result * factor >> _W, result)
    return result >> np.minimum(exponent >> _X, _W + 1)


def _square_root(number: np.ndarray) -> np.ndarray:
    """⌊√n⌋ for int64 0 ≤ n < 2^62, bit by bit."""
    root = np.zeros_like(number)
    for i in range(30, -1, -1):
        trial = root + (1 << i)
        root = np.where(trial * trial <= number, trial, root)
    return root


def _apportion(masses: np.ndarray, total: int) -> np.ndarray:
    """Frequencies int32, at least 1 each, that sum to ``total``, in proportion to masses (int64 < 2^46); largest remainder."""
    small = np.zeros(masses.size, bool)
    while True:
        rest = total - int(np.count_nonzero(small))
        whole = int(masses[~small].sum())
        grown = small | (masses * rest < whole)
        if np.array_equal(grown, small):
            break
        small = grown
    share, remainder = np.divmod(masses * rest, whole)
    frequencies = np.where(small, 1, share)
    order = np.argsort(np.where(small, 1, -remainder), kind="stable")
    frequencies[order[: total - int(frequencies.sum())]] += 1
    return frequencies.astype(np.int32)

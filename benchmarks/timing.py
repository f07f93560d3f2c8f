"""Paired timing: contenders take turns, so that other load on the machine affects all of them equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def paired_times(contenders: Mapping[str, Callable[[], Any]], repeats: int, warm_up: bool = True) -> dict[str, np.ndarray]:
    """Seconds of each contender in each round, float64 [repeats]; each round starts with another contender.

    Args:
      contenders: name → function; times include waiting for the arrays that it returns.
      repeats: number of rounds.
      warm_up: run each once untimed first, so that compilation is not timed.
    """
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    if warm_up:
        for name in names:
            jax.block_until_ready(contenders[name]())
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            jax.block_until_ready(contenders[name]())
            times[name].append(time.perf_counter() - start)
    return {name: np.array(seconds) for name, seconds in times.items()}


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> str:
    """Median, minimum and maximum of the paired quotients, as "2.10× (1.95 to 2.31)"."""
    quotients = numerator / denominator
    return f"{np.median(quotients):.2f}× ({quotients.min():.2f} to {quotients.max():.2f})"


def milliseconds(seconds: np.ndarray) -> str:
    """The median in milliseconds, as text."""
    return f"{1e3 * np.median(seconds):.1f}"

"""Integer tables of the context prior: one per scale and fraction of a location, shared by all groups of dimensions.

A symbol q with the location μ and the scale s is coded as r = q − ⌊μ⌋, by the table of the logistic distribution of scale s
about μ − ⌊μ⌋, both rounded to what there are tables for. The differences of the first group have one table per dimension.
"""

from __future__ import annotations

import numpy as np

from vcinr.entropy.tables import Tables, tables_from_columns, tables_from_counts

NUM_FRACTIONS = 8
"""Locations are multiples of 1/8 of a symbol."""
NUM_SCALES, LOG_SCALE_MIN, LOG_SCALE_STEP = 48, float(np.log(0.04)), 0.14
"""Scales are exp(LOG_SCALE_MIN + LOG_SCALE_STEP · j), j < NUM_SCALES: 0.04 to 29 symbols."""


def logistic_tables(num_first: int) -> Tables:
    """Tables before any symbols are counted: the logistic distributions themselves, and ``num_first`` for differences."""
    return counted_tables(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((1, num_first), np.int64))


def counted_tables(residual: np.ndarray, index: np.ndarray, first: np.ndarray) -> Tables:
    """Tables from counts, smoothed towards the logistic distribution that each of them stands for.

    residual: r of symbols in context, int [n].   index: table of each, j · NUM_FRACTIONS + fraction, int [n].
    first: differences of the first group, int [p, dims].
    """
    number = np.arange(NUM_SCALES * NUM_FRACTIONS)
    scale = np.exp(LOG_SCALE_MIN + LOG_SCALE_STEP * (number // NUM_FRACTIONS))
    fraction = (number % NUM_FRACTIONS) / NUM_FRACTIONS

    def logistic(edges: np.ndarray) -> np.ndarray:
        return 0.5 + 0.5 * np.tanh((edges - fraction) / (2 * scale))

    parts = tables_from_counts(residual, index, number.size, logistic).to_arrays(), tables_from_columns(first).to_arrays()
    return Tables(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

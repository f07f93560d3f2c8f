"""Rounding that weighs bits against error, a decision of the encoder alone (trellis-free: each symbol given those before it)."""

from __future__ import annotations

import numpy as np

from vcinr.entropy.tables import Tables, code_length_bits


def rounded(
    z: np.ndarray, whole: np.ndarray, table: np.ndarray, tables: Tables, weight: np.ndarray, centre: np.ndarray | int = 0
) -> np.ndarray:
    """Symbols q, int32, of least weight · (z − q)² + bits(q): the nearest whole number, the next towards a centre, or the centre.

    z: what is rounded.   whole, table: q − whole is coded by that table (`vcinr.context.prior.predict_table`).
    weight: bits that a squared error of one symbol is worth; broadcast.   centre: whole numbers. All [...] of one shape besides.
    """
    nearest = np.rint(z)
    towards = nearest - np.sign(nearest - centre)
    candidates = np.stack([nearest, towards, np.broadcast_to(np.asarray(centre, nearest.dtype), nearest.shape)])
    left = (candidates - whole).astype(np.int64)
    bits = code_length_bits(tables, left.ravel(), np.broadcast_to(table, left.shape).ravel()).reshape(left.shape)
    cost = weight * np.square(z - candidates) + bits
    return np.take_along_axis(candidates, np.argmin(cost, axis=0)[None], axis=0)[0].astype(np.int32)

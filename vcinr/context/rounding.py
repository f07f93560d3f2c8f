"""Rate–distortion rounding: each symbol in turn weighs its bits against its error. The decoder does not know of it."""

from __future__ import annotations

import numpy as np

from vcinr.entropy.tables import Tables, code_length_bits


def rounded(
    z: np.ndarray, whole: np.ndarray, table: np.ndarray, tables: Tables, weight: np.ndarray, centre: np.ndarray | int = 0
) -> np.ndarray:
    """Symbols q, int32 [...], of least weight · (z − q)² + bits(q) among three candidates.

    The candidates are the whole number nearest to z, the next one towards the centre, and the centre.

    Args:
        z: what is rounded, [...].
        whole: q − whole is what is coded, int [...].
        table: number of the table that codes it, int [...]; see `vcinr.context.integer_prior.predict_table`.
        tables: all tables.
        weight: bits that a squared error of one symbol is worth; broadcasts against z.
        centre: where symbols are likely, int, broadcasts against z.
    """
    nearest = np.rint(z)
    towards = nearest - np.sign(nearest - centre)
    candidates = np.stack([nearest, towards, np.broadcast_to(np.asarray(centre, nearest.dtype), nearest.shape)])
    coded = (candidates - whole).astype(np.int64)
    bits = code_length_bits(tables, coded.ravel(), np.broadcast_to(table, coded.shape).ravel()).reshape(coded.shape)
    cost = weight * np.square(z - candidates) + bits
    return np.take_along_axis(candidates, np.argmin(cost, axis=0)[None], axis=0)[0].astype(np.int32)

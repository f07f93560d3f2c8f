"""The range coder: bytes relative to the tables' entropy, and symbols per second."""

from __future__ import annotations

import dataclasses

import numpy as np
from rich.table import Table as Printed
from scipy.special import expit

from benchmarks.timing import paired_times
from vcinr.entropy.range_coder import Decoder, Encoder, Table
from vcinr.entropy.tables import Tables, code_length_bits, tables_from_cdf

NUM_TABLES = 64


@dataclasses.dataclass(frozen=True)
class Overhead:
    """Cost of a stream.

    num_symbols: number of symbols.
    num_bytes: length of the coded stream.
    table_bits: sum of the symbols' code lengths in the tables.
    """

    num_symbols: int
    num_bytes: int
    table_bits: float

    @property
    def extra_bits(self) -> float:
        """Bits beyond the symbols' code lengths in the tables."""
        return 8 * self.num_bytes - self.table_bits


def logistic_tables() -> tuple[np.ndarray, Tables]:
    """Scales from 0.1 to 20, float64 [t], and tables of logistic distributions with these scales."""
    scales = np.geomspace(0.1, 20.0, NUM_TABLES)
    far = np.full(NUM_TABLES, 2**15)
    return scales, tables_from_cdf(lambda edges: expit(edges / scales), -far, far)


def draw(scales: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(symbols, table indices), int32 [count], in the order of latents: one symbol per table and signal, signal by signal."""
    index = np.resize(np.arange(NUM_TABLES, dtype=np.int32), count)
    return np.rint(np.random.default_rng(0).logistic(0, scales[index])).astype(np.int32), index


def encoded(symbols: np.ndarray, model: Table) -> bytes:
    """The symbols coded as one stream."""
    encoder = Encoder()
    encoder.encode(symbols, model)
    return encoder.finish()


def overhead(tables: Tables, symbols: np.ndarray, index: np.ndarray) -> Overhead:
    """Coded length of one stream, and its length according to the tables."""
    bits = float(code_length_bits(tables, symbols, index).sum())
    return Overhead(symbols.size, len(encoded(symbols, Table(tables, index))), bits)


def compare(count: int, repeats: int) -> Printed:
    """Table of overhead and speed for a stream of one signal, of 100 signals, and of ``count`` symbols."""
    scales, tables = logistic_tables()
    symbols, index = draw(scales, count)
    title = f"The range coder: {NUM_TABLES} tables of logistic distributions, scales {scales[0]:g} to {scales[-1]:g}"
    columns = ["symbols in a stream", "bytes / table entropy", "extra bits", "encoded symbols/s", "decoded symbols/s"]
    table = Printed(*columns, title=title, title_justify="left")
    for size in (NUM_TABLES, 100 * NUM_TABLES, count):
        spent = overhead(tables, symbols[:size], index[:size])
        model = Table(tables, index[:size])
        data = encoded(symbols[:size], model)
        work = {"encode": lambda m=model, s=symbols[:size]: encoded(s, m), "decode": lambda m=model, d=data: Decoder(d).decode(m)}
        speeds = {name: f"{size / np.median(seconds) / 1e6:.2f} M" for name, seconds in paired_times(work, repeats).items()}
        quotient = f"{8 * spent.num_bytes / spent.table_bits:.5f}"
        table.add_row(f"{size:,}", quotient, f"{spent.extra_bits:.1f}", speeds["encode"], speeds["decode"])
    return table

"""Signals per second, from arrays to file bytes and back, by batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from benchmarks.subjects import describe, pictures, with_batch
from benchmarks.timing import paired_times, ratio
from vcinr.model.model import Model

ALONE = "1"


def contenders(model: Model, batch_sizes: Sequence[int]) -> tuple[dict[str, Callable], dict[str, Callable], dict[str, int]]:
    """(encoders, decoders, signals per call), by name.

    Each is compiled for its own batch size, so that none computes padding.
    """
    patch = model.codec.patch
    plans = {str(size): (size, max(1, 8 // size)) for size in batch_sizes}
    encoders, decoders, counts = {}, {}, {}
    for name, (size, calls) in plans.items():
        chosen = with_batch(model, size)
        groups = [pictures(size, *patch)] * calls
        files = [chosen.encode_batch(group, 0) for group in groups]
        encoders[name] = lambda m=chosen, g=groups: [m.encode_batch(group, 0) for group in g]
        decoders[name] = lambda m=chosen, g=files: [m.decode_batch(group) for group in g]
        counts[name] = size * calls
    return encoders, decoders, counts


def compare(model: Model, batch_sizes: Sequence[int], repeats: int) -> Table:
    """Table of signals per second by batch size, relative to one signal at a time; ``batch_sizes`` starts with 1."""
    encoders, decoders, counts = contenders(model, batch_sizes)
    columns = ["batch", "encoded signals/s", "of one at a time", "decoded signals/s", "of one at a time"]
    title = f"Encoding and decoding: {describe(model.codec.config)}; one patch and one file per signal"
    table = Table(*columns, title=title, title_justify="left")
    speeds = []
    for functions in (encoders, decoders):
        speeds.append({name: counts[name] / seconds for name, seconds in paired_times(functions, repeats).items()})
    for name in encoders:
        cells = []
        for speed in speeds:
            cells += [f"{sorted(speed[name])[repeats // 2]:.1f}", ratio(speed[name], speed[ALONE])]
        table.add_row(name, *cells)
    return table

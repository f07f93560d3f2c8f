"""The gradient of a batch of fits by width, with coordinates along the first axis and along the last."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from rich.table import Table

from benchmarks.timing import milliseconds, paired_times, ratio
from vcinr.fields import siren
from vcinr.fields.sine import fast_sin
from vcinr.signals.grids import pixel_grid

LAYOUTS = {"coordinates first": siren.apply_rows, "coordinates last": siren.apply_columns}


def gradient(apply: Callable, width: int, num_signals: int, side: int) -> Callable[[], list[siren.Layer]]:
    """A compiled gradient of the mean squared error of ``num_signals`` separate SIRENs, 3 × width, on side × side samples."""
    coords = jnp.asarray(pixel_grid((side, side)))
    layers = siren.init_layers(jax.random.key(0), siren.layer_sizes(2, 3, 3, width), 30.0)
    layers = jax.tree.map(lambda a: jnp.broadcast_to(a, (num_signals, *a.shape)), layers)
    values = jax.random.uniform(jax.random.key(1), (num_signals, side * side, 3))
    compiled = jax.jit(jax.vmap(jax.grad(lambda own, y: jnp.mean(jnp.square(apply(own, coords, 30.0, fast_sin) - y)))))
    return lambda: compiled(layers, values)


def compare(widths: tuple[int, ...], repeats: int, num_signals: int = 16, side: int = 32) -> Table:
    """Table of times by width, and their ratio."""
    table = Table(title=f"gradient of {num_signals} fits of 3 × width, {side}×{side} samples", title_justify="left")
    for heading in ("width", *(f"{layout}, ms" for layout in LAYOUTS), "first / last"):
        table.add_column(heading, justify="right")
    for width in widths:
        contenders = {name: gradient(apply, width, num_signals, side) for name, apply in LAYOUTS.items()}
        first, last = paired_times(contenders, repeats).values()
        table.add_row(str(width), milliseconds(first), milliseconds(last), ratio(first, last))
    return table

"""Decoding of COMBINER and COMBINER+: milliseconds per 32×32 picture, at the thesis's sizes."""

from __future__ import annotations

import jax
import numpy as np
from rich.table import Table

from benchmarks.subjects import pictures
from benchmarks.timing import milliseconds, paired_times, ratio
from vcinr.codec import Code
from vcinr.codecs import make_codec
from vcinr.model.model import Model, make_model
from vcinr.posterior.partition import Partition

SIDE = 32
TOGETHER = 16
SUBJECTS = {
    "COMBINER, 58 blocks": ("combiner", 58, 2.06),
    "COMBINER, 285 blocks": ("combiner", 285, 3.88),
    "COMBINER+, 19 blocks": ("combiner_plus", 19, 3.86),
    "COMBINER+, 281 blocks": ("combiner_plus", 281, 10.50),
}
"""Name → (codec, blocks of 16 bits, milliseconds as published): the ends of tables D.1 and D.3 of the thesis."""


def random_model(name: str, blocks: int, config: dict | None = None) -> Model:
    """A model made without training: SIREN's initial weights as the prior, and dimensions in equally large blocks.

    What decoding takes depends on sizes alone. config: what differs from the codec's own.
    """
    codec = make_codec(name, {"betas": (1e-6,), **(config or {})})
    network = codec.network
    shared, mean = jax.device_get(network.init(jax.random.key(0)))
    order = np.random.default_rng(0).permutation(network.size).astype(np.int32)
    ends = np.linspace(0, network.size, blocks + 1)[1:].round().astype(np.int32)
    prior = {"mean": mean, "scale": 0.1 * network.typical_scale()}
    point = {"prior": prior, "shared": shared, "blocks": Partition(order, ends).to_arrays()}
    return make_model(codec, {"points": {"0": point}}, {"about": "untrained, to measure speed"})


def random_files(model: Model, blocks: int, count: int) -> list[bytes]:
    """Files of random indices, one picture of one patch each."""
    rng, grid = np.random.default_rng(1), model.signal(pictures(1, *model.codec.patch)[0]).grid
    most = 2**model.codec.config.coding.index_bits
    codes = [Code({"indices": rng.integers(0, most, blocks).astype(np.int32)}) for _ in range(count)]
    return [model.write_codes(0, [code], [grid]) for code in codes]


def compare(repeats: int) -> Table:
    """Table of milliseconds from file to picture, one at a time and `TOGETHER` at a time."""
    alone, together = {}, {}
    for label, (name, blocks, _) in SUBJECTS.items():
        model = random_model(name, blocks)
        files = random_files(model, blocks, TOGETHER)
        alone[label] = lambda m=model, f=files: [m.decode(each) for each in f[:4]]
        together[label] = lambda m=model, f=files: m.decode_batch(f)
    first = next(iter(SUBJECTS))
    times, batches = paired_times(alone, repeats), paired_times(together, repeats)
    columns = ["", "bpp", "one at a time, ms", f"of {first}", f"{TOGETHER} at a time, ms", "as published, ms"]
    title = f"Decoding a {SIDE}×{SIDE} picture by its blocks' indices; random priors and indices, networks of the thesis's size"
    table = Table(*columns, title=title, title_justify="left")
    for label, (_, blocks, published) in SUBJECTS.items():
        rate = f"{16 * blocks / SIDE**2:.2f}"
        spent = milliseconds(times[label] / 4), ratio(times[label], times[first]), milliseconds(batches[label] / TOGETHER)
        table.add_row(label, rate, *spent, f"{published:.1f}")
    return table

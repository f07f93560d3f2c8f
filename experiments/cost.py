"""What encoding and decoding cost: seconds per picture, and multiply-accumulates per pixel of the decoder.

    python -m experiments.cost --models photo tiny [--efforts 0 1 4] [--record=docs/results/studies/cost.json]

Models are bundled ones, or folders; pictures are the test split that each was measured on.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import data
from experiments.command_line import run_study
from vcinr.codec import Codec
from vcinr.codecs.contextual_inr import ContextualINR
from vcinr.context.features import context_sizes
from vcinr.devices import use_cpu_cores
from vcinr.fields import siren
from vcinr.model.finding import load
from vcinr.provenance import provenance
from vcinr.report.studies import save_study, study_table

COLUMNS = ["model", "effort", "encode, s", "decode, s", "field", "synthesis", "prior", "all, MAC per pixel"]
PAPERS = {"10 × 512 (COIN++)": (10, 512), "15 × 512 (Functa)": (15, 512)}


def decoder_macs(codec: Codec, params: Mapping[str, Any]) -> dict[str, float]:
    """Multiply-accumulates per pixel of the decoder of `contextual_inr`: ``field``, ``synthesis``, ``prior``. Layers before the
    linear head are the same for all patches and evaluated once per batch: they are left out.

    ValueError for any other codec.
    """
    config = codec.config
    if not isinstance(codec, ContextualINR):
        raise ValueError(f"costs are counted of contextual_inr, whose field is a linear head alone, not of {codec.name}")
    c, pixels, rank = config.compression, math.prod(config.patch), len(config.patch)
    head = (config.field.sizes()[-1][0] + 1) * config.field.channels
    synthesis = sum(math.prod(params["synthesis"][name].shape) for name in ("kernel_0", "kernel_1", "out", "linear"))
    prior = 0
    for group in c.order.predicted_groups:
        (hidden, linear), (start, stop) = context_sizes(c.order, rank, group), c.order.span(group)
        size = stop - start
        prior += hidden * c.width + 2 * c.width * size + linear * size
    return {"field": head + config.field.latent_size() * head / pixels, "synthesis": synthesis / pixels, "prior": prior / pixels}


def seconds(model: Any, pictures: Sequence[np.ndarray], point: int, effort: int) -> tuple[float, float]:
    """(encoding, decoding) of a picture, one at a time, the first of each shape left out."""
    spent, seen = [], set()
    for picture in pictures:
        started = time.perf_counter()
        coded = model.encode(picture, point, effort)
        between = time.perf_counter()
        model.decode(coded)
        if picture.shape in seen:
            spent.append((between - started, time.perf_counter() - between))
        seen.add(picture.shape)
    encode, decode = np.mean(spent, axis=0)
    return float(encode), float(decode)


def study(options: argparse.Namespace) -> str:
    """Times all models; writes the study and returns its table."""
    started, run = time.time(), provenance()
    rows: list[list[Any]] = []
    for name in options.models:
        model = load(name)
        config = ConfigDict(model.info["config"])
        config.data.test_limit = options.pictures
        pictures = list(data.signals(config, "test"))
        macs = decoder_macs(model.codec, model.params)
        for effort in options.efforts:
            times = seconds(model, pictures, len(model.points) // 2, effort)
            shape = "×".join(map(str, sorted(pictures[0].shape[:2], reverse=True)))
            counts = (
                [round(macs[part]) for part in ("field", "synthesis", "prior")] if effort == options.efforts[0] else [None] * 3
            )
            total = sum(counts) if counts[0] is not None else None
            rows.append([f"{model.info['config_name']}, {shape}", effort, *(round(t, 3) for t in times), *counts, total])
    for name, (layers, width) in PAPERS.items():
        macs_of_field = sum(a * b for a, b in siren.layer_sizes(2, 3, layers, width, 0))
        rows.append([name, None, None, None, macs_of_field, None, None, macs_of_field])
    saved = save_study(
        options.record,
        title="What encoding and decoding cost",
        about=(
            f"Seconds per picture, one at a time, of {options.pictures} test pictures at most, the first of each shape left out "
            "(compilation), at the middle point; multiply-accumulates per pixel of the decoder. The papers' fields are evaluated "
            "at every pixel; a field whose layers before its linear head are shared costs its head alone."
        ),
        columns=COLUMNS,
        rows=rows,
        command=f"python -m experiments.cost --models {' '.join(options.models)} --efforts {' '.join(map(str, options.efforts))} "
        f"--pictures={options.pictures}",
        duration_s=time.time() - started,
        source=run,
    )
    return study_table(saved)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status is 1 where a model or its data are missing."""
    parser = argparse.ArgumentParser(prog="python -m experiments.cost", description="What encoding and decoding cost.")
    parser.add_argument("--models", nargs="+", default=["photo", "tiny"], help="names or folders (%(default)s)")
    parser.add_argument("--efforts", type=int, nargs="+", default=[0, 1, 4], help="of the encoder (%(default)s)")
    parser.add_argument("--pictures", type=int, default=8, help="test pictures (%(default)s)")
    parser.add_argument("--record", default="docs/results/studies/cost.json", help="the file to write (%(default)s)")
    options = parser.parse_args(arguments)
    use_cpu_cores()
    return run_study(study, options)


if __name__ == "__main__":
    sys.exit(main())

"""What encoding and decoding with COMBINER and COMBINER+ takes, by the steps of the first fit: tables D.1 and D.3 of the thesis.

    python -m experiments.coding_time --workdir=DIR --models RUN/model RUN/model [--pictures=8] [--steps 150 500 1500]

Times are CPU seconds. A finished run is kept in DIR and not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from experiments.command_line import run_study
from experiments.data import evenly_spaced
from experiments.sparsity import finished
from vcinr.codec import Code, EncodeRequest
from vcinr.codecs import make_codec
from vcinr.codecs.combiner import Combiner
from vcinr.datasets.catalogue import load_split
from vcinr.devices import use_cpu_cores
from vcinr.evaluation import published
from vcinr.evaluation.metrics import psnr_db
from vcinr.model.finding import load
from vcinr.model.model import Model
from vcinr.posterior import progressive_coding
from vcinr.posterior.networks import TransformedNetwork
from vcinr.posterior.partition import Partition
from vcinr.posterior.relative_entropy_coding import encode_block
from vcinr.provenance import provenance
from vcinr.report.studies import save_study, study_table

COLUMNS = [
    "codec", "first steps", "bpp", "PSNR dB", "fit, s", "fine-tuning, s", "coding, s", "all, s", "decode, ms", "fit, G MAC",
    "blocks over κ", "by over 1 bit", "mean excess, bits", "worst, bits",
]  # fmt: skip
NAMES = {"combiner": "COMBINER", "combiner_plus": "COMBINER+"}
THESIS_STEPS = 25_000
THESIS_CODING = {"num_steps": THESIS_STEPS, "fine_tune_steps": 100, "lr": 2e-4, "adjust_every": 15}
PUBLISHED = {
    "combiner": [(0.906, 7, 13, 2.06), (1.391, 7, 16, 2.09), (2.281, 7, 21.5, 2.86), (3.5, 7, 28.5, 3.82), (4.453, 7, 33, 3.88)],
    "combiner_plus": [
        (0.297, 30, 63, 3.86), (0.719, 30, 65, 4.29), (0.938, 30, 67.5, 4.61), (1.531, 30, 72, 5.14), (1.922, 30, 75, 5.81),
        (3.344, 30, 86.5, 7.76), (4.391, 30, 93, 10.50),
    ],
}  # fmt: skip
"""Tables D.1 and D.3: (bpp, minutes of the fit and of all, of 500 pictures at once on an A100, milliseconds to decode one)."""


def gigamacs(codec: Combiner, steps: int) -> float:
    """10^9 multiply-accumulates of a patch's fit: forward, and as many for each of two gradients.

    Local reparametrisation takes every product twice, for means and variances; A and convolutions, which stay as they are, have
    no gradient of their own. What is done entry by entry is left out.
    """
    network, rank = codec.network, len(codec.patch)
    macs = 3 * math.prod(network.patch) * sum(a * b for a, b in network.sizes())
    if not isinstance(network, TransformedNetwork):
        macs *= 2
    elif network.transform:
        macs += 2 * sum(((a + 1) * b) ** 2 for a, b in network.sizes())
    if network.num_features:
        cells = [math.prod(network.latent_grid) * 2 ** (rank * (i + 1)) for i in range(len(network.positional.kernels))]
        macs += 2 * sum(n * 3**rank * a * b for n, (a, b) in zip(cells, network.positional.kernels, strict=True))
    return macs * codec.config.coding.num_samples * steps / 1e9


class Clock:
    """Notes CPU seconds: of the first fit's steps, and of the coding of every block."""

    def __init__(self):
        self.steps: dict[int, float] = {}
        self.blocks: list[tuple[float, float]] = []

    def progress(self, what: str, done: int, total: int) -> None:
        """As `EncodeRequest.progress`."""
        del what, total
        self.steps[done] = time.process_time()

    def encode_block(self, *arguments: Any, **options: Any) -> np.ndarray:
        """As the function of that name."""
        started = time.process_time()
        found = encode_block(*arguments, **options)
        self.blocks.append((started, time.process_time()))
        return found

    def parts(self, steps: int, end: float) -> tuple[float, float, float]:
        """Seconds of (first fit, fine-tuning, coding); steps before the first report, which compile, count as later ones do."""
        first = min(self.steps)
        fit = (self.steps[steps] - self.steps[first]) * steps / (steps - first)
        coding = [stop - start for start, stop in self.blocks]
        return fit, end - self.blocks[0][1] - sum(coding[1:]), sum(coding)


def compile_coding(model: Model, point: int, count: int) -> None:
    """Codes a block of each size once, so that no compilation is timed."""
    c = model.codec.config.coding
    sizes = np.diff(Partition.from_arrays(model.params["points"][str(point)]["blocks"]).ends, prepend=0)
    for size in sorted({-(-int(each) // 8) * 8 for each in sizes}):
        zeros, ones = np.zeros(size), np.ones(size)
        rows = np.tile(zeros, (count, 1)), np.tile(ones, (count, 1))
        encode_block(jax.random.key(0), c.seed, 0, *rows, zeros, ones, c.index_bits, ones > 0, method=c.method)


def run(model: Model, pictures: Sequence[np.ndarray], point: int, coding: dict[str, Any], at_prior: bool) -> dict[str, Any]:
    """Codes the pictures in one batch with another coding, writes and reads their files; what that took and gave."""
    config, began = model.codec.config, time.process_time()
    changed = dataclasses.replace(config.coding, **coding)
    codec = type(model.codec)(dataclasses.replace(config, batch_samples=2**30, coding=changed))
    own = {name: value for name, value in model.params["points"][str(point)].items() if not (at_prior and name == "start")}
    params = {**model.params, "points": {str(point): own}}
    signals = [model.signal(picture) for picture in pictures]
    compile_coding(model, point, len(signals))
    clock = Clock()
    with mock.patch.object(progressive_coding, "encode_block", clock.encode_block):
        ((_, coded),) = codec.coded(params, signals, point, EncodeRequest(progress=clock.progress))
    fit, tuning, blocks = clock.parts(codec.config.coding.num_steps, time.process_time())
    codes = [Code({"indices": row.ravel()}) for row in coded.indices]
    files = [model.write_codes(point, [code], [signal.grid]) for code, signal in zip(codes, signals, strict=True)]
    model.decode(files[0])
    decoded, decode = [], []
    for data in files:
        started = time.process_time()
        decoded.append(model.decode(data))
        decode.append(time.process_time() - started)
    errors = [np.mean(np.square(np.subtract(a, b, dtype=np.float64) / 255)) for a, b in zip(decoded, pictures, strict=True)]
    excess = coded.divergences.ravel() - codec.config.coding.budget
    return {
        "bpp": coded.indices[0].size * codec.config.coding.index_bits / pictures[0][..., 0].size,
        "psnr_db": float(np.mean(psnr_db(np.array(errors)))),
        "seconds": [seconds / len(pictures) for seconds in (fit, tuning, blocks)],
        "decode_ms": 1e3 * float(np.median(decode)),
        "excess": excess.tolist(),
        "cpu_s": time.process_time() - began,
    }


def row_of(codec: Combiner, label: str, steps: int, found: dict[str, Any]) -> list[Any]:
    """A run as a row of the table."""
    excess = np.array(found["excess"])
    over = excess[excess > 0]
    seconds = [f"{each:.2f}" for each in (*found["seconds"], sum(found["seconds"]))]
    worst = codec.config.coding.budget + excess.max()
    shares = [f"{100 * np.mean(excess > least):.0f} %" for least in (0, 1)]
    beyond = *shares, f"{over.mean() if len(over) else 0:.2f}", f"{worst:.1f}"
    quality = f"{found['bpp']:.3f}", f"{found['psnr_db']:.2f}"
    return [label, f"{steps:,}", *quality, *seconds, f"{found['decode_ms']:.1f}", f"{gigamacs(codec, steps):.1f}", *beyond]


def published_rows(name: str) -> list[list[Any]]:
    """The thesis's table of a codec, per picture; PSNR of the codec as published under another name, at the same rates."""
    macs = f"{gigamacs(make_codec(name, {}), THESIS_STEPS):.0f}"
    quality = {rate: f"{decibels:.2f}" for rate, decibels in published.load("recombiner", "cifar10").points}
    rows = []
    for rate, fit, total, decode in PUBLISHED[name]:
        seconds = f"{fit * 60 / 500:.2f}", None, None, f"{total * 60 / 500:.2f}"
        row = f"{THESIS_STEPS:,}", f"{rate:.3f}", quality.get(rate), *seconds, f"{decode:.1f}", macs
        rows.append([f"{NAMES[name]}, thesis, an A100", *row, *[None] * 4])
    return rows


def at_equal_quality(codec: Combiner, steps: int, found: dict[str, Any]) -> str:
    """A sentence: what the thesis's COMBINER+ takes where it is as good as a run; its curve's ends stand for what is beyond."""
    rates, decibels = zip(*published.load("recombiner", "cifar10").points, strict=True)
    rate = float(np.interp(found["psnr_db"], decibels, rates))
    fewer = gigamacs(make_codec(codec.name, {}), THESIS_STEPS) / gigamacs(codec, steps)
    return (
        f"At {found['psnr_db']:.1f} dB: 1 / {THESIS_STEPS / steps:.1f} of the published steps and 1 / {fewer:,.0f} of the "
        f"multiplications of the first fit, at {found['bpp'] / rate:.2f} times the published rate ({rate:.2f} bpp)."
    )


def study(options: argparse.Namespace) -> str:
    """Times what is not finished yet, writes the study and returns its table."""
    workdir, source, started = Path(options.workdir), provenance(), time.process_time()
    workdir.mkdir(parents=True, exist_ok=True)
    rows, sentences, spent = [], [], 0.0
    for folder in options.models:
        model = load(folder)
        data = model.info["config"]["data"]
        pictures = evenly_spaced(load_split(data["test_name"] or data["name"], data["test"]), options.pictures)
        plans = [(point, {"num_steps": steps}) for point in options.points for steps in options.steps]
        if model.codec.name == "combiner_plus" and options.thesis:
            plans.append((options.points[0], THESIS_CODING))
        for point, coding in plans:
            thesis = coding is THESIS_CODING
            about = json.loads(json.dumps({"model": model.points[point]["fingerprint"], "pictures": len(pictures), **coding}))
            name = f"{model.codec.name}_{point}_{coding['num_steps']}.json"
            found = finished(workdir / name, about, partial(run, model, pictures, point, coding, thesis))
            spent += found["cpu_s"]
            label = NAMES[model.codec.name] + ", the thesis's steps" * thesis
            rows.append(row_of(model.codec, label, coding["num_steps"], found))
            print(*rows[-1], sep="; ", flush=True)
            if model.codec.name == "combiner_plus" and coding["num_steps"] == max(options.steps):
                sentences.append(at_equal_quality(model.codec, coding["num_steps"], found))
        rows += published_rows(model.codec.name)
    saved = save_study(
        options.record,
        title="What COMBINER and COMBINER+ take to encode and decode",
        about=(
            f"{options.pictures} CIFAR-10 test pictures in one batch, CPU seconds per picture on a machine that other work "
            "shared, compilation left out; decoding one file at a time, the median. Fit: the first one; fine-tuning: the steps "
            "between blocks; coding: drawing and choosing among 2^16 candidates a block, which all pictures share. MAC: "
            "multiply-accumulates of a picture's first fit. Blocks over κ: whose divergence exceeded 16 bits when they were "
            f"coded; the mean excess is theirs. The thesis's steps: {THESIS_STEPS:,} of 2e-4 from "
            "the prior, 100 a block, on our model with one sample. Published: tables D.1 and D.3, 500 pictures on an A100 "
            "(decoding: a CPU), PSNR that of RECOMBINER at the same rates; MAC counted by us, with five samples for COMBINER+."
        ),
        columns=COLUMNS,
        rows=rows,
        command=(
            f"python -m experiments.coding_time --workdir=DIR --models {' '.join('RUN/model' for _ in options.models)} "
            f"--pictures={options.pictures} --points {' '.join(map(str, options.points))} "
            f"--steps {' '.join(map(str, options.steps))}" + " --thesis" * options.thesis
        ),
        source=source,
        duration_s=max(spent, time.process_time() - started),
        notes=" ".join([*sentences, options.notes]).strip(),
    )
    return study_table(saved)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m experiments.coding_time", description="Times of COMBINER and COMBINER+.")
    parser.add_argument("--workdir", required=True, help="folder of the runs, which are kept there")
    parser.add_argument("--models", nargs="+", required=True, help="names, or folders that hold a model")
    parser.add_argument("--pictures", type=int, default=8, help="test pictures (%(default)s)")
    parser.add_argument("--points", type=int, nargs="+", default=[1, 3], help="operating points (1 3)")
    parser.add_argument("--steps", type=int, nargs="+", default=[150, 500, 1500], help="first steps, in fifties (150 500 1500)")
    parser.add_argument("--thesis", action="store_true", help="also the thesis's number and size of steps, with COMBINER+")
    parser.add_argument("--record", default="docs/results/studies/coding_time.json", help="the file to write (%(default)s)")
    parser.add_argument("--notes", default="", help="what came out")
    options = parser.parse_args(arguments)
    use_cpu_cores()
    return run_study(study, options)


if __name__ == "__main__":
    raise SystemExit(main())

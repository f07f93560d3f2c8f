"""Pictures of results: rate against quality, and reconstructions. Matplotlib's object interface, no global state."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from vcinr.evaluation.measure import rows_by_codec
from vcinr.evaluation.metrics import mean_squared_error, psnr_db
from vcinr.evaluation.published import Curve

# Okabe and Ito's palette: told apart with every kind of colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PUBLISHED_GREYS = ("#444444", "#8a6d3b", "#5b7f95", "#8f6f8f", "#6f8f6f", "#999999")
PUBLISHED_DASHES = ((0, (6, 2)), (0, (3, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
NAMES = {
    "vc_inr": "VC-INR (this code)",
    "klt": "KLT (linear floor)",
    "jpeg": "JPEG",
    "jpeg2000": "JPEG 2000",
    "coinpp": "COIN++",
    "coin": "COIN",
    "combiner": "COMBINER",
    "combiner_plus": "COMBINER+",
    "functa": "Functa",
    "strumpler_basic": "Strümpler, basic",
    "strumpler_meta": "Strümpler, meta-learned",
    "meta_sparse_inr": "MetaSparseINR",
    "mscn_unstructured": "MSCN, unstructured",
    "mscn_structured": "MSCN, structured",
    "mscn_per_signal": "MSCN, a pattern per signal",
    "mscn": "MSCN",
    "vcinr": "VC-INR",
    "recombiner": "RECOMBINER",
    "bpg444": "BPG 4:4:4",
    "balle2017_factorized_compressai": "Ballé 2017",
    "balle2018_hyperprior_compressai": "Ballé 2018",
    "balle2018_hyperprior": "Ballé 2018",
    "cheng2020_anchor_compressai": "Cheng 2020",
    "cheng2020_anchor": "Cheng 2020",
    "mp3": "MP3",
    "opus": "Opus",
    "x264": "x264",
    "x265": "x265",
    "zfp": "zfp",
    "packed_zstd": "packed, Zstandard",
    "lossless_zstd": "lossless, Zstandard",
    "gzip": "lossless, gzip",
    "lzma": "lossless, LZMA",
}


DISTINCT_RATES = 0.97
"""Payload and file rates are drawn as two lines where their ratio is below this."""

Line = Sequence[tuple[float, float]]
"""(rate, PSNR in dB) points."""


def display_name(codec: str) -> str:
    """What a codec is called in tables and legends; its own key where there is no other name."""
    key, _, rest = codec.partition(" ")
    return f"{NAMES.get(key, key)} {rest}".strip()


def plot_rd(
    points: Sequence[Mapping[str, Any]],
    path: str | os.PathLike,
    published: Sequence[Curve] = (),
    title: str = "",
    beside: Mapping[str, Line] | None = None,
    rate: str = "bpp_file",
) -> None:
    """Draws quality against rate and writes it as PNG.

    points: measured rows of any codecs (`vcinr.evaluation.measure`), one colour per codec: its files' rate with a solid line and
        filled markers, its `bpp_payload`, where it differs visibly, with a thin line and hollow ones.
    published: curves in the unit of ``rate``, dashed, each with its `rate_kind` in the legend, cut to twice the span of the
        measured rates.
    beside: measured codecs, by label or name, whose means are not drawn but these lines: their quality at the rates of the other
        codec's files, signal by signal (`vcinr.evaluation.comparison.curve_beside`), in units of ``rate``.
    rate: ``bpp_file``, ``bpp_payload`` or ``kbps``, of files.
    Rates are on a logarithmic axis; quality is the mean PSNR after rounding to 8 bits. Raises ValueError where there is no point,
    or a curve of another unit.
    """
    beside = beside or {}
    if not points:
        raise ValueError("nothing to plot: no measured points")
    unit = "kbps" if rate == "kbps" else "bpp"
    for curve in published:
        if curve.unit_rate != unit:
            raise ValueError(f"{curve.codec} on {curve.dataset} is in {curve.unit_rate}, not {unit}: leave it out of this plot")
    figure = Figure(figsize=(10.5, 5.6), layout="constrained")
    axes = figure.add_subplot()
    own = [row for row in points if row.get("label", row["codec"]) not in beside]
    whole, part = ("kbps", "") if unit == "kbps" else ("bpp_file", "bpp_payload")
    rates = [row[key] for row in own for key in (whole, part) if row.get(key)]
    low, high = min(rates), max(rates)
    for index, (codec, rows) in enumerate(rows_by_codec(points).items()):
        # As many markers as colours: the second round pairs them otherwise.
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
        if codec in beside:
            label = textwrap.fill(f"{display_name(codec)}, measured: at the same {rate}, signal by signal", 46)
            axes.plot(
                *zip(*beside[codec], strict=True), color=colour, marker=marker, markersize=4, linewidth=1.6, label=label, zorder=3
            )
        else:
            _draw_measured(axes, f"{display_name(codec)}, measured", rows, (whole, part), colour, marker)
    styles = zip(itertools.cycle(PUBLISHED_GREYS), itertools.cycle(PUBLISHED_DASHES), strict=False)
    for curve, (colour, dashes) in zip(published, styles, strict=False):
        shown = [point for point in curve.points if low / 2 <= point[0] <= 2 * high]
        if shown:
            label = textwrap.fill(f"{display_name(curve.codec)}, published: {curve.rate_kind}", 46)
            axes.plot(
                *zip(*shown, strict=True), color=colour, linestyle=dashes, linewidth=1.4, marker=".", markersize=4, label=label
            )
    axes.set_xscale("log")
    _format_rates(axes)
    axes.set_xlabel(f"rate ({'kilobits per second' if unit == 'kbps' else 'bits per sample'}, logarithmic)")
    axes.set_ylabel("PSNR (dB; mean over signals, clamped and rounded)")
    axes.grid(which="major", color="#dddddd", linewidth=0.8)
    axes.grid(which="minor", color="#eeeeee", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False, labelspacing=0.9)
    _write(figure, path)


def plot_summary(lines: Mapping[str, Line], path: str | os.PathLike, title: str = "") -> None:
    """Draws a few curves of quality against rate, to be read at the width of a README, and writes them as PNG.

    lines: (bpp, PSNR in dB) points by name, ours first, which is drawn strongest; names that end in "published" are dashed.
    All are cut to our rates. Raises ValueError where there is no line.
    """
    if not lines:
        raise ValueError("nothing to plot: no lines")
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    low, high = (bound(rate for rate, _ in next(iter(lines.values()))) for bound in (min, max))
    for index, (name, line) in enumerate(lines.items()):
        shown = sorted(point for point in line if low <= point[0] <= high)
        if not shown:
            continue
        published = name.endswith("published")
        axes.plot(
            *zip(*shown, strict=True),
            color=COLOURS[index % len(COLOURS)],
            linestyle=(0, (4, 2)) if published else "-",
            linewidth=2.6 if index == 0 else 1.8,
            marker=MARKERS[index % len(MARKERS)],
            markersize=6 if index == 0 else 4.5,
            zorder=4 if index == 0 else 3,
            label=name,
        )
    axes.set_xscale("log")
    _format_rates(axes)
    axes.set_xlabel("bits per pixel, whole files (logarithmic)", fontsize=11)
    axes.set_ylabel("PSNR, dB", fontsize=11)
    axes.tick_params(labelsize=10.5)
    axes.grid(which="major", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", fontsize=10.5, frameon=False)
    axes.set_title(title, loc="left", fontsize=11)
    _write(figure, path, dpi=160)


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """One row of `plot_reconstructions`.

    original, decoded: uint8 [h, w, 3]. bpp: rate of the decoded picture. name: what stands beside the row, such as the
    picture's name and the codec. rate: which rate `bpp` is.
    """

    original: np.ndarray
    decoded: np.ndarray
    bpp: float | int
    name: str = ""
    rate: str = "bpp_file"


def plot_reconstructions(
    rows: Sequence[Reconstruction], path: str | os.PathLike, title: str = "", amplification: float | int = 4.0
) -> None:
    """Draws original, decoded and error side by side, one row per picture, and writes it as PNG.

    The error is (decoded − original) · amplification around mid-grey, clipped; the heading states the factor. Captions give the
    rate and the PSNR of that very picture (8-bit). Small pictures are magnified without interpolation. Two rows stand side
    by side where there are more than four. Raises ValueError where there is no row.
    """
    if not rows:
        raise ValueError("nothing to plot: no reconstructions")
    across = 1 if len(rows) <= 4 else 2
    down = math.ceil(len(rows) / across)
    # Geometry in inches, laid out by hand: automatic layouts leave wide gaps around pictures of fixed aspect.
    width = 2.2 if max(max(row.original.shape) for row in rows) <= 256 else 3.4
    gap, margin, caption = 0.06, 0.12, 0.36
    aspects = [row.original.shape[0] / row.original.shape[1] for row in rows]
    heights = [width * max(aspects[line::down]) for line in range(down)]
    block = 3 * (width + gap) + 0.2
    top = 0.35 + (0.35 if title else 0.0)
    total_width, total_height = across * block - 0.2 - gap + 2 * margin, top + sum(heights) + down * caption
    figure = Figure(figsize=(total_width, total_height))
    if title:
        figure.text(0.5, 1 - 0.2 / total_height, title, ha="center", va="center", fontsize=11, fontweight="bold")
    for index, row in enumerate(rows):
        block_index, line = divmod(index, down)
        height = heights[line]
        left, upper = margin + block_index * block, top + sum(heights[:line]) + line * caption
        error = np.clip(127.5 + amplification * (row.decoded.astype(np.float64) - row.original), 0, 255).astype(np.uint8)
        quality = psnr_db(mean_squared_error(row.original, row.decoded))
        parts = (row.name, f"{row.bpp:.3f} {row.rate}", "lossless" if math.isinf(quality) else f"{quality:.2f} dB")
        headings = ("original", "decoded", f"error × {amplification:g} (grey: none)")
        for column, (heading, picture) in enumerate(zip(headings, (row.original, row.decoded, error), strict=True)):
            x = left + column * (width + gap)
            axes = figure.add_axes(
                (x / total_width, 1 - (upper + height) / total_height, width / total_width, height / total_height), anchor="N"
            )
            axes.set_axis_off()
            axes.imshow(picture, interpolation="nearest" if max(picture.shape) <= 256 else "antialiased")
            if line == 0:
                x_centre, y = (x + width / 2) / total_width, 1 - (upper - 0.06) / total_height
                figure.text(x_centre, y, heading, ha="center", va="bottom", fontsize=9, fontweight="bold")
        y = 1 - (upper + height + 0.05) / total_height
        figure.text(left / total_width, y, "   ".join(part for part in parts if part), ha="left", va="top", fontsize=9)
    _write(figure, path)


def _draw_measured(
    axes: Axes, name: str, rows: Sequence[Mapping[str, Any]], rates: tuple[str, str], colour: str, marker: str
) -> None:
    whole, part = rates
    quality = [row["psnr_db"] for row in rows]
    files = [row[whole] for row in rows]
    axes.plot(files, quality, color=colour, marker=marker, markersize=6, linewidth=2, label=f"{name}: files", zorder=4)
    payload = [(row[part], row["psnr_db"]) for row in rows if row.get(part)]
    if any(row[part] < DISTINCT_RATES * row[whole] for row in rows if row.get(part)):
        axes.plot(
            *zip(*sorted(payload), strict=True),
            color=colour,
            marker=marker,
            markersize=5,
            markerfacecolor="white",
            linewidth=0.9,
            label=f"{name}: payload only",
            zorder=3,
        )


def _format_rates(axes: Axes) -> None:
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(LogLocator(base=10, subs=tuple(range(1, 10))))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _write(figure: Figure, path: str | os.PathLike, dpi: int = 100) -> None:
    figure.set_dpi(dpi)
    # Without the version of Matplotlib in it, the same points give the same file.
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})

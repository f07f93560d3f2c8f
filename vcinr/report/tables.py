"""Tables of measured points: for the terminal, and in Markdown with what other codecs do at equal rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from vcinr.evaluation.bd_rate import bd_rate_percent, curve_of, psnr_at
from vcinr.evaluation.comparison import bd_rates_percent, gains_db, has_signals
from vcinr.evaluation.measure import rows_by_codec
from vcinr.evaluation.published import Curve
from vcinr.report.plots import display_name

Points = Sequence[Mapping[str, Any]]

CLASSICAL = ("jpeg", "jpeg2000", "mp3", "opus", "x264", "x265", "zfp", "packed_zstd", "lossless_zstd", "gzip", "lzma")
"""Measured codecs that others are compared with, and that are compared with nothing: their means are at one quality setting for
all signals, which is another kind of mean than those at one λ and than most published ones."""

BARS = ("klt", *CLASSICAL)
"""Measured codecs that the others are compared with, beside published curves."""

# Heading, key (the first that a row has), format.
COLUMNS = (
    ("codec", ("codec",), "s"),
    ("λ / quality", ("lambda", "quality", "name"), "g"),
    ("bytes", ("file_bytes",), ".1f"),
    ("bpp_file", ("bpp_file",), ".3f"),
    ("bpp_container", ("bpp_container",), ".3f"),
    ("bpp_payload", ("bpp_payload",), ".3f"),
    ("bpp_estimated", ("bpp_estimated",), ".3f"),
    ("PSNR dB", ("psnr_db",), ".2f"),
    ("of mean MSE", ("psnr_of_mean_mse_db",), ".2f"),
    ("float", ("psnr_float_db",), ".2f"),
    ("MS-SSIM", ("ms_ssim",), ".4f"),
    ("kbps", ("kbps",), ".2f"),
    ("SNR dB", ("snr_db",), ".2f"),
    ("per frame dB", ("psnr_per_frame_db",), ".2f"),
    ("RMSE", ("rmse",), ".4g"),
    ("RMSE by area", ("area_rmse",), ".4g"),
    ("largest error", ("max_error",), ".4g"),
    ("accuracy", ("accuracy",), ".4f"),
    ("IoU", ("iou",), ".4f"),
    ("MSE", ("mse",), ".3g"),
    ("sign accuracy", ("sign_accuracy",), ".4f"),
    ("model bytes", ("model_bytes",), ",d"),
)
NARROW, WIDE = 8, 120


def print_table(points: Points, title: str = "", console: Console | None = None) -> None:
    """Prints measured points as a table; columns that are empty for all of them are left out.

    A console of less than `WIDE` columns, such as a plain terminal, gets the first `NARROW` columns of the table only, so that no
    number is cut.
    """
    console = console or Console()
    headings, rows = _cells(points, COLUMNS if console.width >= WIDE else COLUMNS[:NARROW])
    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", padding=0)
    for index, heading in enumerate(headings):
        heading = heading.replace("bpp_", "bpp_\n").replace("/ ", "/\n").replace("PSNR ", "PSNR\n")
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=index > 0, vertical="bottom")
    previous = None
    for row in rows:
        if previous is not None and row[0] != previous:
            table.add_section()
        previous = row[0]
        table.add_row(*row)
    console.print(table)


def markdown_table(points: Points) -> str:
    """Measured points as a Markdown table; columns that are empty for all of them are left out."""
    headings, rows = _cells(points, COLUMNS)
    return _markdown([f"`{name}`" if name.startswith("bpp") else name for name in headings], rows)


def comparison_table(points: Points, curves: Sequence[Curve], rate: str) -> str:
    """How far each measured point lies above (+) or below (−) other codecs at equal rate, in dB, as a Markdown table.

    Against the measured codecs in `BARS`: the mean over signals of the difference at that signal's own rate
    (`vcinr.evaluation.comparison.gains_db`), with how many signals where not all can be compared. Against published curves: at
    the mean rate, for more is not published. – where nothing can be compared.
    rate: ``bpp_file`` or ``bpp_payload``. Raises ValueError where a point has no such rate.
    """
    measured = rows_by_codec(points)
    bars = {display_name(codec): measured[codec] for codec in BARS if codec in measured and len(measured) > 1}
    rows = []
    for codec, group in measured.items():
        if group[0]["codec"] in CLASSICAL:
            continue
        curve_of(group, rate)
        for row in group:
            cells = [display_name(codec), f"{row[rate]:.3f}", f"{row['psnr_db']:.2f}"]
            cells += ["–" if name == cells[0] else gain_cell(row, reference, rate) for name, reference in bars.items()]
            for curve in curves:
                there = psnr_at(curve.points, row[rate])
                cells.append("–" if there is None else f"{row['psnr_db'] - there:+.2f}")
            rows.append(cells)
    published = (f"{display_name(curve.codec)}, published" for curve in curves)
    return _markdown(["codec", f"`{rate}`", "PSNR dB", *bars, *published], rows)


def gain_cell(row: Mapping[str, Any], reference: Points, rate: str) -> str:
    """The mean gain of a point over another codec, in dB, with how many signals where not all can be compared; else –."""
    if not has_signals([row, *reference]):
        return "–"
    gains = gains_db(row, reference, rate)
    if gains.mean is None:
        return "–"
    return f"{gains.mean:+.2f}" + _counted(len(gains.values), gains.num_signals)


def spread_table(rows: Points, reference: Points, rate: str) -> str:
    """How the signals' gains over another codec at equal rate spread, one row per point, as a Markdown table; dB.

    rows: of one codec, all with values per signal.   reference, rate: as `vcinr.evaluation.comparison.gains_db`.
    """
    table = []
    for row in sorted(rows, key=lambda row: row[rate]):
        gains = gains_db(row, reference, rate)
        if gains.mean is not None:
            low, median, high = np.percentile(gains.values, (0, 50, 100))
            numbers = [f"{value:+.2f}" for value in (gains.mean, low, median, high)]
            ahead = f"{(gains.values > 0).sum()} of {len(gains.values)}"
            table.append([f"{row[rate]:.3f}", f"{row['psnr_db']:.2f}", *numbers, ahead])
    return _markdown([f"`{rate}`", "PSNR dB", "mean", "lowest", "median", "highest", "signals ahead"], table)


def bd_table(points: Points, curves: Sequence[Curve], rate: str) -> str:
    """BD-rates between measured codecs and against published curves, in percent, as a Markdown table.

    A row's codec needs that much more (+) or less (−) rate than the column's. Codecs in `CLASSICAL` are columns only. Between
    measured codecs: the mean over signals of the signals' own BD-rates, with how many where not all have one; ~ before one of the
    mean curves, where the records hold no values per signal. Published curves are means. – where there is no BD-rate.
    """
    groups = {display_name(codec): rows for codec, rows in rows_by_codec(points).items()}
    rows = []
    for name, group in groups.items():
        if group[0]["codec"] in CLASSICAL:
            continue
        cells = [name, *("" if other == name else _bd_cell(reference, group, rate) for other, reference in groups.items())]
        rows.append(cells + [_mean_bd(curve.points, curve_of(group, rate)) for curve in curves])
    published = (f"{display_name(curve.codec)}, published" for curve in curves)
    return _markdown(["codec", *(f"against {name}" for name in (*groups, *published))], rows)


def _bd_cell(reference: Points, test: Points, rate: str) -> str:
    if not has_signals([*reference, *test]):
        mean = _mean_bd(curve_of(reference, rate), curve_of(test, rate))
        return mean if mean == "–" else f"~{mean}"
    rates = bd_rates_percent(reference, test, rate)
    return "–" if rates.mean is None else f"{rates.mean:+.1f} %" + _counted(len(rates.values), rates.num_signals)


def _mean_bd(reference: Any, test: Any) -> str:
    try:
        return f"{bd_rate_percent(reference, test):+.1f} %"
    except ValueError:
        return "–"


def _counted(count: int, of: int) -> str:
    return "" if count == of else f" ({count} of {of})"


def _cells(points: Points, columns: Sequence[tuple[str, tuple[str, ...], str]]) -> tuple[list[str], list[list[str]]]:
    table = []
    for heading, keys, spec in columns:
        values = [next((row[key] for key in keys if row.get(key) is not None), None) for row in points]
        if any(value is not None for value in values):
            table.append((heading, [_cell(value, spec) for value in values]))
    labels = [display_name(row.get("label", row["codec"])) for row in points]
    cells = [labels, *(column for _, column in table[1:])]
    return [heading for heading, _ in table], [list(row) for row in zip(*cells, strict=True)]


def _cell(value: Any, spec: str) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, str) else format(value, spec)


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = "|---" + "|--:" * (len(headings) - 1) + "|"
    return "\n".join(["| " + " | ".join(headings) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)])

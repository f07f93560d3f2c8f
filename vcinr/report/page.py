"""Tables of measured points for the terminal and for docs/results.md, and the committed files that the page is made of."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from vcinr.evaluation.bd_rate import bd_rate_percent, curve_of, psnr_at
from vcinr.evaluation.measure import rows_by_codec
from vcinr.evaluation.published import Curve, load
from vcinr.provenance import provenance
from vcinr.report.plots import display_name, plot_rd
from vcinr.report.studies import load_studies, study_section
from vcinr.trees import write_atomically

RUN_KEYS = ("config", "command", "commit", "device", "date", "duration_s", "versions", "points", "notes")
POINT_KEYS = (
    "codec",
    "dataset",
    "split",
    "num_signals",
    "point",
    "file_bytes",
    "payload_bytes",
    "bpp_file",
    "bpp_container",
    "bpp_payload",
    "bpp_estimated",
    "psnr_db",
    "psnr_of_mean_mse_db",
    "model_bytes",
)

CLASSICAL = ("jpeg", "jpeg2000")

# Which published data set a measured one is compared with, and whose curves there.
COMPARED = {
    "cifar10": ("cifar10", ("coinpp", "recombiner", "bpg444")),
    "cifar10_small": ("cifar10", ("coinpp", "recombiner", "bpg444")),
    "kodak": ("kodak", ("coinpp", "mscn", "recombiner", "vcinr", "bpg444")),
}
BARS = ("klt", "jpeg2000")
"""Measured codecs that the others are compared with, beside published curves."""
REMARKS = {
    "cifar10_small": "The published curves are of all 10,000 test pictures, the measured points of the part that this set holds."
}

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
    ("model bytes", ("model_bytes",), ",d"),
)
NARROW, WIDE = 8, 120

PREAMBLE = """# Results

Rendered by `make results` from the JSON files in [`docs/results/`](results/); do not edit. Every rate is counted on files
that were decoded again, every quality on what they decode to. Counts are means per signal.

| column | meaning |
|---|---|
| λ / quality | weight of the distortion for codecs trained on rate + λ·distortion, else the codec's own quality setting |
| bytes, `bpp_file` | one file a signal, all of it |
| `bpp_container` | all signals in one file |
| `bpp_payload` | coded symbols only; JPEG: the scan without headers and markers; JPEG 2000: packets without headers and markers |
| `bpp_estimated` | what the integer tables say that the symbols cost |
| PSNR dB | after clamping and rounding to 8 bits, of each whole signal, then averaged |
| of mean MSE | PSNR of the mean of the signals' squared errors |
| float | as PSNR dB, of the decoded floats, neither clamped nor rounded |
| model bytes | the model that encoder and decoder share; no rate counts it |

Published curves are interpolated (monotone cubic over the logarithm of the rate) at the measured rates and never
extrapolated: – stands where a curve does not reach. What each counts as its rate is said under its table; most are estimates
without any header, so the comparison at `bpp_payload` is the like-for-like one, and that at `bpp_file` what a user pays.
"""


def save_run(
    path: str | os.PathLike,
    points: Sequence[Mapping[str, Any]],
    config: str,
    command: str,
    duration_s: float | int,
    notes: str = "",
    source: Mapping[str, Any] | None = None,
    training_commit: str | None = None,
) -> dict[str, Any]:
    """Writes measured points with what produced them as JSON, and returns what was written.

    points: rows of `vcinr.evaluation.measure`. config: name of the configuration. command: what was run, without paths that mean
    nothing elsewhere.
    duration_s: how long that took, training included where it trained. notes: anything that a reader must know.
    source: `vcinr.provenance.provenance` of when the measuring began; None: of now. training_commit: what trained the model, the
    ``git_revision`` of the last of ``model.info["starts"]``; it is kept where the measuring commit is another.
    Raises ValueError where a point lacks a key.
    """
    source = provenance() if source is None else source
    run = {
        "config": config,
        "command": command,
        **source,
        **({"training_commit": training_commit} if training_commit not in (None, source["commit"]) else {}),
        "duration_s": round(float(duration_s), 1),
        "notes": notes,
        "points": [dict(row) for row in points],
    }
    check_run(run, os.fspath(path))
    about = {key: value for key, value in run.items() if key != "points"}
    head = json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f'{head[:-2]},\n  "points": {points_json(points)}\n}}\n'.encode())
    return run


def points_json(points: Sequence[Mapping[str, Any]]) -> str:
    """Measured points as a JSON list, one point per line: values per signal on lines of their own would run to pages."""
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in points) + "\n]"


def check_run(run: Any, name: str) -> None:
    """Raises ValueError that names the file and what is wrong where `run` is not what `save_run` writes."""
    if not isinstance(run, Mapping):
        raise ValueError(f"{name}: a run is a JSON object with {', '.join(RUN_KEYS)}")
    missing = [key for key in RUN_KEYS if key not in run]
    if missing:
        raise ValueError(f"{name}: lacks {', '.join(missing)}; write it with vcinr.report.page.save_run")
    if not run["points"]:
        raise ValueError(f"{name}: holds no points")
    for index, row in enumerate(run["points"]):
        missing = [key for key in POINT_KEYS if key not in row]
        if missing:
            raise ValueError(f"{name}: point {index} lacks {', '.join(missing)}; measure it with vcinr.evaluation")


def load_runs(folder: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """All runs of a folder by file name without its ending, sorted. Raises FileNotFoundError where there is none."""
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"no measured points (*.json) in {folder}: write some with python -m experiments.evaluate")
    runs = {}
    for path in paths:
        try:
            runs[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name}: not JSON ({error})") from error
        check_run(runs[path.stem], path.name)
    return runs


def print_table(points: Sequence[Mapping[str, Any]], title: str = "", console: Console | None = None) -> None:
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


def markdown_table(points: Sequence[Mapping[str, Any]]) -> str:
    """Measured points as a Markdown table; columns that are empty for all of them are left out."""
    headings, rows = _cells(points, COLUMNS)
    return _markdown([f"`{name}`" if name.startswith("bpp") else name for name in headings], rows)


def comparison_table(points: Sequence[Mapping[str, Any]], curves: Sequence[Curve], rate: str) -> str:
    """Measured quality beside that of `BARS` among the points and of published curves at the same rate, as a Markdown table.

    rate: ``bpp_file`` or ``bpp_payload``. Each curve has a column with its PSNR there and, in brackets, how far the measured
    point lies above it; – outside the curve's rates. Raises ValueError where a point has no such rate.
    """
    measured = rows_by_codec(points)
    bars = {display_name(codec): curve_of(measured[codec], rate) for codec in BARS if codec in measured and len(measured) > 1}
    others = bars | {f"{display_name(curve.codec)}, published": curve.points for curve in curves}
    rows = []
    for codec, group in measured.items():
        if group[0]["codec"] in CLASSICAL:
            continue
        for bpp, decibels in curve_of(group, rate):
            cells = [display_name(codec), f"{bpp:.3f}", f"{decibels:.2f}"]
            for name, curve in others.items():
                there = None if name == cells[0] else psnr_at(curve, bpp)
                cells.append("–" if there is None else f"{there:.2f} ({decibels - there:+.2f})")
            rows.append(cells)
    return _markdown(["codec", f"`{rate}`", "PSNR dB", *others], rows)


def bd_table(points: Sequence[Mapping[str, Any]], curves: Sequence[Curve], rate: str) -> str:
    """BD-rates between measured codecs and against published curves, in percent, as a Markdown table.

    A row's codec needs that much more (+) or less (−) rate than the column's; – where Bjøntegaard's measure is not defined.
    """
    groups = {codec: curve_of(rows, rate) for codec, rows in rows_by_codec(points).items()}
    references = [(display_name(codec), curve) for codec, curve in groups.items()]
    references += [(f"{display_name(curve.codec)}, published", curve.points) for curve in curves]
    rows = []
    for codec, curve in groups.items():
        cells = [display_name(codec)]
        for name, reference in references:
            try:
                cells.append("" if name == cells[0] else f"{bd_rate_percent(reference, curve):+.1f} %")
            except ValueError:
                cells.append("–")
        rows.append(cells)
    return _markdown(["codec", *(f"against {name}" for name, _ in references)], rows)


def render_results(folder: str | os.PathLike, out: str | os.PathLike) -> list[Path]:
    """Renders the page of results from committed runs, with one plot a data set, and returns the files written.

    folder: holds the JSON files of `save_run`, and takes the plots (`<dataset>_<split>.png`). out: the Markdown page.
    The same files give the same page. Raises FileNotFoundError for an empty folder, ValueError for a damaged file.
    """
    folder, out = Path(folder), Path(out)
    runs = load_runs(folder)
    sections: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for stem, run in runs.items():
        for row in run["points"]:
            section = sections.setdefault((row["dataset"], row["split"]), [])
            # What needs no training is measured alike in every run that measures it.
            if row["codec"] not in CLASSICAL or row not in ({k: v for k, v in seen.items() if k != "run"} for seen in section):
                section.append(row | {"run": stem})
    page, written = [PREAMBLE], []
    for (dataset, split), points in sorted(sections.items()):
        points = _labelled(points)
        published, names = COMPARED.get(dataset, ("", ()))
        curves = [load(name, published) for name in names]
        plot = folder / f"{dataset}_{split}.png"
        plot_rd(points, plot, curves, f"{dataset}, {split}, {_counts(points)}")
        written.append(plot)
        link = Path(os.path.relpath(plot, out.parent)).as_posix()
        page.append(_section(dataset, split, points, curves, link, runs))
    studies = load_studies(folder / "studies")
    if studies:
        page.append("# Studies\n\nQuestions put to the methods themselves, each by one command.\n")
        base = Path(os.path.relpath(folder / "studies", out.parent)).as_posix()
        page += [study_section(study, base) for study in studies]
    out.write_text("\n".join(page), encoding="utf-8")
    return [*written, out]


def _section(
    dataset: str, split: str, points: list[dict[str, Any]], curves: list[Curve], link: str, runs: Mapping[str, Mapping[str, Any]]
) -> str:
    ordered = [row for rows in rows_by_codec(points).values() for row in rows]
    parts = [
        f"## {dataset}, {split}: {_counts(points)}",
        f"![Rate against quality on {dataset}, {split}]({link})",
        markdown_table(ordered),
    ]
    learned = [row for row in points if row["codec"] not in CLASSICAL]
    if curves and learned:
        for rate in ("bpp_payload", "bpp_file"):
            parts += [f"### Beside other curves, at equal `{rate}`", comparison_table(points, curves, rate)]
        parts.append(f"In brackets: how far the measured point lies above the curve, in dB. {REMARKS.get(dataset, '')}".strip())
        parts.append("\n".join(f"* {display_name(c.codec)}: rate is {c.rate_kind}. Source: {c.source}." for c in curves))
    parts += ["### BD-rate at `bpp_payload`", bd_table(points, curves, "bpp_payload")]
    parts.append(
        "Rate needed beyond (+) or below (−) the column's at equal PSNR; – where curves share no quality or do not rise."
    )
    parts.append("### How it was measured")
    parts.append("\n".join(_said(stem, runs[stem]) for stem in dict.fromkeys(row["run"] for row in points)))
    return "\n\n".join(parts) + "\n"


def _said(stem: str, run: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    notes = f"\n  {run['notes']}" if run["notes"] else ""
    trained = f" (trained at {run['training_commit']})" if "training_commit" in run else ""
    return (
        f"* `{stem}.json`: config `{run['config']}`, `{run['command']}`, {run['duration_s']:,.0f} s on {run['device']}, "
        f"{run['date']}, commit {run['commit']}{trained}; {versions}.{notes}"
    )


def _labelled(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # One codec measured in several runs is several curves: they are told apart by the name of their file.
    runs_of: dict[str, set[str]] = {}
    for row in points:
        runs_of.setdefault(row["codec"], set()).add(row["run"])
    return [row | ({"label": f"{row['codec']} ({row['run']})"} if len(runs_of[row["codec"]]) > 1 else {}) for row in points]


def _counts(points: Sequence[Mapping[str, Any]]) -> str:
    return " or ".join(str(count) for count in sorted({row["num_signals"] for row in points})) + " signals"


def _cells(
    points: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, tuple[str, ...], str]]
) -> tuple[list[str], list[list[str]]]:
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

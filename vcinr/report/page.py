"""The page of results, rendered from committed records and studies."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcinr.evaluation.comparison import curve_beside, has_signals
from vcinr.evaluation.measure import rows_by_codec
from vcinr.evaluation.published import Curve, load
from vcinr.report.plots import display_name, plot_rd, plot_summary
from vcinr.report.records import load_runs
from vcinr.report.studies import load_studies, study_section
from vcinr.report.tables import BARS, CLASSICAL, bd_table, comparison_table, markdown_table, spread_table

OURS = "contextual_inr"
"""The bundled models' codec, whose files the others are drawn beside."""

# Per measured data set: the published data set it is compared with, whose curves there, and the rate of its plot. Headers that
# every file repeats would fill the plot of small pictures.
_CIFAR10 = ("cifar10", ("coinpp", "recombiner", "bpg444", "balle2018_hyperprior", "cheng2020_anchor"), "bpp_payload")
_KODAK = (
    "coinpp",
    "mscn",
    "recombiner",
    "vcinr",
    "bpg444",
    "balle2017_factorized_compressai",
    "balle2018_hyperprior_compressai",
    "cheng2020_anchor_compressai",
)
COMPARED = {
    "cifar10": _CIFAR10,
    "cifar10_small": _CIFAR10,
    "kodak": ("kodak", _KODAK, "bpp_file"),
    "speech": ("librispeech", ("coinpp", "recombiner", "mp3"), "kbps"),
    "era5_region": ("era5", ("coinpp", "bpg444", "jpeg2000"), "bpp_file"),
    "clips": ("ucf101", ("recombiner",), "bpp_file"),
}
SUMMARY = {"kodak": ("vcinr", "bpg444")}
"""Data sets with a second, plain plot, and the published curves in it."""
REMARKS = {
    "cifar10_small": "The published curves are of all 10,000 test pictures, the measured points of the part that this set holds.",
    "speech": "The published curves are of the first three seconds of recordings of another part of LibriSpeech.",
    "era5_region": "The published curves are of the whole globe at 46×90, the measured points of a region at another resolution: "
    "they are of other fields, and are drawn for orientation alone.",
    "clips": "The published curves are of 16 frames of UCF-101 at 128×128, the measured points of other clips.",
}

PREAMBLE = """# Results

Rendered by `make results` from the JSON files in [`docs/results/`](results/README.md); do not edit. Every rate is counted on
files that were decoded again, every quality on what they decode to. Counts are means per signal.

| column | meaning |
|---|---|
| λ / quality | weight of the distortion for codecs trained on rate + λ·distortion, else the codec's own quality setting |
| bytes, `bpp_file` | the whole file, one file per signal |
| `bpp_container` | all signals in one file |
| `bpp_payload` | coded symbols only; JPEG: the scan without headers and markers; JPEG 2000: packets without headers and markers |
| `bpp_estimated` | what the integer tables say that the symbols cost |
| PSNR dB | after clamping and rounding to 8 bits, of each whole signal, then averaged |
| of mean MSE | PSNR of the mean of the signals' squared errors |
| float | as PSNR dB, of the decoded floats, neither clamped nor rounded |
| model bytes | the model that encoder and decoder share; no rate counts it |

How codecs are compared at equal rate:

* With a **measured** codec, signal by signal: its curve of that very signal is interpolated (monotone cubic over the logarithm of
  the rate, never extrapolated) at that signal's rate, and the differences are averaged; (n of N) says how many of the N signals
  could be compared, where not all. Means over signals at one setting per codec must not be compared: JPEG 2000's setting is a
  quality, ours a λ, and the same mean rate is spread over the signals otherwise. So plots draw measured codecs beside
  `contextual_inr` at the rates of its files, where the records hold values per signal.
* With a **published** curve, at the mean rate, for no more is published. What each counts as its rate, and what its points are
  means of, is said under the table. Our points are means of rates and of PSNRs at one λ for all signals. Most published rates
  are estimates without any header, so `bpp_payload` compares like with like and `bpp_file` is what a user pays.

Codecs by name: `contextual_inr` is that of the bundled models, a *linear* field whose latents are coded with a context prior;
"VC-INR (this code)" is the system of the VC-INR paper in this project's implementation and training, "VC-INR, published" its
authors' curve.
"""

BD_RATES = """Rate needed beyond (+) or below (−) the column's at equal PSNR: against measured codecs the mean of the signals' own
BD-rates; ~ of the mean curves, where a record holds no values per signal; against published ones of the mean curves; – where
curves share no quality or do not rise. JPEG and JPEG 2000 are compared with only."""

STUDIES = """# Studies

Questions put to the methods themselves, each by one command, at the commit named beside it; of those whose experiment has been
deleted since, that commit has it.
"""


def render_results(folder: str | os.PathLike, out: str | os.PathLike) -> list[Path]:
    """Renders the page of results from committed runs, with one or two plots per data set, and returns the files written.

    folder: holds the JSON files of `vcinr.report.records.save_run`, and takes the plots (`<dataset>_<split>.png`, and
    `<dataset>_summary.png` for those in `SUMMARY`). out: the Markdown page.
    The same files give the same page. Raises FileNotFoundError for an empty folder, ValueError for a damaged file.
    """
    folder, out = Path(folder), Path(out)
    runs = load_runs(folder)
    page, written = [PREAMBLE], []
    for (dataset, split), points in sorted(_sections(runs).items()):
        published, names, rate = COMPARED.get(dataset, ("", (), "bpp_file"))
        curves = [load(name, published) for name in names]
        plot = folder / f"{dataset}_{split}.png"
        plot_rd(points, plot, curves, f"{dataset}, {split}, {_counts(points)}", beside_ours(points, rate), rate)
        written.append(plot)
        if dataset in SUMMARY and (lines := _summary(points, dataset)):
            title = f"{dataset}, {_counts(points)}; measured codecs at the same rate, signal by signal"
            plot_summary(lines, folder / f"{dataset}_summary.png", title)
            written.append(folder / f"{dataset}_summary.png")
        link = Path(os.path.relpath(plot, out.parent)).as_posix()
        page.append(_section(dataset, split, points, curves, link, runs))
    studies = load_studies(folder / "studies")
    if studies:
        page.append(STUDIES)
        base = Path(os.path.relpath(folder / "studies", out.parent)).as_posix()
        page += [study_section(study, base) for study in studies]
    out.write_text("\n".join(page), encoding="utf-8")
    return [*written, out]


def beside_ours(points: Sequence[Mapping[str, Any]], rate: str) -> dict[str, list[tuple[float, float]]]:
    """Curves of the measured codecs in `BARS` at the rates of our files, by codec; empty without values per signal."""
    measured = rows_by_codec(points)
    ours = _ours(measured)
    if not ours:
        return {}
    others = {codec: measured[codec] for codec in BARS if codec in measured and has_signals(measured[codec])}
    return {codec: curve for codec, rows in others.items() if len(curve := curve_beside(ours, rows, rate)) > 1}


def _ours(measured: Mapping[str, list[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    return next((rows for rows in measured.values() if rows[0]["codec"] == OURS and has_signals(rows)), [])


def _summary(points: Sequence[Mapping[str, Any]], dataset: str) -> dict[str, list[tuple[float, float]]]:
    # Lines by label, ours first; nothing where ours is not measured.
    ours = _ours(rows_by_codec(points))
    if not ours:
        return {}
    lines = {f"{OURS}, measured": [(row["bpp_file"], row["psnr_db"]) for row in ours]}
    others = beside_ours(points, "bpp_file")
    lines |= {f"{display_name(codec)}, measured": others[codec] for codec in ("klt", "jpeg2000") if codec in others}
    published = [load(name, COMPARED[dataset][0]) for name in SUMMARY[dataset]]
    return lines | {f"{display_name(curve.codec)}, published": list(curve.points) for curve in published}


def _sections(runs: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    # The points of all runs by data set and split; a split that only some signals were measured of is one of its own.
    sections: dict[tuple[str, str], list[dict[str, Any]]] = {}
    whole: dict[tuple[str, str], int] = {}
    for row in (row for run in runs.values() for row in run["points"]):
        whole[row["dataset"], row["split"]] = max(whole.get((row["dataset"], row["split"]), 0), row["num_signals"])
    for stem, run in runs.items():
        for row in run["points"]:
            some = row["num_signals"] < whole[row["dataset"], row["split"]]
            split = f"{row['split']}_{row['num_signals']}" if some else row["split"]
            section = sections.setdefault((row["dataset"], split), [])
            # What needs no training is measured alike in every run that measures it.
            twin = next((seen for seen in section if _measured_alike(seen, row)), None) if row["codec"] in CLASSICAL else None
            if twin is None:
                section.append(row | {"run": stem})
            elif "signals" in row:
                twin["signals"] = row["signals"]
    return {key: _labelled(points) for key, points in sections.items()}


def _measured_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    # Runs may measure other settings beside this one, so that its number differs; older ones lack the values per signal.
    return all(one.get(key) == other.get(key) for key in {*one, *other} - {"run", "point", "signals"})


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
        for rate in ("kbps",) if curves[0].unit_rate == "kbps" else ("bpp_payload", "bpp_file"):
            parts += [f"### Above or below other codecs, at equal `{rate}`", comparison_table(points, curves, rate)]
        parts.append(
            "How far the measured point lies above (+) or below (−) the other, in dB: measured codecs signal by signal, "
            f"published ones at the mean rate. {REMARKS.get(dataset, '')}".strip()
        )
        parts.append("\n".join(map(published_line, curves)))
    measured = rows_by_codec(points)
    if (ours := _ours(measured)) and has_signals(jpeg2000 := measured.get("jpeg2000", [])) and jpeg2000:
        rate = COMPARED.get(dataset, ("", (), "bpp_file"))[2]
        parts += [f"### `{OURS}` above JPEG 2000, signal by signal at equal `{rate}`, in dB", spread_table(ours, jpeg2000, rate)]
    if learned:
        rate = "kbps" if curves and curves[0].unit_rate == "kbps" else "bpp_payload"
        parts += [f"### BD-rate at `{rate}`", bd_table(points, curves, rate), BD_RATES]
    parts.append("### How it was measured")
    parts.append("\n".join(_said(stem, runs[stem]) for stem in dict.fromkeys(row["run"] for row in points)))
    return "\n\n".join(parts) + "\n"


def published_line(curve: Curve) -> str:
    """What a published curve's rates and points are, and where they are from, as an item of a Markdown list."""
    average = curve.average or "the source does not say of what"
    return f"* {display_name(curve.codec)}: rate is {curve.rate_kind}; points are means: {average}. Source: {curve.source}."


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

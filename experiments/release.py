"""Adds the model of a training run to the models that come with the package, and writes its card.

    python -m experiments.release --workdir=runs/NAME --name=tiny --results docs/results/NAME.json [docs/results/OTHER.json …]

Writes vcinr/models/tiny: the model of ``runs/NAME/model``, without folder names of the machine that trained it, and its card,
README.md. Results are records of `experiments.evaluate --record`, made with the same model: fingerprints are compared. Without
``--workdir``, a model that is already bundled gets a new card.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcinr.model.finding import load
from vcinr.model.model import Model
from vcinr.model.places import BUNDLED
from vcinr.report.records import check_run
from vcinr.trees import write_atomically

MAX_BYTES = 10_000_000
"""Largest size of one bundled model."""
MAX_TOTAL_BYTES = 40_000_000
"""Largest size of all bundled models together."""
CARD = "README.md"
INFO_KEYS = ("command", "config", "config_name", "duration_s", "starts")

MODELS = {
    "tiny": "For small pictures, 32×32 and the like. Larger ones are cut into patches.",
    "photo": "For photographs of any size, which are cut into patches; what `vcinr encode` takes where no other model is named.",
    "speech": "For mono speech at 16 kHz and sound like it; what `vcinr encode` takes for sound where no other model is named.",
    "temperature": "For smooth fields on a region's grid of latitudes and longitudes, in tiles; what `vcinr encode` takes for "
    "regions where no other model is named. It has seen temperature alone.",
    "gates_tiny": "To take apart: VC-INR in its published form, shortly trained, on 32×32 pictures. `tiny` compresses better.",
    "gates_photo": "To take apart: VC-INR in its published form, shortly trained, on photographs. `photo` compresses better.",
    "analysis_tiny": "To take apart: the field of `gates_tiny` behind an affine analysis, with Gauss–Newton steps in encoding.",
    "analysis_photo": "To take apart: the field of `gates_photo` behind an affine analysis, with Gauss–Newton steps in encoding.",
}

DATA = {
    "cifar10_small": (
        "5,000 training pictures of CIFAR-10 (A. Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009), "
        "`cifar10_small.npz` in `$VCINR_DATA`: the first 4,500 to train on, the other 500 for validation. CIFAR-10 is public, "
        "for research, without a licence of its own; its pictures were gathered from the web and belong to their owners."
    ),
    "photos": (
        "Lossless colour photographs, `photos/` in `$VCINR_DATA`: 85 crops of DIV2K's validation pictures (Agustsson and Timofte "
        "2017; for academic research) and 70 of Urban100 (Huang et al. 2015), 256×256 each, 14 of the McMaster set (Zhang et al. "
        "2011), 500×500, and one each of imageio and of an AVIF sample collection. A hash of the file name puts about a tenth "
        "aside for validation. Some are for research or non-commercial use only. No picture of Kodak's set is among them."
    ),
    "speech": (
        "103 recordings of LibriSpeech (Panayotov et al. 2015; CC BY 4.0), train-clean-100, one utterance of each speaker, "
        "`speech/` in `$VCINR_DATA`, through resemble-ai/Resemblyzer; 17 others "
        "for validation. The test recordings are of other speakers."
    ),
    "era5_region": (
        "340 fields of ERA5 temperature at 2 m over Italy, three-hourly, from the Copernicus Climate Change Service (Hersbach et "
        "al. 2020; contains modified Copernicus information, free to use with this notice), "
        "`climate/era5_t2m_region_43x48.npz` in `$VCINR_DATA`; 40 later ones for "
        "validation, a day apart. The test fields are later still."
    ),
    "demo": "Colour photographs in scikit-image's wheel (see its licence files): `python -m experiments.prepare demo`.",
}
"""``data.name`` of a config → description of the data and their terms."""

CODECS = {
    "contextual_inr": "a linear field (no gates, no hypernetwork) with a context prior, of no paper; to commit fb99b33 part of "
    "the codec and the config file `vc_inr`",
    "vc_inr": "the system of Schwarz et al. 2023; where the config enables `amortised` or `adaptation.projection_steps`, not the "
    "paper's way to latents",
}
"""Codec → remark for readers of the card."""

COLUMNS = (
    ("point", "point", "d"),
    ("λ", "lambda", "g"),
    ("effort", "effort", "d"),
    ("`bpp_file`", "bpp_file", ".3f"),
    ("`bpp_container`", "bpp_container", ".3f"),
    ("`bpp_payload`", "bpp_payload", ".3f"),
    ("kbps", "kbps", ".2f"),
    ("PSNR dB", "psnr_db", ".2f"),
)


def release(workdir: str | Path, name: str, results: Sequence[str | Path], out: str | Path = BUNDLED) -> Path:
    """Writes the model of ``workdir`` and its card to ``out``/``name``, and returns that folder.

    Args:
      workdir: of `experiments.train`.
      name: of the bundled model, a key of `MODELS`.
      results: records of `vcinr.report.records.save_run`.
      out: folder of the bundled models.

    Raises:
      ValueError: the model is not float16, was not made by `experiments.train` on a known data set, is too large, or is not the
        one that was measured. Nothing is written then.
    """
    trained = load(Path(workdir) / "model")
    check_model(trained)
    records = [read_record(path, trained) for path in results]
    if not records:
        raise ValueError("a card without results says little: name a record (python -m experiments.evaluate --record=…)")
    model = Model(trained.codec, trained.params, trained.points, without_folders(trained.info), trained.precision)
    with tempfile.TemporaryDirectory() as scratch:
        size = _write(Path(scratch) / name, model, name, records)
    others = sum(folder_bytes(folder) for folder in Path(out).glob("*/") if folder.name != name)
    if size > MAX_BYTES:
        raise ValueError(f"the model has {size:,} bytes, more than {MAX_BYTES:,}: train a smaller one, or one of fewer points")
    if size + others > MAX_TOTAL_BYTES:
        raise ValueError(f"with {size:,} bytes beside {others:,} the models would have more than {MAX_TOTAL_BYTES:,} together")
    target = Path(out) / name
    _write(target, model, name, records)
    return target


def renew_card(name: str, results: Sequence[str | Path], out: str | Path = BUNDLED) -> Path:
    """Writes a new card of the model in ``out``/``name`` and returns that folder. Errors as `release`."""
    folder = Path(out) / name
    model = load(folder)
    records = [read_record(path, model) for path in results]
    write_atomically(folder / CARD, card(model, name, records).encode())
    return folder


def check_model(model: Model) -> None:
    """ValueError where a model cannot be bundled; does not check its size and its records."""
    if model.precision != "float16":
        raise ValueError(f"the model's arrays are {model.precision}: train with --config.model_precision=float16")
    missing = [key for key in INFO_KEYS if not model.info.get(key)]
    if missing:
        raise ValueError(f"the model does not say its {', '.join(missing)}: train it with python -m experiments.train")
    if (data := model.info["config"]["data"]["name"]) not in DATA:
        raise ValueError(f"the terms of the data set {data!r} are not known: add them to DATA in experiments/release.py")
    if not all(start["git_revision"] for start in model.info["starts"]):
        raise ValueError("the model does not say of which commit it is: train it in a git checkout")
    if found := re.search(r"=['\"]?([/~][^\s'\"]*)", model.info["command"]):
        raise ValueError(
            f"the training command names a folder of one machine, {found[1]}: train from the checkout, with $VCINR_DATASETS_DIR"
        )


def without_folders(info: Mapping[str, Any]) -> dict[str, Any]:
    """A model's info without the command line of each start, which names files of the machine; ``command`` remains."""
    return {**info, "starts": [{key: value for key, value in start.items() if key != "argv"} for start in info["starts"]]}


def read_record(path: str | Path, model: Model) -> dict[str, Any]:
    """A record, reduced to the rows of this model. ValueError unless their fingerprints are those of all the model's points."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    check_run(record, str(path))
    rows = [row for row in record["points"] if row["codec"] == model.codec.name]
    if {row.get("fingerprint") for row in rows} != {point["fingerprint"] for point in model.points}:
        raise ValueError(f"{path} was measured with another model: run experiments.evaluate on this workdir again, with --record")
    return {**record, "points": rows}


def card(model: Model, name: str, records: Sequence[Mapping[str, Any]]) -> str:
    """The model card, in Markdown; the model must be saved already, because the card names its size."""
    info, start = model.info, model.info["starts"][-1]
    data, environment = info["config"]["data"]["name"], start["environment"]
    versions = ", ".join(f"{key} {environment[key]}" for key in ("python", "jax", "jaxlib", "flax", "optax", "numpy"))
    count = len(info["starts"])
    duration = f"{info['duration_s']:,.0f} s" + (f" (the last of {count} starts)" if count > 1 else "")
    device = f"{environment['device_kind']} × {environment['device_count']}, {environment['cpu_count']} CPU cores"
    suffix, kind = model.modality.write_suffixes[0], model.modality.name.replace("_", " ")
    patch = "×".join(map(str, model.codec.patch)) or "none, signals whole"
    about_codec = f": {CODECS[model.codec.name]}" if model.codec.name in CODECS else ""
    return f"""# {name}

{MODELS[name]}

    vcinr encode in{suffix} out.vcinr --model {name} --point {len(model.points) // 2}
    vcinr decode out.vcinr back{suffix}

Written by `python -m experiments.release`; do not edit.

| | |
|---|---|
| codec | `{model.codec.name}`{about_codec} |
| patch | {patch} |
| operating points | {len(model.points)} |
| arrays | {model.precision}, {model.num_bytes / 1e6:.2f} MB |
| licence | Apache-2.0, as the code; mind the terms of the data |

## Data

{DATA[data]}

No {kind} of the data is in this model: it holds what was learned from all of them together, weights and coding tables.

## Training

    python -m experiments.prepare {data}
    {info["command"]}

| | |
|---|---|
| config | `{info["config_name"]}` |
| seed | {info["config"]["seed"]} |
| wall time | {duration} |
| device | {device} |
| versions | {versions} |
| commit | {start["git_revision"]} |
| begun | {info["starts"][0]["time"]} |

## Results

From files that were decoded again; means per signal. What each rate counts is said in `docs/results.md`.

{chr(10).join(map(results_section, records))}"""


def results_section(record: Mapping[str, Any]) -> str:
    """One record as a section of the card."""
    rows = record["points"]
    columns = [column for column in COLUMNS if any(row.get(column[1]) is not None for row in rows)]
    lines = [[heading for heading, _, _ in columns], ["--:"] * len(columns)]
    for row in rows:
        lines.append([format(row[key], spec) if row.get(key) is not None else "–" for _, key, spec in columns])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    about = f"{rows[0]['dataset']}, {rows[0]['split']}: {rows[0]['num_signals']} signals"
    notes = f"\n{record['notes']}\n" if record["notes"] else ""
    source = f"`{record['command']}`, measured on {record['device']}, {record['date']}, commit {record['commit']}."
    return f"### {about}\n\n{table}\n{notes}\n{source}\n"


def folder_bytes(folder: Path) -> int:
    """Total size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write(folder: Path, model: Model, name: str, records: Sequence[Mapping[str, Any]]) -> int:
    model.save(folder)
    write_atomically(folder / CARD, card(model, name, records).encode())
    return folder_bytes(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Releases a model; returns the exit status, 1 where it cannot be bundled."""
    parser = argparse.ArgumentParser(prog="python -m experiments.release", description="Bundles a trained model with its card.")
    parser.add_argument("--workdir", help="where experiments.train wrote its model; default: the bundled model gets a new card")
    parser.add_argument("--name", required=True, choices=MODELS, help="what it will be called")
    parser.add_argument("--results", required=True, nargs="+", help="records of experiments.evaluate")
    parser.add_argument("--out", default=BUNDLED, help="the folder of bundled models (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        if options.workdir is None:
            folder = renew_card(options.name, options.results, options.out)
        else:
            folder = release(options.workdir, options.name, options.results, options.out)
    except (OSError, ValueError) as error:
        print(f"release: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(f"wrote {folder}, {folder_bytes(folder) / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

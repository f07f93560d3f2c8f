"""Records: measured points with what produced them, one JSON file per run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcinr.provenance import provenance
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
        raise ValueError(f"{name}: lacks {', '.join(missing)}; write it with vcinr.report.records.save_run")
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

"""Studies: what an experiment found out about a method, kept as JSON with what produced it, rendered as a section of a page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcinr.provenance import provenance
from vcinr.trees import write_atomically

KEYS = ("title", "about", "command", "commit", "device", "date", "versions", "duration_s", "columns", "rows", "notes", "figures")


def save_study(
    path: str | os.PathLike,
    *,
    title: str,
    about: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    command: str,
    duration_s: float,
    notes: str = "",
    figures: Sequence[str] = (),
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes a table of findings with what produced it as JSON, and returns what was written.

    about: what was asked and how it was measured.   columns, rows: the table; cells are text or numbers, one per column.
    command: what was run, without paths that mean nothing elsewhere.   notes: what came out, or must be known.
    figures: names of pictures beside the file.   source: `vcinr.provenance.provenance` of when the measuring began; None: of now.
    Raises ValueError for a row that does not fit the columns.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row of the study {title!r} has {len(row)} cells for {len(columns)} columns: {list(row)}")
    study = {
        "title": title,
        "about": about,
        "command": command,
        **(provenance() if source is None else source),
        "duration_s": round(float(duration_s), 1),
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "notes": notes,
        "figures": list(figures),
    }
    write_atomically(path, (json.dumps(study, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return study


def load_studies(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """All studies of a folder by file name; none where there is no folder. ValueError, naming the file, for anything else."""
    studies = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            study = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name}: not JSON ({error})") from error
        missing = [key for key in KEYS if key not in study]
        if missing:
            raise ValueError(f"{path.name}: lacks {', '.join(missing)}; write it with vcinr.report.studies.save_study")
        studies.append(study)
    return studies


def study_table(study: Mapping[str, Any]) -> str:
    """A study's table in Markdown."""
    rule = "|---" + "|--:" * (len(study["columns"]) - 1) + "|"
    rows = [study["columns"], *study["rows"]]
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join([lines[0], rule, *lines[1:]])


def study_section(study: Mapping[str, Any], figures: str) -> str:
    """A study as a section in Markdown; figures: folder of its pictures, as the page sees it."""
    versions = ", ".join(f"{name} {version}" for name, version in study["versions"].items())
    source = (
        f"`{study['command']}`, {study['duration_s']:,.0f} s on {study['device']}, {study['date']}, "
        f"commit {study['commit']}; {versions}."
    )
    pictures = [f"![{study['title']}]({figures}/{name})" for name in study["figures"]]
    parts = [f"## {study['title']}", study["about"], *pictures, study_table(study), study["notes"], source]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)

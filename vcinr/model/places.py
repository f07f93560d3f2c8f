"""Where models are: bundled, named by an environment variable, or in a folder; their descriptions, read without JAX."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcinr.config import nearest

FORMAT = 1
ABOUT = "model.json"
BUNDLED = Path(__file__).parent.parent / "models"
SEARCH_VARIABLE = "VCINR_MODELS"


class ModelError(ValueError):
    """A model directory that cannot be used: missing, damaged, or from another version."""


def model_folders(places: Sequence[str | os.PathLike] | None = None) -> list[Path]:
    """Folders of models in ``places``, each a model or a folder of models.

    Default: those at hand, which are bundled with the package, then named by the environment variable VCINR_MODELS.
    """
    if places is None:
        places = [BUNDLED, *filter(None, os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep))]
    found = []
    for place in map(Path, places):
        found += [place] if (place / ABOUT).is_file() else sorted(path.parent for path in place.glob(f"*/{ABOUT}"))
    return found


def locate(model: str | os.PathLike) -> Path | None:
    """The folder of the model at this path, or else of this name among those at hand; None where there is none."""
    if (Path(model) / ABOUT).is_file():
        return Path(model)
    return next((place for place in model_folders() if place.name == os.fspath(model)), None)


def bundled(name: str) -> Path | None:
    """The folder of a model that came with the package; None where it did not."""
    return BUNDLED / name if (BUNDLED / name / ABOUT).is_file() else None


def read_about(folder: Path) -> dict[str, Any]:
    """model.json as `Model.save` wrote it; ModelError for anything else."""
    path = folder / ABOUT
    try:
        about = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    if not isinstance(about, dict) or "format" not in about:
        raise ModelError(f"{path} is no model: it names no format")
    if about["format"] != FORMAT:
        raise ModelError(f"{path} has format {about['format']}; this vcinr reads format {FORMAT}: use a vcinr of its time")
    if about.pop("sha256", None) != sha256(canonical(about)):
        raise ModelError(f"{path} is not as it was written (its checksum differs): restore it, or save the model again")
    return about


def hint(folder: Path) -> str:
    """What to add to "no model in …"."""
    if (folder / "model" / ABOUT).is_file():
        return f"; did you mean {folder / 'model'}?"
    if len(folder.parts) > 1:
        return ""
    names = [place.name for place in model_folders()]
    known = nearest(folder.name, names) if names else " (there are none)"
    return f", and no model of that name is at hand{known}"


def canonical(about: Mapping[str, Any]) -> bytes:
    """The bytes of ``model.json`` that its checksum covers."""
    return json.dumps(about, sort_keys=True, separators=(",", ":")).encode()


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()

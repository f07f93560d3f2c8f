"""A model's folder: ``model.json`` with a checksum of every file, and arrays (safetensors) as they are stored."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vcinr.bitstream.fingerprint import fingerprint
from vcinr.codec import Codec
from vcinr.codecs import make_codec
from vcinr.entropy.tables import Tables
from vcinr.model.places import ABOUT, FORMAT, ModelError, canonical, read_about, sha256
from vcinr.stage import Params
from vcinr.trees import load_tree, save_tree, write_atomically

if TYPE_CHECKING:
    from vcinr.model.model import Model

PRECISIONS = {"float32": np.float32, "float16": np.float16}
SHARED = "shared.safetensors"


@dataclasses.dataclass(frozen=True)
class Stored:
    """What `load_folder` reads: the arguments of `vcinr.model.model.Model`, and the bytes of its files."""

    codec: Codec
    params: Params
    points: list[dict[str, Any]]
    info: dict[str, Any]
    precision: str
    num_bytes: int


def save(model: Model, folder: str | os.PathLike) -> None:
    """Writes ``model.json`` and arrays (safetensors): what is shared once, and one file per point.

    Equal models give equal bytes. ValueError where points or info are no JSON, before anything is written.
    """
    folder = Path(folder)
    about = {
        "format": FORMAT,
        "codec": model.codec.name,
        "config": dataclasses.asdict(model.codec.config),
        "precision": model.precision,
        "points": model.points,
        "info": model.info,
    }
    try:
        about = json.loads(json.dumps(about))
    except (TypeError, ValueError) as error:
        raise ValueError(f"points and info of a model must be JSON: {error}") from error
    trees = {SHARED: {name: value for name, value in model.params.items() if name != "points"}}
    trees |= {point_file(i): model.params["points"][str(i)] for i in range(len(model.points))}
    for name, tree in trees.items():
        save_tree(folder / name, cast_params(tree, model.precision))
    about["files"] = {name: sha256((folder / name).read_bytes()) for name in trees}
    about["sha256"] = sha256(canonical(about))
    # Last, so that a save that is cut short leaves a folder whose checksums don't match, never a mixture that loads.
    write_atomically(folder / ABOUT, (json.dumps(about, indent=1) + "\n").encode())
    for path in folder.glob("point_*.safetensors"):
        if path.name not in trees and re.fullmatch(r"point_\d+", path.stem):
            path.unlink()
    model.num_bytes = num_bytes(folder, trees)


def load_folder(folder: Path) -> Stored:
    """The model in a folder that `save` wrote.

    ModelError where it is damaged: every byte is covered by a checksum, and fingerprints are computed again.
    """
    try:
        about = read_about(folder)
        for name, expected in about["files"].items():
            if sha256((folder / name).read_bytes()) != expected:
                raise ModelError(f"{folder / name} is damaged: its checksum is not the one in {ABOUT}")
        codec = make_codec(about["codec"], about["config"])
        params = load_tree(folder / SHARED)
        params["points"] = {str(i): load_tree(folder / point_file(i)) for i in range(len(about["points"]))}
        params = open_params(params)
        check_precision(about["precision"])
        for i, point in enumerate(about["points"]):
            now = fingerprint(codec, params, i).hex()
            if now != point["fingerprint"]:
                raise ModelError(
                    f"point {i} of the model in {folder} has fingerprint {point['fingerprint']}, but this vcinr computes {now}: "
                    "it decodes otherwise than the vcinr that wrote the model; use that version"
                )
        size = num_bytes(folder, about["files"])
        return Stored(codec, params, about["points"], dict(about["info"]), about["precision"], size)
    except ModelError:
        raise
    except FileNotFoundError as error:
        raise ModelError(f"the model in {folder} is incomplete: {error.filename or error} is missing") from error
    except KeyError as error:
        raise ModelError(f"the model in {folder} is damaged: {error} is missing") from error
    except (TypeError, AttributeError, IndexError, ValueError, OverflowError, OSError) as error:
        raise ModelError(f"the model in {folder} cannot be read: {error}; was it written by another version of vcinr?") from error


def point_file(index: int) -> str:
    """Name of an operating point's arrays."""
    return f"point_{index}.safetensors"


def num_bytes(folder: Path, names: Mapping[str, Any]) -> int:
    """Bytes of a model's files."""
    return sum((folder / name).stat().st_size for name in (ABOUT, *names))


def open_params(params: Params) -> Params:
    """Parameters ready for use: floats as float32, integer tables as `Tables` (which keep the range coder's models)."""
    params = jax.tree.map(lambda a: a.astype(np.float32) if np.issubdtype(a.dtype, np.floating) else a, params)
    points = {
        name: {**point, "tables": Tables.from_arrays(point["tables"])} if "tables" in point else point
        for name, point in params["points"].items()
    }
    return {**params, "points": points}


def check_precision(precision: Any) -> None:
    """ValueError for anything but a key of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; valid are {', '.join(PRECISIONS)}")


def cast_params(tree: Any, precision: str, path: str = "") -> Any:
    """The tree with its floats in the stored precision and its tables as plain arrays."""
    if isinstance(tree, Tables):
        return tree.to_arrays()
    if isinstance(tree, Mapping):
        return {key: cast_params(value, precision, f"{path}/{key}") for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [cast_params(value, precision, f"{path}/{i}") for i, value in enumerate(tree)]
    array = np.asarray(tree)
    if not np.issubdtype(array.dtype, np.floating):
        return array
    with np.errstate(over="ignore"):
        array = array.astype(PRECISIONS[precision])
    if not np.isfinite(array).all():
        raise ValueError(f"parameter {path[1:]} is not finite in {precision}: training has diverged, or it needs float32")
    return array

"""`vcinr models`: the models that one can choose from, as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vcinr.model.finding import built_in, built_in_names, load
from vcinr.model.model import Model
from vcinr.model.places import SEARCH_VARIABLE, bundled, model_folders

MEASURED = (("lambda", "g"), ("bpp", ".3f"), ("psnr_db", ".2f"))


def run(options: argparse.Namespace) -> None:
    """`vcinr models [DIR…]`: models and their operating points."""
    print_models(options.folders, _Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Rich would end the process; `vcinr.cli.main` knows what to do, as for any other output.
        raise


def print_models(places: Sequence[str], console: Console) -> None:
    """Prints models and their operating points.

    places: models, folders of models, or names of either; none: all at hand, which are bundled, then in $VCINR_MODELS, then
    codecs that need no model. ModelError where a place holds no model, or one is damaged.
    """
    folders = [found for place in places for found in model_folders([place]) or [Path(place)]] or model_folders()
    table = Table("model", "codec", "patch", "MB", "point", "name", "λ", "bpp", "PSNR / dB", "fingerprint")
    for folder in folders:
        model = load(folder)
        for i, point in enumerate(model.points):
            about = _described(_called(folder), model) if i == 0 else [""] * 4
            measured = [format(point[key], spec) if point.get(key) is not None else "" for key, spec in MEASURED]
            table.add_row(*about, str(i), str(point["name"]), *measured, point["fingerprint"])
    if not places:
        for name in built_in_names():
            model = built_in(name)
            table.add_row(*_described(name, model), f"0–{len(model.points) - 1}")
    console.print(table)
    print("bpp and PSNR are those of the validation patches at training time, in one container.")
    if not places:
        if not folders:
            print(f"No trained model is at hand: name a folder, or set {SEARCH_VARIABLE} to folders that hold models.")
        print(f"{', '.join(built_in_names())}: built in, need no folder; vcinr models NAME lists their points")


def _described(name: str, model: Model) -> list[str]:
    """What a model is called, its codec, its patch, its size on disk."""
    patch = "×".join(map(str, model.codec.patch)) or "whole"
    return [name, model.codec.name, patch, f"{model.num_bytes / 1e6:.1f}"]


def _called(folder: Path) -> str:
    """What `vcinr.load` takes for the model in a folder: of a bundled one its name alone."""
    return folder.name if bundled(folder.name) == folder else str(folder)

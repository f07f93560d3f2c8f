"""Finding a model: by its folder, its name, or the fingerprint of a file; codecs that need none are built in."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

import jax

from vcinr.codecs import CODECS, make_codec
from vcinr.modalities import MODALITIES
from vcinr.model.folder import load_folder
from vcinr.model.model import Model, make_model
from vcinr.model.places import ABOUT, SEARCH_VARIABLE, ModelError, hint, locate, model_folders, read_about


def open_folder(folder: Path) -> Model:
    """The model in a folder; ModelError as for `load`."""
    stored = load_folder(folder)
    model = Model(stored.codec, stored.params, stored.points, stored.info, stored.precision)
    model.num_bytes = stored.num_bytes
    return model


def load(model: str | os.PathLike, modality: str | None = None) -> Model:
    """The model in a folder that `Model.save` wrote, or of the name of one that is at hand (see `model_folders`), or of a codec
    that needs none (see `built_in`), unless that name is a folder with a model in it.

    modality: of a codec that needs no model, the kind of signal; pictures by default. A model in a folder has one of its own.
    ModelError where there is none, or it is damaged: every byte is covered by a checksum, and fingerprints are computed again.
    """
    folder, name = locate(model), os.fspath(model)
    if folder is not None:
        return open_folder(folder)
    if name in built_in_names() and not (Path(model) / "model" / ABOUT).is_file():
        return built_in(name, modality)
    raise ModelError(f"no model in {Path(model)}: it has no {ABOUT}{hint(Path(model))}")


def built_in_names() -> list[str]:
    """Names of the codecs whose files decode by themselves."""
    return [name for name, (codec, _) in CODECS.items() if not codec.needs_model]


def built_in(name: str, modality: str | None = None) -> Model:
    """A codec that needs no model, with its default config: for one modality, by default pictures."""
    codec = make_codec(name, {} if modality is None else {"modality": modality})
    return make_model(codec, codec.init(jax.random.key(0)), {"about": "built in: its files need no model"})


def find_by_fingerprint(fingerprint: bytes) -> Model:
    """The model that decodes files of this fingerprint: at hand, or built in. ModelError where there is none."""
    folders, unreadable = model_folders(), []
    for folder in folders:
        try:
            points = read_about(folder)["points"]
        except ModelError as error:
            unreadable.append(str(error))
            continue
        if any(point["fingerprint"] == fingerprint.hex() for point in points):
            return load(folder)
    # Last: to make them, all codecs are imported and networks are initialised.
    for name, modality in itertools.product(built_in_names(), MODALITIES):
        with contextlib.suppress(ValueError):  # Not every codec has every kind of signal.
            if fingerprint in (model := built_in(name, modality)).fingerprints:
                return model
    at_hand = ", ".join(map(str, folders)) or "there are none"
    raise ModelError(
        f"no model at hand has the fingerprint {fingerprint.hex()} (at hand: {at_hand}): give --model DIR, or set "
        f"{SEARCH_VARIABLE} to where it is" + "".join(f"; {text}" for text in unreadable)
    )

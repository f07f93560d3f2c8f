"""A trained model, in hand and on disk: one codec, its parameters, its operating points."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vcinr.bitstream import container
from vcinr.bitstream import payload as payload_coding
from vcinr.bitstream.container import DEFAULT_MAX_PIXELS, BitstreamError
from vcinr.bitstream.fingerprint import fingerprint
from vcinr.codec import Code, Codec, grid_of
from vcinr.codecs import CODECS, make_codec
from vcinr.modalities.picture import MODALITIES
from vcinr.model.folder import (
    ABOUT,
    FORMAT,
    SEARCH_VARIABLE,
    SHARED,
    ModelError,
    canonical,
    cast_params,
    check_precision,
    hint,
    model_folders,
    num_bytes,
    open_params,
    point_file,
    read_about,
    sha256,
)
from vcinr.signals.patches import from_values, to_signal
from vcinr.signals.signal import Grid, Signal
from vcinr.stage import Params, Progress
from vcinr.trees import load_tree, save_tree, write_atomically

Folder = str | os.PathLike | None
Report = Progress | None


class Model:
    """A codec with trained parameters; `make_model` makes one, `load` reads one.

    codec: see `vcinr.codec.Codec`.   params: its parameters, already rounded to the stored precision.
    points: one dict an operating point, with at least ``name`` and ``fingerprint`` (hex).   info: what is worth knowing
    (config, data, command, time), JSON-able.   num_bytes: of the model's files, 0 before it is saved or loaded.
    """

    def __init__(
        self,
        codec: Codec,
        params: Params,
        points: Sequence[Mapping[str, Any]],
        info: Mapping[str, Any],
        precision: str = "float32",
    ):
        check_precision(precision)
        self.codec = codec
        self.params = params
        self.points = [dict(point) for point in points]
        self.info = dict(info)
        self.precision = precision
        self.num_bytes = 0
        self.fingerprints: dict[bytes, int] = {}
        for i, point in enumerate(self.points):
            # Points that decode alike, as all of a codec whose files need no model, share a fingerprint.
            self.fingerprints.setdefault(bytes.fromhex(point["fingerprint"]), i)
        self._modality = MODALITIES[codec.modality]

    def encode(
        self, array: np.ndarray, point: int = 0, effort: int = 0, *, workdir: Folder = None, progress: Report = None
    ) -> bytes:
        """The file of one signal, e.g. uint8 [h, w, 3]. ValueError for an array that the modality cannot hold.

        workdir: where a codec that optimises for long keeps what it has reached, and goes on from.
        progress: called with what is being done, steps done and steps in all, by a codec that takes long.
        """
        return self.encode_batch([array], point, effort, workdir=workdir, progress=progress)[0]

    def encode_batch(
        self, arrays: Sequence[np.ndarray], point: int = 0, effort: int = 0, *, workdir: Folder = None, progress: Report = None
    ) -> list[bytes]:
        """One file a signal. A symbol on the edge of rounding may fall otherwise than in a batch of another size."""
        codes, grids = self.make_codes(arrays, point, effort, workdir=workdir, progress=progress)
        return [self.write_codes(point, [code], [grid]) for code, grid in zip(codes, grids, strict=True)]

    def encode_together(
        self, arrays: Sequence[np.ndarray], point: int = 0, effort: int = 0, *, workdir: Folder = None, progress: Report = None
    ) -> bytes:
        """One container for all signals, which share its header and its stream."""
        return self.write_codes(point, *self.make_codes(arrays, point, effort, workdir=workdir, progress=progress))

    def decode(self, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray:
        """The signal of a file. BitstreamError for anything but a whole file of one signal made with this model."""
        return self.decode_batch([data], max_pixels)[0]

    def decode_batch(self, files: Sequence[bytes], max_pixels: int = DEFAULT_MAX_PIXELS) -> list[np.ndarray]:
        """The signals of many files, of one signal each; ``max_pixels`` holds for each file."""
        return [self.denormalise(values) for values in self.decode_values_batch(files, max_pixels)]

    def decode_together(self, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> list[np.ndarray]:
        """All signals of a container; of symbols, half of ``max_pixels`` are decoded at most, or 2^25, or 4 a sample."""
        point, codes, grids = self.read_codes(data, max_pixels)
        return [self.denormalise(values) for values in self._synthesise([point] * len(codes), codes, grids)]

    def decode_values_batch(self, files: Sequence[bytes], max_pixels: int = DEFAULT_MAX_PIXELS) -> list[np.ndarray]:
        """The signals of many files in normalised units, float32 [*shape, c], neither clipped nor rounded."""
        points, codes, grids = [], [], []
        for i, data in enumerate(files):
            try:
                if (count := len(container.peek(data, max_pixels).shapes)) > 1:
                    raise BitstreamError(f"the file holds {count} signals: use Model.decode_together")
                point, (code,), (grid,) = self.read_codes(data, max_pixels)
            except BitstreamError as error:
                raise error if len(files) == 1 else BitstreamError(f"file {i} of 0 to {len(files) - 1}: {error}") from error
            points.append(point)
            codes.append(code)
            grids.append(grid)
        return self._synthesise(points, codes, grids)

    def denormalise(self, values: np.ndarray) -> np.ndarray:
        """What `decode` gives of what `decode_values_batch` gives, e.g. uint8 [h, w, 3] of float32 [h, w, 3]."""
        return self._modality.denormalise(values)

    def join(self, files: Sequence[bytes], max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
        """One container of the signals of many files, in order, without encoding them again.

        ValueError where points decode differently. They do not where files name their networks themselves, at most 16 different
        ones a container. The bytes are those of `encode_together` on the same symbols.
        """
        read = [self.read_codes(data, max_pixels) for data in files]
        points = {point for point, _, _ in read}
        if len(points) != 1:
            raise ValueError(f"a container holds signals of one operating point, not of {sorted(points)}")
        codes = [code for _, part, _ in read for code in part]
        return self.write_codes(points.pop(), codes, [grid for _, _, part in read for grid in part])

    def make_codes(
        self, arrays: Sequence[np.ndarray], point: int, effort: int = 0, *, workdir: Folder = None, progress: Report = None
    ) -> tuple[list[Code], list[Grid]]:
        """The symbols that `write_codes` writes, and the grid, of each signal. ValueError as for `encode`."""
        if not 0 <= point < len(self.points):
            raise ValueError(f"point {point} does not exist: this model has points 0 to {len(self.points) - 1}")
        signals = [self._signal(array) for array in arrays]
        where = None if workdir is None else os.fspath(workdir)
        codes = []
        if signals:
            codes = self.codec.encode(self.params, signals, point, effort=effort, workdir=where, progress=progress)
        return codes, [signal.grid for signal in signals]

    def write_codes(self, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> bytes:
        """The file of one or more signals' symbols."""
        fingerprint = bytes.fromhex(self.points[point]["fingerprint"])
        metas = [code.meta for code in codes]
        head = container.head_bytes(fingerprint, [grid.shape for grid in grids], metas, self.codec.meta_types)
        payload = payload_coding.encode_payload(self.codec, self.params, point, grids, codes)
        return container.write(head, payload, container.checksum(head, payload_coding.ordered_streams(self.codec, codes)))

    def read_codes(self, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, list[Code], list[Grid]]:
        """(point, codes, grids) of a file: its symbols, checked against its CRC. BitstreamError as for `decode`."""
        fingerprint = container.peek(data, max_pixels).fingerprint
        point = self.fingerprints.get(fingerprint)
        if point is None:
            own = ", ".join(p["fingerprint"] for p in self.points)
            raise BitstreamError(
                f"the file was made with another model: its fingerprint {fingerprint.hex()} is none of this one's ({own})"
            )
        frame = container.read(data, self.codec.meta_types, max_pixels)
        self.check_size(frame.shapes, max_pixels)
        grids = [grid_of(self.codec, shape) for shape in frame.shapes]
        max_symbols = max(payload_coding.MAX_SYMBOLS, max_pixels // 2)
        codes = payload_coding.decode_payload(self.codec, self.params, point, grids, frame.metas, frame.payload, max_symbols)
        container.check(frame, payload_coding.ordered_streams(self.codec, codes))
        return point, codes, grids

    def check_size(self, shapes: Sequence[tuple[int, ...]], max_pixels: int) -> None:
        """BitstreamError where signals of these shapes cannot be decoded within ``max_pixels`` samples.

        Whole patches are counted, for that is what decoding costs: a strip of 1 × 10⁶ is 32 times as much in patches of 32 × 32.
        A few patches are within any limit.
        """
        rank, patch = self._modality.coord_dim, tuple(self.codec.patch)
        if any(len(shape) != rank for shape in shapes):
            raise BitstreamError(f"shape {shapes[0]} does not fit this model's signals, which have {rank} dimensions")
        grids = [grid_of(self.codec, shape) for shape in shapes]
        samples = sum(grid.num_patches * math.prod(grid.patch) for grid in grids)
        if samples > max(max_pixels, 4 * math.prod(patch)):
            what = f"its patches of {'×'.join(map(str, patch))} hold" if patch else "it holds"
            raise BitstreamError(f"{what} {samples} samples; the limit is {max_pixels}")

    def payload_bytes(self, data: bytes) -> int:
        """Bytes of a file's coded symbols alone."""
        return len(container.read(data, self.codec.meta_types, 2**63).payload)

    def estimated_bits(self, data: bytes) -> float:
        """What the tables say that a file's symbols cost, in bits."""
        point, codes, grids = self.read_codes(data, 2**63)
        return sum(payload_coding.estimated_bits(self.codec, self.params, point, g, c) for g, c in zip(grids, codes, strict=True))

    def modelled_bits(self, files: Sequence[bytes]) -> list[float] | None:
        """What the float entropy model says of each file's symbols, in bits; None for a codec that has none beside its tables."""
        if not hasattr(self.codec, "modelled_bits"):
            return None
        read = [self.read_codes(data, 2**63) for data in files]
        bits = [self.codec.modelled_bits(self.params, point, codes) for point, codes, _ in read]
        return None if None in bits else [sum(each) for each in bits]

    def choose_point(
        self,
        array: np.ndarray,
        bpp: float | None = None,
        psnr_db: float | None = None,
        effort: int = 0,
        *,
        workdir: Folder = None,
        progress: Report = None,
    ) -> int:
        """The operating point for one signal: the best within ``bpp``, or the cheapest that reaches ``psnr_db``.

        Rates are those of whole files. Every point is tried on the signal itself; but a codec with a search of its own (its
        ``choose_point``), whose points are in order of size, chooses by that within ``bpp``, and for ``psnr_db`` tries them only
        until one reaches it. ValueError where none fits, naming the nearest.
        """
        if (bpp is None) == (psnr_db is None):
            raise ValueError("choose by bpp or by psnr_db, one of the two")
        searches = hasattr(self.codec, "choose_point")
        if searches and bpp is not None:
            where = None if workdir is None else os.fspath(workdir)
            return self.codec.choose_point(self.params, self._signal(array), bpp, workdir=where, progress=progress)
        tried = []
        for point in range(len(self.points)):
            data = self.encode(array, point, effort, workdir=workdir, progress=progress)
            decoded = self.decode(data, max_pixels=2**63)
            error = np.mean(np.square(decoded.astype(np.float64) - np.asarray(array)))
            quality = 10.0 * math.log10(self._modality.peak**2 / error) if error > 0 else math.inf
            tried.append((8.0 * len(data) / math.prod(decoded.shape[:-1]), quality, point))
            if searches and quality >= psnr_db:
                return point
        if bpp is not None:
            fitting = [row for row in tried if row[0] <= bpp]
            if not fitting:
                raise ValueError(f"no operating point fits {bpp:g} bpp; the cheapest takes {min(tried)[0]:.4f}")
            return max(fitting, key=lambda row: row[1])[2]
        fitting = [row for row in tried if row[1] >= psnr_db]
        if not fitting:
            raise ValueError(f"no operating point reaches {psnr_db:g} dB; the best has {max(row[1] for row in tried):.2f}")
        return min(fitting)[2]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes ``model.json`` and arrays (safetensors): what is shared once, and one file a point.

        Equal models give equal bytes. ValueError where points or info are no JSON, before anything is written.
        """
        folder = Path(folder)
        about = {
            "format": FORMAT,
            "codec": self.codec.name,
            "config": dataclasses.asdict(self.codec.config),
            "precision": self.precision,
            "points": self.points,
            "info": self.info,
        }
        try:
            about = json.loads(json.dumps(about))
        except (TypeError, ValueError) as error:
            raise ValueError(f"points and info of a model must be JSON: {error}") from error
        trees = {SHARED: {name: value for name, value in self.params.items() if name != "points"}}
        trees |= {point_file(i): self.params["points"][str(i)] for i in range(len(self.points))}
        for name, tree in trees.items():
            save_tree(folder / name, cast_params(tree, self.precision))
        about["files"] = {name: sha256((folder / name).read_bytes()) for name in trees}
        about["sha256"] = sha256(canonical(about))
        # Last, so that a save that is cut short leaves a folder whose checksums don't match, never a mixture that loads.
        write_atomically(folder / ABOUT, (json.dumps(about, indent=1) + "\n").encode())
        for path in folder.glob("point_*.safetensors"):
            if path.name not in trees and re.fullmatch(r"point_\d+", path.stem):
                path.unlink()
        self.num_bytes = num_bytes(folder, trees)

    def _signal(self, array: Any) -> Signal:
        values = self._modality.normalise(np.asarray(array))
        return to_signal(values, grid_of(self.codec, values.shape[:-1]).patch)

    def _synthesise(self, points: Sequence[int], codes: Sequence[Code], grids: Sequence[Grid]) -> list[np.ndarray]:
        """Values of signals, float32 [*shape, c]; all of one point in joint batches."""
        values: list[np.ndarray] = [np.empty(0)] * len(codes)
        for point in sorted(set(points)):
            chosen = [i for i, each in enumerate(points) if each == point]
            parts = self.codec.synthesise(self.params, point, [codes[i] for i in chosen], [grids[i] for i in chosen])
            for i, part in zip(chosen, parts, strict=True):
                if not np.isfinite(part).all():
                    raise BitstreamError("the file's symbols decode to values that are not finite: no encoder has written it")
                values[i] = from_values(part, grids[i])
        return values


def make_model(
    codec: Codec, params: Params, info: Mapping[str, Any], points: Sequence[Mapping[str, Any]] = (), precision: str = "float32"
) -> Model:
    """A model from what training made: parameters rounded to the stored precision, then fingerprinted.

    points: more to say of each operating point, e.g. its λ or its rate and quality on a validation split. Its ``name`` is what
        the codec calls it (``point_name``, where it has one), or else its number.
    precision: "float32" or "float16". ValueError for parameters that are not finite in it.
    """
    check_precision(precision)
    count = codec.num_points(params)
    if points and len(points) != count:
        raise ValueError(f"points describes {len(points)} operating points, the parameters hold {count}")
    params = open_params(cast_params(jax.device_get(params), precision))
    name = getattr(codec, "point_name", str)
    described = [
        {"name": name(i), **(points[i] if points else {}), "fingerprint": fingerprint(codec, params, i).hex()}
        for i in range(count)
    ]
    return Model(codec, params, described, info, precision)


def load(model: str | os.PathLike) -> Model:
    """The model in a folder that `Model.save` wrote, or of the name of one that is at hand (see `model_folders`), or of a codec
    that needs none (see `built_in`), unless that name is a folder with a model in it.

    ModelError where there is none, or it is damaged: every byte is covered by a checksum, and fingerprints are computed again.
    """
    folder = Path(model)
    if not (folder / ABOUT).is_file():
        named = [place for place in model_folders() if place.name == os.fspath(model)]
        if not named and os.fspath(model) in built_in_names() and not (folder / "model" / ABOUT).is_file():
            return next(built_in(os.fspath(model)))
        if not named:
            raise ModelError(f"no model in {folder}: it has no {ABOUT}{hint(folder)}")
        folder = named[0]
    try:
        about = read_about(folder)
        for name, expected in about["files"].items():
            if sha256((folder / name).read_bytes()) != expected:
                raise ModelError(f"{folder / name} is damaged: its checksum is not the one in {ABOUT}")
        codec = make_codec(about["codec"], about["config"])
        params = load_tree(folder / SHARED)
        params["points"] = {str(i): load_tree(folder / point_file(i)) for i in range(len(about["points"]))}
        loaded = Model(codec, open_params(params), about["points"], about["info"], about["precision"])
        for i, point in enumerate(loaded.points):
            now = fingerprint(codec, loaded.params, i).hex()
            if now != point["fingerprint"]:
                raise ModelError(
                    f"point {i} of the model in {folder} has fingerprint {point['fingerprint']}, but this vcinr computes {now}: "
                    "it decodes otherwise than the vcinr that wrote the model; use that version"
                )
    except ModelError:
        raise
    except FileNotFoundError as error:
        raise ModelError(f"the model in {folder} is incomplete: {error.filename or error} is missing") from error
    except KeyError as error:
        raise ModelError(f"the model in {folder} is damaged: {error} is missing") from error
    except (TypeError, AttributeError, IndexError, ValueError, OverflowError, OSError) as error:
        raise ModelError(f"the model in {folder} cannot be read: {error}") from error
    loaded.num_bytes = num_bytes(folder, about["files"])
    return loaded


def built_in_names() -> list[str]:
    """Names of the codecs whose files decode by themselves."""
    return [name for name, (codec, _) in CODECS.items() if not codec.needs_model]


def built_in(name: str) -> Iterator[Model]:
    """The models, with its default config, of a codec that needs none: that of pictures, then one of each other modality."""
    first = make_codec(name, {})
    others = [modality for modality in MODALITIES if modality != first.modality]
    for codec in (first, *(make_codec(name, {"modality": modality}) for modality in others)):
        yield make_model(codec, codec.init(jax.random.key(0)), {"about": "built in: its files need no model"})


def find_by_fingerprint(fingerprint: bytes) -> Model:
    """The model that decodes files of this fingerprint: built in, or at hand. ModelError where there is none."""
    for model in itertools.chain.from_iterable(map(built_in, built_in_names())):
        if fingerprint in model.fingerprints:
            return model
    folders, unreadable = model_folders(), []
    for folder in folders:
        try:
            points = read_about(folder)["points"]
        except ModelError as error:
            unreadable.append(str(error))
            continue
        if any(point["fingerprint"] == fingerprint.hex() for point in points):
            return load(folder)
    at_hand = ", ".join(map(str, folders)) or "there are none"
    raise ModelError(
        f"no model at hand has the fingerprint {fingerprint.hex()} (at hand: {at_hand}): give --model DIR, or set "
        f"{SEARCH_VARIABLE} to where it is" + "".join(f"; {text}" for text in unreadable)
    )

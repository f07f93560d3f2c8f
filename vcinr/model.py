"""A trained model, in hand and on disk: one codec, its parameters, its operating points."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vcinr import bitstream
from vcinr.bitstream import DEFAULT_MAX_PIXELS, BitstreamError
from vcinr.codecs import coding, make_codec
from vcinr.codecs.codec import Code, Codec, Params
from vcinr.entropy.tables import Tables
from vcinr.signals.modalities import MODALITIES
from vcinr.signals.patches import from_values, to_signal
from vcinr.signals.signal import Grid
from vcinr.trees import load_tree, save_tree, write_atomically

FORMAT = 1
SEARCH_VARIABLE = "VCINR_MODELS"
PRECISIONS = {"float32": np.float32, "float16": np.float16}


class ModelError(ValueError):
    """A model directory that cannot be used: missing, damaged, or from another version."""


class Model:
    """A codec with trained parameters.

    codec: see `vcinr.codecs.codec.Codec`.   params: its parameters, already rounded to the stored precision.
    points: one dict an operating point, with at least ``name`` and ``fingerprint`` (hex).   info: what is worth knowing
    (config, data, command, time), JSON-able.
    """

    def __init__(self, codec: Codec, params: Params, points: Sequence[Mapping[str, Any]], info: Mapping[str, Any], precision: str):
        self.codec = codec
        self.params = params
        self.points = [dict(point) for point in points]
        self.info = dict(info)
        self.precision = precision
        self.num_bytes = 0
        self._modality = MODALITIES[codec.modality]
        self._by_fingerprint = {bytes.fromhex(point["fingerprint"]): i for i, point in enumerate(self.points)}

    def encode(self, array: np.ndarray, point: int = 0, effort: int = 0) -> bytes:
        """The file of one signal, e.g. uint8 [h, w, 3]. ValueError for an array that the modality cannot hold."""
        return self.encode_batch([array], point, effort)[0]

    def encode_batch(self, arrays: Sequence[np.ndarray], point: int = 0, effort: int = 0) -> list[bytes]:
        """One file a signal."""
        codes, grids = self._encode(arrays, point, effort)
        return [self._write([grid], [code], point) for grid, code in zip(grids, codes, strict=True)]

    def encode_together(self, arrays: Sequence[np.ndarray], point: int = 0, effort: int = 0) -> bytes:
        """One container for all signals, which share its header and its stream."""
        codes, grids = self._encode(arrays, point, effort)
        return self._write(grids, codes, point)

    def decode(self, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray:
        """The signal of a file. BitstreamError for anything but a whole file made with this model."""
        return self.decode_batch([data], max_pixels)[0]

    def decode_batch(self, files: Sequence[bytes], max_pixels: int = DEFAULT_MAX_PIXELS) -> list[np.ndarray]:
        """The signals of many files, of one signal each."""
        return [self._modality.denormalise(values) for values in self._decode_values(files, max_pixels, single=True)]

    def decode_together(self, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> list[np.ndarray]:
        """All signals of a container."""
        return [self._modality.denormalise(values) for values in self._decode_values([data], max_pixels, single=False)]

    def decode_values_batch(self, files: Sequence[bytes], max_pixels: int = DEFAULT_MAX_PIXELS) -> list[np.ndarray]:
        """The signals of many files in normalised units, float32 [*shape, c], neither clipped nor rounded."""
        return self._decode_values(files, max_pixels, single=True)

    def read_codes(self, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, list[Code], list[Grid]]:
        """(point, codes, grids) of a file: its symbols, checked against its CRC. BitstreamError as for `decode`."""
        peek = bitstream.peek(data, max_pixels)
        point = self._by_fingerprint.get(peek.fingerprint)
        if point is None:
            raise BitstreamError(
                f"the file was made with another model: its fingerprint {peek.fingerprint.hex()} is none of this model's "
                f"{', '.join(p['fingerprint'] for p in self.points)}"
            )
        frame = bitstream.read(data, self.codec.meta_types, max_pixels)
        if len(frame.shapes[0]) != len(self.codec.patch):
            raise BitstreamError(f"the file's shape {frame.shapes[0]} does not fit signals of {len(self.codec.patch)} dimensions")
        self._check_padding(frame.shapes, max_pixels)
        grids = [Grid(shape, tuple(self.codec.patch)) for shape in frame.shapes]
        codes = coding.decode_payload(self.codec, self.params, point, grids, frame.metas, frame.payload)
        bitstream.check(frame, coding.ordered_streams(self.codec, codes))
        return point, codes, grids

    def payload_bytes(self, data: bytes) -> int:
        """Bytes of a file's coded symbols alone."""
        return len(bitstream.read(data, self.codec.meta_types).payload)

    def estimated_bits(self, data: bytes) -> float:
        """What the tables say that a file's symbols cost, in bits."""
        point, codes, grids = self.read_codes(data)
        return sum(coding.estimated_bits(self.codec, self.params, point, g, c) for g, c in zip(grids, codes, strict=True))

    def choose_point(self, array: np.ndarray, bpp: float | None = None, psnr_db: float | None = None, effort: int = 0) -> int:
        """The operating point for one signal: the best within ``bpp``, or the cheapest that reaches ``psnr_db``.

        Every point is tried on the signal itself. ValueError where none fits, naming the nearest.
        """
        if (bpp is None) == (psnr_db is None):
            raise ValueError("choose by bpp or by psnr_db, one of the two")
        tried = []
        samples = array.size / self._modality.channels
        for point in range(len(self.points)):
            data = self.encode(array, point, effort)
            error = np.mean(np.square(self.decode(data).astype(np.float64) - array)) / self._modality.peak**2
            tried.append((8.0 * len(data) / samples, float(-10.0 * np.log10(max(error, 1e-12))), point))
        if bpp is not None:
            fitting = [row for row in tried if row[0] <= bpp]
            if not fitting:
                raise ValueError(f"no operating point fits {bpp} bpp; the cheapest takes {min(tried)[0]:.3f}")
            return max(fitting, key=lambda row: row[1])[2]
        fitting = [row for row in tried if row[1] >= psnr_db]
        if not fitting:
            raise ValueError(f"no operating point reaches {psnr_db} dB; the best has {max(row[1] for row in tried):.2f}")
        return min(fitting)[2]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes ``model.json`` and arrays (safetensors): what is shared once, and one file a point."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_tree(folder / "shared.safetensors", _cast({k: v for k, v in self.params.items() if k != "points"}, self.precision))
        for i in range(len(self.points)):
            point = dict(self.params["points"][str(i)])
            save_tree(folder / f"point_{i}.safetensors", _cast(point, self.precision))
        about = {
            "format": FORMAT,
            "codec": self.codec.name,
            "config": dataclasses.asdict(self.codec.config),
            "precision": self.precision,
            "points": self.points,
            "info": self.info,
        }
        write_atomically(folder / "model.json", (json.dumps(about, indent=1) + "\n").encode())
        self.num_bytes = sum(path.stat().st_size for path in _files(folder, len(self.points)))

    def _encode(self, arrays: Sequence[np.ndarray], point: int, effort: int) -> tuple[list[Code], list[Grid]]:
        if not 0 <= point < len(self.points):
            raise ValueError(f"point {point} does not exist: this model has points 0 to {len(self.points) - 1}")
        signals = [to_signal(self._modality.normalise(np.asarray(array)), tuple(self.codec.patch)) for array in arrays]
        codes = self.codec.encode(self.params, signals, point, effort=effort) if signals else []
        return codes, [signal.grid for signal in signals]

    def _write(self, grids: Sequence[Grid], codes: Sequence[Code], point: int) -> bytes:
        head = bitstream.head_bytes(
            bytes.fromhex(self.points[point]["fingerprint"]),
            [grid.shape for grid in grids],
            [code.meta for code in codes],
            self.codec.meta_types,
        )
        payload = coding.encode_payload(self.codec, self.params, point, grids, codes)
        return bitstream.write(head, payload, bitstream.checksum(head, coding.ordered_streams(self.codec, codes)))

    def _check_padding(self, shapes: Sequence[tuple[int, ...]], max_pixels: int) -> None:
        """Patches that hang over the edge cost work too: a 1 × 10⁶ strip is 32 times as many samples in 32 × 32 patches."""
        padded = sum(Grid(s, tuple(self.codec.patch)).num_patches for s in shapes) * int(np.prod(self.codec.patch))
        limit = max(max_pixels, 4 * int(np.prod(self.codec.patch)))
        if padded > limit:
            raise BitstreamError(f"the file's patches cover {padded} samples; the limit (max_pixels) is {max_pixels}")

    def _decode_values(self, files: Sequence[bytes], max_pixels: int, single: bool) -> list[np.ndarray]:
        read = []
        for data in files:
            point, codes, grids = self.read_codes(data, max_pixels)
            if single and len(grids) != 1:
                raise BitstreamError(f"the file holds {len(grids)} signals: use decode_together")
            read += [(point, code, grid) for code, grid in zip(codes, grids, strict=True)]
        values: list[np.ndarray] = [np.empty(0)] * len(read)
        for point in sorted({row[0] for row in read}):
            chosen = [i for i, row in enumerate(read) if row[0] == point]
            parts = self.codec.synthesise(self.params, point, [read[i][1] for i in chosen], [read[i][2] for i in chosen])
            for i, part in zip(chosen, parts, strict=True):
                values[i] = from_values(part, read[i][2])
        return values


def make_model(
    codec: Codec, params: Params, info: Mapping[str, Any], points: Sequence[Mapping[str, Any]] = (), precision: str = "float32"
) -> Model:
    """A model from what training made: parameters rounded to the stored precision, then fingerprinted.

    points: more to say of each operating point, e.g. its λ or its rate and quality on a validation split.
    precision: "float32" or "float16".
    """
    params = open_params(_cast(jax.device_get(params), precision))
    described = [
        {"name": str(i), **(points[i] if points else {}), "fingerprint": coding.fingerprint(codec, params, i).hex()}
        for i in range(codec.num_points(params))
    ]
    return Model(codec, params, described, info, precision)


def load(folder: str | os.PathLike) -> Model:
    """The model that `Model.save` wrote. ModelError where there is none, or it is damaged (fingerprints are computed again)."""
    folder = Path(folder)
    path = folder / "model.json"
    if not path.is_file():
        raise ModelError(f"no model in {folder}: it has no model.json")
    try:
        about = json.loads(path.read_text())
        if about["format"] != FORMAT:
            raise ModelError(f"{path} has format {about['format']}; this vcinr reads format {FORMAT}")
        codec = make_codec(about["codec"], about["config"])
        params = load_tree(folder / "shared.safetensors")
        params["points"] = {str(i): load_tree(folder / f"point_{i}.safetensors") for i in range(len(about["points"]))}
        params = open_params(params)
        model = Model(codec, params, about["points"], about["info"], about["precision"])
        for i, point in enumerate(model.points):
            if coding.fingerprint(codec, params, i).hex() != point["fingerprint"]:
                raise ModelError(f"the arrays of point {i} in {folder} are not those that its fingerprint was made from")
    except (KeyError, TypeError, AttributeError, FileNotFoundError, ValueError) as error:
        raise error if isinstance(error, ModelError) else ModelError(f"the model in {folder} is damaged: {error}") from error
    model.num_bytes = sum(file.stat().st_size for file in _files(folder, len(model.points)))
    return model


def model_folders() -> list[Path]:
    """Folders of models that are at hand: bundled with the package, then named by VCINR_MODELS (models, or folders of them)."""
    places = [Path(__file__).parent / "models", *map(Path, filter(None, os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep)))]
    found = []
    for place in places:
        inside = sorted(path.parent for path in place.glob("*/model.json"))
        found += [place] if (place / "model.json").is_file() else inside
    return found


def find_by_fingerprint(fingerprint: bytes) -> Model:
    """The model at hand that decodes files of this fingerprint. ModelError where there is none."""
    for folder in model_folders():
        points = json.loads((folder / "model.json").read_text()).get("points", [])
        if any(point.get("fingerprint") == fingerprint.hex() for point in points):
            return load(folder)
    raise ModelError(
        f"no model with fingerprint {fingerprint.hex()} is at hand: give --model DIR, or set {SEARCH_VARIABLE} to where it is"
    )


def open_params(params: Params) -> Params:
    """Parameters ready for use: floats as float32, integer tables as `Tables` (which keep the range coder's models)."""
    params = jax.tree.map(lambda a: np.asarray(a, np.float32) if np.issubdtype(np.asarray(a).dtype, np.floating) else np.asarray(a), params)
    points = {
        name: {**point, "tables": Tables.from_arrays(point["tables"])} if "tables" in point else point
        for name, point in params["points"].items()
    }
    return {**params, "points": points}


def _cast(tree: Any, precision: str) -> Any:
    """The tree with its floats in the stored precision and its tables as plain arrays."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; valid are {', '.join(PRECISIONS)}")
    if isinstance(tree, Tables):
        return tree.to_arrays()
    if isinstance(tree, Mapping):
        return {key: _cast(value, precision) for key, value in tree.items()}
    array = np.asarray(tree)
    return array.astype(PRECISIONS[precision]) if np.issubdtype(array.dtype, np.floating) else array


def _files(folder: Path, num_points: int) -> Iterator[Path]:
    yield folder / "model.json"
    yield folder / "shared.safetensors"
    for i in range(num_points):
        yield folder / f"point_{i}.safetensors"

"""A trained model, in hand and on disk: one codec, its parameters, its operating points."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vcinr.bitstream import container
from vcinr.bitstream import payload as payload_coding
from vcinr.bitstream.container import DEFAULT_MAX_PIXELS, BitstreamError
from vcinr.bitstream.fingerprint import fingerprint
from vcinr.bitstream.limits import DEFAULT_MAX_WORK, MAX_BYTES, NO_LIMIT, Limits
from vcinr.codec import Code, Codec, EncodeRequest, grid_of, num_samples
from vcinr.modalities import MODALITIES
from vcinr.modalities.modality import Metadata
from vcinr.model import decoding, encoding
from vcinr.model.choosing import choose_point, default_point
from vcinr.model.folder import cast_params, check_precision, open_params, save
from vcinr.signals.signal import Grid, Signal
from vcinr.stage import Params, Progress

Folder = str | os.PathLike | None
Report = Progress | None


class Model:
    """A codec with trained parameters; `make_model` makes one, `load` reads one.

    codec: see `vcinr.codec.Codec`.   params: its parameters, already rounded to the stored precision.
    points: one dict per operating point, with at least ``name`` and ``fingerprint`` (hex).   info: what is worth knowing
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
        self.modality = MODALITIES[codec.modality]
        self.meta_types = {**self.modality.meta_types, **codec.meta_types}
        if len(self.meta_types) < len(self.modality.meta_types) + len(codec.meta_types):
            both = sorted(set(self.modality.meta_types) & set(codec.meta_types))
            raise ValueError(f"{', '.join(both)}: declared by the modality and by the codec; rename the modality's")

    def encode(
        self,
        signal: Any,
        point: int | None = None,
        effort: int = 0,
        *,
        bpp: float | None = None,
        psnr_db: float | None = None,
        workdir: Folder = None,
        progress: Report = None,
    ) -> bytes:
        """The file of one signal, e.g. uint8 [h, w, 3]. ValueError for what the modality cannot hold.

        Of ``point``, ``bpp`` and ``psnr_db`` one at most; none is the middle point, but a ValueError for a codec whose points
        are networks.

        Args:
            signal: raw, as the modality reads it.
            point: operating point, from 0.
            effort: how long to look for a better code; 0 is the quickest.
            bpp: the best point whose file has at most so many bits per sample.
            psnr_db: the cheapest point that reaches so many decibels.
            workdir: where a codec that optimises for long keeps what it has reached, and goes on from.
            progress: called with what is being done, steps done and steps in all, by a codec that takes long.
        """
        options = {"bpp": bpp, "psnr_db": psnr_db, "workdir": workdir, "progress": progress}
        return self.encode_batch([signal], point, effort, **options)[0]

    def encode_batch(
        self,
        signals: Sequence[Any],
        point: int | None = None,
        effort: int = 0,
        *,
        bpp: float | None = None,
        psnr_db: float | None = None,
        workdir: Folder = None,
        progress: Report = None,
    ) -> list[bytes]:
        """One file per signal, each at its own point where one is chosen by ``bpp`` or ``psnr_db``; arguments as in `encode`.

        A symbol on the edge of rounding may fall otherwise than in a batch of another size.
        """
        request = encode_request(effort, workdir, progress)
        points = [self._point([signal], point, bpp, psnr_db, request) for signal in signals]
        files: list[bytes] = [b""] * len(signals)
        for each in sorted(set(points)):
            chosen = [i for i, found in enumerate(points) if found == each]
            codes, grids = self.make_codes([signals[i] for i in chosen], each, effort, workdir=workdir, progress=progress)
            for i, code, grid in zip(chosen, codes, grids, strict=True):
                files[i] = self.write_codes(each, [code], [grid])
        return files

    def encode_together(
        self,
        signals: Sequence[Any],
        point: int | None = None,
        effort: int = 0,
        *,
        bpp: float | None = None,
        psnr_db: float | None = None,
        workdir: Folder = None,
        progress: Report = None,
    ) -> bytes:
        """One container for all signals, which share its header, its stream and its point; arguments as in `encode`.

        bpp, psnr_db: of the whole container, and the mean of its signals.
        """
        point = self._point(signals, point, bpp, psnr_db, encode_request(effort, workdir, progress))
        return self.write_codes(point, *self.make_codes(signals, point, effort, workdir=workdir, progress=progress))

    def decode(self, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, max_work: int = DEFAULT_MAX_WORK) -> Any:
        """The signal of a file.

        max_pixels, max_work: what the file may ask for; see `vcinr.bitstream.limits.Limits`.
        Raises BitstreamError for anything but a whole file of one signal made with this model, within the limits.
        """
        return self.decode_batch([data], max_pixels, max_work)[0]

    def decode_batch(
        self, files: Sequence[bytes], max_pixels: int = DEFAULT_MAX_PIXELS, max_work: int = DEFAULT_MAX_WORK
    ) -> list[Any]:
        """The signals of many files, of one signal each; limits hold for each file."""
        return decoding.raw_signals(self, *decoding.read_each(self, files, max_pixels, max_work))

    def decode_together(self, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, max_work: int = DEFAULT_MAX_WORK) -> list[Any]:
        """All signals of a container; limits hold for all of them together."""
        return [self.modality.pack(*each) for each in self.decode_samples_together(data, max_pixels, max_work)]

    def decode_samples_together(
        self, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, max_work: int = DEFAULT_MAX_WORK
    ) -> list[tuple[np.ndarray, Metadata]]:
        """(samples, metadata) of all signals of a container, of which `decode_together` makes raw signals."""
        point, codes, grids = self.read_codes(data, max_pixels, max_work)
        return decoding.unpacked_signals(self, [point] * len(codes), codes, grids)

    def decode_at(
        self,
        data: bytes,
        scale: float | int | None = None,
        shape: Sequence[int] | None = None,
        rate: float | int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        max_work: int = DEFAULT_MAX_WORK,
    ) -> Any:
        """The signal of a file on another grid over the same extent; give one of ``scale``, ``shape`` and ``rate``.

        The codec's field is evaluated between the samples where it is ``continuous``; else decoded samples are interpolated.

        Args:
          data: the file.
          scale: new samples per sample along each axis, positive.
          shape: of the new grid.
          rate: new sample rate, of signals that have one.
          max_pixels: largest number of samples, old and new.
          max_work: as for `decode`.
        """
        return decoding.resampled(self, data, (scale, shape, rate), max_pixels, max_work)

    def decode_coordinates(
        self, data: bytes, coords: np.ndarray, max_pixels: int = DEFAULT_MAX_PIXELS, max_work: int = DEFAULT_MAX_WORK
    ) -> np.ndarray:
        """Samples [n, c] of the signal of a file at any coordinates float32 [n, d], such as a modality's ``read_coordinates``.

        ValueError where the codec has no field, or one for each of several patches, and for more than ``max_pixels`` coordinates;
        BitstreamError as for `decode`.
        """
        return decoding.at_coordinates(self, data, coords, max_pixels, max_work)

    def decode_values_batch(
        self, files: Sequence[bytes], max_pixels: int = DEFAULT_MAX_PIXELS, max_work: int = DEFAULT_MAX_WORK
    ) -> list[np.ndarray]:
        """The signals of many files in normalised units, float32 [*shape, c], neither clipped nor rounded."""
        return decoding.values(self, *decoding.read_each(self, files, max_pixels, max_work))

    def denormalise(self, values: np.ndarray) -> np.ndarray:
        """Samples of what `decode_values_batch` gives, e.g. uint8 [h, w, 3] of float32 [h, w, 3]."""
        return self.modality.denormalise(values)

    def join(self, files: Sequence[bytes], max_pixels: int = DEFAULT_MAX_PIXELS, max_work: int = DEFAULT_MAX_WORK) -> bytes:
        """One container of the signals of many files, in order, without encoding them again.

        ValueError where points decode differently. They do not where files name their networks themselves, at most 16 different
        ones a container. The bytes are those of `encode_together` on the same symbols.
        """
        read = [self.read_codes(data, max_pixels, max_work) for data in files]
        points = {point for point, _, _ in read}
        if len(points) != 1:
            raise ValueError(f"a container holds signals of one operating point, not of {sorted(points)}")
        codes = [code for _, part, _ in read for code in part]
        return self.write_codes(points.pop(), codes, [grid for _, _, part in read for grid in part])

    def make_codes(
        self, signals: Sequence[Any], point: int, effort: int = 0, *, workdir: Folder = None, progress: Report = None
    ) -> tuple[list[Code], list[Grid]]:
        """The symbols that `write_codes` writes, and the grid, of each signal. ValueError as for `encode`."""
        point = operator.index(point)
        if not 0 <= point < len(self.points):
            raise ValueError(f"point {point} does not exist: this model has points 0 to {len(self.points) - 1}")
        return encoding.codes_of(self, signals, point, encode_request(effort, workdir, progress))

    def write_codes(self, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> bytes:
        """The file of one or more signals' symbols."""
        fingerprint = bytes.fromhex(self.points[point]["fingerprint"])
        metas = [{**code.metadata, **code.meta} for code in codes]
        head = container.head_bytes(fingerprint, [grid.shape for grid in grids], metas, self.meta_types)
        payload = payload_coding.encode_payload(self.codec, self.params, point, grids, codes)
        return container.write(head, payload, container.checksum(head, payload_coding.ordered_streams(self.codec, codes)))

    def read_codes(
        self, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, max_work: int = DEFAULT_MAX_WORK
    ) -> tuple[int, list[Code], list[Grid]]:
        """(point, codes, grids) of a file: its symbols, checked against its CRC. BitstreamError as for `decode`."""
        fingerprint = container.peek(data, max_pixels).fingerprint
        point = self.fingerprints.get(fingerprint)
        if point is None:
            own = ", ".join(p["fingerprint"] for p in self.points)
            raise BitstreamError(
                f"the file was made with another model: its fingerprint {fingerprint.hex()} is none of this one's ({own}); leave "
                "the model out, and it is looked for by its fingerprint"
            )
        frame = container.read(data, self.meta_types, max_pixels)
        self.check_size(frame.shapes, max_pixels)
        grids = [grid_of(self.codec, shape) for shape in frame.shapes]
        limits = Limits(max_pixels, max_work)
        metas = [{name: meta[name] for name in self.codec.meta_types} for meta in frame.metas]
        codes = payload_coding.decode_payload(self.codec, self.params, point, grids, metas, frame.payload, limits)
        container.check(frame, payload_coding.ordered_streams(self.codec, codes))
        return point, decoding.with_metadata(self.modality, codes, frame), grids

    def values_of_codes(self, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> list[np.ndarray]:
        """What `decode_values_batch` gives of files, from the symbols that `read_codes` gave of them."""
        return decoding.values(self, [point] * len(codes), codes, grids)

    def bits_of_codes(self, point: int, codes: Sequence[Code], grids: Sequence[Grid]) -> list[float]:
        """What the tables say that each signal's symbols cost, in bits."""
        pairs = zip(grids, codes, strict=True)
        return [payload_coding.estimated_bits(self.codec, self.params, point, grid, code) for grid, code in pairs]

    def check_size(self, shapes: Sequence[tuple[int, ...]], max_pixels: int) -> None:
        """BitstreamError where signals of these shapes cannot be decoded within ``max_pixels`` samples.

        Whole patches are counted, for that is what decoding costs: a strip of 1 × 10⁶ is 32 times as much in patches of 32 × 32.
        A few patches are within any limit.
        """
        rank, patch = self.modality.rank, tuple(self.codec.patch)
        if any(len(shape) != rank for shape in shapes):
            raise BitstreamError(f"shape {shapes[0]} does not fit this model's signals, which have {rank} dimensions")
        grids = [grid_of(self.codec, shape) for shape in shapes]
        for grid in grids:
            decoding.check_whole(self, grid)
        samples = sum(map(num_samples, grids))
        limit = max_pixels
        if per_sample := self.codec.decoding_bytes_per_sample:
            limit = min(limit, MAX_BYTES * max_pixels // (per_sample * DEFAULT_MAX_PIXELS))
        if samples > max(limit, 4 * math.prod(patch)):
            what = f"its patches of {'×'.join(map(str, patch))} hold" if patch else "it holds"
            memory = f", with {per_sample} bytes of memory for each" if limit < max_pixels else ""
            raise BitstreamError(
                f"{what} {samples} samples{memory}; the limit is {limit}: if it is to be trusted, raise max_pixels (--max-pixels)"
            )

    def payload_bytes(self, data: bytes) -> int:
        """Bytes of a file's coded symbols alone."""
        return len(container.read(data, self.meta_types, NO_LIMIT).payload)

    def estimated_bits(self, data: bytes) -> float:
        """What the tables say that a file's symbols cost, in bits."""
        return sum(self.bits_of_codes(*self.read_codes(data, NO_LIMIT, NO_LIMIT)))

    def modelled_bits(self, files: Sequence[bytes]) -> list[float] | None:
        """What the float entropy model says of each file's symbols, in bits; None for a codec that has none beside its tables."""
        read = [self.read_codes(data, NO_LIMIT, NO_LIMIT) for data in files]
        bits = [self.codec.modelled_bits(self.params, point, codes) for point, codes, _ in read]
        return None if None in bits else [sum(each) for each in bits]

    @property
    def default_point(self) -> int:
        """The point that `encode` takes where nothing is asked for: see `vcinr.model.choosing.default_point`."""
        return default_point(self)

    def choose_point(
        self,
        signal: Any,
        bpp: float | None = None,
        psnr_db: float | None = None,
        effort: int = 0,
        *,
        workdir: Folder = None,
        progress: Report = None,
    ) -> int:
        """The operating point for one signal: the best within ``bpp``, or the cheapest that reaches ``psnr_db``.

        See `vcinr.model.choosing.choose_point`.
        """
        return choose_point(self, [signal], bpp, psnr_db, encode_request(effort, workdir, progress))

    def save(self, folder: str | os.PathLike) -> None:
        """Writes ``model.json`` and arrays (safetensors): what is shared once, and one file per point.

        Equal models give equal bytes. ValueError where points or info are no JSON, before anything is written.
        """
        save(self, folder)

    def signal(self, raw: Any) -> Signal:
        """A raw signal, normalised and cut into the codec's patches. ValueError as for `encode`."""
        return encoding.signal_of(self, *self.modality.unpack(raw))

    def _point(
        self, signals: Sequence[Any], point: int | None, bpp: float | None, psnr_db: float | None, request: EncodeRequest
    ) -> int:
        """The point that is asked for. ValueError where more than one wish is given."""
        if sum(wish is not None for wish in (point, bpp, psnr_db)) > 1:
            raise ValueError("give point, bpp or psnr_db, one of the three at most")
        if point is not None:
            return point
        if bpp is None and psnr_db is None:
            return self.default_point
        return choose_point(self, signals, bpp, psnr_db, request)


def encode_request(effort: int, workdir: Folder, progress: Report) -> EncodeRequest:
    """What codecs are asked for, from what `Model.encode` takes."""
    return EncodeRequest(operator.index(effort), None, None if workdir is None else os.fspath(workdir), progress)


def make_model(
    codec: Codec, params: Params, info: Mapping[str, Any], points: Sequence[Mapping[str, Any]] = (), precision: str = "float32"
) -> Model:
    """A model from what training made: parameters rounded to the stored precision, then fingerprinted.

    points: more to say of each operating point, e.g. its λ or its rate and quality on a validation split. Its ``name`` is what
        the codec calls it.
    precision: "float32" or "float16". ValueError for parameters that are not finite in it.
    """
    check_precision(precision)
    count = codec.num_points(params)
    if points and len(points) != count:
        raise ValueError(f"points describes {len(points)} operating points, the parameters hold {count}")
    params = open_params(cast_params(jax.device_get(params), precision))
    described = [
        {"name": codec.point_name(i), **(points[i] if points else {}), "fingerprint": fingerprint(codec, params, i).hex()}
        for i in range(count)
    ]
    return Model(codec, params, described, info, precision)

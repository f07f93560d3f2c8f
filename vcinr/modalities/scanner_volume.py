"""Scanner volumes: intensities of CT and MR on a grid, with the header that NIfTI files carry."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vcinr.evaluation.metrics import psnr_db
from vcinr.modalities.files.npz import File
from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES, Metadata, Modality, ReadOption

VOXEL_TYPES = {
    2: "uint8",
    4: "int16",
    8: "int32",
    16: "float32",
    64: "float64",
    256: "int8",
    512: "uint16",
    768: "uint32",
}
"""NIfTI's number of a type of voxels → NumPy's name."""
MAX_INTEGER = 2**23
"""Whole numbers up to this size, and their range, are exact in float32."""
MAX_DESCRIPTION = 80
READ_OPTIONS = (
    ReadOption("volume", "which volume of a file that holds several, from 0", "INDEX"),
    ReadOption("nan", "put this number where a volume of floats is NaN or infinite", "NUMBER"),
)
_PAIR, _AFFINE = struct.Struct("<2f"), struct.Struct("<12f")
_SCALED, _PLACED, _WINDOW = 1, 2, 4


class Header(NamedTuple):
    """What NIfTI says of a volume besides its voxels; the defaults say nothing.

    slope, intercept: intensity = slope · voxel + intercept.
    affine: voxel (x, y, z, 1) → millimetres, float32 [3, 4], row-major; None: unknown.
    sform_code, qform_code: what the affine leads to, by NIfTI's numbers, as each of its two forms; 0: not that form.
    units: NIfTI's xyzt_units.   window: intensities to show as black and white; (0, 0): not said.
    description: 80 bytes at most.
    """

    slope: float = 1.0
    intercept: float = 0.0
    affine: tuple[float, ...] | None = None
    sform_code: int = 0
    qform_code: int = 0
    units: int = 0
    window: tuple[float, float] = (0.0, 0.0)
    description: bytes = b""


class Volume(NamedTuple):
    """voxels: [z, y, x, 1] of a type of `VOXEL_TYPES`, as stored, before slope and intercept; x is NIfTI's first axis.

    header: see `Header`.
    span: (lowest, range) of the values that become 0 to 1, where they are known from a file; None: the volume's own.
    """

    voxels: np.ndarray
    header: Header = Header()
    span: tuple[float, float] | None = None


def header_bytes(header: Header) -> bytes:
    """A header in a file's metadata, in as few bytes as it has to say; none for the defaults.

    A byte of flags and the units; then, by flag, slope and intercept (1); the affine and a byte of its two codes (2); the window
    (4), little-endian float32 all; then the description. ValueError for what NIfTI cannot hold.
    """
    flags, parts = 0, []
    if (header.slope, header.intercept) != (1.0, 0.0):
        flags, parts = flags | _SCALED, [*parts, _pack(_PAIR, header.slope, header.intercept)]
    if header.affine is not None:
        if not (0 <= header.sform_code <= 5 and 0 <= header.qform_code <= 5 and len(header.affine) == 12):
            raise ValueError(f"an affine is 12 numbers and two codes from 0 to 5, not {header}")
        codes = bytes([header.sform_code | header.qform_code << 4])
        flags, parts = flags | _PLACED, [*parts, _pack(_AFFINE, *header.affine), codes]
    if header.window != (0.0, 0.0):
        flags, parts = flags | _WINDOW, [*parts, _pack(_PAIR, *header.window)]
    if not (flags or header.units or header.description):
        return b""
    data = b"".join([bytes([flags, header.units]), *parts, header.description])
    parse_header(data)
    return data


def parse_header(data: bytes) -> Header:
    """The header of `header_bytes`. ValueError for anything else."""
    if not data:
        return Header()
    try:
        flags, units, position = data[0], data[1], 2
        header = Header(units=units)
        if flags & _SCALED:
            slope, intercept = _PAIR.unpack_from(data, position)
            header, position = header._replace(slope=slope, intercept=intercept), position + _PAIR.size
        if flags & _PLACED:
            affine, codes = _AFFINE.unpack_from(data, position), data[position + _AFFINE.size]
            header = header._replace(affine=affine, sform_code=codes & 15, qform_code=codes >> 4)
            position += _AFFINE.size + 1
        if flags & _WINDOW:
            header, position = header._replace(window=_PAIR.unpack_from(data, position)), position + _PAIR.size
    except (struct.error, IndexError) as error:
        raise ValueError("the header of a scanner volume ends too soon") from error
    header = header._replace(description=data[position:])
    numbers = [header.slope, header.intercept, *(header.affine or ()), *header.window]
    if flags > _SCALED | _PLACED | _WINDOW or not all(map(math.isfinite, numbers)) or header.slope == 0:
        raise ValueError("the header of a scanner volume has unknown flags, numbers that are not finite, or no slope")
    if header.affine is not None:
        matrix = np.reshape(header.affine, (3, 4))[:, :3].astype(np.float64)
        sizes = np.linalg.norm(matrix, axis=0)
        if not sizes.min() > 0 or not abs(np.linalg.det(matrix / sizes)) > 1e-6:
            raise ValueError("the affine of a scanner volume is singular: its axes do not span space")
    if header.units & 7 > 3 or header.units & 56 > 48 or header.units > 63 or max(header.sform_code, header.qform_code) > 5:
        raise ValueError("the header of a scanner volume has units or codes that NIfTI does not know")
    if len(header.description) > MAX_DESCRIPTION or b"\0" in header.description:
        raise ValueError(f"the description of a scanner volume is at most {MAX_DESCRIPTION} bytes, none of them 0")
    return header


@dataclasses.dataclass(frozen=True, eq=False)
class ScannerVolume(Modality):
    """CT or MR: one intensity per voxel; coordinates in the order z, y, x. A file holds type, range and header besides.

    A raw signal is a `Volume`, or its voxels alone. Whole numbers of at most 16 bits return exactly from samples that are exact;
    32 bits and floats to 24 bits of the volume's range.
    """

    name: str = "scanner_volume"
    coord_dim: int = 3
    channels: int = 1
    sample_type: str = "float32"
    peak: float | int = 65535
    mirrored_axes: tuple[int, ...] = (2,)
    meta_types: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"voxel_type": "int", "lowest": "float32", "range": "float32", "header": "bytes"}
    )
    example_metadata: Metadata = dataclasses.field(
        default_factory=lambda: {"voxel_type": 4, "lowest": 0.0, "range": 1.0, "header": b""}
    )
    read_suffixes: tuple[str, ...] = (".nii", ".nii.gz", ".gz", ".npz")
    write_suffixes: tuple[str, ...] = (".nii.gz", ".nii", ".gz", ".npz")
    read_options: tuple[ReadOption, ...] = READ_OPTIONS
    references: tuple[str, ...] = ("vcinr.evaluation.classical_voxels:measure_packed_integers",)

    def unpack(self, raw: Any) -> tuple[np.ndarray, dict[str, int | float | bytes]]:
        """(samples float32 [z, y, x, 1] in [0, 1], metadata). ValueError that names the mend for what is no volume."""
        voxels, header, span = raw if isinstance(raw, Volume) else Volume(raw)
        check_voxels(voxels)
        low, high = float(voxels.min()), float(voxels.max())
        lowest, width = (low, high - low) if span is None else span
        whole = voxels.dtype.kind != "f"
        with np.errstate(over="ignore"):
            lowest, width = float(np.float32(lowest)), float(np.float32(width))
        # Bounds rounded to float32 may miss the ends of float64 by a last bit, which is clipped below.
        slack = 0.0 if whole else 1e-6 * width + 1e-7 * abs(lowest)
        if not (math.isfinite(lowest) and math.isfinite(width) and lowest - slack <= low and high <= lowest + width + slack):
            raise ValueError(
                f"voxels from {low:g} to {high:g} are not within the range {lowest:g} to {lowest + width:g} of float32: "
                "scale or clip them, or leave the span out"
            )
        exact = np.float32 if voxels.dtype.itemsize <= 2 else np.float64
        samples = np.zeros(voxels.shape, np.float32)
        if width:
            samples[...] = np.clip((voxels.astype(exact) - exact(lowest)) / exact(width), 0, 1)
        number = next(number for number, name in VOXEL_TYPES.items() if name == voxels.dtype.name)
        return samples, {"voxel_type": number, "lowest": lowest, "range": width, "header": header_bytes(header)}

    def pack(self, samples: np.ndarray, metadata: Metadata) -> Volume:
        """The volume, its voxels of the type that they had; whole numbers rounded to nearest."""
        dtype = np.dtype(VOXEL_TYPES[metadata["voxel_type"]])
        span = (metadata["lowest"], metadata["range"])
        exact = np.float32 if dtype.itemsize <= 2 else np.float64
        values = samples.astype(exact) * exact(span[1]) + exact(span[0])
        return Volume((values if dtype.kind == "f" else np.rint(values)).astype(dtype), parse_header(metadata["header"]), span)

    def check_metadata(self, metadata: Metadata, shape: tuple[int, ...]) -> None:
        """ValueError for an unknown type, a range that it does not hold, or a header that `parse_header` refuses."""
        del shape
        number, lowest, width = metadata["voxel_type"], metadata["lowest"], metadata["range"]
        if number not in VOXEL_TYPES:
            raise ValueError(f"NIfTI's type {number} is none of a scanner volume: {', '.join(VOXEL_TYPES.values())}")
        dtype = np.dtype(VOXEL_TYPES[number])
        limits = np.finfo(np.float32) if dtype.kind == "f" else np.iinfo(dtype)
        ends = (lowest, lowest + width)
        held = width >= 0 and all(math.isfinite(end) and float(limits.min) <= end <= float(limits.max) for end in ends)
        if not held or (dtype.kind != "f" and not all(end == int(end) and abs(end) <= MAX_INTEGER for end in ends)):
            raise ValueError(f"voxels of {dtype} do not range over {width} from {lowest}")
        parse_header(metadata["header"])

    def resampled_metadata(self, metadata: Metadata, shape: tuple[int, ...], new: tuple[int, ...]) -> Metadata:
        """Metadata with the affine of a new grid over the same extent: its voxels are larger or smaller."""
        header = parse_header(metadata["header"])
        if header.affine is None:
            return metadata
        affine = np.reshape(header.affine, (3, 4)).astype(np.float64)
        steps = np.array(shape[::-1]) / np.array(new[::-1])
        moved = np.column_stack([affine[:, :3] * steps, affine[:, 3] + affine[:, :3] @ (0.5 * steps - 0.5)])
        return {**metadata, "header": header_bytes(header._replace(affine=tuple(moved.ravel().tolist())))}

    def metrics(self, original: Any, decoded: Any) -> dict[str, float]:
        """``psnr_db``, whose peak is the original's range, and ``max_error`` in units of intensity."""
        width = self.unpack(original)[1]["range"]
        self.unpack(decoded)
        first, second = (each if isinstance(each, Volume) else Volume(each) for each in (original, decoded))
        if first.voxels.shape != second.voxels.shape:
            raise ValueError(f"volumes of different shapes have no error: {first.voxels.shape} and {second.voxels.shape}")
        error = first.voxels.astype(np.float64) - second.voxels
        largest = float(np.abs(error).max() * abs(first.header.slope))
        return {"psnr_db": float(psnr_db(np.mean(error**2), width or 1.0)), "max_error": largest}

    def read(
        self,
        source: File,
        *,
        max_samples: int = DEFAULT_MAX_SAMPLES,
        volume: int | str | None = None,
        nan: float | int | str | None = None,
    ) -> Volume:
        """The volume in a file: see `vcinr.modalities.files.scanner.read_volume`."""
        from vcinr.modalities.files.scanner import read_volume

        return read_volume(source, volume, nan, max_samples)

    def write(self, path: str | os.PathLike, raw: Any) -> None:
        """Writes a volume as NIfTI (.nii, .nii.gz) or .npz: see `vcinr.modalities.files.scanner.write_volume`."""
        from vcinr.modalities.files.scanner import write_volume

        self.check_target(path)
        write_volume(path, raw if isinstance(raw, Volume) else Volume(raw))

    def to_bytes(self, raw: Any) -> bytes:
        """The volume as `vcinr.modalities.files.scanner.volume_npz` writes it."""
        from vcinr.modalities.files.scanner import volume_npz

        return volume_npz(raw if isinstance(raw, Volume) else Volume(raw))

    def from_bytes(self, data: bytes) -> Volume:
        """The volume of `to_bytes`."""
        return self.read(io.BytesIO(data))


def check_voxels(voxels: Any) -> None:
    """ValueError that names the mend where these are no voxels [z, y, x, 1] of a type of `VOXEL_TYPES`, all finite."""
    wanted = "a scanner volume is a NumPy array [z, y, x, 1] of numbers"
    if not isinstance(voxels, np.ndarray):
        raise ValueError(f"{wanted}, not {type(voxels).__name__}: use np.asarray, or a Volume")
    what = f"{voxels.dtype} {list(voxels.shape)}"
    if voxels.ndim == 3:
        raise ValueError(f"{wanted}, not {what}: add the axis of channels, voxels[..., None]")
    if voxels.ndim != 4 or voxels.shape[-1] != 1 or not voxels.size:
        raise ValueError(f"{wanted}, not {what}: give it four axes, the last of length 1; pass volumes one at a time")
    if voxels.dtype.name not in VOXEL_TYPES.values():
        raise ValueError(f"{wanted}, not {what}: convert it to int16, where its values fit, or to float32")
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        bad = int(voxels.size - np.isfinite(voxels).sum())
        raise ValueError(f"{bad} of {voxels.size} voxels are NaN or infinite: put a number in their place (--nan 0)")
    if (
        voxels.dtype.itemsize == 4
        and voxels.dtype.kind != "f"
        and not -MAX_INTEGER <= voxels.min() <= voxels.max() <= MAX_INTEGER
    ):
        raise ValueError(f"voxels of {voxels.dtype} beyond ±{MAX_INTEGER} are not exact: convert them to float32")


def _pack(layout: struct.Struct, *numbers: float) -> bytes:
    try:
        return layout.pack(*numbers)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"the header of a scanner volume holds float32, not {numbers}") from error

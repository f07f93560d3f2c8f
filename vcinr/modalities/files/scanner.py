"""Scanner volumes from files and back: NIfTI through nibabel (.nii, .nii.gz), and .npz."""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.modalities.files.npz import File, about, npz_bytes, only_array, read_npz
from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES
from vcinr.modalities.scanner_volume import MAX_DESCRIPTION, VOXEL_TYPES, Header, Volume, check_voxels, header_bytes, parse_header

MAX_OFFSET = 2**24
"""Bytes before the voxels: extensions of the header, which are not kept."""
MAX_AXIS = 2**15 - 1


def read_volume(
    source: File,
    volume: int | str | None = None,
    nan: float | int | str | None = None,
    max_samples: int = DEFAULT_MAX_SAMPLES,
) -> Volume:
    """The volume in a NIfTI file (versions 1 and 2, plain or gzipped) or an .npz file, told by its first bytes.

    Voxels keep their stored type; slope, intercept, affine, units, window and description go into the header. Where the two
    forms of the affine differ, the sform is kept alone; extensions of the header are not kept.

    volume: which of several, from 0, where there is a fourth axis.
    nan: what takes the place of NaN and infinity in a volume of floats; without it they are an error.
    max_samples: of the one volume; more is refused before it is unpacked.
    ValueError, one line that names the file and the mend, for anything else; OSError where it cannot be opened.
    """
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file, about(source):
            return _checked(_read(file, volume, max_samples), nan)
    with about(source):
        return _checked(_read(source, volume, max_samples), nan)


def write_volume(path: str | os.PathLike, volume: Volume) -> None:
    """Writes a volume by suffix: .nii, .gz (gzipped NIfTI) or .npz. ValueError for what is no volume, or too large for NIfTI."""
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        data = volume_npz(volume)
    else:
        with about(path):
            data = nifti_bytes(volume)
        # Without the time of day, so that equal volumes are equal files.
        data = gzip.compress(data, mtime=0) if suffix == ".gz" else data
    Path(path).write_bytes(data)


def volume_npz(volume: Volume) -> bytes:
    """An .npz file of ``voxels`` [z, y, x], ``header`` (see `header_bytes`) and, where it is known, ``span``."""
    check_voxels(volume.voxels)
    arrays = {"voxels": volume.voxels[..., 0], "header": np.frombuffer(header_bytes(volume.header), np.uint8)}
    return npz_bytes(arrays if volume.span is None else {**arrays, "span": np.array(volume.span, np.float64)})


def nifti_bytes(volume: Volume) -> bytes:
    """A NIfTI-1 file in one part: little-endian, no extensions. ValueError for an axis longer than 32,767."""
    nibabel = _nibabel(".nii")
    voxels, header = volume.voxels, volume.header
    check_voxels(voxels)
    header_bytes(header)
    if max(voxels.shape) > MAX_AXIS:
        raise ValueError(
            f"{list(voxels.shape[:3])} voxels have an axis longer than {MAX_AXIS}, which NIfTI-1 cannot hold: write .npz"
        )
    head = nibabel.Nifti1Header(endianness="<")
    head.set_data_dtype(voxels.dtype)
    head.set_data_shape(voxels.shape[2::-1])
    if header.affine is not None:
        affine = np.vstack([np.reshape(header.affine, (3, 4)), [0, 0, 0, 1]]).astype(np.float64)
        head.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
        if header.qform_code:
            head.set_qform(affine, header.qform_code)
        if header.sform_code:
            head.set_sform(affine, header.sform_code)
    head.set_slope_inter(header.slope, header.intercept)
    head["xyzt_units"] = header.units
    head["cal_min"], head["cal_max"] = header.window
    head["descrip"] = header.description
    head["magic"], head["vox_offset"] = b"n+1", 352
    data = np.ascontiguousarray(voxels).astype(voxels.dtype.newbyteorder("<"))
    return head.binaryblock + bytes(4) + data.tobytes()


def _read(file: Any, volume: int | str | None, max_samples: int) -> Volume:
    start = file.read(2)
    file.seek(-len(start), io.SEEK_CUR)
    if start == b"PK":
        if volume is not None:
            raise ValueError("an .npz file holds one volume: leave volume (--volume) out")
        return _read_npz(file.read(), max_samples)
    try:
        if start == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read_nifti(unpacked, volume, max_samples)
        return _read_nifti(file, volume, max_samples)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"a damaged .gz file: {error}") from error


def _read_nifti(file: Any, index: int | str | None, max_samples: int) -> Volume:
    head = _nifti_header(file)
    number = int(head["datatype"])
    if number not in VOXEL_TYPES:
        raise ValueError(
            f"voxels of NIfTI's type {number} are not read ({', '.join(VOXEL_TYPES.values())} are): convert to float32"
        )
    dtype = np.dtype(VOXEL_TYPES[number]).newbyteorder(head.endianness)
    rank = int(head["dim"][0])
    sizes = [int(size) for size in head["dim"][1 : 1 + max(rank, 0)]]
    if not 1 <= rank <= 7 or min(sizes) < 1:
        raise ValueError(f"a volume of {rank} axes, {sizes}, has no voxels")
    shape, count = [*sizes, 1, 1][:3], math.prod(sizes[3:])
    size = math.prod(shape)
    if size > max_samples:
        raise ValueError(f"{shape} voxels are more than the limit of {max_samples}")
    if index is None and count > 1:
        raise ValueError(f"it holds {count} volumes: choose one, volume=INDEX (--volume), from 0 to {count - 1}")
    if not str(index or 0).isdecimal() or int(index or 0) >= count:
        raise ValueError(f"it holds {count} volumes, from 0: there is no volume {index!r}")
    offset = float(head["vox_offset"])
    if not len(head.binaryblock) <= offset < MAX_OFFSET or offset != int(offset):
        raise ValueError(f"its voxels begin at byte {offset:g}: the file is damaged")
    file.seek(int(offset) + int(index or 0) * size * dtype.itemsize)
    data = file.read(size * dtype.itemsize)
    if len(data) != size * dtype.itemsize:
        raise ValueError(f"the file ends inside its {shape} voxels")
    voxels = np.frombuffer(data, dtype).astype(dtype.newbyteorder("=")).reshape(*shape[::-1], 1)
    return Volume(voxels, _header_of(head))


def _nifti_header(file: Any) -> Any:
    """nibabel's header of the NIfTI file that begins here."""
    nibabel = _nibabel(".nii")
    block = file.read(348)
    kind = nibabel.Nifti1Header
    if block[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
        block, kind = block + file.read(192), nibabel.Nifti2Header
    try:
        # Its own checks would mend and log; what matters is checked by our own.
        head = kind(binaryblock=block, check=False)
    except Exception as error:  # Of several unrelated types.
        raise ValueError(f"not a scanner volume: .nii, .nii.gz and .npz are read ({error})") from error
    magic = bytes(head["magic"])[:3]
    if magic in (b"ni1", b"ni2"):
        raise ValueError("the header of a pair of files, .hdr and .img: convert them to one .nii file")
    if magic not in (b"n+1", b"n+2") or int(head["sizeof_hdr"]) != len(block):
        raise ValueError("not a scanner volume: .nii, .nii.gz and .npz are read")
    return head


def _header_of(head: Any) -> Header:
    try:
        slope, intercept = head.get_slope_inter()
        affine, sform, qform = head.get_best_affine(), int(head["sform_code"]), int(head["qform_code"])
        if sform > 0 and qform > 0 and not np.allclose(head.get_qform(), affine, rtol=1e-4, atol=1e-3):
            qform = 0
        rows = tuple(np.asarray(affine[:3], np.float32).ravel().tolist())
    except Exception as error:  # Of several unrelated types.
        raise ValueError(f"its header is damaged: {error}") from error
    # Of NIfTI-2, numbers of 64 bits are rounded to those of NIfTI-1.
    window = (float(np.float32(head["cal_min"])), float(np.float32(head["cal_max"])))
    header = Header(
        slope=float(np.float32(1 if slope is None else slope)),
        intercept=float(np.float32(intercept or 0)),
        affine=rows,
        sform_code=sform,
        qform_code=qform,
        units=int(head["xyzt_units"]),
        window=window if np.isfinite(window).all() else (0.0, 0.0),
        description=bytes(head["descrip"]).split(b"\0")[0][:MAX_DESCRIPTION],
    )
    if not (0 <= sform <= 5 and 0 <= qform <= 5 and 0 <= header.units <= 63):
        raise ValueError("its header is damaged: its codes or units are none of NIfTI's")
    return parse_header(header_bytes(header))


def _read_npz(data: bytes, max_samples: int) -> Volume:
    arrays = read_npz(data, max_samples)
    voxels = only_array(arrays, "voxels", (3, 4))
    if voxels.ndim == 3:
        voxels = voxels[..., None]
    header, span = arrays.get("header", np.zeros(0, np.uint8)), arrays.get("span")
    if header.dtype != np.uint8 or (span is not None and (span.shape != (2,) or span.dtype != np.float64)):
        raise ValueError("its header or span is not as this program writes it")
    return Volume(voxels, parse_header(header.tobytes()), None if span is None else tuple(span.tolist()))


def _checked(volume: Volume, nan: float | int | str | None) -> Volume:
    if nan is not None:
        try:
            number = float(nan)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"nan (--nan) is the number that takes its place, not {nan!r}")
        if volume.voxels.dtype.kind == "f":
            finite = np.isfinite(volume.voxels)
            volume = volume._replace(voxels=np.where(finite, volume.voxels, volume.voxels.dtype.type(number)))
    check_voxels(volume.voxels)
    return volume


def _nibabel(suffix: str) -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise ValueError(f"reading and writing {suffix} needs nibabel: pip install 'vcinr[scanner]'") from error
    return nibabel

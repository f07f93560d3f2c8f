"""JPEG and JPEG 2000 as Pillow writes them, measured like any other codec: on files that were decoded again."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vcinr.evaluation.measure import Progress, rate_quality_row
from vcinr.evaluation.metrics import mean_squared_error

Pictures = Sequence[np.ndarray] | np.ndarray
"""Pictures uint8 [h, w, 3] of any sizes, or an array of equal ones [n, h, w, 3]."""

JPEG_QUALITIES = (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95)
"""Operating points of JPEG, in libjpeg's quality."""
JPEG2000_DECIBELS = (16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46)
"""Operating points of JPEG 2000, in dB of target PSNR."""


def encode_jpeg(picture: np.ndarray, quality: int, subsampling: int = 0) -> bytes:
    """A baseline JPEG with the standard's fixed Huffman tables.

    Optimised tables would move part of the symbols' cost into the header, where it could not be counted as payload.

    Args:
      picture: uint8 [h, w, 3].
      quality: libjpeg's quality, 1 to 95.
      subsampling: 0 keeps all chroma samples (4:4:4; INR codecs do not subsample either), 2 is 4:2:0, Pillow's own default.
    """
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=subsampling, optimize=False, progressive=False)
    return buffer.getvalue()


def encode_jpeg2000(picture: np.ndarray, decibels: float | int) -> bytes:
    """A bare JPEG 2000 codestream of one quality layer, with the irreversible 9/7 wavelet and colour transform.

    This is the content of a .j2k file, smaller than a .jp2 file, which adds boxes.

    picture: uint8 [h, w, 3].
    decibels: OpenJPEG's target PSNR, in dB.
    """
    buffer = io.BytesIO()
    Image.fromarray(picture).save(
        buffer, "JPEG2000", quality_mode="dB", quality_layers=[decibels], irreversible=True, mct=1, no_jp2=True
    )
    return buffer.getvalue()


def decode(data: bytes) -> np.ndarray:
    """The picture of a JPEG or JPEG 2000 file, uint8 [h, w, 3]."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def jpeg_payload_bytes(data: bytes) -> int:
    """Bytes of the entropy-coded scan of a baseline JPEG: the file without its headers, whose length is constant.

    The headers are everything up to and including the SOS segment (with fixed Huffman tables 623 bytes in each of Pillow's 4:4:4
    files), and the EOI marker. ITU-T T.81, annex B.
    Raises ValueError for a file that is not a JPEG of one scan.
    """
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        raise ValueError("not a JPEG file: it does not run from an SOI to an EOI marker")
    position = 2
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xC2:
            raise ValueError("a progressive JPEG has several scans: its payload is not counted here")
        position += 2 + length
        if marker == 0xDA:
            return len(data) - position - 2
    raise ValueError("not a JPEG file: no SOS segment among its markers")


def jpeg2000_payload_bytes(data: bytes) -> int:
    """Bytes of the packets of a JPEG 2000 codestream: the file without its main and tile-part headers.

    These are the main header (SOC up to the first SOT, OpenJPEG's comment included), each tile-part's header (SOT up to and
    including SOD) and the EOC marker; packet headers count as payload. ITU-T T.800, annex A.
    Raises ValueError for a file that is not a bare codestream.
    """
    if data[:4] != b"\xff\x4f\xff\x51" or data[-2:] != b"\xff\xd9":
        raise ValueError("not a bare JPEG 2000 codestream: it does not run from an SOC to an EOC marker")
    payload, position = 0, 2
    while position + 2 <= len(data):
        marker, length = data[position : position + 2], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == b"\xff\xd9":
            return payload
        if marker == b"\xff\x90":
            # Psot counts from the SOT marker to the end of the tile-part; 0 means up to EOC.
            size = int.from_bytes(data[position + 6 : position + 10], "big") or len(data) - 2 - position
            header = position + 2 + length
            while data[header : header + 2] != b"\xff\x93" and header + 4 <= position + size:
                header += 2 + int.from_bytes(data[header + 2 : header + 4], "big")
            payload += position + size - (header + 2)
            position += size
        else:
            position += 2 + length
    raise ValueError("damaged JPEG 2000 codestream: its markers do not lead to its EOC")


def measure_jpeg(
    pictures: Pictures,
    dataset: str,
    split: str,
    qualities: Sequence[int] = JPEG_QUALITIES,
    subsampling: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Operating points of JPEG: rows as of `vcinr.evaluation.measure.measure`, with ``quality`` and ``subsampling`` besides.

    ``bpp_file`` counts the whole file, ``bpp_payload`` only the entropy-coded scan (`jpeg_payload_bytes`). ``bpp_container`` and
    ``bpp_estimated`` are None, because JPEG has no container of many pictures and no entropy model; ``model_bytes`` is 0.

    Args:
      pictures: uint8 [h, w, 3] each; ValueError for others.
      dataset: name, for the rows.
      split: name, for the rows.
      qualities: libjpeg's, 1 to 95, one row each.
      subsampling: see `encode_jpeg`.
      progress: called after each quality.
    """
    sampling = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}[subsampling]

    def encode(picture: np.ndarray, quality: float | int) -> bytes:
        return encode_jpeg(picture, int(quality), subsampling)

    rows = _measure("jpeg", encode, jpeg_payload_bytes, pictures, dataset, split, qualities, progress)
    return [row | {"subsampling": sampling} for row in rows]


def measure_jpeg2000(
    pictures: Pictures,
    dataset: str,
    split: str,
    decibels: Sequence[float | int] = JPEG2000_DECIBELS,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Operating points of JPEG 2000, as `measure_jpeg`; ``quality`` is the target PSNR in dB, and no chroma is subsampled.

    ``bpp_payload`` counts `jpeg2000_payload_bytes`.
    """
    return _measure("jpeg2000", encode_jpeg2000, jpeg2000_payload_bytes, pictures, dataset, split, decibels, progress)


def check_picture(picture: Any) -> np.ndarray:
    """The picture as an array, or a ValueError where it is not uint8 [h, w, 3]."""
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3 or picture.size == 0:
        raise ValueError(
            f"pictures are measured as uint8 [h, w, 3], not {picture.dtype} {list(picture.shape)}: "
            "read them with vcinr.modalities.files.picture.read_image"
        )
    return picture


def _measure(
    codec: str,
    encode: Callable[[np.ndarray, float | int], bytes],
    count_payload: Callable[[bytes], int],
    pictures: Pictures,
    dataset: str,
    split: str,
    qualities: Sequence[float | int],
    progress: Progress | None,
) -> list[dict[str, Any]]:
    pictures = [check_picture(picture) for picture in pictures]
    rows = []
    for point, quality in enumerate(qualities):
        files = [encode(picture, quality) for picture in pictures]
        mses = [mean_squared_error(picture, decode(data)) for picture, data in zip(pictures, files, strict=True)]
        row = rate_quality_row(
            codec=codec,
            dataset=dataset,
            split=split,
            point=point,
            samples=pictures,
            file_bytes=[len(data) for data in files],
            payload_bytes=[count_payload(data) for data in files],
            mses=mses,
            # Both standards decode to 8 bits, so there are no unrounded values.
            float_mses=mses,
            container_bytes=None,
            estimated_bits=None,
            model_bytes=0,
        )
        rows.append(row | {"quality": quality})
        if progress is not None:
            progress(f"{codec}: quality {quality}", point + 1, len(qualities))
    return rows

"""16-bit pictures from PNG and TIFF files and back, every bit of them; Pillow keeps but the upper byte of their colour."""

from __future__ import annotations

import io
import os
import pathlib
import struct
import zlib

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from vcinr.modalities.files.npz import label, read_all
from vcinr.modalities.files.picture import ImageError, bits_per_channel, open_image
from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {0: 1, 2: 3, 4: 2, 6: 4}
"""PNG's colour type → channels, of those without a palette."""
_UPRIGHT = {
    # EXIF's orientation → how to turn [h, w, c].
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def read_deep_image(
    source: str | os.PathLike | io.BufferedIOBase, channels: int, max_pixels: int = DEFAULT_MAX_SAMPLES
) -> UInt16[np.ndarray, "h w c"]:
    """Read a PNG or TIFF file of 16 bits per channel as it is, turned as its EXIF orientation says.

    channels: 1 for grey, 3 for RGB; the other is refused. An alpha channel passes if every pixel is opaque.
    max_pixels: pictures whose header promises more are refused before they are decoded.

    Embedded colour profiles and gamma are ignored: the numbers in the file are the signal.
    Raises ImageError for what cannot be read so, OSError where the file cannot be opened.
    """
    try:
        return _read(read_all(source), channels, max_pixels)
    except ImageError as error:
        raise ImageError(f"{label(source)}: {error}") from error.__cause__


def write_deep_image(path: str | os.PathLike, picture: UInt16[np.ndarray, "h w c"]) -> None:
    """Write a picture of 1 or 3 channels as .png, .tif or .tiff. OSError where the file cannot be written."""
    if pathlib.Path(path).suffix.lower() == ".png":
        pathlib.Path(path).write_bytes(png_bytes(picture))
        return
    import tifffile

    kind = "minisblack" if picture.shape[-1] == 1 else "rgb"
    tifffile.imwrite(path, picture[..., 0] if picture.shape[-1] == 1 else picture, photometric=kind, metadata=None)


def png_bytes(picture: UInt16[np.ndarray, "h w c"]) -> bytes:
    """A PNG file with 16 bits per channel; each row is filtered by its left or its upper neighbours, whichever leaves less."""
    height, width, channels = picture.shape
    colour = next(key for key, count in _COLOURS.items() if count == channels)
    rows = np.ascontiguousarray(picture.astype(">u2")).view(np.uint8).reshape(height, -1)
    left, above = np.zeros_like(rows), np.zeros_like(rows)
    left[:, 2 * channels :] = rows[:, : -2 * channels]
    above[1:] = rows[:-1]
    # Differences modulo 256, small ones of either sign.
    tried = np.stack([rows - left, rows - above])
    choice = np.abs(tried.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64).argmin(axis=0)
    best = np.take_along_axis(tried, choice[None, :, None], axis=0)[0]
    raw = np.concatenate([(choice + 1).astype(np.uint8)[:, None], best], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(raw, 6)) + _chunk(b"IEND", b"")


def _read(data: bytes, channels: int, max_pixels: int) -> np.ndarray:
    with open_image(io.BytesIO(data), max_pixels) as image:
        # Of planes one after another Pillow's raw modes don't tell.
        depth = _tag(image, 258) if image.format == "TIFF" else bits_per_channel(image)
        if 8 < depth != 16 or image.mode in ("CMYK", "LAB", "HSV", "YCbCr", "F"):
            raise ImageError(f"holds {image.mode} of {depth} bits, not grey or RGB of 16; convert it to 16-bit PNG")
        if depth <= 8:
            kind = "grey_picture" if image.mode in ("1", "L", "LA") else "picture"
            raise ImageError(f"has 8 bits per channel or fewer; read it with --modality {kind}")
        if image.format not in ("PNG", "TIFF"):
            raise ImageError(f"16-bit pictures are read from PNG and TIFF files, not {image.format}; convert it to PNG")
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError(f"has {image.n_frames} frames; extract the one you want as a PNG")
        values, turned = _png(data) if image.format == "PNG" else (_tiff(data, image.size), _tag(image, 274))
    if values.shape[-1] in (2, 4):
        if values[..., -1].min() < 65535:
            raise ImageError(
                "has transparent pixels; composite it over a colour first (magick IN -background white -flatten OUT)"
            )
        values = values[..., :-1]
    if values.shape[-1] != channels:
        what, kind = ("is grey", "deep_grey_picture") if values.shape[-1] == 1 else ("has colour", "deep_picture")
        raise ImageError(f"{what}; read it with --modality {kind}")
    return np.ascontiguousarray(_UPRIGHT.get(turned, _UPRIGHT[1])(values))


def _png(data: bytes) -> tuple[np.ndarray, int]:
    """Values uint16 [h, w, c] of a PNG file of 16 bits per channel, and its EXIF orientation. W3C's PNG, sections 5 to 11."""
    chunks = _chunks(data)
    if len(chunks.get(b"IHDR", b"")) != 13:
        raise ImageError("damaged: its header is not that of a PNG file")
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if bits != 16 or colour not in _COLOURS:
        raise ImageError(f"damaged: {bits} bits of colour type {colour} are not 16 bits per channel")
    if interlaced:
        raise ImageError("is interlaced, which is not read with 16 bits; save it without (magick IN -interlace none OUT.png)")
    channels = _COLOURS[colour]
    length = height * (1 + 2 * channels * width)
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(chunks.get(b"IDAT", b""), length)
    except zlib.error as error:
        raise ImageError(f"damaged: {error}") from error
    if len(raw) != length:
        raise ImageError(f"damaged or truncated: {len(raw)} of {length} bytes of pixels")
    rows = np.frombuffer(raw, np.uint8).reshape(height, -1)
    if rows[:, 0].max() > 4:
        raise ImageError("damaged: its rows have filters that PNG does not know")
    values = _unfiltered(rows[:, 1:].reshape(height, width, 2 * channels), rows[:, 0]).view(">u2").astype(np.uint16)
    key = chunks.get(b"tRNS")
    if key is not None and len(key) == 2 * channels and (values == np.frombuffer(key, ">u2")).all(axis=-1).any():
        raise ImageError("has a transparent colour; make it opaque (magick IN -alpha off OUT.png)")
    exif = Image.Exif()
    try:
        exif.load(chunks.get(b"eXIf", b""))
        return values, exif.get(0x0112, 1)
    except Exception as error:  # Whatever Pillow raises on damaged data.
        raise ImageError(f"has damaged EXIF data ({error}); strip it, e.g. with exiftool -all=") from error


def _unfiltered(filtered: UInt8[np.ndarray, "h w b"], kinds: UInt8[np.ndarray, "h"]) -> UInt8[np.ndarray, "h w b"]:
    """Bytes of pixels from those that PNG's filters left, by diagonals: a pixel needs those to its left and above alone."""
    height, width, size = filtered.shape
    out = np.zeros((height + 1, width + 1, size), np.uint8)
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        x = diagonal - y
        a, b, c = (out[row, column].astype(np.int16) for row, column in ((y + 1, x), (y, x + 1), (y, x)))
        to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
        paeth = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
        guess = np.choose(kinds[y][:, None], [np.zeros_like(a), a, b, (a + b) >> 1, paeth])
        out[y + 1, x + 1] = filtered[y, x] + guess.astype(np.uint8)
    return np.ascontiguousarray(out[1:, 1:])


def _tiff(data: bytes, size: tuple[int, int]) -> np.ndarray:
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            found = (page.imagewidth, page.imagelength)
            count = page.samplesperpixel
            if found != size or page.dtype != np.uint16 or count > 4 or page.size != count * size[0] * size[1]:
                raise ImageError(f"holds {page.dtype} {list(page.shape)}, not 16-bit pixels; convert it to 16-bit PNG")
            if page.photometric != (tifffile.PHOTOMETRIC.RGB if count > 2 else tifffile.PHOTOMETRIC.MINISBLACK):
                raise ImageError(f"holds {page.photometric.name}, not grey or RGB; convert it to 16-bit PNG")
            values = page.asarray().reshape(page.shaped).astype(np.uint16)
    except ImageError:
        raise
    except Exception as error:  # Decoders raise whatever they like on damaged files.
        raise ImageError(f"damaged, or compressed in a way that is not read here ({error}); convert it to 16-bit PNG") from error
    # Of planes one after another, [separate, depth, h, w, samples] has the planes first.
    return np.moveaxis(values[:, 0, ..., 0], 0, -1) if values.shape[0] > 1 else values[0, 0]


def _tag(image: Image.Image, number: int) -> int:
    """A TIFF file's tag, or the largest of several values; 1 where it has none."""
    found = image.tag_v2.get(number, 1)
    values = found if isinstance(found, tuple) and found else (found,)
    if not all(isinstance(value, int) for value in values):
        raise ImageError(f"damaged: its tag {number} is {found!r}")
    return max(values)


def _chunks(data: bytes) -> dict[bytes, bytes]:
    """Kind → content of a PNG file's chunks; pixels are joined, of others the first counts."""
    found: dict[bytes, bytes] = {}
    pixels, position = [], len(_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, content = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        check = data[position + 8 + length : position + 12 + length]
        if len(check) < 4 or zlib.crc32(kind + content) != int.from_bytes(check, "big"):
            raise ImageError(f"damaged or truncated in its chunk {kind!r}")
        if kind == b"IEND":
            return {**found, b"IDAT": b"".join(pixels)}
        if kind == b"IDAT":
            pixels.append(content)
        else:
            found.setdefault(kind, content)
        position += 12 + length
    raise ImageError("truncated: it ends before its last chunk")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

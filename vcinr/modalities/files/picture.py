"""Pictures from files and back: one documented conversion to 8-bit RGB, or one clear error."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from vcinr.modalities.files.npz import label
from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES
from vcinr.modalities.picture import LOSSLESS_SUFFIXES

_INTEGER_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


class ImageError(ValueError):
    """A file that is not a picture this package reads, or an array it does not write; the message names the mend."""


def read_image(
    path_or_file: str | os.PathLike | io.BufferedIOBase,
    background: str | None = None,
    eight_bit: bool = False,
    max_pixels: int = DEFAULT_MAX_SAMPLES,
) -> UInt8[np.ndarray, "h w 3"]:
    """Read a picture as 8-bit RGB, turned as its EXIF orientation says.

    background: colour (``"#ffffff"``, or a name) that transparent pixels are composited over.
    eight_bit: whether pictures with 16 bits per channel may be reduced to 8.
    max_pixels: pictures whose header promises more are refused before they are decoded.

    What becomes of Pillow's modes:

    * 1, L (grey), P (palette), RGB, RGBX: pass; grey becomes three equal channels.
    * LA, PA, RGBA and anything else that can be transparent: pass if every pixel is opaque, else need ``background``.
    * I;16, I (16-bit grey): need ``eight_bit``; v becomes v / 257, rounded. 16-bit colour: the same, but Pillow itself
      keeps the upper byte only. Deeper AVIF and JPEG 2000 colour is reduced to 8 bits by Pillow without notice.
    * YCbCr: the JFIF matrix. CMYK, LAB, HSV need a colour profile to be converted well, so they are refused; F too.
    * More than one frame (animations, multi-page TIFF): refused; of a camera's MPO the first, main picture is read.

    Embedded colour profiles and gamma are ignored: the numbers in the file are the signal.
    Raises ImageError for what cannot be read so, OSError where the file cannot be opened.
    """
    name = os.fspath(path_or_file) if isinstance(path_or_file, (str, os.PathLike)) else getattr(path_or_file, "name", "picture")
    with contextlib.ExitStack() as stack:
        file = path_or_file
        if isinstance(path_or_file, (str, os.PathLike)):
            file = stack.enter_context(open(path_or_file, "rb"))
        try:
            return _read(file, background, eight_bit, max_pixels)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None


def read_grey_image(
    path_or_file: str | os.PathLike | io.BufferedIOBase,
    background: str | None = None,
    eight_bit: bool = False,
    max_pixels: int = DEFAULT_MAX_SAMPLES,
) -> UInt8[np.ndarray, "h w 1"]:
    """Read a picture as `read_image` does, and of its three channels one. ImageError where they are not all equal."""
    rgb = read_image(path_or_file, background, eight_bit, max_pixels)
    if (rgb != rgb[..., :1]).any():
        mend = "read it with --modality picture, or make it grey (magick IN -colorspace gray OUT.png)"
        raise ImageError(f"{label(path_or_file)}: has colour; {mend}")
    return np.ascontiguousarray(rgb[..., :1])


def write_image(path: str | os.PathLike, picture: np.ndarray) -> None:
    """Write a picture, uint8 [h, w, 3], in a format that keeps every value, chosen by the suffix (`LOSSLESS_SUFFIXES`).

    Raises ImageError for another suffix or array, OSError where the file cannot be written.
    """
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in LOSSLESS_SUFFIXES:
        valid = ", ".join(LOSSLESS_SUFFIXES)
        raise ImageError(f"{os.fspath(path)}: pictures are written as one of {valid}, which keep every value")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3 or 0 in picture.shape:
        raise ImageError(f"a picture to write is uint8 [h, w, 3], not {picture.dtype} {list(picture.shape)}")
    Image.fromarray(picture).save(path)


def open_image(file: io.BufferedIOBase, max_pixels: int) -> Image.Image:
    """An opened picture that is not decoded yet. ImageError for what is none, has no pixels, or promises more than the limit."""
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        raise ImageError("not a picture in a format that Pillow reads; convert it to PNG") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{error} If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS") from None
    except Exception as error:  # Decoders raise whatever they like on damaged files.
        raise ImageError(f"damaged: {error}") from error
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{width}x{height} has no pixels")
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels are more than the limit of {max_pixels}; raise --max-pixels if you trust it")
    return image


def _read(file: io.BufferedIOBase, background: str | None, eight_bit: bool, max_pixels: int) -> np.ndarray:
    colour = None if background is None else _colour(background)
    with open_image(file, max_pixels) as image:
        width, height = image.size
        # Before decoding, which clears the list of tiles.
        depth = bits_per_channel(image)
        try:
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if frames == 1:
                image.load()
        except Exception as error:
            raise ImageError(f"damaged or truncated: {error}") from error
        if frames > 1:
            raise ImageError(f"has {frames} frames; extract the one you want as a PNG")
        # A decoder may put another size than the header's in its place.
        if image.size != (width, height) and image.size[0] * image.size[1] > max_pixels:
            raise ImageError(f"{image.size[0]}x{image.size[1]} pixels are more than the limit of {max_pixels}")
        return _to_rgb(_upright(image), depth, colour, eight_bit)


def bits_per_channel(image: Image.Image) -> int:
    """Bits a channel that the file holds; Pillow reduces deep colour to 8 without a word, so its raw modes are read."""
    args = [arg for tile in getattr(image, "tile", ()) for arg in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))]
    if image.format == "PPM" and any(isinstance(arg, int) and arg > 255 for arg in args):
        return 16
    # "RGB;16" without a letter is 16 bits per pixel, not per channel.
    found = [re.search(r"^(?:I|L|LA);(\d+)|;(16)[BLN]", arg) for arg in args if isinstance(arg, str)]
    return max((int(match[1] or match[2]) for match in found if match), default=16 if image.mode in _INTEGER_MODES else 8)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:
        raise ImageError(f"has damaged EXIF data ({error}); strip it, e.g. with exiftool -all=") from error


def _to_rgb(image: Image.Image, depth: int, background: np.ndarray | None, eight_bit: bool) -> np.ndarray:
    if image.mode in ("CMYK", "LAB", "HSV"):
        raise ImageError(f"is {image.mode}; convert it to RGB by its colour profile first (magick IN -colorspace sRGB OUT.png)")
    if image.mode == "F":
        raise ImageError("holds floating-point values; scale them to 0..255 and save as 8-bit PNG")
    if image.mode in _INTEGER_MODES and depth != 16:
        raise ImageError(f"holds {depth}-bit integers; scale them to 0..255 and save as 8-bit PNG")
    if depth > 8 and not eight_bit:
        raise ImageError(f"has {depth} bits per channel; pass --eight-bit (eight_bit=True) to reduce it to 8")
    if image.mode in _INTEGER_MODES:
        return _reduced(image)
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    rgba = np.array((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(colour)
    if background is None:
        raise ImageError("has transparent pixels; pass --background '#ffffff' (background=...) to composite it over a colour")
    # At most 255² + 127, which fits in 16 bits.
    alpha = alpha.astype(np.uint16)
    return ((alpha * colour + (255 - alpha) * background + 127) // 255).astype(np.uint8)


def _reduced(image: Image.Image) -> np.ndarray:
    values = np.array(image).astype(np.int64)
    if "transparency" in image.info:
        raise ImageError("has transparency in 16-bit grey, which Pillow does not read; save it as 8-bit PNG")
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"holds values from {values.min()} to {values.max()}, not 0..65535; scale them and save as 8-bit PNG")
    return np.repeat(((values + 128) // 257).astype(np.uint8)[..., None], 3, axis=-1)


def _colour(background: str) -> np.ndarray:
    try:
        colour = ImageColor.getrgb(background)
    except (ValueError, AttributeError):
        colour = ()
    if len(colour) != 3:
        raise ImageError(f"background {background!r} is not an opaque colour such as '#ffffff' or 'white'")
    return np.array(colour, np.uint16)

"""Pictures: 8-bit RGB, uint8 [height, width, 3], read and written through Pillow; grey and 16-bit ones."""

from __future__ import annotations

import dataclasses
import io
import os
from typing import Any

import numpy as np

from vcinr.evaluation.ms_ssim import SMALLEST_SIDE, ms_ssim
from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES, Modality, ReadOption, Source

# Pillow is imported where it is needed: the command line names suffixes and options without it.
READ_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".tga"),
)
LOSSLESS_SUFFIXES = (".png", ".ppm", ".tif", ".tiff", ".bmp")
EXACT_SUFFIXES = (".png", ".tif", ".tiff")
"""Of files that keep what is grey grey, and 16 bits."""
READ_OPTIONS = (
    ReadOption("background", "composite translucent pictures over this colour, e.g. '#ffffff'", metavar="COLOUR"),
    ReadOption("eight_bit", "round 16-bit pictures to 8 bits"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Picture(Modality):
    """8-bit RGB pictures on a grid of pixels; coordinates in the order y, x. A file holds nothing besides their pixels."""

    name: str = "picture"
    coord_dim: int = 2
    channels: int = 3
    mirrored_axes: tuple[int, ...] = (1,)
    read_suffixes: tuple[str, ...] = READ_SUFFIXES
    write_suffixes: tuple[str, ...] = LOSSLESS_SUFFIXES
    read_options: tuple[ReadOption, ...] = READ_OPTIONS
    references: tuple[str, ...] = ("vcinr.evaluation.classical:measure_jpeg", "vcinr.evaluation.classical:measure_jpeg2000")

    def check(self, samples: Any) -> None:
        """ValueError that names the mend where this is no uint8 [height, width, 3]."""
        if not isinstance(samples, np.ndarray):
            raise ValueError(
                f"a picture is a NumPy array of uint8 [height, width, 3], not {type(samples).__name__}: use np.asarray"
            )
        if samples.ndim == 2 or (samples.ndim == 3 and samples.shape[-1] == 1):
            mend = "repeat the grey channel: np.repeat(grey.reshape(h, w, 1), 3, axis=-1)"
        elif samples.ndim == 3 and samples.shape[-1] == 4:
            mend = "composite it over a background, as vcinr.modalities.files.picture.read_image does"
        elif samples.ndim == 3 and samples.shape[0] == 3 and samples.shape[-1] != 3:
            mend = "put channels last: np.moveaxis(picture, 0, -1)"
        elif samples.ndim == 4:
            mend = "pass pictures one at a time"
        elif samples.ndim != 3 or samples.shape[-1] != 3:
            mend = "give it three axes, the last of length 3"
        elif 0 in samples.shape:
            mend = "drop it: it has no pixels"
        elif samples.dtype == np.uint8:
            return
        elif np.issubdtype(samples.dtype, np.floating):
            mend = "scale it to 0..255, then np.round(picture).astype(np.uint8)"
        else:
            mend = "scale it to 0..255 and convert with .astype(np.uint8)"
        raise ValueError(f"a picture is uint8 [height, width, 3], not {samples.dtype} {list(samples.shape)}: {mend}")

    def metrics(self, original: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
        """``psnr_db``; ``ms_ssim`` where all sides have 176 pixels and more: see `vcinr.evaluation.ms_ssim.ms_ssim`."""
        quality = super().metrics(original, decoded)
        if min(original.shape[:2]) >= SMALLEST_SIDE:
            quality["ms_ssim"] = ms_ssim(original, decoded, self.peak)
        return quality

    def read(
        self,
        source: Source,
        *,
        max_samples: int = DEFAULT_MAX_SAMPLES,
        background: str | None = None,
        eight_bit: bool = False,
    ) -> np.ndarray:
        """The picture in a file, uint8 [h, w, 3]: see `vcinr.modalities.files.picture.read_image`."""
        from vcinr.modalities.files.picture import read_image

        return read_image(source, background, eight_bit, max_samples)

    def write(self, path: str | os.PathLike, raw: np.ndarray) -> None:
        """Writes a picture: see `vcinr.modalities.files.picture.write_image`."""
        from vcinr.modalities.files.picture import write_image

        write_image(path, raw)

    def to_bytes(self, raw: np.ndarray) -> bytes:
        """The picture as PNG."""
        from PIL import Image

        self.check(raw)
        png = io.BytesIO()
        Image.fromarray(raw).save(png, "PNG")
        return png.getvalue()

    def from_bytes(self, data: bytes) -> np.ndarray:
        """The picture in a file's bytes; of one that `read` would refuse, as in stock data sets, what Pillow makes of it."""
        from PIL import Image

        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))


@dataclasses.dataclass(frozen=True, eq=False)
class DeepPicture(Modality):
    """Pictures of 16 bits per channel, grey or RGB, from and to PNG and TIFF; coordinates in the order y, x.

    Files of another kind than the row's are refused, never converted: every value that is read is the file's own.
    """

    name: str = "deep_picture"
    coord_dim: int = 2
    channels: int = 3
    sample_type: str = "uint16"
    peak: float | int = 65535
    mirrored_axes: tuple[int, ...] = (1,)
    read_suffixes: tuple[str, ...] = EXACT_SUFFIXES
    write_suffixes: tuple[str, ...] = EXACT_SUFFIXES

    def check(self, samples: Any) -> None:
        """ValueError that names the mend where these are no pixels, [height, width, channels], of the row's type."""
        wanted = f"a {self.name} is a NumPy array of {self.sample_type} [height, width, {self.channels}]"
        if not isinstance(samples, np.ndarray):
            raise ValueError(f"{wanted}, not {type(samples).__name__}: use np.asarray")
        kind = "deep_" if self.sample_type == "uint16" else ""
        if samples.ndim == 2 and self.channels == 1:
            mend = "add the axis of channels: grey[..., None]"
        elif samples.ndim == 2 or (samples.ndim == 3 and samples.shape[-1] == 1 != self.channels):
            mend = f"with one channel it is a {kind}grey_picture"
        elif samples.ndim == 3 and samples.shape[-1] == 3 != self.channels:
            mend = f"with three channels it is a {kind}picture"
        elif samples.ndim != 3 or samples.shape[-1] != self.channels:
            mend = "pass one picture, channels last and without alpha"
        elif 0 in samples.shape:
            mend = "drop it: it has no pixels"
        elif samples.dtype.name == self.sample_type:
            return
        else:
            mend = f"scale it to 0..{self.peak}, then np.round(picture).astype(np.{self.sample_type})"
        raise ValueError(f"{wanted}, not {samples.dtype} {list(samples.shape)}: {mend}")

    def metrics(self, original: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
        """``psnr_db``; ``ms_ssim`` where all sides have 176 pixels and more: see `vcinr.evaluation.ms_ssim.ms_ssim`."""
        quality = super().metrics(original, decoded)
        if min(original.shape[:2]) >= SMALLEST_SIDE:
            quality["ms_ssim"] = ms_ssim(original, decoded, self.peak)
        return quality

    def read(self, source: str | os.PathLike | io.BufferedIOBase, *, max_samples: int = DEFAULT_MAX_SAMPLES) -> np.ndarray:
        """The picture in a file: see `vcinr.modalities.files.deep_picture.read_deep_image`."""
        from vcinr.modalities.files.deep_picture import read_deep_image

        return read_deep_image(source, self.channels, max_samples)

    def write(self, path: str | os.PathLike, raw: Any) -> None:
        """Writes a picture, every bit of it: see `vcinr.modalities.files.deep_picture.write_deep_image`."""
        from vcinr.modalities.files.deep_picture import write_deep_image

        self.check(raw)
        self.check_target(path)
        write_deep_image(path, raw)


@dataclasses.dataclass(frozen=True, eq=False)
class GreyPicture(DeepPicture):
    """8-bit pictures of one channel; a file in colour is read if its three channels are equal."""

    name: str = "grey_picture"
    channels: int = 1
    sample_type: str = "uint8"
    peak: float | int = 255
    read_suffixes: tuple[str, ...] = READ_SUFFIXES
    read_options: tuple[ReadOption, ...] = READ_OPTIONS

    def read(
        self,
        source: str | os.PathLike | io.BufferedIOBase,
        *,
        max_samples: int = DEFAULT_MAX_SAMPLES,
        background: str | None = None,
        eight_bit: bool = False,
    ) -> np.ndarray:
        """The picture in a file, uint8 [h, w, 1]: see `vcinr.modalities.files.picture.read_grey_image`."""
        from vcinr.modalities.files.picture import read_grey_image

        return read_grey_image(source, background, eight_bit, max_samples)

    def write(self, path: str | os.PathLike, raw: Any) -> None:
        """Writes a picture as PNG or TIFF."""
        from PIL import Image

        self.check(raw)
        self.check_target(path)
        Image.fromarray(raw[..., 0]).save(path)

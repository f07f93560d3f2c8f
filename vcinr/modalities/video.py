"""Video: 8-bit RGB frames at a constant rate, read and written through PyAV."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from vcinr.evaluation.metrics import mean_squared_error, psnr_db, signal_psnr_db
from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES, Metadata, Modality, ReadOption

MAX_TERM = 10**6
"""Largest numerator and denominator of a frame rate."""
SLOWEST = Fraction(1, 86400)
"""Frames per second: one a day."""

FRAMES = ".frames"
"""Suffix of a folder of numbered .png frames with their rate."""

# PyAV is imported where it is needed: the command line names suffixes and options without it.
READ_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", FRAMES)
LOSSLESS_SUFFIXES = (".mp4", ".mkv", ".npz", FRAMES)
READ_OPTIONS = (
    ReadOption("frames", "read this many frames from the start of a video, and no more", metavar="N"),
    ReadOption("frame_rate", "take frames as they come, at this rate, e.g. 25 or 30000/1001", metavar="RATE"),
    ReadOption("eight_bit", "round deeper pictures and video to 8 bits"),
)


class Clip(NamedTuple):
    """A video: frame i is shown from i / rate seconds on.

    frames: uint8 [t, height, width, 3].   rate: frames per second, exact; its terms are at most `MAX_TERM`.
    """

    frames: np.ndarray
    rate: Fraction | int


@dataclasses.dataclass(frozen=True, eq=False)
class Video(Modality):
    """8-bit RGB video; coordinates in the order t, y, x, each from −1 to 1. A file holds the frame rate besides.

    Raw is a `Clip`. Sound, subtitles and the shape of pixels that are no squares are left out.
    """

    name: str = "video"
    coord_dim: int = 3
    channels: int = 3
    mirrored_axes: tuple[int, ...] = (2,)
    meta_types: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"rate_numerator": "int", "rate_denominator": "int"}
    )
    example_metadata: Metadata = dataclasses.field(default_factory=lambda: {"rate_numerator": 25, "rate_denominator": 1})
    read_suffixes: tuple[str, ...] = READ_SUFFIXES
    write_suffixes: tuple[str, ...] = LOSSLESS_SUFFIXES
    read_options: tuple[ReadOption, ...] = READ_OPTIONS
    references: tuple[str, ...] = (
        "vcinr.evaluation.classical_video:measure_x264",
        "vcinr.evaluation.classical_video:measure_x265",
    )

    def check(self, samples: Any) -> None:
        """ValueError that names the mend where these are no frames, uint8 [t, height, width, 3]."""
        wanted = "frames of a video are a NumPy array of uint8 [t, height, width, 3]"
        if not isinstance(samples, np.ndarray):
            raise ValueError(f"{wanted}, not {type(samples).__name__}: use np.stack")
        if samples.ndim == 3 and samples.shape[-1] == 3:
            mend = "one picture is a video of one frame: frames[None]"
        elif samples.ndim == 3 or (samples.ndim == 4 and samples.shape[-1] == 1):
            mend = "repeat the grey channel: np.repeat(grey.reshape(t, h, w, 1), 3, axis=-1)"
        elif samples.ndim == 4 and samples.shape[-1] != 3 and samples.shape[1] == 3:
            mend = "put channels last: np.moveaxis(frames, 1, -1)"
        elif samples.ndim == 4 and samples.shape[-1] == 4:
            mend = "composite it over a background and drop alpha"
        elif samples.ndim == 5:
            mend = "pass videos one at a time"
        elif samples.ndim != 4 or samples.shape[-1] != 3:
            mend = "give it four axes, the last of length 3"
        elif 0 in samples.shape:
            mend = "drop it: it has no frames or no pixels"
        elif samples.dtype == np.uint8:
            return
        else:
            mend = "scale it to 0..255, then np.round(frames).astype(np.uint8)"
        raise ValueError(f"{wanted}, not {samples.dtype} {list(samples.shape)}: {mend}")

    def unpack(self, raw: Any) -> tuple[np.ndarray, dict[str, int | float | bytes]]:
        """(frames, {"rate_numerator", "rate_denominator"}) of a `Clip`. ValueError as `check`, and for a rate out of bounds."""
        if not isinstance(raw, Clip):
            raise ValueError(f"a video is a Clip(frames, rate), not {type(raw).__name__}: say Clip(frames, Fraction(25))")
        self.check(raw.frames)
        rate = as_rate(raw.rate)
        return raw.frames, {"rate_numerator": rate.numerator, "rate_denominator": rate.denominator}

    def pack(self, samples: np.ndarray, metadata: Metadata) -> Clip:
        """The `Clip` of frames and their rate."""
        return Clip(samples, Fraction(int(metadata["rate_numerator"]), int(metadata["rate_denominator"])))

    def check_metadata(self, metadata: Metadata, shape: tuple[int, ...]) -> None:
        """ValueError where the frame rate is none, out of bounds, or no fraction in lowest terms."""
        del shape
        numerator, denominator = metadata["rate_numerator"], metadata["rate_denominator"]
        rate = as_rate(Fraction(numerator, denominator)) if numerator > 0 and denominator > 0 else None
        if rate is None or (rate.numerator, rate.denominator) != (numerator, denominator):
            raise ValueError(f"a frame rate is a positive fraction in lowest terms, not {numerator}/{denominator}")

    def resampled_metadata(self, metadata: Metadata, shape: tuple[int, ...], new: tuple[int, ...]) -> Metadata:
        """The frame rate that keeps the duration, to the nearest fraction that a file may hold."""
        rate = rounded_rate(self._rate(metadata) * new[0] / shape[0])
        return {"rate_numerator": rate.numerator, "rate_denominator": rate.denominator}

    def shape_at_rate(self, metadata: Metadata, shape: tuple[int, ...], rate: float | int) -> tuple[int, ...]:
        """As many frames as come nearest to this rate over the same time, at least 1. ValueError for a rate out of bounds."""
        if not 0 < rate <= MAX_TERM:
            raise ValueError(f"a frame rate lies above 0 and is at most {MAX_TERM}, not {rate:g}")
        return (max(1, round(shape[0] * rate / float(self._rate(metadata)))), *shape[1:])

    def rate_units(self, raw: Clip) -> dict[str, float]:
        """kbps: 1000 bits a second of the video."""
        return {"kbps": 1000 * len(raw.frames) / float(raw.rate)}

    def metrics(self, original: Clip, decoded: Clip) -> dict[str, float]:
        """psnr_db: of the mean error of all frames. psnr_per_frame_db: mean of the frames' PSNRs.

        A frame without error counts in that mean as one with one value wrong by one step.
        """
        for each in (original, decoded):
            self.unpack(each)
        if original.frames.shape != decoded.frames.shape:
            shapes = [list(each.frames.shape) for each in (original, decoded)]
            raise ValueError(f"videos of different shapes have no squared error: {shapes[0]} and {shapes[1]}")
        # Frame by frame, which takes the memory of one.
        mses = [mean_squared_error(*pair) for pair in zip(original.frames, decoded.frames, strict=True)]
        decibels = signal_psnr_db(mses, [original.frames[0].size] * len(mses), self.peak)
        return {"psnr_db": float(psnr_db(np.mean(mses))), "psnr_per_frame_db": float(np.mean(decibels))}

    def read(
        self,
        source: str | os.PathLike | io.BufferedIOBase,
        *,
        max_samples: int = DEFAULT_MAX_SAMPLES,
        frames: Any = None,
        frame_rate: Any = None,
        eight_bit: bool = False,
    ) -> Clip:
        """The Clip in a file, or of a folder of numbered .png frames.

        frames: at most this many from the start.   frame_rate: takes frames as they come, whatever times the file says.
        See `vcinr.modalities.files.video.read_clip`.
        """
        from vcinr.modalities.files.video import read_clip

        count = None if frames is None else _positive("frames", frames)
        return read_clip(source, max_samples, count, None if frame_rate is None else as_rate(frame_rate), eight_bit)

    def write(self, path: str | os.PathLike, raw: Clip) -> None:
        """Writes a Clip: see `vcinr.modalities.files.video.write_clip`."""
        from vcinr.modalities.files.video import write_clip

        self.check_target(path)
        write_clip(path, self.pack(*self.unpack(raw)))

    def to_bytes(self, raw: Clip) -> bytes:
        """The video as FFV1, without loss and about a third smaller than lossless H.264."""
        from vcinr.modalities.files.video import clip_bytes

        return clip_bytes(self.pack(*self.unpack(raw)), "ffv1", "mp4")

    @staticmethod
    def _rate(metadata: Metadata) -> Fraction:
        return Fraction(int(metadata["rate_numerator"]), int(metadata["rate_denominator"]))


def as_rate(value: Any) -> Fraction:
    """A frame rate as an exact fraction. ValueError for what is none, or is out of bounds."""
    try:
        # "1e999999999" is a number too.
        if isinstance(value, str) and not re.fullmatch(r"[0-9./]{1,20}", value):
            raise ValueError
        rate = Fraction(value)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        raise ValueError(f"{value!r} is no frame rate: give one such as 25 or 30000/1001") from None
    if rate < SLOWEST or max(rate.numerator, rate.denominator) > MAX_TERM:
        mend = "round it, e.g. to 30000/1001"
        raise ValueError(f"a frame rate is a fraction of numbers up to {MAX_TERM}, at least {SLOWEST}, not {value}: {mend}")
    return rate


def rounded_rate(rate: Fraction) -> Fraction:
    """The nearest frame rate whose terms are at most `MAX_TERM`. ValueError for one that is out of bounds."""
    return as_rate(rate.limit_denominator(max(1, int(MAX_TERM / max(rate, 1)))))


def _positive(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (ValueError, TypeError):
        number = 0
    if number < 1 or number != float(value):
        raise ValueError(f"{name} is a whole number of at least 1, not {value!r}")
    return number

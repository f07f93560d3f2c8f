"""Videos from files and back: frames as 8-bit RGB at a constant rate, or one clear error."""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.modalities.files.npz import label, npz_bytes, read_npz
from vcinr.modalities.files.picture import read_image, write_image
from vcinr.modalities.video import FRAMES, Clip, as_rate, rounded_rate

RATE_FILE = "rate.txt"
"""In a folder of frames: frames per second, as 25 or 30000/1001."""
MAX_COMMON_DENOMINATOR = 1001
"""Of frame rates that are averages: 29.97003 frames per second are 30000/1001."""
CODECS = {
    # Name → (encoder, pixel format, options); both keep every value.
    # Without B-frames no edit list is needed, whose rounding to milliseconds may drop the last frame.
    "h264": ("libx264rgb", "rgb24", {"qp": "0", "bf": "0"}),
    # One slice, or frames of a few pixels fail, and bytes depend on the number of cores.
    "ffv1": ("ffv1", "bgr0", {"level": "3", "slicecrc": "1", "slices": "1", "threads": "1", "coder": "1", "context": "1"}),
}


class VideoError(ValueError):
    """A file that is not a video this package reads, or a clip it does not write; the message names the mend."""


def read_clip(
    source: str | os.PathLike | io.BufferedIOBase,
    max_samples: int,
    frames: int | None = None,
    rate: Fraction | None = None,
    eight_bit: bool = False,
) -> Clip:
    """Reads a video as 8-bit RGB frames at a constant rate.

    source: a video file, by path or opened; an .npz file as `write_clip` makes it; or a folder of .png frames, in the order of
      the numbers in their names.
    max_samples: pixels of all frames; what promises more is refused before it is decoded, what turns out to have more as soon as
      it does.
    frames: at most this many, from the start.
    rate: frames per second, whatever times the file says; needed where it says none, as .png files don't.
    eight_bit: whether deeper frames may be reduced to 8 bits.

    What becomes of what videos may be:

    * YCbCr: by the matrix and range that the file declares, BT.601 and limited range where it is silent; chroma is interpolated.
      Grey becomes three equal channels. Sound and subtitles are left out, and so is the shape of pixels that are no squares.
    * Frames that are all within half a frame of their place at one rate have that rate; others vary, which needs ``rate``.
    * Turned by a multiple of 90 degrees (a telephone held upright): the frames are turned. By another angle: refused.
    * Transparent: passes if every pixel is opaque. More than 8 bits: needs ``eight_bit``.
    * Frames that change size, no frames, damaged or truncated files: refused.

    Raises VideoError for what cannot be read so, OSError where the file cannot be opened.
    """
    name = label(source)
    try:
        if isinstance(source, str | os.PathLike):
            path = Path(source)
            if path.is_dir():
                return _read_pictures(path, max_samples, frames, rate, eight_bit)
            with open(path, "rb") as file:
                return _read_opened(file, max_samples, frames, rate, eight_bit)
        return _read_opened(source, max_samples, frames, rate, eight_bit)
    except VideoError as error:
        raise VideoError(f"{name}: {error}") from (error.__cause__ or None)


def write_clip(path: str | os.PathLike, clip: Clip) -> None:
    """Writes a video without loss, as its suffix says.

    .mp4: H.264 with RGB and quantiser 0. .mkv: FFV1, smaller, but Matroska keeps frame rates to a nanosecond only. .npz: arrays
    ``frames`` and ``rate`` (numerator, denominator). .frames: a folder of 000000.png and so on, and rate.txt.
    Raises VideoError for a frame rate that the format has no room for, or a folder that is there already, OSError where the file
    cannot be written.
    """
    path = Path(path)
    suffix, rate = path.suffix.lower(), Fraction(clip.rate)
    if suffix == FRAMES:
        if path.exists():
            raise VideoError(f"{path} exists: remove it first, or choose another output")
        path.mkdir()
        (path / RATE_FILE).write_text(f"{rate}\n", encoding="ascii")
        for index, frame in enumerate(clip.frames):
            write_image(path / f"{index:06}.png", frame)
    elif suffix == ".npz":
        path.write_bytes(npz_bytes({"frames": clip.frames, "rate": np.array([rate.numerator, rate.denominator])}))
    else:
        path.write_bytes(clip_bytes(clip, *(("ffv1", "matroska") if suffix == ".mkv" else ("h264", "mp4"))))


def clip_bytes(clip: Clip, codec: str, kind: str) -> bytes:
    """A video file of this clip, without loss.   codec: key of `CODECS`.   kind: FFmpeg's name of the container."""
    av = _av()
    encoder, pixels, options = CODECS[codec]
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=kind) as container:
            stream = container.add_stream(encoder, rate=Fraction(clip.rate), options=options)
            _, stream.height, stream.width, _ = clip.frames.shape
            stream.pix_fmt = pixels
            for index, values in enumerate(clip.frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format="rgb24")
                frame.pts = index
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except (av.FFmpegError, OverflowError) as error:
        raise VideoError(f"a video of {list(clip.frames.shape)} is not written by {encoder} ({error}); write .npz") from error
    file.seek(0)
    with av.open(file) as container:
        found = container.streams.video[0].guessed_rate
    if found != clip.rate:
        raise VideoError(f"a {kind} file keeps {found} frames per second for {clip.rate}; write .mp4 or .npz")
    return file.getvalue()


def _read_opened(file: Any, max_samples: int, frames: int | None, rate: Fraction | None, eight_bit: bool) -> Clip:
    head = file.read(64)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if not size:
        raise VideoError("is empty")
    if head[:4] == b"PK\x03\x04":
        return _read_npz(file, max_samples, frames, rate)
    promised = _promised_bytes(head)
    # A last byte of padding may be missing.
    if promised is not None and promised > size + 1:
        raise VideoError(f"truncated: it has {size} of the {promised} bytes that it should have")
    av = _av()
    try:
        with av.open(file) as container:
            return _decoded(container, max_samples, frames, rate, eight_bit)
    except av.FFmpegError as error:
        reason = error.strerror or error
        raise VideoError(f"not a video that FFmpeg reads, or damaged ({reason}); make it anew: ffmpeg -i IN OUT.mp4") from error
    except (OSError, MemoryError, OverflowError, UnicodeDecodeError) as error:
        # Whatever sizes and places a damaged file may ask for.
        raise VideoError(f"damaged ({error!r}); make it anew: ffmpeg -i IN OUT.mp4") from error


def _decoded(container: Any, max_samples: int, frames: int | None, rate: Fraction | None, eight_bit: bool) -> Clip:
    if not container.streams.video:
        raise VideoError("holds no video; is it sound alone?")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None:
        raise VideoError("its video codec is not known to this FFmpeg; convert it: ffmpeg -i IN OUT.mp4")
    least = stream.frames if frames is None else min(stream.frames, frames)
    _check_size(max(least, 1), context.height, context.width, max_samples)
    found: list[np.ndarray] = []
    times: list[Fraction | None] = []
    for frame in _frames(container, stream):
        if frame.is_corrupt:
            raise VideoError(f"damaged at frame {len(found)}; make it anew: ffmpeg -i IN OUT.mp4")
        _check_size(len(found) + 1, frame.height, frame.width, max_samples)
        picture = _rgb(frame, eight_bit)
        if found and picture.shape != found[0].shape:
            was, now = (f"{each.shape[1]}x{each.shape[0]}" for each in (found[0], picture))
            raise VideoError(
                f"changes from {was} to {now} pixels at frame {len(found)}; scale it: ffmpeg -i IN -vf scale={was} OUT.mp4"
            )
        found.append(picture)
        times.append(None if frame.pts is None else frame.pts * frame.time_base)
        if len(found) == frames:
            break
    if not found:
        raise VideoError("has no frames")
    return Clip(np.stack(found), _rate(stream, times) if rate is None else rate)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise VideoError("damaged or truncated; make it anew: ffmpeg -i IN OUT.mp4")
        yield from packet.decode()


def _rgb(frame: Any, eight_bit: bool) -> np.ndarray:
    from av.video.reformatter import Interpolation

    parts = frame.format.components
    bits = max(part.bits for part in parts)
    if bits > 8 and not eight_bit:
        raise VideoError(f"has {bits} bits per channel; pass --eight-bit (eight_bit=True) to reduce it to 8")
    alpha = frame.format.name == "pal8" or any(part.is_alpha for part in parts)
    exact = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    values = frame.reformat(format="rgba" if alpha else "rgb24", interpolation=exact, threads=1).to_ndarray()
    if alpha and values[..., 3].min() < 255:
        raise VideoError("has transparent pixels; composite it over a colour first, in a video editor or with FFmpeg's overlay")
    if frame.rotation % 90:
        raise VideoError(f"is to be shown turned by {frame.rotation} degrees; make it upright: ffmpeg -i IN OUT.mp4")
    return np.ascontiguousarray(np.rot90(values[..., :3], frame.rotation // 90))


def _rate(stream: Any, times: Sequence[Fraction | None]) -> Fraction:
    """The rate at which every frame is within half a frame, and a tick of the file's clock, of its place."""
    known = [(index, time) for index, time in enumerate(times) if time is not None]
    average = stream.average_rate
    rough = average.limit_denominator(MAX_COMMON_DENOMINATOR) if average else None
    rates = [each for each in (stream.guessed_rate, rough, average, stream.base_rate) if each]
    if not known or not rates:
        raise VideoError("does not say when its frames are shown; pass --frame-rate, e.g. 25 (frame_rate=25)")
    for rate in rates:
        tolerance = 1 / (2 * rate) + stream.time_base
        if all(abs(time - known[0][1] - (index - known[0][0]) / rate) <= tolerance for index, time in known):
            try:
                return rounded_rate(rate)
            except ValueError as error:
                raise VideoError(f"{error}; or pass --frame-rate, e.g. 25 (frame_rate=25)") from error
    gaps = [float((b - a) / (j - i)) for (i, a), (j, b) in itertools.pairwise(known)]
    raise VideoError(
        f"has a variable frame rate: frames last {min(gaps):.4g} to {max(gaps):.4g} s; pass --frame-rate (frame_rate=…) to take "
        "them as they come, or make it constant: ffmpeg -i IN -vf fps=30 OUT.mp4"
    )


def _read_npz(file: Any, max_samples: int, frames: int | None, rate: Fraction | None) -> Clip:
    arrays = _said(read_npz, file.read(), 3 * max_samples)
    found, stored = arrays.get("frames"), arrays.get("rate")
    if found is None or found.ndim != 4 or found.dtype != np.uint8 or found.shape[-1] != 3 or not found.size:
        raise VideoError("an .npz file of a video holds frames, uint8 [t, height, width, 3], and rate, [numerator, denominator]")
    if rate is None:
        if stored is None or stored.shape != (2,) or stored.dtype.kind not in "iu" or stored.min() < 1:
            raise VideoError("holds no rate, two whole numbers; pass --frame-rate, e.g. 25 (frame_rate=25)")
        rate = _said(as_rate, Fraction(*stored.tolist()))
    return Clip(found[:frames].copy(), rate)


def _read_pictures(path: Path, max_samples: int, frames: int | None, rate: Fraction | None, eight_bit: bool) -> Clip:
    files = sorted((each for each in path.iterdir() if each.suffix.lower() == ".png" and each.name[0] != "."), key=_by_numbers)
    if not files:
        raise VideoError("a folder without .png frames is no video")
    names = {re.sub(r"[0-9]+", "0", each.name) for each in files}
    if len(names) > 1:
        raise VideoError(f"holds other pictures than numbered frames, {files[0].name} and {files[-1].name}: take them apart")
    if rate is None:
        if not (path / RATE_FILE).is_file():
            raise VideoError("pictures do not say when they are shown; pass --frame-rate, e.g. 25 (frame_rate=25)")
        with open(path / RATE_FILE, encoding="ascii", errors="replace") as file:
            rate = _said(as_rate, file.read(32).strip())
    files = files[:frames]
    first = _said(read_image, files[0], None, eight_bit, max_samples)
    _check_size(len(files), *first.shape[:2], max_samples)
    out = np.empty((len(files), *first.shape), np.uint8)
    for index, file in enumerate(files):
        picture = _said(read_image, file, None, eight_bit, max_samples)
        if picture.shape != first.shape:
            sizes = [f"{each.shape[1]}x{each.shape[0]}" for each in (picture, first)]
            raise VideoError(f"{file.name} has {sizes[0]} pixels, {files[0].name} {sizes[1]}: make them equal")
        out[index] = picture
    return Clip(out, rate)


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", path.name)]


def _said(function: Callable, *args: Any) -> Any:
    try:
        return function(*args)
    except ValueError as error:
        raise VideoError(str(error)) from error


def _check_size(frames: int, height: int, width: int, max_samples: int) -> None:
    if frames * height * width > max_samples:
        raise VideoError(
            f"{frames} frames or more of {width}x{height} pixels are more than the limit of {max_samples}; "
            "read fewer with --frames, or raise --max-pixels if you trust it"
        )


def _promised_bytes(head: bytes) -> int | None:
    """Length of a file by its own header, of AVI (RIFF) and Matroska (EBML), whose ends FFmpeg does not miss; None: unknown."""
    if head[:4] == b"RIFF":
        return int.from_bytes(head[4:8], "little") + 8
    if head[:4] != b"\x1a\x45\xdf\xa3":
        return None
    start = _ebml_size(head, 4)
    if start is None:
        return None
    segment = start[0] + start[1]
    if head[segment : segment + 4] != b"\x18\x53\x80\x67":
        return None
    end = _ebml_size(head, segment + 4)
    return None if end is None else end[0] + end[1]


def _ebml_size(data: bytes, position: int) -> tuple[int, int] | None:
    """(position after it, value) of a variable-length size; None where it says that the size is not known, or ends early."""
    if position >= len(data) or not data[position]:
        return None
    length = 9 - data[position].bit_length()
    value = int.from_bytes(data[position : position + length], "big") & ((1 << 7 * length) - 1)
    if position + length > len(data) or value == (1 << 7 * length) - 1:
        return None
    return position + length, value


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise VideoError("reading and writing video needs PyAV: pip install 'vcinr[video]'") from None
    return av

"""H.264 and H.265 as x264 and x265 write them through PyAV, measured like any other codec: on streams that were decoded again."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from vcinr.evaluation.measure import Progress, rate_quality_row
from vcinr.evaluation.metrics import mean_squared_error, signal_psnr_db

Clips = Sequence[Any]
"""Videos, each with ``frames``, uint8 [t, height, width, 3] of even sizes, and ``rate``, frames per second."""

CRFS = (8, 11, 14, 17, 20, 23, 26, 29, 32, 35, 38, 41, 44)
"""Operating points, in both encoders' constant rate factor; people use 18 to 28."""
PRESET = "slow"
ENCODERS = {
    # Name → (FFmpeg's encoder, raw format, further options): one thread, so that bytes are equal on every machine.
    "x264": ("libx264", "h264", {"threads": "1"}),
    "x265": ("libx265", "hevc", {"x265-params": "log-level=none:info=0:pools=none:frame-threads=1"}),
}
CHROMA = {"4:2:0": "yuv420p", "4:4:4": "yuv444p"}


def encode(
    codec: str, frames: np.ndarray, rate: Fraction | int, crf: int, preset: str = PRESET, tune: str = "", chroma: str = "4:2:0"
) -> bytes:
    """A raw stream (Annex B), what an .mp4 file holds without its tables, and without x264's note of its own settings.

    Args:
      codec: key of `ENCODERS`.
      frames: uint8 [t, height, width, 3], even sizes; converted by BT.601, limited range, as FFmpeg does unasked.
      rate: frames per second, which rate control takes into account.
      crf: constant rate factor, 0 to 51.
      preset: speed of the encoder, such as medium or slow.
      tune: what it is tuned for, such as psnr; "" for nothing, which favours what looks sharp.
      chroma: key of `CHROMA`; 4:2:0, what people use, keeps a quarter of the chroma samples.
    """
    av = _av()
    encoder, kind, options = ENCODERS[codec]
    options = {**options, "crf": str(crf), "preset": preset, **({"tune": tune} if tune else {})}
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(encoder, rate=Fraction(rate), options=options)
        _, stream.height, stream.width, _ = frames.shape
        stream.pix_fmt = CHROMA[chroma]
        for index, values in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format="rgb24")
            frame = frame.reformat(format=CHROMA[chroma], interpolation=_exact(), threads=1)
            frame.pts, frame.time_base = index, 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = file.getvalue()
    return data if codec == "x265" else b"".join(b"\0\0\0\1" + unit for unit in _units(data) if unit[:2] != b"\x06\x05")


def decode(codec: str, data: bytes) -> np.ndarray:
    """The frames of a raw stream, uint8 [t, height, width, 3], in the order in which they are shown."""
    with _av().open(io.BytesIO(data), format=ENCODERS[codec][1]) as container:
        frames = [
            frame.reformat(format="rgb24", interpolation=_exact(), threads=1).to_ndarray() for frame in container.decode(video=0)
        ]
    return np.stack(frames)


def payload_bytes(codec: str, data: bytes) -> int:
    """Bytes of the coded slices of a raw stream: without parameter sets and start codes. ITU-T H.264 and H.265, section 7.4."""
    if codec == "x264":
        return sum(len(unit) for unit in _units(data) if 1 <= unit[0] & 31 <= 5)
    return sum(len(unit) for unit in _units(data) if unit[0] >> 1 & 63 < 32)


def measure_x264(
    clips: Clips,
    dataset: str,
    split: str,
    crfs: Sequence[int] = CRFS,
    preset: str = PRESET,
    tune: str = "",
    chroma: str = "4:2:0",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Operating points of x264: rows as of `vcinr.evaluation.measure.measure`, with ``quality`` (the CRF) and settings besides.

    ``bpp_file`` counts the whole raw stream, ``bpp_payload`` the slices alone; sizes are per pixel of each frame.
    ``bpp_container`` and ``bpp_estimated`` are None, ``model_bytes`` is 0.

    Args:
      clips: see `Clips`; ValueError for others.
      dataset: name, for the rows.
      split: name, for the rows.
      crfs: one row each.
      preset, tune, chroma: see `encode`.
      progress: called after each row.
    """
    return _measure("x264", clips, dataset, split, crfs, preset, tune, chroma, progress)


def measure_x265(
    clips: Clips,
    dataset: str,
    split: str,
    crfs: Sequence[int] = CRFS,
    preset: str = PRESET,
    tune: str = "",
    chroma: str = "4:2:0",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Operating points of x265, as `measure_x264`."""
    return _measure("x265", clips, dataset, split, crfs, preset, tune, chroma, progress)


def _measure(
    codec: str,
    clips: Clips,
    dataset: str,
    split: str,
    crfs: Sequence[int],
    preset: str,
    tune: str,
    chroma: str,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    samples = [_check(codec, clip) for clip in clips]
    seconds = [len(clip.frames) / float(clip.rate) for clip in clips]
    rows = []
    for point, crf in enumerate(crfs):
        files = [encode(codec, clip.frames, clip.rate, crf, preset, tune, chroma) for clip in clips]
        mses, by_frame = [], []
        for frames, data in zip(samples, files, strict=True):
            found = decode(codec, data)
            if found.shape != frames.shape:
                raise ValueError(f"{codec} decodes {list(frames.shape)} to {list(found.shape)}: no measure is valid")
            each = [mean_squared_error(*pair) for pair in zip(frames, found, strict=True)]
            mses.append(float(np.mean(each)))
            by_frame.append(float(np.mean(signal_psnr_db(each, [frames[0].size] * len(each)))))
        row = rate_quality_row(
            codec=codec,
            dataset=dataset,
            split=split,
            point=point,
            samples=samples,
            file_bytes=[len(data) for data in files],
            payload_bytes=[payload_bytes(codec, data) for data in files],
            mses=mses,
            # Decoders give 8 bits, so there are no unrounded values.
            float_mses=mses,
            container_bytes=None,
            estimated_bits=None,
            model_bytes=0,
        )
        further = {
            "psnr_per_frame_db": float(np.mean(by_frame)),
            "kbps": float(np.mean([8 * len(data) / (1000 * length) for data, length in zip(files, seconds, strict=True)])),
        }
        rows.append(row | further | {"quality": crf, "preset": preset, "tune": tune, "subsampling": chroma})
        if progress is not None:
            progress(f"{codec}: CRF {crf}", point + 1, len(crfs))
    return rows


def _check(codec: str, clip: Any) -> np.ndarray:
    frames = getattr(clip, "frames", None)
    right = isinstance(frames, np.ndarray) and frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[-1] == 3
    if not right or not frames.size or frames.shape[1] % 2 or frames.shape[2] % 2:
        found = f"{frames.dtype} {list(frames.shape)}" if isinstance(frames, np.ndarray) else type(clip).__name__
        raise ValueError(f"{codec} is measured on clips of uint8 [t, height, width, 3] with even sizes, not {found}: crop a row")
    return frames


def _units(data: bytes) -> Iterator[bytes]:
    """The network abstraction layer units of a raw stream, without their start codes."""
    for unit in re.split(rb"\x00\x00\x01", data)[1:]:
        # The first zero of a start code of four bytes is at the end of what comes before it; no unit ends with a zero.
        yield unit.rstrip(b"\0")


def _exact() -> Any:
    from av.video.reformatter import Interpolation

    flags = Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    return Interpolation.BICUBIC | flags


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise ValueError("x264 and x265 need PyAV: pip install 'vcinr[video]'") from None
    return av

"""MP3 and Opus as FFmpeg's libraries write them, measured like any other codec: on files that were decoded again.

Both shape their noise so that it is masked, not so that it is small, and take away what is not heard: an offset from zero, which
is the whole error of some recordings at high bit rates, and the highest frequencies. So their PSNR and SNR are below what their
bits could buy, and flatter any codec that is trained on squared error. Nothing here measures how a recording sounds.
"""

from __future__ import annotations

import fractions
import io
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vcinr.evaluation.measure import Progress, rate_quality_row
from vcinr.evaluation.metrics import mean_squared_error

LOWEST, PEAK = -(2**15), 2**16 - 1
"""Of 16-bit samples: the one that becomes 0, and their range."""
MP3_KBPS = {
    8000: (8, 16, 24, 32, 40, 48, 56, 64),
    16000: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    32000: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
"""Constant bit rates of MPEG-2.5, MPEG-2 and MPEG-1, by the lowest sample rate of each."""
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
OPUS_KBPS = (6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160)
"""Operating points of Opus, in thousands of bits per second, which it meets on average."""
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
"""Sample rates that Opus takes; it always decodes to the last."""
INSTALL = "pip install 'vcinr[video]'"


@runtime_checkable
class Recorded(Protocol):
    """A recording: samples int16 [n, 1 or 2], and rate, samples per second."""

    samples: np.ndarray
    rate: int


def encode_mp3(recording: Recorded, kbps: int) -> bytes:
    """An MP3 file of constant bit rate by LAME, as FFmpeg runs it, with LAME's own low-pass.

    It begins with LAME's tag, a frame without sound, which tells players the encoder's delay. There is no ID3 tag.
    ValueError for a sample rate or a bit rate that MP3 does not have.
    """
    if recording.rate not in MP3_RATES:
        valid = ", ".join(map(str, MP3_RATES))
        raise ValueError(f"MP3 has no {recording.rate} samples per second, only {valid}: resample the recording first")
    valid = mp3_kbps(recording.rate)
    if kbps not in valid:
        raise ValueError(f"MP3 of {recording.rate} samples per second has no {kbps} kbps, only {', '.join(map(str, valid))}")
    return _encode(recording.samples, recording.rate, "libmp3lame", "mp3", kbps, {"id3v2_version": "0"})


def encode_opus(recording: Recorded, kbps: float | int) -> bytes:
    """An Ogg Opus file of variable bit rate in Opus's mode for any sound, in frames of 20 ms.

    Where Opus does not take the recording's rate, it gets the recording at the next higher one that it does, or at 48 kHz.
    """
    samples, rate = recording.samples, min((each for each in OPUS_RATES if each >= recording.rate), default=OPUS_RATES[-1])
    if rate != recording.rate:
        samples = to_sixteen_bits(resample(samples / 2**15, recording.rate, rate))
    return _encode(samples, rate, "libopus", "ogg", kbps, {})


def decode(data: bytes, rate: int, length: int) -> np.ndarray:
    """The sound of an MP3 or Opus file as players give it: float64 [length, channels], in units of full scale.

    rate, length: of the original. Opus comes out at 48 kHz and is resampled.

    Encoders delay what they are given. By how much stands in the file, in LAME's tag or Opus's header (pre-skip), and FFmpeg
    skips as many samples. What comes after the original's end is padding and is cut off; what is missing there is silence.
    """
    av = _av()
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(audio=0))
    channels = frames[0].layout.nb_channels
    planes = [frame.to_ndarray().reshape(-1, channels) if frame.format.is_packed else frame.to_ndarray().T for frame in frames]
    sound = np.concatenate(planes)
    if np.issubdtype(sound.dtype, np.integer):
        sound = sound / 2.0**15
    sound = resample(sound.astype(np.float64), frames[0].sample_rate, rate)[:length]
    return np.pad(sound, ((0, length - len(sound)), (0, 0)))


def in_time(sound: np.ndarray, original: np.ndarray, rate: int) -> np.ndarray:
    """Decoded sound [n, channels], shifted by up to a millisecond to where it correlates best with its original; silence beyond.

    What headers say leaves up to 0.2 ms at low bit rates of Opus, which codes these at a rate of its own: 3.5 dB for speech at
    8 kbps. Other files of mono speech are in time as they are.
    """
    n, reach = len(original), min(rate // 1000, len(original) - 1)
    signal = original.astype(np.float64)

    def moved(late: int) -> tuple[slice, slice]:
        return slice(max(0, -late), n - max(0, late)), slice(max(0, late), n - max(0, -late))

    by_distance = sorted(range(-reach, reach + 1), key=abs)
    here, there = moved(max(by_distance, key=lambda late: np.vdot(signal[moved(late)[0]], sound[moved(late)[1]])))
    shifted = np.zeros_like(sound)
    shifted[here] = sound[there]
    return shifted


def payload_bytes(data: bytes) -> int:
    """Bytes of an MP3's or Opus's packets of sound: the file without LAME's tag, Ogg's pages and headers."""
    with _av().open(io.BytesIO(data)) as container:
        return sum(packet.size for packet in container.demux(audio=0))


def mp3_kbps(rate: int) -> tuple[int, ...]:
    """The constant bit rates of MP3 at a sample rate, in thousands of bits per second."""
    return MP3_KBPS[max(lowest for lowest in MP3_KBPS if lowest <= rate)]


def resample(sound: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Sound float64 [n, channels] at another rate, without delay: float64 [⌈n · wanted / rate⌉, channels]."""
    if rate == wanted:
        return sound
    from scipy.signal import resample_poly

    common = math.gcd(rate, wanted)
    return resample_poly(sound, wanted // common, rate // common, axis=0)


def to_sixteen_bits(sound: np.ndarray) -> np.ndarray:
    """Sound in units of full scale → int16, rounded and clipped."""
    return np.clip(np.rint(2**15 * sound), -(2**15), 2**15 - 1).astype(np.int16)


def measure_mp3(
    signals: Sequence[Recorded],
    dataset: str,
    split: str,
    kbps: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Operating points of MP3: rows as of `vcinr.evaluation.measure.measure`, with ``quality``, the bit rate asked for, besides.

    Quality is that of the decoded sound after `in_time`; ``snr_db`` is given besides PSNR.
    ``bpp_file`` and ``kbps`` count the whole file, ``bpp_payload`` its frames of sound (`payload_bytes`), both in bits per sample
    of one channel. ``bpp_container`` and ``bpp_estimated`` are None, because there is no container of many recordings and no
    entropy model; ``model_bytes`` is 0. Noise is shaped for the ear, so these numbers are no measure of how it sounds.

    Args:
      signals: recordings of one rate, mono or stereo; ValueError for others.
      dataset: name, for the rows.
      split: name, for the rows.
      kbps: bit rates, one row each; by default those that MP3 has at this sample rate, up to 128.
      progress: called after each bit rate.
    """
    _check(signals)
    chosen = [each for each in mp3_kbps(signals[0].rate) if each <= 128] if kbps is None else kbps
    return _measure("mp3", encode_mp3, signals, dataset, split, chosen, progress)


def measure_opus(
    signals: Sequence[Recorded],
    dataset: str,
    split: str,
    kbps: Sequence[float | int] = OPUS_KBPS,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Operating points of Opus, as `measure_mp3`; ``bpp_payload`` leaves out Ogg's pages and Opus's headers."""
    _check(signals)
    return _measure("opus", encode_opus, signals, dataset, split, kbps, progress)


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise ValueError(f"MP3 and Opus are measured through PyAV: {INSTALL}") from None
    return av


def _check(signals: Sequence[Recorded]) -> None:
    """ValueError where these are no recordings of one rate."""
    if len(signals) == 0:
        raise ValueError("there is no recording to measure")
    for signal in signals:
        samples = signal.samples
        if samples.dtype != np.int16 or samples.ndim != 2 or samples.shape[-1] not in (1, 2) or samples.size == 0:
            raise ValueError(f"recordings are measured as int16 [n, 1 or 2], not {samples.dtype} {list(samples.shape)}")
    if len(rates := {signal.rate for signal in signals}) > 1:
        raise ValueError(f"recordings are measured at one rate, not at {sorted(rates)}: resample them, or measure them apart")


def _encode(samples: np.ndarray, rate: int, codec: str, kind: str, kbps: float | int, options: dict[str, str]) -> bytes:
    av = _av()
    layout = "mono" if samples.shape[-1] == 1 else "stereo"
    file = io.BytesIO()
    with av.open(file, "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = round(1000 * kbps)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, fractions.Fraction(1, rate)
        for step in (frame, None):
            container.mux(stream.encode(step))
    return file.getvalue()


def _measure(
    codec: str,
    encode: Callable[[Any, Any], bytes],
    signals: Sequence[Recorded],
    dataset: str,
    split: str,
    kbps: Sequence[float | int],
    progress: Progress | None,
) -> list[dict[str, Any]]:
    samples = [signal.samples for signal in signals]
    seconds = np.array([len(signal.samples) / signal.rate for signal in signals])
    energies = np.array([np.mean(np.square(each / PEAK)) for each in samples])
    rows = []
    for point, wanted in enumerate(kbps):
        files = [encode(signal, wanted) for signal in signals]
        pairs = zip(files, signals, strict=True)
        sounds = [in_time(decode(data, s.rate, len(s.samples)), s.samples, s.rate) for data, s in pairs]
        decoded = [to_sixteen_bits(sound) for sound in sounds]
        floats = [(2**15 * sound - LOWEST) / PEAK for sound in sounds]
        mses = [mean_squared_error(*pair, lowest=LOWEST, peak=PEAK) for pair in zip(samples, decoded, strict=True)]
        row = rate_quality_row(
            codec=codec,
            dataset=dataset,
            split=split,
            point=point,
            samples=samples,
            peak=PEAK,
            file_bytes=[len(data) for data in files],
            payload_bytes=[payload_bytes(data) for data in files],
            mses=mses,
            float_mses=[mean_squared_error(*pair, lowest=LOWEST, peak=PEAK) for pair in zip(samples, floats, strict=True)],
            container_bytes=None,
            estimated_bits=None,
            model_bytes=0,
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            snr_db = float(np.mean(10 * np.log10(energies / mses)))
        sizes = np.array([len(data) for data in files])
        rates = {"snr_db": snr_db if np.isfinite(snr_db) else None, "kbps": float(np.mean(8 * sizes / (1000 * seconds)))}
        rows.append(row | rates | {"quality": wanted})
        if progress is not None:
            progress(f"{codec}: {wanted} kbps", point + 1, len(kbps))
    return rows

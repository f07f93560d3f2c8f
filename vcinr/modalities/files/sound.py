"""Sound from files and back: one documented conversion to 16 bits, or one clear error; block by block where that is wanted."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES, Source
from vcinr.modalities.sound import LOSSLESS_SUFFIXES, MAX_RATE, Recording

BLOCK_SAMPLES = 2**16
"""Samples of each channel that are read at a time."""
INSTALL = "pip install 'vcinr[sound]'"

_DEEP = ("PCM_24", "PCM_32", "ALAC_20", "ALAC_24", "ALAC_32", "DWVW_24")
_FLOATS = ("FLOAT", "DOUBLE")
_LOSSY = ("VORBIS", "OPUS")
# What programs write that do not know the length yet, when they write to a pipe.
_UNKNOWN_LENGTH = 2**31 - 2**16


class SoundError(ValueError):
    """A file that is no sound this package reads, or a recording it does not write; the message names the mend."""


def read_sound(
    source: Source | io.BufferedIOBase,
    channels: int = 1,
    seconds: str | float | int | None = None,
    sixteen_bit: bool = False,
    mono: bool = False,
    max_samples: int = DEFAULT_MAX_SAMPLES,
) -> Recording:
    """The recording in a file: int16 [n, channels] and its rate. Arguments and errors as of `open_sound`."""
    with open_sound(source, channels, seconds, sixteen_bit, mono, max_samples) as (rate, blocks):
        return Recording(np.concatenate(list(blocks)), rate)


@contextlib.contextmanager
def open_sound(
    source: Source | io.BufferedIOBase,
    channels: int = 1,
    seconds: str | float | int | None = None,
    sixteen_bit: bool = False,
    mono: bool = False,
    max_samples: int = DEFAULT_MAX_SAMPLES,
    block_samples: int = BLOCK_SAMPLES,
) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """A sound file, opened: its rate, and its samples in blocks, int16 [block_samples or fewer, channels], at least one.

    source: path, or a file opened for bytes.
    channels: that the recording must have.
    seconds: where it is longer, it ends after these.
    sixteen_bit: whether samples of more than 16 bits may be rounded.
    mono: whether channels are averaged, and the average rounded.
    max_samples: a file that promises more samples per channel is refused.

    What becomes of the kinds of samples:

    * 16 bits: pass. 8 bits, A-law, µ-law and ADPCM: widened, without loss; they come back with 16 bits.
    * 24 and 32 bits: need ``sixteen_bit``; rounded, the largest clipped.
    * Floats: need ``sixteen_bit``; −1..1 becomes −32768..32767. Louder ones, NaN and infinity are refused.
    * Vorbis and Opus decode to floats: rounded, and clipped where the decoder overshoots. A cut one is a shorter one.
    * MP3 is refused: without a header that few have, its length is a guess, and libsndfile stops there.

    Raises SoundError where the file is read, which may be as late as in the last block; OSError where it cannot be opened.
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", "sound")
    if isinstance(source, str | os.PathLike):
        # libsndfile's own word for a file that cannot be opened is "System error".
        with open(source, "rb"):
            pass
    with contextlib.ExitStack() as stack:
        try:
            sound = stack.enter_context(_opened(source))
            wanted = _wanted(sound, channels, seconds, sixteen_bit, mono, max_samples)
        except SoundError as error:
            raise SoundError(f"{name}: {error}") from None
        yield sound.samplerate, _blocks(sound, name, wanted, mono, block_samples)


def write_sound(path: str | os.PathLike, recording: Recording) -> None:
    """Writes a recording, 16 bits, in a format that keeps every value, chosen by the suffix (`LOSSLESS_SUFFIXES`).

    Raises SoundError for another suffix, or a rate that FLAC does not know; OSError where the file cannot be written.
    """
    write_blocks(path, recording.rate, recording.samples.shape[-1], [recording.samples])


def write_blocks(path: str | os.PathLike, rate: int, channels: int, blocks: Iterable[np.ndarray]) -> None:
    """Writes a recording that comes in blocks, int16 [n, channels] each. Errors as of `write_sound`."""
    kind = Path(path).suffix.lower()
    if kind not in LOSSLESS_SUFFIXES:
        valid = ", ".join(LOSSLESS_SUFFIXES)
        raise SoundError(f"{os.fspath(path)}: recordings are written as one of {valid}, which keep every value")
    if kind == ".flac" and not flac_holds(rate):
        raise SoundError(f"{os.fspath(path)}: FLAC has no code for {rate} samples per second: write a .wav")
    with open(path, "wb") as file:
        _write(file, kind[1:].upper(), rate, channels, blocks)


def flac_holds(rate: int) -> bool:
    """Whether FLAC's frames can say a rate: all up to 65,535 per second, and whole tens up to ten times as many."""
    return rate <= 65535 or (rate % 10 == 0 and rate <= 655350)


def encode_flac_or_wav(recording: Recording) -> bytes:
    """A recording without loss: a FLAC file, or a WAV file where FLAC knows no such rate."""
    file = io.BytesIO()
    kind = "FLAC" if flac_holds(recording.rate) else "WAV"
    _write(file, kind, recording.rate, recording.samples.shape[-1], [recording.samples])
    return file.getvalue()


def to_sixteen_bits(values: np.ndarray) -> np.ndarray:
    """Floats, −1 to 1 at full scale, → int16, rounded; what lies outside, and 1 itself, is clipped."""
    return np.clip(np.rint(32768.0 * values), -32768, 32767).astype(np.int16)


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the wheel without the library that it wraps.
        raise SoundError(f"reading and writing sound needs soundfile: {INSTALL}") from None
    return soundfile


@contextlib.contextmanager
def _opened(file: Any) -> Iterator[Any]:
    soundfile = _soundfile()
    try:
        sound = soundfile.SoundFile(file)
    except Exception as error:  # soundfile raises what it likes: of headers, of a suffix that wants a rate, of memory.
        raise SoundError(f"no sound in a format that is read; convert it to .wav or .flac ({error})") from None
    with sound:
        yield sound


def _wanted(sound: Any, channels: int, seconds: str | float | int | None, sixteen_bit: bool, mono: bool, max_samples: int) -> int:
    """Samples of each channel to read."""
    if sound.subtype.startswith("MPEG"):
        raise SoundError("it is MP3, of which the length is a guess: convert it first (ffmpeg -i IN OUT.flac)")
    if sound.frames == 0:
        raise SoundError("it has no samples")
    # libsndfile's word for an unknown length is its largest integer; it cannot go through such a file.
    if sound.frames >= 2**62:
        raise SoundError("its header does not say how long it is: rewrite it (ffmpeg -i IN OUT.flac)")
    if not 0 < sound.samplerate <= MAX_RATE:
        raise SoundError(f"a sample rate lies in 1 to {MAX_RATE} per second, not {sound.samplerate}")
    if sound.channels != channels and not (mono and channels == 1):
        raise SoundError(_other_channels(sound.channels, channels))
    if sound.subtype in _DEEP + _FLOATS and not sixteen_bit:
        held = "floating-point samples" if sound.subtype in _FLOATS else "samples of more than 16 bits"
        raise SoundError(f"it holds {held}; pass --sixteen-bit (sixteen_bit=True) to round them to 16")
    _check_whole(sound)
    wanted = sound.frames
    if seconds is not None:
        wanted = min(wanted, max(1, math.floor(_positive(seconds) * sound.samplerate)))
    if wanted > max_samples:
        mend = "raise --max-pixels if you trust it, or read less of it with --seconds"
        raise SoundError(f"{wanted} samples are more than the limit of {max_samples}; {mend}")
    return wanted


def _other_channels(found: int, wanted: int) -> str:
    if wanted == 1:
        return f"it has {found} channels; pass --mono (mono=True) to average them, or use a model of {found} channels"
    if found == 1:
        return f"it is mono, and the model is of {wanted} channels: use a mono one (modality 'sound')"
    return f"it has {found} channels, not {wanted}: use a model of as many, or a mono one with --mono (mono=True)"


def _check_whole(sound: Any) -> None:
    """SoundError for a WAV file that is shorter than it says, which libsndfile tells in its log alone."""
    found = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    if found and int(found[2]) < int(found[1]) < _UNKNOWN_LENGTH:
        raise SoundError(f"truncated: it holds {found[2]} of {found[1]} bytes of samples")


def _positive(seconds: str | float | int) -> float:
    try:
        number = float(seconds)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise SoundError(f"--seconds (seconds=…) is a number above 0, not {seconds!r}")
    return number


def _blocks(sound: Any, name: str, wanted: int, mono: bool, block_samples: int) -> Iterator[np.ndarray]:
    done = 0
    while done < wanted:
        try:
            block = _read_block(sound, min(block_samples, wanted - done))
            if len(block) == 0:
                raise SoundError(f"truncated: it holds {done} samples of {wanted}")
        except SoundError as error:
            raise SoundError(f"{name}: {error}") from None
        done += len(block)
        yield np.rint(block.mean(axis=1, keepdims=True)).astype(np.int16) if mono else block


def _read_block(sound: Any, count: int) -> np.ndarray:
    kind = "int16"
    if sound.subtype in _DEEP:
        kind = "int32"
    elif sound.subtype in _FLOATS + _LOSSY:
        kind = "float64"
    try:
        block = sound.read(count, dtype=kind, always_2d=True)
    except Exception as error:  # Decoders raise what they like on damaged files.
        raise SoundError(f"damaged or truncated: {error}") from None
    if kind == "int16":
        return block
    if kind == "int32":
        # libsndfile puts 24 bits into the upper ones.
        return to_sixteen_bits(block / 2.0**31)
    if not np.isfinite(block).all():
        raise SoundError("it holds NaN or infinite samples: mend them first, for instance with np.nan_to_num")
    if sound.subtype in _FLOATS and (loudest := np.abs(block).max(initial=0)) > 1:
        raise SoundError(f"it reaches {loudest:.4g}, beyond full scale, which is 1: lower its volume first")
    return to_sixteen_bits(block)


def _write(file: Any, kind: str, rate: int, channels: int, blocks: Iterable[np.ndarray]) -> None:
    soundfile = _soundfile()
    with soundfile.SoundFile(file, "w", samplerate=rate, channels=channels, subtype="PCM_16", format=kind) as sound:
        for block in blocks:
            sound.write(block)

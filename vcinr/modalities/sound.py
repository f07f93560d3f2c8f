"""Sound: 16-bit samples in time, mono or stereo, read and written through soundfile."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES, Metadata, Modality, ReadOption, Source

MAX_RATE = 2**20 - 1
"""Samples per second: the most that FLAC's header can say."""

# soundfile is imported where it is needed: the command line names suffixes and options without it.
READ_SUFFIXES = (".wav", ".flac", ".aiff", ".aif", ".au", ".caf", ".w64", ".ogg", ".oga", ".opus")
LOSSLESS_SUFFIXES = (".wav", ".flac")
SECONDS = ReadOption("seconds", "read this many seconds from the start of a recording, and no more", metavar="SECONDS")
SIXTEEN_BIT = ReadOption("sixteen_bit", "round 24-bit and floating-point sound to 16 bits")
MONO = ReadOption("mono", "average the channels of a recording")


class Recording(NamedTuple):
    """A sound with its time: sample i was taken at i / rate seconds.

    samples: int16 [n, channels].   rate: samples per second, 1 to `MAX_RATE`.
    """

    samples: np.ndarray
    rate: int


@dataclasses.dataclass(frozen=True, eq=False)
class Sound(Modality):
    """16-bit sound on a grid of time, fitted from −1 at the start to 1 at the end; a file holds the sample rate besides.

    Raw is a `Recording`. What was clipped when it was recorded is a signal like any other: its flat tops are kept. Sound is not
    mirrored in training, since reversed sound is of another kind: attacks are steep, decays are long.
    """

    name: str = "sound"
    coord_dim: int = 1
    channels: int = 1
    sample_type: str = "int16"
    lowest: float | int = -(2**15)
    peak: float | int = 2**16 - 1
    meta_types: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"rate": "int"})
    example_metadata: Metadata = dataclasses.field(default_factory=lambda: {"rate": 16000})
    read_suffixes: tuple[str, ...] = READ_SUFFIXES
    write_suffixes: tuple[str, ...] = LOSSLESS_SUFFIXES
    read_options: tuple[ReadOption, ...] = (SECONDS, SIXTEEN_BIT, MONO)
    references: tuple[str, ...] = (
        "vcinr.evaluation.classical_sound:measure_mp3",
        "vcinr.evaluation.classical_sound:measure_opus",
    )

    def check(self, samples: Any) -> None:
        """ValueError that names the mend where this is no int16 [samples, channels]."""
        wanted = f"a {self.name} is a NumPy array of int16 [samples, {self.channels}]"
        if not isinstance(samples, np.ndarray):
            raise ValueError(f"{wanted}, not {type(samples).__name__}: use np.asarray")
        if samples.size == 0:
            mend = "drop it: it has no samples"
        elif samples.ndim == 1:
            mend = "give it an axis of channels: samples[:, None]"
        elif samples.ndim != 2:
            mend = "pass recordings one at a time"
        elif samples.shape[-1] != self.channels and samples.shape[0] == self.channels:
            mend = "put channels last: samples.T"
        elif samples.shape[-1] != self.channels:
            mend = f"use a model of {samples.shape[-1]} channels, or {_with_channels(self.channels)}"
        elif samples.dtype == np.int16:
            return
        elif np.issubdtype(samples.dtype, np.floating):
            mend = "scale it from -1..1: np.clip(np.round(32768 * samples), -32768, 32767).astype(np.int16)"
        else:
            mend = "scale it to -32768..32767 and convert with .astype(np.int16)"
        raise ValueError(f"{wanted}, not {samples.dtype} {list(samples.shape)}: {mend}")

    def unpack(self, raw: Any) -> tuple[np.ndarray, dict[str, int | float | bytes]]:
        """(samples, {"rate": samples per second}) of a `Recording`. ValueError for anything else."""
        if not isinstance(raw, Recording):
            mend = "give vcinr.modalities.sound.Recording(samples, rate)"
            raise ValueError(f"a {self.name} is a Recording, samples with their rate, not {type(raw).__name__}: {mend}")
        self.check(raw.samples)
        if isinstance(raw.rate, bool) or not isinstance(raw.rate, int | np.integer):
            raise ValueError(f"a sample rate is a whole number of samples per second, not {raw.rate!r}: use round(rate)")
        metadata = {"rate": int(raw.rate)}
        self.check_metadata(metadata, raw.samples.shape[:-1])
        return raw.samples, metadata

    def pack(self, samples: np.ndarray, metadata: Metadata) -> Recording:
        """The `Recording` of samples and a rate."""
        return Recording(samples, int(metadata["rate"]))

    def check_metadata(self, metadata: Metadata, shape: tuple[int, ...]) -> None:
        """ValueError for a rate that no recording has."""
        del shape
        if not 0 < metadata["rate"] <= MAX_RATE:
            raise ValueError(f"a sample rate lies in 1 to {MAX_RATE} per second, not {metadata['rate']}")

    def resampled_metadata(self, metadata: Metadata, shape: tuple[int, ...], new: tuple[int, ...]) -> Metadata:
        """The rate, to the nearest whole one, at which new samples last as long. ValueError where no recording has it."""
        resampled = {"rate": round(metadata["rate"] * new[0] / shape[0])}
        self.check_metadata(resampled, new)
        return resampled

    def shape_at_rate(self, metadata: Metadata, shape: tuple[int, ...], rate: float | int) -> tuple[int, ...]:
        """As many samples, to the nearest whole number, as last as long at this rate.

        The rate that comes of it, see `resampled_metadata`, is this one for recordings of a second or more, and near it else.
        """
        self.check_metadata({"rate": rate}, shape)
        return (max(1, round(shape[0] * rate / metadata["rate"])),)

    def rate_units(self, raw: Recording) -> dict[str, float]:
        """``kbps``: thousands of bits per second of sound."""
        return {"kbps": 1000 * len(raw.samples) / raw.rate}

    def metrics(self, original: Recording, decoded: Recording) -> dict[str, float]:
        """``psnr_db`` of values in [0, 1], as COIN++ and VC-INR give it, and ``snr_db``.

        SNR is the energy of the samples over that of the error: infinite for equal samples, minus infinity for what has become of
        silence. A PSNR of 16-bit speech says little by itself: silence in its place scores some 32 dB.
        """
        quality = super().metrics(original, decoded)
        signal = original.samples.astype(np.float64)
        energy, error = np.sum(signal**2), np.sum((signal - decoded.samples) ** 2)
        with np.errstate(divide="ignore"):
            decibels = float(10 * (np.log10(energy) - np.log10(error))) if error else np.inf
        return quality | {"snr_db": decibels}

    def read(
        self,
        source: Source | io.BufferedIOBase,
        *,
        max_samples: int = DEFAULT_MAX_SAMPLES,
        seconds: str | float | int | None = None,
        sixteen_bit: bool = False,
        mono: bool = False,
    ) -> Recording:
        """The recording in a file: see `vcinr.modalities.files.sound.read_sound`."""
        from vcinr.modalities.files.sound import read_sound

        return read_sound(source, self.channels, seconds, sixteen_bit, mono, max_samples)

    def write(self, path: str | os.PathLike, raw: Recording) -> None:
        """Writes a recording: see `vcinr.modalities.files.sound.write_sound`."""
        from vcinr.modalities.files.sound import write_sound

        self.check_target(path)
        write_sound(path, self.pack(*self.unpack(raw)))

    def to_bytes(self, raw: Recording) -> bytes:
        """The recording as FLAC, or as WAV where FLAC knows no such rate."""
        from vcinr.modalities.files.sound import encode_flac_or_wav

        return encode_flac_or_wav(self.pack(*self.unpack(raw)))

    def from_bytes(self, data: bytes) -> Recording:
        """The recording in a file's bytes, however long."""
        return self.read(io.BytesIO(data), max_samples=2**63)


def _with_channels(channels: int) -> str:
    """The mend for samples of another number of channels."""
    if channels == 1:
        return "average them: np.rint(samples.mean(1, keepdims=True)).astype(np.int16)"
    return f"repeat a mono one: np.repeat(samples, {channels}, axis=1)"

"""MP3 and Opus: in time with the original, bytes counted, quality against rate."""

import io
import sys
from typing import NamedTuple

import numpy as np
import pytest

from vcinr.evaluation import bd_rate, classical_sound, published

av = pytest.importorskip("av")
CODECS = {
    "mp3": (classical_sound.encode_mp3, classical_sound.measure_mp3),
    "opus": (classical_sound.encode_opus, classical_sound.measure_opus),
}


class Recording(NamedTuple):
    samples: np.ndarray
    rate: int


def bursts(samples=12000, rate=16000, channels=1, seed=0):
    """Bursts of low-passed noise at random times: where they lie is heard at any bit rate."""
    rng = np.random.default_rng(seed)
    smooth = np.apply_along_axis(np.convolve, 0, rng.normal(size=(samples, channels)), np.hanning(rate // 500), mode="same")
    gate = np.repeat(rng.integers(0, 2, samples // 1000 + 1), 1000)[:samples, None]
    return Recording(np.round(8000 * smooth / np.abs(smooth).max() * gate).astype(np.int16), rate)


def lag(original, decoded):
    """Samples by which a sound is late, by cross-correlation."""
    length = 2 * len(original)
    product = np.fft.rfft(original[:, 0].astype(float), length).conj() * np.fft.rfft(decoded[:, 0], length)
    late = int(np.fft.irfft(product, length).argmax())
    return late if late < length // 2 else late - length


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("samples", "rate", "channels"), [(12000, 16000, 1), (30011, 44100, 2), (9999, 8000, 1), (20000, 48000, 2)]
)
def test_decoded_sound_is_in_time_with_the_original(codec, samples, rate, channels):
    recording = bursts(samples, rate, channels)
    for kbps in (32, 64):
        decoded = classical_sound.decode(CODECS[codec][0](recording, kbps), rate, samples)
        assert decoded.shape == (samples, channels)
        # Opus codes at a rate of its own where bits are few.
        assert abs(lag(recording.samples, decoded)) <= (rate // 10000 if codec == "opus" else 0)
        decoded = classical_sound.in_time(decoded, recording.samples, rate)
        assert lag(recording.samples, decoded) == 0
        assert np.mean((2**15 * decoded - recording.samples) ** 2) < 0.12 * np.mean(recording.samples.astype(float) ** 2)


@pytest.mark.parametrize("late", [-7, -1, 0, 3, 16])
def test_sound_is_moved_to_its_original(late):
    original = bursts(channels=2).samples
    moved = classical_sound.in_time(np.roll(original, late, axis=0) / 2.0**15, original, 16000)
    inside = slice(20, -20)
    np.testing.assert_array_equal(moved[inside] * 2**15, original[inside])
    silence = np.zeros((50, 1))
    np.testing.assert_array_equal(classical_sound.in_time(silence + 1, silence, 16000), silence + 1)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("samples", [1, 100, 1153])
def test_short_recordings_come_back_at_their_length(codec, samples):
    recording = Recording(np.full((samples, 1), 1000, np.int16), 16000)
    decoded = classical_sound.decode(CODECS[codec][0](recording, 64), 16000, samples)
    assert decoded.shape == (samples, 1)
    assert np.isfinite(decoded).all()


def mp3_frames(data):
    """(start, length) of the frames of an MPEG-2 layer III file: by the standard, 72 × bit rate / sample rate and padding."""
    position, kbps = 0, (0, *classical_sound.MP3_KBPS[16000])
    while position < len(data):
        assert data[position : position + 2] in (b"\xff\xf3", b"\xff\xf2")
        length = 72 * 1000 * kbps[data[position + 2] >> 4] // 16000 + (data[position + 2] >> 1 & 1)
        yield position, length
        position += length


@pytest.mark.parametrize("kbps", [8, 32, 160])
def test_the_payload_of_an_mp3_is_all_frames_but_the_tag(kbps):
    data = classical_sound.encode_mp3(bursts(), kbps)
    frames = list(mp3_frames(data))
    tag, length = frames[0]
    assert b"Info" in data[tag : tag + length] or b"Xing" in data[tag : tag + length]
    assert classical_sound.payload_bytes(data) == sum(length for _, length in frames[1:])


def ogg_packets(data):
    """The packets of an Ogg file, by its pages' tables of segments (RFC 3533)."""
    position, packet, packets = 0, b"", []
    while position < len(data):
        assert data[position : position + 4] == b"OggS"
        segments = data[position + 27 : position + 27 + data[position + 26]]
        position += 27 + len(segments)
        for size in segments:
            packet += data[position : position + size]
            position += size
            if size < 255:
                packets.append(packet)
                packet = b""
    return packets


def test_the_payload_of_an_opus_file_is_all_packets_but_the_headers():
    data = classical_sound.encode_opus(bursts(), 24)
    head, tags, *sound = ogg_packets(data)
    assert head.startswith(b"OpusHead") and tags.startswith(b"OpusTags")
    assert classical_sound.payload_bytes(data) == sum(map(len, sound))


@pytest.mark.parametrize("codec", CODECS)
def test_rows_have_the_shape_of_a_models_and_rise(codec):
    recordings, calls = [bursts(seed=seed) for seed in range(2)], []
    rows = CODECS[codec][1](recordings, "tiny", "test", (16, 32, 64), progress=lambda *call: calls.append(call))
    assert [call[1:] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    for row, wanted in zip(rows, (16, 32, 64), strict=True):
        assert (row["codec"], row["num_signals"], row["model_bytes"], row["quality"]) == (codec, 2, 0, wanted)
        assert row["bpp_container"] is None
        assert row["bpp_estimated"] is None
        assert row["bpp_file"] == pytest.approx(row["file_bytes"] * 8 / 12000)
        assert row["kbps"] == pytest.approx(row["bpp_file"] * 16)
        assert row["bpp_payload"] < row["bpp_file"]
        assert codec == "opus" or wanted < row["kbps"] < 1.3 * wanted
        assert row["psnr_float_db"] == pytest.approx(row["psnr_db"], abs=0.01)
        power = np.mean([10 * np.log10(np.mean((each.samples / 65535) ** 2)) for each in recordings])
        assert row["snr_db"] == pytest.approx(row["psnr_db"] + power, abs=0.01)
    assert rows[0]["kbps"] < rows[1]["kbps"] < rows[2]["kbps"]
    assert rows[0]["snr_db"] < rows[1]["snr_db"] < rows[2]["snr_db"]


def test_silence_has_a_psnr_and_no_snr():
    (row,) = classical_sound.measure_mp3([Recording(np.zeros((4000, 1), np.int16), 16000)], "tiny", "test", (8,))
    assert row["num_lossless"] == 1
    assert row["snr_db"] is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: classical_sound.encode_mp3(bursts(rate=15999), 32), "MP3 has no 15999 samples per second, only 8000, "),
        (lambda: classical_sound.encode_mp3(bursts(rate=44100), 8), "MP3 of 44100 samples per second has no 8 kbps, only 32, 40"),
        (lambda: classical_sound.measure_mp3([], "tiny", "test"), "no recording"),
        (
            lambda: classical_sound.measure_opus([bursts(), bursts(rate=8000)], "tiny", "test"),
            r"one rate, not at \[8000, 16000\]",
        ),
        (lambda: classical_sound.measure_opus([bursts(channels=3)], "tiny", "test"), r"int16 \[n, 1 or 2\]"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_mend(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_pyav_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"through PyAV: pip install 'vcinr\[video\]'"):
        classical_sound.encode_mp3(bursts(), 32)


def test_another_rate_is_the_same_sound_without_delay():
    time = np.arange(16000)[:, None] / 16000
    tone = np.sin(2 * np.pi * 440 * time)
    finer = classical_sound.resample(tone, 16000, 44100)
    assert finer.shape == (44100, 1)
    expected = np.sin(2 * np.pi * 440 * np.arange(44100)[:, None] / 44100)
    assert np.abs(finer - expected)[500:-500].max() < 2e-3
    assert classical_sound.resample(tone, 16000, 16000) is tone


def test_mp3_of_speech_meets_the_published_curve(vcinr_data):
    soundfile = pytest.importorskip("soundfile")
    files = sorted((vcinr_data / "speech" / "test").glob("*.flac"))
    read = [soundfile.read(io.BytesIO(path.read_bytes()), frames=48000, dtype="int16", always_2d=True) for path in files]
    rows = classical_sound.measure_mp3([Recording(*each) for each in read], "speech", "test", (24, 32, 48, 64))
    reference = published.load("mp3", "librispeech").points
    # Other utterances of the same corpus, at the nominal rate, and the source does not say what is averaged.
    for row in rows:
        assert row["psnr_of_mean_mse_db"] - 0.5 < bd_rate.psnr_at(reference, row["quality"]) < row["psnr_db"] + 0.5

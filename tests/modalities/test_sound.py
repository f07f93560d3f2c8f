"""The sound rows: samples, their rate, what is refused with the mend, quality, and files of whole codecs."""

import numpy as np
import pytest

import vcinr
from vcinr.bitstream import container
from vcinr.bitstream.container import BitstreamError
from vcinr.codecs import make_codec
from vcinr.datasets.sources import PatchSource
from vcinr.modalities import MODALITIES
from vcinr.modalities.sound import MAX_RATE, Recording
from vcinr.model.model import make_model
from vcinr.training.run import train

SOUND, STEREO = MODALITIES["sound"], MODALITIES["stereo_sound"]


def chord(seed, samples=4000, rate=8000, channels=1):
    """A decaying chord of three notes a channel."""
    time = np.arange(samples)[:, None, None] / rate
    notes = np.random.default_rng(seed).uniform(80, 600, (channels, 3))
    wave = np.sin(2 * np.pi * notes * time).sum(-1) * np.exp(-time[..., 0])
    return Recording(np.round(6000 * wave).astype(np.int16), rate)


@pytest.fixture(scope="module", params=["sound", "stereo_sound"])
def model(request, tmp_path_factory):
    """The linear floor of chords, mono and stereo."""
    channels = MODALITIES[request.param].channels
    config = {"modality": request.param, "patch": (64,), "num_components": 48, "steps": (8.0,)}
    codec = make_codec("klt", config)
    patches = PatchSource([chord(seed, channels=channels).samples for seed in range(6)], (64,), flips=False)
    return make_model(codec, train(codec, patches, seed=0, workdir=tmp_path_factory.mktemp("klt"), quiet=True), {})


def test_every_16_bit_value_returns_and_the_ends_are_exact():
    raw = np.arange(-(2**15), 2**15, dtype=np.int16)[:, None]
    values = SOUND.normalise(raw)
    assert (values.dtype, values.min(), values.max()) == (np.float32, 0, 1)
    np.testing.assert_array_equal(SOUND.denormalise(values), raw)
    np.testing.assert_array_equal(SOUND.denormalise(np.array([[-1.0], [2.0]])), [[-(2**15)], [2**15 - 1]])


def test_a_recording_comes_apart_and_together():
    recording = chord(0, channels=2)
    samples, metadata = STEREO.unpack(recording)
    assert metadata == {"rate": 8000}
    again = STEREO.pack(samples, metadata)
    assert isinstance(again, Recording)
    assert again.rate == 8000
    np.testing.assert_array_equal(again.samples, recording.samples)
    assert type(STEREO.unpack(Recording(samples, np.int32(44100)))[1]["rate"]) is int


@pytest.mark.parametrize(
    ("row", "samples", "mend"),
    [
        (SOUND, [[0]], "use np.asarray"),
        (SOUND, np.zeros(8, np.int16), r"samples\[:, None\]"),
        (SOUND, np.zeros((1, 8), np.int16), r"samples\.T"),
        (SOUND, np.zeros((0, 1), np.int16), "it has no samples"),
        (SOUND, np.zeros((8, 2), np.int16), r"2 channels, or average them: .*mean\(1"),
        (SOUND, np.zeros((2, 8, 1), np.int16), "one at a time"),
        (SOUND, np.zeros((8, 1), np.float32), r"32768 \* samples"),
        (SOUND, np.zeros((8, 1), np.int32), "astype"),
        (STEREO, np.zeros((8, 1), np.int16), r"1 channels, or repeat a mono one: np\.repeat\(samples, 2, axis=1\)"),
    ],
)
def test_wrong_samples_are_refused_with_the_mend(row, samples, mend):
    for refuse in (row.normalise, lambda samples: row.unpack(Recording(samples, 8000))):
        with pytest.raises(ValueError, match=mend):
            refuse(samples)


@pytest.mark.parametrize(
    ("raw", "mend"),
    [
        (np.zeros((8, 1), np.int16), r"Recording\(samples, rate\)"),
        ((np.zeros((8, 1), np.int16), 8000), r"Recording\(samples, rate\)"),
        (Recording(np.zeros((8, 1), np.int16), 8000.5), r"round\(rate\)"),
        (Recording(np.zeros((8, 1), np.int16), True), r"round\(rate\)"),
        (Recording(np.zeros((8, 1), np.int16), 0), "1 to 1048575"),
        (Recording(np.zeros((8, 1), np.int16), MAX_RATE + 1), "1 to 1048575"),
    ],
)
def test_what_is_no_recording_is_refused_with_the_mend(raw, mend):
    with pytest.raises(ValueError, match=mend):
        SOUND.unpack(raw)


def test_quality_is_that_of_definitions():
    original = Recording(np.full((100, 1), 1000, np.int16), 8000)
    decoded = Recording(np.full((100, 1), 990, np.int16), 8000)
    quality = SOUND.metrics(original, decoded)
    assert quality["snr_db"] == pytest.approx(40.0)
    assert quality["psnr_db"] == pytest.approx(20 * np.log10(65535 / 10))
    assert SOUND.metrics(original, original) == {"psnr_db": np.inf, "snr_db": np.inf}
    silence = Recording(np.zeros((100, 1), np.int16), 8000)
    assert SOUND.metrics(silence, decoded)["snr_db"] == -np.inf
    assert SOUND.metrics(silence, silence)["snr_db"] == np.inf


def test_full_scale_does_not_overflow_in_quality():
    loud, inverse = (Recording(np.full((10, 1), value, np.int16), 8000) for value in (-(2**15), 2**15 - 1))
    quality = SOUND.metrics(loud, inverse)
    assert quality["psnr_db"] == 0
    assert quality["snr_db"] == pytest.approx(-20 * np.log10(65535 / 32768))


def test_bits_are_counted_by_the_second():
    assert SOUND.rate_units(chord(0, samples=12000, rate=8000)) == {"kbps": 1500.0}


def test_a_file_pays_for_the_rate_as_it_is_announced():
    for rate, coded in ((1, b"\x02"), (8000, b"\x80\x7d"), (16000, b"\x80\xfa\x01"), (MAX_RATE, b"\xfe\xff\x7f")):
        metadata = SOUND.unpack(chord(0, samples=9, rate=rate))[1]
        heads = [
            container.head_bytes(bytes(4), [(9,)], [meta], types) for meta, types in ((metadata, SOUND.meta_types), ({}, {}))
        ]
        assert heads[0] == heads[1] + coded


def test_files_of_codecs_hold_recordings(model):
    recording = chord(99, samples=1001, rate=22050, channels=model.modality.channels)
    data = model.encode(recording)
    decoded = model.decode(data)
    assert decoded.rate == 22050
    assert (decoded.samples.dtype, decoded.samples.shape) == (np.int16, recording.samples.shape)
    assert model.modality.metrics(recording, decoded)["snr_db"] > 20


def test_a_recording_is_decoded_at_another_rate(model):
    recording = chord(5, samples=9000, rate=8000, channels=model.modality.channels)
    slow = model.decode_at(model.encode(recording), rate=4000)
    assert (slow.rate, slow.samples.shape) == (4000, (4500, model.modality.channels))
    gap = slow.samples - recording.samples.reshape(4500, 2, -1).mean(1)
    assert np.sqrt(np.mean(gap**2)) < 0.1 * recording.samples.std()


@pytest.mark.parametrize("rate", [-1, 0, MAX_RATE + 1])
def test_a_file_of_an_impossible_rate_is_refused(model, rate):
    point, codes, grids = model.read_codes(model.encode(chord(1, samples=64, channels=model.modality.channels)))
    codes[0].metadata["rate"] = rate
    forged = model.write_codes(point, codes, grids)
    with pytest.raises(BitstreamError, match="a sample rate lies in 1 to"):
        model.decode(forged)


def test_a_new_rate_keeps_the_time():
    assert SOUND.shape_at_rate({"rate": 16000}, (48000,), 11025) == (33075,)
    assert SOUND.shape_at_rate({"rate": 48000}, (2,), 1) == (1,)
    for rate in (7999, 11025, 22050, 44100):
        (new,) = SOUND.shape_at_rate({"rate": 16000}, (16001,), rate)
        assert SOUND.resampled_metadata({"rate": 16000}, (16001,), (new,)) == {"rate": rate}
    for refuse in (
        lambda: SOUND.shape_at_rate({"rate": 16000}, (16000,), 2.0**20),
        lambda: SOUND.resampled_metadata({"rate": 16000}, (16000,), (2**30,)),
        lambda: SOUND.resampled_metadata({"rate": 16000}, (2**30,), (1,)),
    ):
        with pytest.raises(ValueError, match="a sample rate lies in 1 to"):
            refuse()


def test_coin_needs_no_model_for_sound():
    codec = make_codec("coin", {"modality": "stereo_sound", "architectures": ((2, 6),), "num_steps": 20})
    model = make_model(codec, codec.init(), {})
    recording = chord(3, samples=200, channels=2)
    decoded = model.decode(model.encode(recording))
    assert decoded.rate == recording.rate
    assert decoded.samples.shape == (200, 2)
    assert vcinr.load("coin", "stereo_sound").modality is STEREO

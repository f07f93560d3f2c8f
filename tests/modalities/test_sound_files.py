"""Every kind of sound file: one documented conversion to 16 bits, or one clear error that names the mend."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest

from vcinr.cli.main import main
from vcinr.modalities import MODALITIES
from vcinr.modalities.files.sound import SoundError, flac_holds, open_sound, read_sound, write_blocks
from vcinr.modalities.sound import Recording

soundfile = pytest.importorskip("soundfile")
SOUND, STEREO = MODALITIES["sound"], MODALITIES["stereo_sound"]


def noise(samples=300, channels=1, seed=0):
    return np.random.default_rng(seed).integers(-(2**15), 2**15, (samples, channels)).astype(np.int16)


def made(samples, kind="WAV", subtype="PCM_16", rate=8000):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return io.BytesIO(file.getvalue())


@pytest.mark.parametrize("suffix", SOUND.write_suffixes)
@pytest.mark.parametrize("row", [SOUND, STEREO], ids=lambda row: row.name)
def test_what_is_written_is_read(row, suffix, tmp_path):
    for samples, rate in ((1, 1), (2, 8000), (4097, 44100), (70000, 96000)):
        recording = Recording(noise(samples, row.channels), rate)
        row.write(tmp_path / f"a{suffix}", recording)
        for source in (tmp_path / f"a{suffix}", str(tmp_path / f"a{suffix}"), io.BytesIO((tmp_path / f"a{suffix}").read_bytes())):
            read = row.read(source)
            assert read.rate == rate
            assert read.samples.dtype == np.int16
            np.testing.assert_array_equal(read.samples, recording.samples)


@pytest.mark.parametrize("rate", [1, 9999, 65535, 65536, 65540, 96000, 655350, 655360, 2**20 - 1])
def test_prepared_recordings_are_without_loss_at_every_rate(rate):
    recording = Recording(noise(50), rate)
    data = SOUND.to_bytes(recording)
    assert data.startswith(b"fLaC" if flac_holds(rate) else b"RIFF")
    read = SOUND.from_bytes(data)
    assert read.rate == rate
    np.testing.assert_array_equal(read.samples, recording.samples)


def test_a_rate_that_flac_would_lose_is_refused(tmp_path):
    with pytest.raises(SoundError, match=r"a\.flac: FLAC has no code for 65537 samples per second: write a \.wav"):
        SOUND.write(tmp_path / "a.flac", Recording(noise(), 65537))
    assert list(tmp_path.iterdir()) == []


def test_other_suffixes_and_signals_are_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"a\.mp3: sounds are written as one of \.wav, \.flac"):
        SOUND.write(tmp_path / "a.mp3", Recording(noise(), 8000))
    with pytest.raises(SoundError, match=r"a\.ogg: recordings are written as one of \.wav, \.flac"):
        write_blocks(tmp_path / "a.ogg", 8000, 1, [noise()])
    with pytest.raises(ValueError, match="average them"):
        SOUND.write(tmp_path / "a.wav", Recording(noise(channels=2), 8000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("subtype", ["PCM_U8", "ULAW", "ALAW"])
def test_narrow_samples_are_widened_without_loss(subtype):
    file = made(noise(), subtype=subtype)
    read = SOUND.read(file)
    again = made(read.samples, subtype=subtype)
    assert again.getvalue() == file.getvalue()


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_24"), ("WAV", "PCM_32"), ("FLAC", "PCM_24")])
def test_deep_samples_need_leave_and_are_rounded(kind, subtype):
    deep = np.array([[0], [2**15], [2**15 - 2**8], [-(2**15) - 2**8], [2**31 - 2**8], [-(2**31)]], np.int32)
    with pytest.raises(SoundError, match=r"samples of more than 16 bits; pass --sixteen-bit \(sixteen_bit=True\)"):
        SOUND.read(made(deep, kind, subtype))
    read = SOUND.read(made(deep, kind, subtype), sixteen_bit=True)
    np.testing.assert_array_equal(read.samples.ravel(), [0, 0, 0, -1, 2**15 - 1, -(2**15)])


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_need_leave_and_are_rounded(subtype):
    values = np.array([0, 1, -1, 0.4 / 32768, 0.6 / 32768, 12345 / 32768])
    with pytest.raises(SoundError, match=r"floating-point samples; pass --sixteen-bit"):
        SOUND.read(made(values, subtype=subtype))
    read = SOUND.read(made(values, subtype=subtype), sixteen_bit=True)
    np.testing.assert_array_equal(read.samples.ravel(), [0, 2**15 - 1, -(2**15), 0, 1, 12345])


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (-1.5, "reaches 1.5, beyond full scale")]
)
def test_floats_that_are_no_sound_are_refused(value, message):
    values = np.zeros(1000)
    values[777] = value
    with pytest.raises(SoundError, match=message):
        SOUND.read(made(values, subtype="FLOAT"), sixteen_bit=True)


def test_clipped_sound_keeps_its_flat_tops():
    tops = np.repeat(np.array([[-(2**15)], [2**15 - 1]], np.int16), 50, axis=0)
    np.testing.assert_array_equal(SOUND.read(made(tops)).samples, tops)


def test_lossy_sound_is_read_at_its_length_and_clipped():
    loud = np.sign(np.sin(np.arange(8000) / 9))[:, None]
    read = SOUND.read(made(loud, "OGG", "VORBIS"))
    assert read.samples.shape == (8000, 1)
    assert read.samples.max() == 2**15 - 1
    assert read.samples.min() == -(2**15)
    with pytest.raises(SoundError, match="it is MP3, of which the length is a guess: convert it first"):
        SOUND.read(made(loud / 2, "MP3", "MPEG_LAYER_III"))


def test_channels_are_those_of_the_row_or_averaged_when_asked_for():
    both = np.array([[1, 2], [-1, -2], [3, 4], [32767, 32767], [-32768, -32768]], np.int16)
    with pytest.raises(SoundError, match=r"2 channels; pass --mono \(mono=True\) to average them, or use a model of 2 channels"):
        SOUND.read(made(both))
    np.testing.assert_array_equal(SOUND.read(made(both), mono=True).samples.ravel(), [2, -2, 4, 32767, -32768])
    np.testing.assert_array_equal(SOUND.read(made(both[:, :1]), mono=True).samples, both[:, :1])
    np.testing.assert_array_equal(STEREO.read(made(both)).samples, both)
    with pytest.raises(SoundError, match="it is mono, and the model is of 2 channels: use a mono one"):
        STEREO.read(made(both[:, :1]))
    with pytest.raises(SoundError, match="it has 3 channels, not 2"):
        STEREO.read(made(noise(channels=3)))


def test_the_first_seconds_are_read_and_the_rest_is_not():
    samples = noise(20000)
    for seconds, count in (("1.5", 12000), (2, 16000), (2.5, 20000), (99, 20000), (1e-9, 1)):
        read = SOUND.read(made(samples), seconds=seconds, max_samples=count)
        np.testing.assert_array_equal(read.samples, samples[:count])
    for wrong in ("0", -1, "three", float("nan"), float("inf")):
        with pytest.raises(SoundError, match="a number above 0"):
            SOUND.read(made(samples), seconds=wrong)


def test_the_limit_is_checked_before_decoding():
    with pytest.raises(SoundError, match="sound: 300 samples are more than the limit of 299; raise --max-pixels"):
        SOUND.read(made(noise(300)), max_samples=299)
    assert len(SOUND.read(made(noise(300)), max_samples=300).samples) == 300


def test_files_that_came_through_a_pipe_are_read_whole_or_refused():
    samples = noise(10000)
    wav = bytearray(made(samples).getvalue())
    wav[4:8] = wav[40:44] = b"\xff" * 4
    np.testing.assert_array_equal(SOUND.read(io.BytesIO(bytes(wav))).samples, samples)
    flac = bytearray(made(samples, "FLAC").getvalue())
    # STREAMINFO follows the magic and 4 bytes; the 36 bits from its bit 108 on count the samples.
    flac[8 + 13] &= 0xF0
    flac[8 + 14 : 8 + 18] = bytes(4)
    with pytest.raises(SoundError, match="does not say how long it is: rewrite it"):
        SOUND.read(io.BytesIO(bytes(flac)))


def test_blocks_are_the_whole_and_no_longer_than_asked_for(tmp_path):
    samples = noise(1000, 2)
    with open_sound(made(samples, "FLAC"), 2, block_samples=300) as (rate, blocks):
        found = list(blocks)
    assert rate == 8000
    assert [len(block) for block in found] == [300, 300, 300, 100]
    np.testing.assert_array_equal(np.concatenate(found), samples)
    write_blocks(tmp_path / "a.flac", rate, 2, iter(found))
    np.testing.assert_array_equal(STEREO.read(tmp_path / "a.flac").samples, samples)


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_truncated_files_are_refused(kind, tmp_path):
    data = made(noise(5000), kind).getvalue()
    for length in [*range(0, 60, 7), *range(60, len(data), len(data) // 9), len(data) - 2]:
        path = tmp_path / "cut"
        path.write_bytes(data[:length])
        with pytest.raises(SoundError, match="cut: "):
            SOUND.read(path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF", "OGG"])
def test_damaged_files_give_a_recording_or_the_one_error(kind):
    data = made(noise(2000), kind, "VORBIS" if kind == "OGG" else "PCM_16").getvalue()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers([min(200, len(data)), len(data)]):
            damaged[position] = rng.integers(256)
        try:
            read = read_sound(io.BytesIO(bytes(damaged)), sixteen_bit=True, mono=True, max_samples=10**5)
        except SoundError:
            continue
        SOUND.unpack(read)


@pytest.mark.parametrize("data", [b"", b"hello", b"RIFF", b"fLaC" + bytes(40), bytes(1000)])
def test_what_is_no_sound_is_refused(data, tmp_path):
    for name in ("a.wav", "a.raw"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SoundError, match=f"{name}: no sound in a format that is read"):
            SOUND.read(tmp_path / name)


def test_a_file_without_samples_is_refused():
    for kind in ("WAV", "AIFF"):
        with pytest.raises(SoundError, match="it has no samples"):
            SOUND.read(made(np.zeros((0, 1), np.int16), kind))


def test_an_impossible_rate_is_refused():
    data = bytearray(made(noise()).getvalue())
    data[24:28] = struct.pack("<I", 2**20)
    with pytest.raises(SoundError, match="a sample rate lies in 1 to 1048575 per second, not 1048576"):
        SOUND.read(io.BytesIO(bytes(data)))


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        SOUND.read(tmp_path / "none.wav")


def test_without_soundfile_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    for call in (lambda: SOUND.read(io.BytesIO(b"")), lambda: SOUND.write(tmp_path / "a.wav", Recording(noise(), 8000))):
        with pytest.raises(SoundError, match=r"needs soundfile: pip install 'vcinr\[sound\]'"):
            call()


def test_the_library_is_imported_without_soundfile():
    program = "import sys; sys.modules['soundfile'] = None; import vcinr.cli.main; import vcinr.modalities"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_command_line_takes_the_options_of_the_reader(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    STEREO.write("in.flac", Recording(noise(400, 2), 11025))
    assert main(["encode", "in.flac", "out.vcinr", "--model", "coin", "--point", "0"]) == 1
    assert "in.flac: it has 2 channels; pass --mono" in capsys.readouterr().err
    arguments = ["encode", "in.flac", "out.vcinr", "--model", "coin", "--point", "0", "--modality", "stereo_sound"]
    assert main([*arguments, "--mono"]) == 1
    assert "--mono says nothing of a stereo_sound" in capsys.readouterr().err

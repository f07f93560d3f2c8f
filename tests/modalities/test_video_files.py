"""Videos of every kind: one documented conversion, or one clear error that names the mend."""

import io
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from tests.modalities.test_video import VIDEO, clip
from vcinr.modalities.files.video import _promised_bytes
from vcinr.modalities.video import LOSSLESS_SUFFIXES, Clip

av = pytest.importorskip("av", reason="reading and writing video needs PyAV: pip install 'vcinr[video]'")


def smooth(count=12, height=48, width=64):
    """Frames uint8 [count, height, width, 3] of a wave that moves, and a ramp."""
    t, y, x = np.mgrid[:count, :height, :width]
    wave = 127.5 + 80 * np.sin((x + 2 * t) / 9) * np.cos(y / 7)
    return np.stack([wave, wave[:, ::-1], 40 + 2.5 * x], axis=-1).astype(np.uint8)


def encoded(frames, kind="mp4", codec="libx264", pixels="yuv420p", rate=25, times=None, source="rgb24", set_up=None, **options):
    """A video file as other programs make it.   times: of frames, in units of 1 / rate seconds."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as video:
        stream = video.add_stream(codec, rate=rate, options={"threads": "1", **options})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if set_up:
            set_up(stream)
        for time, values in zip(times or range(len(frames)), frames, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format=source)
            frame.pts, frame.time_base = time, 1 / Fraction(rate)
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    return io.BytesIO(file.getvalue())


def assert_equal(found, wanted):
    assert found.frames.dtype == np.uint8
    np.testing.assert_array_equal(found.frames, wanted.frames)
    assert found.rate == wanted.rate


@pytest.mark.parametrize("suffix", [*LOSSLESS_SUFFIXES, ".MP4"])
@pytest.mark.parametrize("shape", [(5, 16, 16), (3, 17, 33), (1, 1, 1), (2, 3, 1)])
@pytest.mark.parametrize("rate", [25, Fraction(30000, 1001), Fraction(1, 3), Fraction(59, 7)])
def test_what_is_written_is_read_back(suffix, shape, rate, tmp_path):
    raw = clip(shape, rate)
    VIDEO.write(tmp_path / f"out{suffix}", raw)
    for source in (tmp_path / f"out{suffix}", str(tmp_path / f"out{suffix}")):
        assert_equal(VIDEO.read(source), raw)
    if suffix != ".frames":
        assert_equal(VIDEO.read(io.BytesIO((tmp_path / f"out{suffix}").read_bytes())), raw)


@pytest.mark.parametrize("count", [1, 2, 3, 10])
@pytest.mark.parametrize("rate", [25, Fraction(30000, 1001), 1000, 7919, 120000])
def test_no_frame_is_lost_at_any_rate(count, rate, tmp_path):
    """Where motion is smooth, encoders would use B-frames."""
    raw = Clip(smooth(count, 16, 16), Fraction(rate))
    VIDEO.write(tmp_path / "a.mp4", raw)
    assert_equal(VIDEO.read(tmp_path / "a.mp4"), raw)
    assert_equal(VIDEO.from_bytes(VIDEO.to_bytes(raw)), raw)


@pytest.mark.parametrize("rate", [Fraction(1, 86400), 10**6, Fraction(999983, 10**6), Fraction(10**6, 999983), 1000])
def test_mp4_and_data_sets_keep_every_rate_and_mkv_says_where_it_does_not(rate, tmp_path):
    raw = clip((2, 8, 8), rate)
    VIDEO.write(tmp_path / "a.mp4", raw)
    assert_equal(VIDEO.read(tmp_path / "a.mp4"), raw)
    assert_equal(VIDEO.from_bytes(VIDEO.to_bytes(raw)), raw)
    if rate != 1000:
        with pytest.raises(ValueError, match=r"write .mp4 or .npz"):
            VIDEO.write(tmp_path / "a.mkv", raw)
        assert not (tmp_path / "a.mkv").exists()


def test_stored_examples_are_smaller_than_raw_and_than_lossless_h264(tmp_path):
    raw = Clip(smooth(), 25)
    VIDEO.write(tmp_path / "a.mp4", raw)
    assert len(VIDEO.to_bytes(raw)) < raw.frames.nbytes / 2
    assert_equal(VIDEO.from_bytes(VIDEO.to_bytes(raw)), raw)


def test_a_folder_of_frames_in_the_order_of_their_numbers(tmp_path):
    raw = clip((12, 5, 6), Fraction(24000, 1001))
    for index, frame in enumerate(raw.frames):
        Image.fromarray(frame).save(tmp_path / f"frame_{index}.png")
    with pytest.raises(ValueError, match=r"pass --frame-rate, e.g. 25"):
        VIDEO.read(tmp_path)
    # Without leading zeros too, frame 10 follows frame 9.
    assert_equal(VIDEO.read(tmp_path, frame_rate="24000/1001"), raw)
    assert_equal(VIDEO.read(tmp_path, frame_rate="24000/1001", frames=2), Clip(raw.frames[:2], raw.rate))
    with pytest.raises(ValueError, match="12 frames or more of 6x5 pixels are more than the limit of 359"):
        VIDEO.read(tmp_path, frame_rate=25, max_samples=359)
    (tmp_path / "rate.txt").write_text("30 fps")
    with pytest.raises(ValueError, match="'30 fps' is no frame rate"):
        VIDEO.read(tmp_path)
    Image.new("RGB", (7, 5)).save(tmp_path / "frame_4.png")
    with pytest.raises(ValueError, match=r"frame_4.png has 7x5 pixels, frame_0.png 6x5: make them equal"):
        VIDEO.read(tmp_path, frame_rate=25)
    Image.new("RGB", (6, 5)).save(tmp_path / "poster.png")
    with pytest.raises(ValueError, match=r"other pictures than numbered frames, frame_0.png and poster.png"):
        VIDEO.read(tmp_path, frame_rate=25)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: a folder without .png frames"):
        VIDEO.read(tmp_path / "empty", frame_rate=25)


def test_a_folder_that_is_there_is_not_written_into(tmp_path):
    VIDEO.write(tmp_path / "a.frames", clip((3, 4, 5)))
    assert sorted(path.name for path in (tmp_path / "a.frames").iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
        "rate.txt",
    ]
    with pytest.raises(ValueError, match=r"a.frames exists: remove it first"):
        VIDEO.write(tmp_path / "a.frames", clip((2, 4, 5)))


@pytest.mark.parametrize("name", ["out.avi", "out", "out.webm", "out.gif", "out.png"])
def test_formats_that_change_values_are_not_written(name, tmp_path):
    with pytest.raises(ValueError, match=r"written as one of .mp4, .mkv, .npz, .frames"):
        VIDEO.write(tmp_path / name, clip())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        ("mp4", "libx264"),
        ("mov", "libx264"),
        ("matroska", "libx264"),
        ("avi", "mpeg4"),
        ("webm", "libvpx-vp9"),
        ("mpeg", "mpeg2video"),
        ("mp4", "libx265"),
    ],
)
def test_lossy_files_of_every_kind_are_read_in_order_with_their_rate(kind, codec):
    frames = smooth()
    options = {"x265-params": "log-level=none:pools=1"} if codec == "libx265" else {"qmin": "1", "b": "4M"}
    found = VIDEO.read(encoded(frames, kind, codec, bf="2", **options))
    assert found.rate == 25
    assert found.frames.shape == frames.shape
    errors = [np.abs(found.frames.astype(int) - each).mean() for each in frames[:, None]]
    assert max(errors) < 40
    for index, each in enumerate(found.frames):
        assert np.argmin([np.abs(each.astype(int) - frame).mean() for frame in frames]) == index
        assert np.abs(each.astype(int) - frames[index]).mean() < 4


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), 50, Fraction(25, 2)])
@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi"])
def test_rates_survive_the_clocks_of_containers(rate, kind):
    codec = "mpeg4" if kind == "avi" else "libx264"
    assert VIDEO.read(encoded(smooth(30, 16, 16), kind, codec, rate=rate)).rate == rate


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
def test_a_variable_frame_rate_is_refused_and_taken_as_it_comes_where_a_rate_is_given(kind):
    frames = smooth(6, 16, 16)
    file = encoded(frames, kind, times=[0, 1, 2, 5, 6, 7], rate=30)
    with pytest.raises(ValueError, match=r"variable frame rate: frames last 0.033\d* to 0.1 s; pass --frame-rate"):
        VIDEO.read(file)
    found = VIDEO.read(file, frame_rate="30")
    assert (len(found.frames), found.rate) == (6, 30)
    # The first three are even.
    assert VIDEO.read(file, frames="3").frames.shape == (3, 16, 16, 3)


def test_jitter_below_half_a_frame_is_a_constant_rate():
    frames = smooth(6, 16, 16)
    found = VIDEO.read(encoded(frames, "mp4", times=[0, 103, 196, 302, 397, 500], rate=2500, bf="0"))
    assert len(found.frames) == 6
    assert float(found.rate) == pytest.approx(25, rel=0.05)


def test_a_stream_without_times_needs_a_rate():
    file = encoded(smooth(3), "h264")
    with pytest.raises(ValueError, match="does not say when its frames are shown; pass --frame-rate"):
        VIDEO.read(file)
    assert VIDEO.read(file, frame_rate=25).frames.shape == (3, 48, 64, 3)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90])
def test_turned_video_is_made_upright(degrees):
    frames = smooth(2, 16, 32)
    file = encoded(frames, "mp4", "libx264rgb", "rgb24", set_up=lambda stream: stream.set_display_rotation(degrees), qp="0")
    np.testing.assert_array_equal(VIDEO.read(file).frames, np.rot90(frames, degrees // 90, axes=(1, 2)))


def test_an_oblique_angle_is_refused():
    file = encoded(smooth(2), set_up=lambda stream: stream.set_display_rotation(30))
    with pytest.raises(ValueError, match="turned by (29|30) degrees; make it upright"):
        VIDEO.read(file)


def test_deep_video_needs_leave():
    file = encoded(smooth(3), pixels="yuv420p10le", qp="1")
    with pytest.raises(ValueError, match="has 10 bits per channel; pass --eight-bit"):
        VIDEO.read(file)
    found = VIDEO.read(file, eight_bit=True)
    assert np.abs(found.frames.astype(int) - smooth(3)).mean() < 4


def test_deep_values_are_rounded():
    deep = np.full((2, 8, 8, 3), 0x1281, np.uint16)
    found = VIDEO.read(encoded(deep, "matroska", "ffv1", "gbrp16le", source="rgb48le", level="3"), eight_bit=True)
    assert set(np.unique(found.frames)) <= {0x12, 0x13}


def test_transparency_is_refused_unless_opaque():
    rgba = np.concatenate([smooth(2), np.full((2, 48, 64, 1), 255, np.uint8)], axis=-1)
    np.testing.assert_array_equal(VIDEO.read(encoded(rgba, "avi", "png", "rgba", source="rgba")).frames, smooth(2))
    rgba[1, 3, 4, 3] = 254
    with pytest.raises(ValueError, match="transparent pixels; composite it"):
        VIDEO.read(encoded(rgba, "avi", "png", "rgba", source="rgba"))


def test_grey_becomes_three_equal_channels():
    grey = smooth(2)[..., 0]
    found = VIDEO.read(encoded(grey, "matroska", "ffv1", "gray", source="gray"))
    np.testing.assert_array_equal(found.frames, np.repeat(grey[..., None], 3, axis=-1))


@pytest.mark.parametrize(("matrix", "name"), [(1, "bt709"), (6, "smpte170m")])
def test_colours_follow_the_matrix_that_the_file_declares(matrix, name):
    frames = np.empty((2, 32, 32, 3), np.uint8)
    frames[:] = 200, 30, 90

    def declare(stream):
        stream.height = stream.width = 32
        stream.codec_context.colorspace = matrix

    kr, kb = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114)}[name]
    r, g, b = (frames[0, 0, 0] / 255).tolist()
    luma = kr * r + (1 - kr - kb) * g + kb * b
    ycc = 16 + 219 * luma, 128 + 112 * (b - luma) / (1 - kb), 128 + 112 * (r - luma) / (1 - kr)
    planes = np.empty((2, 3, 32, 32), np.uint8)
    planes[:] = np.rint(ycc)[:, None, None]
    file = encoded(planes, "mp4", "libx264", "yuv444p", source="yuv444p", set_up=declare, qp="0")
    assert np.abs(VIDEO.read(file).frames.astype(int) - frames).max() <= 2


def test_sound_alone_and_no_frames_are_refused():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as sound:
        stream = sound.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        sound.mux(stream.encode(frame))
        sound.mux(stream.encode())
    with pytest.raises(ValueError, match="holds no video; is it sound alone"):
        VIDEO.read(io.BytesIO(file.getvalue()))
    with av.open(file := io.BytesIO(), "w", format="mp4", options={"movflags": "empty_moov"}) as video:
        stream = video.add_stream("libx264", rate=25)
        stream.width = stream.height = 16
        video.start_encoding()
    with pytest.raises(ValueError, match="has no frames"):
        VIDEO.read(io.BytesIO(file.getvalue()))


def test_the_limit_is_checked_before_all_frames_are_decoded(monkeypatch):
    file = encoded(smooth(12, 16, 16))
    assert VIDEO.read(file, max_samples=12 * 256).frames.shape == (12, 16, 16, 3)
    decoded = []
    real = __import__("vcinr.modalities.files.video", fromlist=["_rgb"])._rgb
    monkeypatch.setattr("vcinr.modalities.files.video._rgb", lambda *args: decoded.append(1) or real(*args))
    with pytest.raises(
        ValueError, match=r"12 frames or more of 16x16 pixels are more than the limit of 3071; read fewer with --fr"
    ):
        VIDEO.read(file, max_samples=12 * 256 - 1)
    assert not decoded
    assert VIDEO.read(file, max_samples=12 * 256 - 1, frames=11).frames.shape == (11, 16, 16, 3)
    # Matroska does not say how many frames there are: reading ends at the first that is too many.
    decoded.clear()
    with pytest.raises(ValueError, match="3 frames or more of 16x16"):
        VIDEO.read(encoded(smooth(12, 16, 16), "matroska"), max_samples=600)
    assert len(decoded) == 2


def test_the_first_frames_alone_are_read():
    frames = smooth(12)
    file = encoded(frames, "mp4", "libx264rgb", "rgb24", qp="0")
    np.testing.assert_array_equal(VIDEO.read(file, frames="5").frames, frames[:5])
    np.testing.assert_array_equal(VIDEO.read(file, frames=99).frames, frames)
    for wrong in (0, -1, "x", 2.5, "1.5"):
        with pytest.raises(ValueError, match="frames is a whole number of at least 1"):
            VIDEO.read(file, frames=wrong)


@pytest.mark.parametrize("kind", ["matroska", "avi", "mp4"])
def test_truncated_files_are_refused(kind, tmp_path):
    codec = "mpeg4" if kind == "avi" else "libx264"
    data = encoded(smooth(), kind, codec).getvalue()
    for length in range(0, len(data) - 400, len(data) // 15):
        path = tmp_path / "cut"
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut: "):
            VIDEO.read(path)


@pytest.mark.parametrize("kind", ["matroska", "avi", "mp4"])
def test_damaged_files_give_a_clip_or_the_one_error(kind):
    codec = "mpeg4" if kind == "avi" else "libx264"
    data = encoded(smooth(4, 16, 16), kind, codec).getvalue()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(len(data), size=3):
            damaged[position] = rng.integers(256)
        try:
            found = VIDEO.read(io.BytesIO(bytes(damaged)), max_samples=10**6, eight_bit=True)
        except ValueError:
            continue
        VIDEO.unpack(found)


@pytest.mark.parametrize("data", [b"", b"hello", bytes(1000), b"RIFF", b"\x1a\x45\xdf\xa3", b"PK\x03\x04"])
def test_what_is_no_video_is_refused(data, tmp_path):
    (tmp_path / "odd.mp4").write_bytes(data)
    with pytest.raises(ValueError, match=r"odd.mp4: "):
        VIDEO.read(tmp_path / "odd.mp4")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"frames": np.zeros((2, 4, 4, 3), np.uint8)}, "holds no rate"),
        ({"frames": np.zeros((2, 4, 4, 3), np.uint8), "rate": np.array([25, 0])}, "holds no rate"),
        ({"frames": np.zeros((2, 4, 4, 3), np.uint8), "rate": np.array([10**9, 1])}, "a frame rate is"),
        ({"frames": np.zeros((2, 4, 4, 3), np.float32), "rate": np.array([25, 1])}, "holds frames, uint8"),
        ({"other": np.zeros(3)}, "holds frames, uint8"),
        ({"frames": np.zeros((200, 40, 40, 3), np.uint8), "rate": np.array([25, 1])}, "limit"),
        ({"frames": np.array([None])}, "plain arrays"),
    ],
)
def test_arrays_that_are_no_video_are_refused(arrays, message, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a.npz.*{message}"):
        VIDEO.read(tmp_path / "a.npz", max_samples=10**5)


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        VIDEO.read(tmp_path / "none.mp4")


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (b"RIFF\x10\0\0\0AVI ", 24),
        (b"\x1a\x45\xdf\xa3\x81\x00\x18\x53\x80\x67\x90" + bytes(20), 11 + 16),
        (b"\x1a\x45\xdf\xa3\x81\x00\x18\x53\x80\x67\x01" + b"\xff" * 7, None),
        (b"\x1a\x45\xdf\xa3\x81\x00\x18\x53\x80\x67", None),
        (b"\x1a\x45\xdf\xa3\x00", None),
        (bytes(40), None),
    ],
)
def test_the_length_by_a_files_own_header(head, length):
    assert _promised_bytes(head) == length


def test_the_library_is_imported_without_pyav_and_reading_names_the_extra():
    program = """
import sys
sys.modules["av"] = None
from vcinr.modalities.video import Video
import io
try:
    Video().read(io.BytesIO(b"x" * 100))
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'vcinr[video]'" in done.stdout and len(done.stdout.splitlines()) == 1

"""x264 and x265: counts against the streams' own units, and quality against rate."""

import io
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest

from vcinr.evaluation import classical_video
from vcinr.evaluation.metrics import mean_squared_error, psnr_db

av = pytest.importorskip("av", reason="x264 and x265 need PyAV: pip install 'vcinr[video]'")

CODECS = ("x264", "x265")
MEASURES = {"x264": classical_video.measure_x264, "x265": classical_video.measure_x265}


class Filmed(NamedTuple):
    frames: np.ndarray
    rate: Fraction


def moving(count=8, height=48, width=64):
    """A clip of a textured scene that pans by one pixel a frame."""
    rng = np.random.default_rng(0)
    scene = rng.uniform(0, 255, (height // 4, width // 4 + 4, 3)).repeat(4, axis=0).repeat(4, axis=1)
    scene = sum(np.roll(scene, k, axis) for axis in (0, 1) for k in range(4)) / 8
    return Filmed(np.stack([scene[:, i : i + width] for i in range(count)]).astype(np.uint8), Fraction(25))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("crf", [12, 40])
def test_the_stream_is_what_another_reader_counts_and_decodes(codec, crf):
    clip = moving()
    data = classical_video.encode(codec, clip.frames, clip.rate, crf)
    assert data == classical_video.encode(codec, clip.frames, clip.rate, crf)
    decoded = classical_video.decode(codec, data)
    assert decoded.shape == clip.frames.shape
    # The parser of FFmpeg finds a packet a frame; all bytes but start codes and parameter sets are slices.
    with av.open(io.BytesIO(data), format=classical_video.ENCODERS[codec][1]) as stream:
        sizes = [packet.size for packet in stream.demux(video=0) if packet.size]
    assert len(sizes) == len(clip.frames)
    assert sum(sizes) == len(data)
    assert classical_video.payload_bytes(codec, data) < len(data) <= classical_video.payload_bytes(codec, data) + 250


@pytest.mark.parametrize("codec", CODECS)
def test_frames_are_decoded_in_the_order_in_which_they_are_shown(codec):
    clip = moving()
    decoded = classical_video.decode(codec, classical_video.encode(codec, clip.frames, clip.rate, 14, chroma="4:4:4"))
    for index, frame in enumerate(decoded):
        errors = [mean_squared_error(frame, each) for each in clip.frames]
        assert np.argmin(errors) == index
        assert psnr_db(errors[index]) > 28


def test_the_note_of_x264_is_left_out():
    clip = moving()
    data = classical_video.encode("x264", clip.frames, clip.rate, 30)
    assert b"x264" not in data
    assert b"x265" not in classical_video.encode("x265", clip.frames, clip.rate, 30)


def test_units_are_counted_by_kind():
    start = b"\0\0\0\1"
    # Parameter sets, a message, a key slice, another one after a start code of three bytes.
    stream = start + b"\x67abc" + start + b"\x68de" + start + b"\x06\x05note" + start + b"\x65slice" + b"\0\0\1" + b"\x41other"
    assert classical_video.payload_bytes("x264", stream) == len(b"\x65slice") + len(b"\x41other")
    stream = start + b"\x40\x01vps" + start + b"\x42\x01sps" + start + b"\x26\x01slice" + start + b"\x4e\x01sei"
    assert classical_video.payload_bytes("x265", stream) == len(b"\x26\x01slice")


@pytest.mark.parametrize("codec", CODECS)
def test_full_chroma_keeps_what_subsampling_loses(codec):
    red_blue = np.zeros((2, 32, 32, 3), np.uint8)
    red_blue[:, :, ::2, 0], red_blue[:, :, 1::2, 2] = 255, 255

    def error(chroma):
        data = classical_video.encode(codec, red_blue, 25, 10, chroma=chroma)
        return mean_squared_error(red_blue, classical_video.decode(codec, data))

    assert error("4:4:4") < 0.01 < 0.05 < error("4:2:0")


@pytest.mark.parametrize("codec", CODECS)
def test_rows_have_the_shape_of_a_models_and_fall_with_the_crf(codec):
    clips, calls = [moving(), moving(4)], []
    rows = MEASURES[codec](clips, "tiny", "test", (15, 25, 35), "fast", progress=lambda *call: calls.append(call))
    assert [call[1:] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    for row in rows:
        assert (row["codec"], row["num_signals"], row["model_bytes"], row["preset"]) == (codec, 2, 0, "fast")
        assert row["bpp_container"] is row["bpp_estimated"] is None
        # 25 frames per second of 48 x 64 pixels.
        assert row["kbps"] == pytest.approx(row["bpp_file"] * 48 * 64 * 25 / 1000)
        assert row["psnr_db"] == row["psnr_float_db"] >= row["psnr_of_mean_mse_db"]
        assert row["psnr_per_frame_db"] >= row["psnr_db"]
    for name in ("bpp_file", "bpp_payload", "psnr_db", "psnr_per_frame_db"):
        assert rows[0][name] > rows[1][name] > rows[2][name]


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 3, 4, 3), np.uint8), np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4, 3)), None]
)
def test_what_is_no_clip_of_even_sizes_is_refused(frames):
    with pytest.raises(ValueError, match="even sizes, not"):
        classical_video.measure_x264([Filmed(frames, Fraction(25))], "tiny", "test")


def test_x265_beats_x264_on_real_clips(vcinr_data):
    path = vcinr_data / "video" / "clips_24x128x128.npz"
    if not path.exists():
        pytest.skip(f"no video in $VCINR_DATA: {path} is not there")
    with np.load(path) as arrays:
        clips = [Filmed(arrays[name], Fraction(25)) for name in ("carphone_pristine_0", "cockatoo_0")]
    older = classical_video.measure_x264(clips, "clips", "test", (20, 26, 32))
    newer = classical_video.measure_x265(clips, "clips", "test", (26,))[0]
    rates = [row["bpp_file"] for row in older][::-1]
    at_equal_rate = np.interp(newer["bpp_file"], rates, [row["psnr_db"] for row in older][::-1])
    assert newer["psnr_db"] > at_equal_rate + 0.3

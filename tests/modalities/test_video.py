"""The video row: frames with an exact rate, wrong ones refused with the mend, quality by frame."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcinr.bitstream import container
from vcinr.modalities.video import MAX_TERM, Clip, Video, as_rate, rounded_rate

VIDEO = Video()
RATES = st.fractions(min_value=Fraction(1, 86400), max_value=MAX_TERM, max_denominator=MAX_TERM)


def clip(shape=(3, 4, 5), rate=25, seed=0):
    return Clip(np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8), Fraction(rate))


@given(RATES)
def test_a_clip_is_taken_apart_and_put_together(rate):
    raw = clip(rate=rounded_rate(rate))
    samples, metadata = VIDEO.unpack(raw)
    VIDEO.check_metadata(metadata, samples.shape[:-1])
    back = VIDEO.pack(VIDEO.denormalise(VIDEO.normalise(samples)), metadata)
    np.testing.assert_array_equal(back.frames, raw.frames)
    assert back.rate == raw.rate
    assert abs(raw.rate - rate) <= rate / 1000


def test_the_bytes_that_a_rate_takes():
    """Zigzag varints: 25 frames per second take two bytes, television's 30000/1001 five."""
    for rate, wanted in ((25, b"\x32\x02"), (Fraction(30000, 1001), b"\xe0\xd4\x03\xd2\x0f")):
        metadata = VIDEO.unpack(clip(rate=rate))[1]
        with_rate = container.head_bytes(bytes(4), [(3, 4, 5)], [metadata], VIDEO.meta_types)
        assert with_rate == container.head_bytes(bytes(4), [(3, 4, 5)], [{}], {}) + wanted


@pytest.mark.parametrize(
    ("numerator", "denominator"),
    [(0, 1), (1, 0), (-25, 1), (-25, -1), (50, 2), (1, 86401), (MAX_TERM + 1, 1), (2**31 - 1, 2**31 - 2), (-(2**31), 2**31 - 1)],
)
def test_hostile_rates_are_refused(numerator, denominator):
    with pytest.raises(ValueError, match="a frame rate is"):
        VIDEO.check_metadata({"rate_numerator": numerator, "rate_denominator": denominator}, (1, 1, 1))


@pytest.mark.parametrize(
    "rate", [0, -1, float("nan"), float("inf"), 29.97, "", "25 fps", "1e9999999", "1/0", "nan", None, 1e30, "1/2/3", [25]]
)
def test_what_is_no_frame_rate_is_refused(rate):
    with pytest.raises(ValueError, match="frame rate"):
        VIDEO.unpack(Clip(clip().frames, rate))


def test_rates_as_people_write_them():
    assert [as_rate(each) for each in (25, "25", "29.97", "30000/1001", 12.5, np.int64(24))] == [
        *(25, 25, Fraction(2997, 100), Fraction(30000, 1001), Fraction(25, 2), 24)
    ]


@pytest.mark.parametrize(
    ("array", "mend"),
    [
        (np.zeros((4, 5, 3), np.uint8), r"frames\[None\]"),
        (np.zeros((2, 4, 5), np.uint8), "repeat the grey channel"),
        (np.zeros((2, 4, 5, 1), np.uint8), "repeat the grey channel"),
        (np.zeros((2, 4, 5, 4), np.uint8), "drop alpha"),
        (np.zeros((2, 3, 4, 5), np.uint8), "channels last"),
        (np.zeros((1, 2, 4, 5, 3), np.uint8), "one at a time"),
        (np.zeros((4, 5), np.uint8), "four axes"),
        (np.zeros((0, 4, 5, 3), np.uint8), "no frames"),
        (np.zeros((2, 4, 0, 3), np.uint8), "no frames or no pixels"),
        (np.zeros((2, 4, 5, 3), np.float32), r"scale it to 0\.\.255"),
        (np.zeros((2, 4, 5, 3), np.uint16), r"scale it to 0\.\.255"),
        ([[[[0, 0, 0]]]], "np.stack"),
    ],
)
def test_wrong_frames_are_refused_with_the_mend(array, mend):
    with pytest.raises(ValueError, match=mend):
        VIDEO.unpack(Clip(array, 25))


def test_frames_without_a_rate_are_refused_with_the_mend():
    with pytest.raises(ValueError, match=r"say Clip\(frames, Fraction\(25\)\)"):
        VIDEO.unpack(clip().frames)


def test_quality_overall_is_of_the_mean_error_and_per_frame_the_mean_of_decibels():
    frames = np.full((2, 8, 8, 3), 100, np.uint8)
    decoded = frames.copy()
    decoded[0] += 1
    decoded[1] += 10
    found = VIDEO.metrics(Clip(frames, 25), Clip(decoded, 25))
    assert found["psnr_db"] == pytest.approx(10 * np.log10(255**2 / 50.5))
    assert found["psnr_per_frame_db"] == pytest.approx(10 * np.log10(255**2 / 10))
    # One value wrong by one step stands for a frame without error, so that the mean is a number.
    decoded[0] -= 1
    found = VIDEO.metrics(Clip(frames, 25), Clip(decoded, 25))
    lossless, wrong = 10 * np.log10(255**2 * 192), 10 * np.log10(255**2 / 100)
    assert found["psnr_per_frame_db"] == pytest.approx((lossless + wrong) / 2)
    assert VIDEO.metrics(Clip(frames, 25), Clip(frames, 25))["psnr_db"] == np.inf
    with pytest.raises(ValueError, match="different shapes"):
        VIDEO.metrics(Clip(frames, 25), Clip(frames[:1], 25))


def test_bits_per_second_are_of_the_duration():
    raw = clip((50, 1, 1), rate=Fraction(25, 2))
    assert 8 * 1000 / VIDEO.rate_units(raw)["kbps"] == pytest.approx(2.0)


def test_another_number_of_frames_keeps_the_duration():
    metadata = VIDEO.unpack(clip(rate=Fraction(30000, 1001)))[1]
    assert VIDEO.resampled_metadata(metadata, (3, 4, 5), (6, 9, 9)) == {"rate_numerator": 60000, "rate_denominator": 1001}
    assert VIDEO.resampled_metadata(metadata, (3, 4, 5), (3, 8, 8)) == metadata
    assert VIDEO.shape_at_rate(metadata, (300, 4, 5), 60) == (601, 4, 5)
    assert VIDEO.shape_at_rate(metadata, (3, 4, 5), 1) == (1, 4, 5)
    for rate in (0, -5, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="frame rate lies above 0"):
            VIDEO.shape_at_rate(metadata, (3, 4, 5), rate)


@given(RATES, st.integers(1, 1000), st.integers(1, 1000))
def test_any_resampled_rate_is_one_that_a_file_may_hold(rate, old, new):
    rate = rounded_rate(rate)
    metadata = {"rate_numerator": rate.numerator, "rate_denominator": rate.denominator}
    wanted = rate * new / old
    if Fraction(1, 86000) <= wanted <= MAX_TERM:
        found = VIDEO.resampled_metadata(metadata, (old, 1, 1), (new, 1, 1))
        VIDEO.check_metadata(found, (new, 1, 1))
        assert abs(Fraction(*found.values()) - wanted) <= wanted / 1000

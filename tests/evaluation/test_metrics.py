"""Quality against closed forms."""

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from vcinr.evaluation.metrics import lossless_psnr_db, mean_squared_error, psnr_db, summarise


def test_psnr_of_known_errors():
    assert psnr_db(1.0) == 0
    assert psnr_db(1e-3) == pytest.approx(30)
    assert psnr_db(1e-3 * 255**2, peak=255) == pytest.approx(30)
    assert psnr_db(0.0) == math.inf
    np.testing.assert_allclose(psnr_db(np.array([0.1, 0.01])), [10, 20])


@pytest.mark.parametrize(("mse", "peak"), [(-1e-9, 1.0), (math.nan, 1.0), (0.1, 0.0)])
def test_psnr_refuses_impossible_arguments(mse, peak):
    with pytest.raises(ValueError, match=r"at least 0|positive"):
        psnr_db(mse, peak)


def test_mse_of_8_bit_and_float_agree_with_closed_forms():
    black, white = np.zeros((4, 5, 3), np.uint8), np.full((4, 5, 3), 255, np.uint8)
    assert mean_squared_error(black, white) == 1
    assert mean_squared_error(black, black) == 0
    # Differences of unsigned integers wrap around where they are not widened first.
    assert mean_squared_error(np.full((1, 1, 3), 3, np.uint8), np.full((1, 1, 3), 4, np.uint8)) == pytest.approx(1 / 255**2)
    # Floats outside [0, 1] are not clamped.
    assert mean_squared_error(black, np.full((4, 5, 3), -0.5, np.float32)) == pytest.approx(0.25)


def test_agrees_with_scikit_image():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 16, 9, 3), dtype=np.uint8)
    assert psnr_db(mean_squared_error(a, b)) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), abs=1e-9)


def test_weights_mask_samples_and_need_not_sum_to_one():
    original = np.zeros((2, 2, 3), np.uint8)
    decoded = original.copy()
    decoded[0, 0] = 255
    decoded[1, 1] = 255
    weight = np.array([[1.0, 3.0], [0.0, 0.0]])
    assert mean_squared_error(original, decoded) == 0.5
    assert mean_squared_error(original, decoded, weight) == pytest.approx(0.25)
    assert mean_squared_error(original, decoded, 7 * weight) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("original", "decoded", "weight", "message"),
    [
        (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8), None, "different shapes"),
        (np.zeros((0, 2, 3), np.uint8), np.zeros((0, 2, 3), np.uint8), None, "empty"),
        (np.zeros((2, 2, 3), np.int32), np.zeros((2, 2, 3), np.uint8), None, "int32: convert first"),
        (np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), np.nan), None, "NaN"),
        (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), "not all zero"),
        (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8), np.ones((3, 2)), "leading axes"),
        (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8), -np.ones((2, 2)), "not negative"),
    ],
)
def test_mse_refuses_what_it_cannot_compare(original, decoded, weight, message):
    with pytest.raises(ValueError, match=message):
        mean_squared_error(original, decoded, weight)


def test_mean_psnr_is_above_psnr_of_mean_error_for_unequal_errors():
    quality = summarise([1e-2, 1e-4], [100, 100])
    assert quality["psnr_db"] == pytest.approx(30)
    assert quality["psnr_of_mean_mse_db"] == pytest.approx(-10 * math.log10(0.00505))
    assert quality["num_lossless"] == 0


def test_a_lossless_signal_counts_a_finite_bound_that_no_lossy_one_reaches():
    size = 32 * 32 * 3
    least_error = 1 / 255**2 / size
    assert lossless_psnr_db(size) == pytest.approx(83.0, abs=0.1)
    assert summarise([0.0], [size]) == {
        "psnr_db": pytest.approx(psnr_db(least_error)),
        "psnr_of_mean_mse_db": pytest.approx(psnr_db(least_error)),
        "num_lossless": 1,
    }
    assert summarise([0.0, 1e-3], [size, size])["psnr_db"] == pytest.approx((psnr_db(least_error) + 30) / 2)


def test_summary_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one signal"):
        summarise([], [])

"""MS-SSIM: its value where it is known, its order where it is not."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from tests.conftest import smooth_picture
from vcinr.evaluation import ms_ssim as module
from vcinr.evaluation.ms_ssim import SMALLEST_SIDE, ms_ssim

PICTURE = smooth_picture(200, 180, seed=1)


def test_equal_pictures_are_wholly_similar():
    assert ms_ssim(PICTURE, PICTURE, 255) == pytest.approx(1.0, abs=1e-12)


def test_one_scale_is_the_structural_similarity_of_a_well_kept_library(monkeypatch):
    monkeypatch.setattr(module, "WEIGHTS", (1.0,))
    other = np.clip(PICTURE + np.random.default_rng(0).normal(0, 12, PICTURE.shape), 0, 255).astype(np.uint8)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255, "channel_axis": -1}
    assert ms_ssim(PICTURE, other, 255) == pytest.approx(structural_similarity(PICTURE, other, **options), abs=2e-6)


def test_a_constant_error_costs_luminance_alone():
    one, other = np.full((200, 200, 1), 100.0), np.full((200, 200, 1), 120.0)
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ms_ssim(one, other, 255) == pytest.approx(luminance ** module.WEIGHTS[-1], rel=1e-9)


def test_more_noise_is_less_similar_and_the_peak_scales():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, PICTURE.shape)
    found = [ms_ssim(PICTURE, PICTURE + sigma * noise, 255) for sigma in (2, 8, 32)]
    assert 1 > found[0] > found[1] > found[2] > 0
    assert ms_ssim(PICTURE / 255, (PICTURE + 8 * noise) / 255, 1) == pytest.approx(found[1])


@pytest.mark.parametrize("shape", [(SMALLEST_SIDE - 1, 300, 3), (300, 20, 3)])
def test_small_and_unequal_pictures_are_refused(shape):
    with pytest.raises(ValueError, match=f"sides from {SMALLEST_SIDE}"):
        ms_ssim(np.zeros(shape), np.zeros(shape), 255)
    with pytest.raises(ValueError, match="MS-SSIM is of two pictures"):
        ms_ssim(PICTURE, PICTURE[:, :-1], 255)

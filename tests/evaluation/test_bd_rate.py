"""Bjøntegaard's measures against shifts whose answer is known exactly."""

import numpy as np
import pytest

from vcinr.evaluation.bd_rate import bd_psnr_db, bd_rate_percent, curve_of, psnr_at


def shifted(curve, factor=1.0, decibels=0.0):
    return np.stack([curve[:, 0] * factor, curve[:, 1] + decibels], axis=1)


CURVE = np.array([(0.2, 24.0), (0.5, 27.5), (1.1, 31.0), (2.0, 33.5), (3.5, 36.0)])


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.25, 3.0])
def test_a_factor_in_rate_is_found_exactly(factor):
    assert bd_rate_percent(CURVE, shifted(CURVE, factor)) == pytest.approx(100 * (factor - 1), abs=1e-9)


@pytest.mark.parametrize("shift", [-2.0, 0.0, 1.5])
def test_a_shift_in_decibels_is_found_exactly(shift):
    assert bd_psnr_db(CURVE, shifted(CURVE, decibels=shift)) == pytest.approx(shift, abs=1e-9)


def test_a_shift_along_a_straight_curve_is_both():
    # 6 dB per doubling of the rate: 3 dB more is a factor of 1/√2 in rate.
    line = np.array([(2.0**k, 20 + 6 * k) for k in range(5)])
    assert bd_rate_percent(line, shifted(line, decibels=3)) == pytest.approx(100 * (2**-0.5 - 1), abs=1e-9)
    assert bd_psnr_db(line, shifted(line, 2**-0.5)) == pytest.approx(3, abs=1e-9)


def test_order_of_points_is_irrelevant_and_roles_invert():
    other = shifted(CURVE, 1.3, 0.7)
    assert bd_rate_percent(CURVE[::-1], other[[2, 0, 1, 4, 3]]) == bd_rate_percent(CURVE, other)
    there, back = bd_rate_percent(CURVE, other), bd_rate_percent(other, CURVE)
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


def test_only_the_common_part_counts():
    worse_above = np.concatenate([CURVE, [(20.0, 37.0), (60.0, 38.0)]])
    assert bd_rate_percent(CURVE[:, :], CURVE[:4]) == pytest.approx(0, abs=2)
    assert bd_rate_percent(worse_above, shifted(worse_above, 0.9)) == pytest.approx(-10)


@pytest.mark.parametrize(
    ("reference", "test", "message"),
    [
        (CURVE[:3], CURVE, "reference: needs at least 4 points, has 3"),
        (CURVE, CURVE[:3], "test: needs at least 4 points, has 3"),
        (CURVE, shifted(CURVE, decibels=30), "without common"),
        (CURVE, shifted(CURVE, 100, 30), "without common"),
        (CURVE, CURVE[:, ::-1] * [1, -1], "does not rise"),
        (CURVE, shifted(CURVE, 0), "must be positive"),
        (CURVE, shifted(CURVE, decibels=np.nan), "finite"),
        (CURVE, np.concatenate([CURVE, CURVE[:1]]), "same rate"),
        (CURVE, CURVE[:, 0], r"\[n, 2\]"),
    ],
)
def test_bd_rate_refuses_curves_that_have_none(reference, test, message):
    with pytest.raises(ValueError, match=message):
        bd_rate_percent(reference, test)


def test_curves_without_common_rates_have_no_bd_psnr():
    with pytest.raises(ValueError, match="without common rates"):
        bd_psnr_db(CURVE, shifted(CURVE, 100))


def test_interpolation_passes_through_points_and_never_beyond():
    for rate, decibels in CURVE:
        assert psnr_at(CURVE, rate) == pytest.approx(decibels)
    assert 27.5 < psnr_at(CURVE, 0.8) < 31
    assert psnr_at(CURVE, 0.199) is None
    assert psnr_at(CURVE, 3.51) is None
    # Two points: straight over the logarithm of the rate.
    assert psnr_at([(1, 20), (4, 30)], 2) == pytest.approx(25)
    with pytest.raises(ValueError, match="positive"):
        psnr_at(CURVE, 0)


def test_a_codec_without_a_rate_is_named():
    rows = [{"codec": "jpeg", "bpp_file": 2.0, "bpp_container": None, "psnr_db": 30.0}]
    np.testing.assert_array_equal(curve_of(rows), [[2.0, 30.0]])
    with pytest.raises(ValueError, match="jpeg has no bpp_container"):
        curve_of(rows, "bpp_container")

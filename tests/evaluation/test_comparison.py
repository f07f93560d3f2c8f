"""Codecs signal by signal: equal curves differ by nothing, however their points are averaged; what cannot be is left out."""

import numpy as np
import pytest

from tests.evaluation.fakes import points, with_signals
from vcinr.evaluation.bd_rate import psnr_at
from vcinr.evaluation.comparison import bd_rates_percent, curve_beside, gains_db, has_signals, signal_curves

# 6 dB per doubling of the rate, for an easy signal and one that needs eight times the bits.
COMPLEXITY = np.array([1.0, 8.0])


def decibels_at(rates):
    """Quality of each signal at rates [points, 2]."""
    return 30 + 6 * np.log2(rates / COMPLEXITY)


def at_one_rate(count=6):
    """Points at which both signals have one rate: the easy one is 18 dB better."""
    rates = np.repeat(2.0 ** np.arange(-3, count - 3)[:, None], 2, axis=1)
    return with_signals(points("klt", curve=((1.0, 30.0),) * count), rates, decibels_at(rates))


def at_one_quality(count=10, gain=0.0):
    """Points at which both signals are equally good, so that the hard one takes eight times the bits."""
    rates = COMPLEXITY * 2.0 ** np.arange(-6, count - 6)[:, None]
    return with_signals(points("jpeg2000", curve=((1.0, 30.0),) * count), rates, decibels_at(rates) + gain)


def test_a_codec_differs_from_itself_by_nothing_however_its_points_are_averaged():
    ours, theirs = at_one_rate(), at_one_quality()
    curve = [(row["bpp_file"], row["psnr_db"]) for row in theirs]
    flattered = []
    for row in ours:
        gains = gains_db(row, theirs, "bpp_file")
        np.testing.assert_allclose(gains.values, 0, atol=1e-9)
        assert gains.indices.tolist() == [0, 1] and gains.num_signals == 2
        if (there := psnr_at(curve, row["bpp_file"])) is not None:
            flattered.append(row["psnr_db"] - there)
    # By means alone the very same codec seems to be more than 3 dB better than itself.
    assert min(flattered) > 3


def test_a_gain_is_found_exactly_and_averaged_over_signals():
    theirs = at_one_quality(gain=np.array([-1.0, 0.5]))
    gains = gains_db(at_one_rate()[2], theirs, "bpp_payload")
    np.testing.assert_allclose(gains.values, [1.0, -0.5], atol=1e-9)
    assert gains.mean == pytest.approx(0.25)
    # The other way round, each signal at a rate of its own.
    back = gains_db(theirs[4], at_one_rate(), "bpp_payload")
    assert theirs[4]["signals"]["bpp_payload"] == [0.25, 2.0]
    np.testing.assert_allclose(back.values, [-1.0, 0.5], atol=1e-9)


def test_signals_outside_the_other_codecs_rates_are_left_out_and_counted():
    ours = at_one_rate()
    # The easy signal's curve ends at 0.5 bpp, the hard one's at 4.
    theirs = at_one_quality(count=6)
    gains = gains_db(ours[4], theirs, "bpp_file")
    assert ours[4]["signals"]["bpp_file"] == [2.0, 2.0]
    assert (gains.indices.tolist(), len(gains.values), gains.num_signals) == ([1], 1, 2)
    none = gains_db(ours[5], at_one_quality(count=2), "bpp_file")
    assert none.mean is None and none.num_signals == 2


def test_points_that_another_beats_are_left_out():
    rates = np.array([[1.0], [2.0], [2.0], [3.0], [4.0]])
    rows = with_signals(points(curve=((1.0, 30.0),) * 5), rates, [[30.0], [31.0], [33.0], [32.0], [35.0]])
    (curve,) = signal_curves(rows[::-1], "bpp_file")
    assert curve.tolist() == [[1.0, 30.0], [2.0, 33.0], [4.0, 35.0]]


def test_bd_rate_is_the_mean_over_signals():
    theirs = at_one_quality()
    half = with_signals(theirs, [np.array(row["signals"]["bpp_file"]) * [0.5, 0.8] for row in theirs],
                        [row["signals"]["psnr_db"] for row in theirs])  # fmt: skip
    rates = bd_rates_percent(theirs, half, "bpp_file")
    np.testing.assert_allclose(rates.values, [-50, -20], atol=1e-6)
    assert rates.mean == pytest.approx(-35)
    few = bd_rates_percent(theirs, half[:3], "bpp_file")
    assert (few.mean, few.num_signals) == (None, 2)


def test_a_curve_beside_is_as_far_away_as_the_signals_are():
    ours, theirs = at_one_rate(), at_one_quality(gain=np.array([-1.0, 0.5]))
    beside = curve_beside(ours[::-1], theirs, "bpp_file")
    assert [rate for rate, _ in beside] == [row["bpp_file"] for row in ours]
    np.testing.assert_allclose([quality for _, quality in beside], [row["psnr_db"] - 0.25 for row in ours])
    # Half of the signals is not enough to be drawn.
    assert len(curve_beside(ours, at_one_quality(count=6), "bpp_file")) < len(ours)


def test_what_cannot_be_compared_is_named():
    assert has_signals(at_one_rate()) and not has_signals([*at_one_rate(), points()[0]])
    with pytest.raises(ValueError, match=r"no values per signal.*experiments\.evaluate"):
        gains_db(points()[0], at_one_quality(), "bpp_file")
    one = with_signals(points(curve=((1.0, 30.0),) * 2), [[1.0], [2.0]], [[30.0], [31.0]])
    with pytest.raises(ValueError, match="2 signals cannot be compared with 1"):
        gains_db(at_one_rate()[0], one, "bpp_file")
    with pytest.raises(ValueError, match="not of one set"):
        signal_curves([one[0], at_one_rate()[0]], "bpp_file")

"""The study of coding times: what is counted, and whose time is whose."""

import pytest

from experiments import coding_time
from experiments.coding_time import Clock, at_equal_quality, gigamacs, published_rows, row_of
from vcinr.codecs import make_codec

FIELD = {"num_layers": 1, "width": 5, "num_frequencies": 1}
SMALL = {"patch": (4, 4), "field": FIELD}
PLUS = {**SMALL, "positional": {"channels": 2, "stride": 4, "widths": (3,), "outputs": 6}, "coding": {"num_samples": 1}}


def test_multiplications_are_those_of_layers_transforms_and_convolutions():
    combiner, plus = make_codec("combiner", SMALL), make_codec("combiner_plus", PLUS)
    encoded = combiner.network.sizes()[0][0]
    assert gigamacs(combiner, 7) * 1e9 == pytest.approx(7 * 3 * 2 * 16 * (encoded * 5 + 5 * 3))
    layers = 16 * ((encoded + 6) * 5 + 5 * 3)
    transforms = ((encoded + 6 + 1) * 5) ** 2 + (6 * 3) ** 2
    convolutions = 4 * 9 * 2 * 3 + 16 * 9 * 3 * 6
    assert gigamacs(plus, 7) * 1e9 == pytest.approx(7 * (3 * layers + 2 * (transforms + convolutions)))
    no_transform = make_codec("combiner_plus", {**PLUS, "transform": False})
    assert gigamacs(no_transform, 7) * 1e9 == pytest.approx(7 * (3 * layers + 2 * convolutions))
    five = make_codec("combiner_plus", {**PLUS, "coding": {"num_samples": 5}})
    assert gigamacs(five, 7) == pytest.approx(5 * gigamacs(plus, 7))


def test_times_are_shared_out_between_fit_tuning_and_coding(monkeypatch):
    """100 steps of 0.1 s, of which the first 50 took 9 s with their compilation; blocks of 1 s; 3 s between and after them."""
    clock = Clock()
    monkeypatch.setattr(coding_time.time, "process_time", lambda: now)
    for done, now in ((50, 9.0), (100, 14.0)):  # noqa: B007
        clock.progress("coding", done, 100)
    clock.blocks = [(20.0, 21.0), (23.0, 24.0)]
    assert clock.parts(100, 25.0) == pytest.approx((10.0, 3.0, 2.0))


def test_a_row_tells_how_many_blocks_are_over_budget_and_by_how_much():
    found = {"bpp": 0.5, "psnr_db": 25.0, "seconds": [1, 2, 3], "decode_ms": 4.0, "excess": [-1.0, 1.0, 5.0, 0.0]}
    row = dict(zip(coding_time.COLUMNS, row_of(make_codec("combiner", SMALL), "COMBINER", 1500, found), strict=True))
    assert (row["blocks over κ"], row["by over 1 bit"], row["mean excess, bits"]) == ("50 %", "25 %", "3.00")
    assert row["worst, bits"] == "21.0"
    assert (row["first steps"], row["all, s"]) == ("1,500", "6.00")
    row = row_of(make_codec("combiner", SMALL), "", 50, {**found, "excess": [-1.0]})
    assert row[-4:] == ["0 %", "0 %", "0.00", "15.0"]


def test_published_times_are_per_picture_and_have_the_quality_of_their_rate():
    rows = [dict(zip(coding_time.COLUMNS, row, strict=True)) for row in published_rows("combiner_plus")]
    assert [row["PSNR dB"] for row in rows][:2] == ["23.59", "27.22"]
    assert (rows[0]["fit, s"], rows[0]["all, s"]) == ("3.60", "7.56")
    assert all(row[3] is None for row in published_rows("combiner"))


def test_equal_quality_is_looked_up_on_the_published_curve():
    codec = make_codec("combiner_plus", PLUS)
    text = at_equal_quality(codec, 2500, {"psnr_db": 27.222, "bpp": 1.438})
    assert "1 / 10.0 of the published steps" in text
    assert "2.00 times the published rate (0.72 bpp)" in text

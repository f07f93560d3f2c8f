"""Tables: the numbers of the points, and what other codecs do at equal rate."""

import io

import numpy as np
import pytest
from rich.console import Console

from tests.evaluation.fakes import pictures, points, with_signals
from vcinr.evaluation.classical import measure_jpeg
from vcinr.evaluation.published import load
from vcinr.report import tables


def test_tables_hold_the_numbers_and_dashes_where_there_are_none():
    rows = points("klt", name="step24") + measure_jpeg(pictures(2), "tiny", "test", (50,))
    lines = tables.markdown_table(rows).splitlines()
    assert lines[0].startswith("| codec | λ / quality | bytes | `bpp_file` | `bpp_container` |")
    assert lines[2].startswith("| KLT (linear floor) | step24 | 76.8 | 0.600 | 0.510 | 0.500 | 0.490 | 24.00 |")
    assert lines[6].startswith("| JPEG | 50 |")
    assert lines[6].count("–") == 2
    assert len({line.count("|") for line in lines}) == 1
    # A column that no codec fills is not printed.
    assert "bpp_container" not in tables.markdown_table(rows[-1:])
    stream = io.StringIO()
    tables.print_table(rows, "a title", Console(file=stream, width=200))
    text = stream.getvalue()
    assert "a title" in text
    assert "estimated" in text
    assert "24.00" in text
    assert "step24" in text


EASY_AND_HARD = np.array([[0.5, 1.0], [1.0, 2.0], [2.0, 4.0], [4.0, 8.0]])
DECIBELS = np.array([[24.0, 22.0], [27.0, 25.0], [31.0, 29.0], [36.0, 34.0]])


def of_signals(codec, factor=1.0, gain=0.0):
    """Four points of two signals."""
    return with_signals(points(codec), EASY_AND_HARD * factor, DECIBELS + gain)


def test_published_curves_are_compared_at_the_mean_rate():
    curve = load("coinpp", "cifar10")
    rate, decibels = curve.points[2]
    rows = points("klt", curve=((rate, decibels + 1.25), (0.01, 10.0)))
    heading, _, low, high = tables.comparison_table(rows, [curve], "bpp_payload").splitlines()
    assert heading.endswith("| PSNR dB | COIN++, published |")
    assert low.endswith("| 10.00 | – |")
    assert high.endswith(f"| {decibels + 1.25:.2f} | +1.25 |")


def test_measured_codecs_are_compared_signal_by_signal():
    rows = of_signals("klt") + of_signals("contextual_inr", gain=np.array([1.5, -0.5])) + of_signals("jpeg", gain=-3)
    heading, _, *lines = tables.comparison_table(rows, [], "bpp_payload").splitlines()
    assert heading.endswith("| PSNR dB | KLT (linear floor) | JPEG |")
    assert not any(line.startswith("| JPEG") for line in lines), "classical codecs are compared with, not compared"
    assert all(line.endswith("| – | +3.00 |") for line in lines[:4]), "no codec is compared with itself"
    assert all(line.endswith("| +0.50 | +3.50 |") for line in lines[4:])


def test_a_comparison_of_some_signals_says_so_and_means_alone_are_not_compared():
    rows = of_signals("klt") + of_signals("contextual_inr", factor=np.array([0.75, 0.4]))
    lines = tables.comparison_table(rows, [], "bpp_file").splitlines()[6:]
    assert "–" in lines[0] and "(1 of 2)" in lines[1] and "(" not in lines[2].split("|")[-2]
    old = points("klt") + points("contextual_inr", curve=((0.5, 25.5), (1.0, 28.0)))
    assert all(line.endswith("| – |") for line in tables.comparison_table(old, [], "bpp_file").splitlines()[2:])


def test_a_row_without_that_rate_is_named():
    with pytest.raises(ValueError, match="klt has no bpp_container"):
        tables.comparison_table(points("klt", bpp_container=None), [], "bpp_container")


def test_the_spread_shows_the_signals():
    ours = of_signals("klt", gain=np.array([1.5, -0.5]))
    _, _, *lines = tables.spread_table(ours, of_signals("jpeg2000"), "bpp_file").splitlines()
    assert lines[0] == "| 0.750 | 23.50 | +0.50 | -0.50 | +0.50 | +1.50 | 1 of 2 |"
    assert len(lines) == 4


def test_bd_rates_of_means_are_exact_for_a_factor_and_marked():
    base = ((0.5, 24.0), (1.0, 27.0), (2.0, 31.0), (4.0, 36.0))
    half = tuple((bpp / 2, decibels) for bpp, decibels in base)
    rows = points("coinpp", base) + points("klt", half) + points("few", base[:2])
    lines = tables.bd_table(rows, [], "bpp_payload").splitlines()
    assert lines[2] == "| COIN++ |  | ~+100.0 % | – |"
    assert lines[3] == "| KLT (linear floor) | ~-50.0 % |  | – |"
    assert lines[4] == "| few | – | – |  |"


def test_classical_codecs_are_compared_with_and_not_compared():
    base = ((0.6, 24.5), (1.0, 27.0), (2.0, 31.0), (3.0, 33.0))
    rows = points("jpeg", base) + points("klt", base) + points("jpeg2000", base, label="jpeg2000 (again)")
    heading, _, *lines = tables.bd_table(rows, [load("coinpp", "cifar10")], "bpp_payload").splitlines()
    assert heading == (
        "| codec | against JPEG | against KLT (linear floor) | against JPEG 2000 (again) | against COIN++, published |"
    )
    (klt,) = lines
    assert klt.startswith("| KLT (linear floor) | ~+0.0 % |  | ~+0.0 % |") and klt.endswith(" % |")


def test_bd_rates_of_signals_are_averaged():
    rows = of_signals("jpeg") + of_signals("klt", factor=np.array([0.5, 0.9]))
    assert tables.bd_table(rows, [], "bpp_payload").splitlines()[2] == "| KLT (linear floor) | -30.0 % |  |"


def test_a_terminal_of_80_columns_cuts_no_number():
    rows = points("klt", name="step24", label="klt (a long name)") + points("jpeg", overhead=5.0, quality=95)
    stream = io.StringIO()
    tables.print_table(rows, console=Console(file=stream, width=80))
    text = stream.getvalue()
    assert "…" not in text
    for number in ("524.8", "9.000", "4.010", "3.990", "36.00", "step24"):
        assert number in text
    assert max(len(line) for line in text.splitlines()) <= 80

"""The study of latent sizes: equal numbers and steps for all methods, and an extrapolation that is exact where a line is."""

import numpy as np
import pytest

from experiments.latent_sizes import METHODS, POWERS, extrapolated, needed, plot, row_of
from experiments.peers import field_examples
from vcinr.sparsity.gates import GateConfig

EXAMPLES = (1_000, 3_000, 10_000, 30_000, 100_000)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("numbers", [64, 256])
def test_every_method_codes_as_many_numbers_after_as_many_steps(method, numbers):
    codec = METHODS[method](numbers, 900)
    gates = getattr(codec.config, "gates", GateConfig(target=1 - 1e-9))
    assert round(gates.target * codec.config.field.latent_size()) == numbers
    assert field_examples(codec) == 900 * 16
    assert [(fan_in, fan_out) for fan_in, fan_out in codec.config.field.sizes()][1:-1] == [(64, 64)] * 4


def test_a_line_is_followed_to_where_it_meets_the_target():
    patches = np.random.default_rng(0).normal(0, 0.3, 40)
    gains = (0.2 * np.log10(EXAMPLES) - 0.7)[:, None] + (patches - patches.mean())
    found = extrapolated(EXAMPLES, gains, 1.0)
    value, low, high = found["examples"]
    assert value == pytest.approx(10 ** (1.7 / 0.2), rel=1e-6) and low < value < high
    # Patches that differ by a constant move the line, not its slope.
    assert found["slope"] == pytest.approx((0.2, 0.2, 0.2)) and found["ceiling"][0] == np.inf


def test_a_power_law_is_followed_to_its_ceiling():
    gains = (0.6 - 2.0 * (np.array(EXAMPLES) / EXAMPLES[0]) ** -0.5)[:, None] + np.zeros(8)
    found = extrapolated(EXAMPLES, gains, 0.5, POWERS)
    assert found["ceiling"] == pytest.approx((0.6, 0.6, 0.6), abs=1e-6)
    assert found["examples"][0] == pytest.approx(EXAMPLES[0] * 20.0**2, rel=1e-4)
    assert extrapolated(EXAMPLES, gains, 1.0, POWERS)["examples"] == (np.inf, np.inf, np.inf)


def test_scatter_about_the_line_widens_both_intervals():
    rng = np.random.default_rng(1)
    line = (0.2 * np.log10(EXAMPLES) - 0.7)[:, None] + rng.normal(0, 0.1, 40)
    found = extrapolated(EXAMPLES, line + np.array([0.02, -0.03, 0.03, -0.04, 0.02])[:, None], 1.0)
    _, low, high = found["slope"]
    assert low < 0.2 < high and high - low > 0.01


def test_a_gain_that_does_not_grow_never_arrives():
    found = extrapolated(EXAMPLES, np.full((5, 8), 0.4) - 0.01 * np.arange(5)[:, None], 1.0)
    assert found["slope"][0] < 0 and found["examples"] == (np.inf, np.inf, np.inf)


def test_rows_hold_paired_gains_and_the_figure_is_drawn(tmp_path):
    floor = np.array([20.0, 30.0])
    curve = [
        {"own": [19.0, 28.0], "projected": [20.5, 30.5], "examples": 1600, "cpu_s": 1.0},
        {"own": [20.0, 30.5], "projected": [21.0, 31.0], "examples": 3200, "cpu_s": 2.0},
    ]
    row = row_of("gates", 64, (1.0, 2.0), curve, floor)
    assert row == ["gates", 64, "1, 2", "1,600, 3,200", 26.0, "-1.50, +0.25", "+0.50, +1.00"]
    sparse = row_of("sparse", 64, (1.0,), [{"own": [19.0, 28.0], "examples": 1600}], floor)
    assert sparse[4:] == [23.5, "-1.50", None]
    said = needed([{**each, "examples": n} for n in EXAMPLES for each in curve[:1]], floor, "gates", 1.0)
    assert "last 4" in said and "all 5" in said
    plot(tmp_path / "f.png", {(method, 64): curve for method in METHODS}, {64: floor}, (1.0, 2.0))
    assert (tmp_path / "f.png").stat().st_size > 10_000

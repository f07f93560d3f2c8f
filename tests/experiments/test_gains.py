"""The study of gains: arms that differ in what they say, a floor that is the KLT's, and differences that are paired."""

import numpy as np
import pytest

from experiments.gains import ARMS, codec_of, gain, klt_psnr_db, merged


def test_arms_change_what_they_name_and_nothing_else():
    base = codec_of("inner loop, 3 steps (published)", 64, 100).config
    assert not base.amortised.enabled and not base.warm_start.enabled and not base.field.linear_head
    assert codec_of("inner loop, 6 steps", 64, 100).config.adaptation.num_steps == 2 * base.adaptation.num_steps
    rank = codec_of("analysis, rank 8", 64, 100).config.field
    assert (rank.rank, rank.width, rank.num_layers) == (8, base.field.width, base.field.num_layers)
    assert len({codec_of(arm, 64, 100).config for arm in ARMS}) == len(ARMS)


def test_overrides_go_as_deep_as_they_are_nested():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}}) == {"a": {"b": 4, "c": 2}, "d": 3}


def test_the_floor_is_exact_on_patches_of_as_many_components():
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(200, 3)) @ rng.normal(size=(3, 12)) / 10).reshape(200, 4, 3).astype(np.float32)
    assert klt_psnr_db(values, values, 3).min() > 80
    fewer = klt_psnr_db(values, values, 2)
    assert fewer.mean() < 60
    flat = values.reshape(200, -1)
    centred = flat - flat.mean(0)
    expected = np.linalg.svd(centred, compute_uv=False)[2] ** 2 / flat.size
    assert np.mean(10 ** (-fewer / 10)) == pytest.approx(expected, rel=1e-3)


def test_differences_are_paired_so_that_a_constant_gain_has_no_error():
    floor = np.random.default_rng(0).normal(20, 5, 50)
    assert gain(np.stack([floor + 0.5, floor + 0.7]), floor) == "+0.60 ± 0.00 ± 0.10"
    assert gain(floor[None] - 0.25, floor) == "-0.25 ± 0.00"

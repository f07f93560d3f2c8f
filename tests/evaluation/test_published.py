"""The published tables: complete, well formed, and found by name."""

import pytest

from vcinr.evaluation import bd_rate
from vcinr.evaluation.published import available, load


def test_every_table_is_well_formed():
    assert {dataset for _, dataset in available()} == {"kodak", "cifar10", "era5", "librispeech", "librispeech24", "ucf101"}
    for codec, dataset in available():
        curve = load(codec, dataset)
        assert (curve.codec, curve.dataset) == (codec, dataset)
        assert curve.source
        assert curve.rate_kind
        assert curve.unit_quality == "psnr_db"
        assert curve.unit_rate == ("kbps" if dataset.startswith("librispeech") else "bpp")
        rates, decibels = zip(*curve.points, strict=True)
        assert len(rates) >= 4, (codec, dataset)
        assert list(rates) == sorted(set(rates)), (codec, dataset)
        assert list(decibels) == sorted(set(decibels)), (codec, dataset)


def test_known_values():
    assert load("coinpp", "cifar10").points[0] == (0.54847649, 24.219789505004883)
    assert load("vcinr", "kodak").points[0] == (0.08, 26.86)
    assert "entropy ESTIMATE" in load("coinpp", "kodak").rate_kind
    assert bd_rate.psnr_at(load("recombiner", "cifar10").points, 1.19) == pytest.approx(29.7, abs=0.1)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean 'recombiner'\? \(valid: .*coinpp"):
        load("recombinr", "cifar10")
    with pytest.raises(ValueError, match="did you mean 'kodak'"):
        load("coinpp", "kodack")
    with pytest.raises(ValueError, match=r"no published curve of '\.\./x' on kodak \(valid: "):
        load("../x", "kodak")

"""What a modality is by default, and what it must not be."""

import numpy as np
import pytest

from tests.tiny import hand_made
from vcinr.bitstream import container
from vcinr.codecs.coin import Coin, CoinConfig
from vcinr.modalities import MODALITIES, Modality
from vcinr.model.model import make_model
from vcinr.signals.grids import pixel_grid

VOLUME = Modality("volume", coord_dim=3, channels=2, sample_type="uint16", lowest=100, peak=1000)


def test_integers_fill_the_range_that_is_declared():
    raw = np.array([[[[100, 600]]], [[[1100, 101]]]], np.uint16)
    values = VOLUME.normalise(raw)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.ravel(), [0, 0.5, 1, 0.001])
    np.testing.assert_array_equal(VOLUME.denormalise(values), raw)
    np.testing.assert_array_equal(VOLUME.denormalise(np.array([-1.0, 2.0])), [100, 1100])


def test_quality_is_of_the_declared_range_for_integers_and_for_floats():
    raw = np.full((2, 2, 2, 2), 600, np.uint16)
    off = raw + np.uint16(10)
    assert VOLUME.squared_error(raw, off) == pytest.approx(1e-4)
    assert VOLUME.squared_error(raw, VOLUME.normalise(off)) == pytest.approx(1e-4, rel=1e-4)
    assert VOLUME.metrics(raw, off) == {"psnr_db": pytest.approx(40.0)}
    assert VOLUME.metrics(raw, raw)["psnr_db"] == np.inf


def test_coordinates_are_those_of_a_grid_and_parts_of_it():
    np.testing.assert_array_equal(VOLUME.coordinates((2, 3, 4)), pixel_grid((2, 3, 4)))
    np.testing.assert_array_equal(VOLUME.coordinates((2, 3, 4), 5, 9), pixel_grid((2, 3, 4))[5:9])


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2, 2), np.uint16), np.zeros((2, 2, 2, 2), np.uint8), np.zeros((0, 2, 2, 2), np.uint16)]
)
def test_other_arrays_are_refused_with_what_is_wanted(wrong):
    with pytest.raises(ValueError, match=r"a volume is a NumPy array of uint16 \[n0, n1, n2, 2\], not"):
        VOLUME.unpack(wrong)


def test_a_modality_without_files_says_so(tmp_path):
    for call in (lambda: VOLUME.read("a.raw"), lambda: VOLUME.write(tmp_path / "a.raw", None)):
        with pytest.raises(ValueError, match="its Modality declares no"):
            call()
    with pytest.raises(ValueError, match="volumes are written as one of none"):
        VOLUME.check_target("a.raw")


def test_a_number_is_declared_once(monkeypatch):
    monkeypatch.setitem(MODALITIES, "volume", Modality("volume", 3, 1, meta_types={"depth": "int"}))
    codec = Coin(CoinConfig(modality="volume", architectures=((1, 4),)))
    with pytest.raises(ValueError, match="depth: declared by the modality and by the codec"):
        make_model(codec, codec.init(), {})


def test_pictures_add_nothing_to_a_file():
    assert MODALITIES["picture"].meta_types == {}
    model = hand_made()
    data = model.encode(np.full((2, 2, 3), 77, np.uint8))
    assert model.meta_types == {} and container.read(data, {}).metas == ({},)


@pytest.mark.parametrize("value", [-(2**31), 2**31 - 1])
def test_the_largest_numbers_take_the_bytes_that_are_announced(value):
    types = {"a": "int", "b": "float32"}
    with_meta = container.head_bytes(bytes(4), [(1,)], [{"a": value, "b": 0.5}], types)
    assert len(with_meta) - len(container.head_bytes(bytes(4), [(1,)], [{}], {})) == container.max_meta_bytes(types)

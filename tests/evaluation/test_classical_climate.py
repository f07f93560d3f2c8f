"""zfp and packing: errors within what they promise, bytes that are those of files, rows like any other codec's."""

import numpy as np
import pytest

from vcinr.evaluation import classical_climate as classical

METHODS = ("zlib", "lzma", "zstd")


def fields(count=3, shape=(20, 30), dtype=np.float32):
    """Smooth fields with a little noise, about 250 to 310."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    rng = np.random.default_rng(0)
    return [(280 + 25 * np.cos(2 * y + i) * np.sin(3 * x) + rng.normal(size=shape) * 0.1).astype(dtype) for i in range(count)]


@pytest.fixture
def zfp():
    return pytest.importorskip("zfpy", reason="zfpy is not installed: pip install 'vcinr[compare]'")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tolerance", [3.0, 0.05, 1e-3])
def test_zfp_keeps_its_tolerance_shape_and_type(zfp, dtype, tolerance):
    (field,) = fields(1, dtype=dtype)
    data = classical.encode_zfp(field[::-1], tolerance)
    found = classical.decode_zfp(data)
    assert found.dtype == dtype and found.shape == field.shape
    assert 0 < np.abs(found - field[::-1]).max() <= tolerance


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [1, 2, 7, 8, 9, 16])
def test_packed_values_are_half_a_step_off_at_most(method, bits):
    if method == "zstd":
        pytest.importorskip("numcodecs")
    for field in (*fields(2), np.full((4, 5), 273.15, np.float32), fields(1)[0][:1, :1]):
        found = classical.decode_packed(classical.encode_packed(field, bits, method), field.shape, bits, method)
        step = np.ptp(field) / (2**bits - 1)
        assert np.abs(found - field).max() <= step / 2 + 1e-4
        assert found.dtype == np.float32


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_loss_nothing_is_lost(method, dtype):
    if method == "zstd":
        pytest.importorskip("numcodecs")
    (field,) = fields(1, dtype=dtype)
    data = classical.encode_lossless(field, method)
    np.testing.assert_array_equal(classical.decode_lossless(data, field.shape, dtype, method), field)
    assert len(data) < field.nbytes


def test_rows_have_the_shape_of_a_models_and_rise(zfp):
    own, calls = fields(), []
    rows = classical.measure_zfp(own, "tiny", "test", (0.1, 0.01, 0.001), progress=lambda *call: calls.append(call))
    assert [call[1:] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    packed = classical.measure_packed(own, "tiny", "test", (4, 8, 12), method="zlib")
    for found in (rows, packed):
        for row in found:
            assert (row["num_signals"], row["model_bytes"], row["bpp_container"]) == (3, 0, None)
            assert row["bpp_file"] == row["bpp_payload"] == pytest.approx(row["file_bytes"] * 8 / 600)
            assert 0 < row["rmse"] < row["max_error"]
        assert found[0]["file_bytes"] < found[1]["file_bytes"] < found[2]["file_bytes"]
        assert found[0]["psnr_db"] < found[1]["psnr_db"] < found[2]["psnr_db"]
    # The peak is the field's own range.
    mean_range = np.mean([np.ptp(field) for field in own])
    assert packed[1]["psnr_db"] == pytest.approx(20 * np.log10(mean_range / packed[1]["rmse"]), abs=0.5)
    (row,) = classical.measure_lossless(own, "tiny", "test", "zlib")
    assert (row["num_lossless"], row["rmse"], row["max_error"]) == (3, 0, 0)


def test_raw_fields_of_the_modality_are_measured_by_their_values(zfp):
    from vcinr.modalities.climate import ClimateField

    own = fields(2)
    raw = [ClimateField(field, np.linspace(-80, 80, 20), np.arange(30) * 12.0) for field in own]
    assert classical.measure_zfp(raw, "tiny", "test", (0.01,)) == classical.measure_zfp(own, "tiny", "test", (0.01,))


@pytest.mark.parametrize(
    ("field", "mend"),
    [
        (np.zeros((4, 5), np.int16), "pass their values"),
        (np.zeros((2, 4, 5)), "pass their values"),
        (np.full((4, 5), np.nan), "fill them first"),
    ],
)
def test_what_these_formats_do_not_hold_is_refused(field, mend):
    with pytest.raises(ValueError, match=mend):
        classical.measure_packed([field], "tiny", "test", method="zlib")


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="zlib, lzma and zstd"):
        classical.deflated(b"", "gzip")


def test_without_zfpy_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(classical, "has_zfp", lambda: False)
    with pytest.raises(ValueError, match="zfp needs zfpy: pip install"):
        classical.encode_zfp(fields(1)[0], 0.1)


def test_zfp_on_real_fields(zfp, vcinr_data):
    with np.load(vcinr_data / "climate" / "era5_t2m_region_43x48.npz") as arrays:
        rows = classical.measure_zfp(arrays["test"], "era5_region", "test", (0.1, 0.01))
    assert [row["bpp_file"] for row in rows] == pytest.approx([4.74, 8.12], abs=0.01)
    assert [row["psnr_db"] for row in rows] == pytest.approx([44.8, 64.5], abs=0.1)

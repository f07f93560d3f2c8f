"""JPEG and JPEG 2000: counts against the markers, and quality against rate."""

import numpy as np
import pytest

from tests.evaluation.fakes import pictures
from vcinr.evaluation import bd_rate, classical, published
from vcinr.evaluation.metrics import mean_squared_error


@pytest.mark.parametrize("shape", [(32, 32), (8, 8), (17, 5), (1, 1), (64, 48)])
@pytest.mark.parametrize("quality", [5, 60, 95])
def test_the_constant_part_of_a_jpeg_is_constant(shape, quality):
    data = classical.encode_jpeg(pictures(1, shape)[0], quality)
    assert len(data) - classical.jpeg_payload_bytes(data) == 625
    assert classical.decode(data).shape == (*shape, 3)


def test_the_payload_of_a_jpeg_is_what_the_scan_holds():
    data = classical.encode_jpeg(pictures(1, (32, 32))[0], 50)
    payload = classical.jpeg_payload_bytes(data)
    scan = data.rindex(b"\xff\xda")
    assert data[scan + 2 : scan + 4] == b"\x00\x0c"
    assert payload == len(data[scan + 14 : -2])


@pytest.mark.parametrize("shape", [(32, 32), (17, 5), (1, 1), (64, 48)])
def test_the_payload_of_a_jpeg2000_is_what_follows_its_only_sod(shape):
    data = classical.encode_jpeg2000(pictures(1, shape)[0], 30)
    assert data.count(b"\xff\x93") == 1
    assert classical.jpeg2000_payload_bytes(data) == len(data) - data.index(b"\xff\x93") - 2 - 2
    assert classical.decode(data).shape == (*shape, 3)


def test_payload_counts_refuse_foreign_bytes():
    jpeg, jpeg2000 = classical.encode_jpeg(pictures(1)[0], 50), classical.encode_jpeg2000(pictures(1)[0], 30)
    for count, own, other in (
        (classical.jpeg_payload_bytes, jpeg, jpeg2000),
        (classical.jpeg2000_payload_bytes, jpeg2000, jpeg),
    ):
        for data in (other, b"", own[:-1], own[:2] + own[-2:]):
            with pytest.raises(ValueError, match=r"not a|damaged"):
                count(data)


def test_chroma_is_not_subsampled_unless_asked_for():
    red_blue = np.zeros((16, 16, 3), np.uint8)
    red_blue[:, ::2, 0], red_blue[:, 1::2, 2] = 255, 255
    full = mean_squared_error(red_blue, classical.decode(classical.encode_jpeg(red_blue, 95)))
    halved = mean_squared_error(red_blue, classical.decode(classical.encode_jpeg(red_blue, 95, subsampling=2)))
    assert full < 0.01 < 0.1 < halved


@pytest.mark.parametrize(("measure", "codec"), [(classical.measure_jpeg, "jpeg"), (classical.measure_jpeg2000, "jpeg2000")])
def test_rows_have_the_shape_of_a_models_and_rise(measure, codec):
    images, calls = pictures(3, (32, 32)), []
    rows = measure(images, "tiny", "test", (20, 35, 50), progress=lambda *call: calls.append(call))
    assert [call[1:] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    for row in rows:
        assert (row["codec"], row["num_signals"], row["model_bytes"]) == (codec, 3, 0)
        assert row["bpp_container"] is None
        assert row["bpp_estimated"] is None
        assert row["bpp_file"] == pytest.approx(row["file_bytes"] * 8 / 1024)
        assert row["bpp_payload"] == pytest.approx(row["payload_bytes"] * 8 / 1024)
        assert row["psnr_float_db"] == row["psnr_db"] >= row["psnr_of_mean_mse_db"]
    assert rows[0]["bpp_payload"] < rows[1]["bpp_payload"] < rows[2]["bpp_payload"]
    assert rows[0]["psnr_db"] < rows[1]["psnr_db"] < rows[2]["psnr_db"]


def test_a_grey_picture_is_refused():
    with pytest.raises(ValueError, match="read_image"):
        classical.measure_jpeg([np.zeros((8, 8), np.uint8)], "tiny", "test")


def test_jpeg_of_cifar_meets_the_published_curve(vcinr_data):
    images = np.load(vcinr_data / "cifar10_small.npz")["x_test"][:200]
    rows = classical.measure_jpeg(images, "cifar10_small", "test", (15, 30, 50, 70, 80))
    reference = published.load("jpeg", "cifar10").points
    # The published rate is a target that files stay under, so it lies at or above the bytes really used.
    for row in rows:
        assert bd_rate.psnr_at(reference, row["bpp_file"]) == pytest.approx(row["psnr_db"], abs=1.0)

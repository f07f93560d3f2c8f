"""Measurements of a model whose bytes can be counted by hand."""

import numpy as np
import pytest

from tests.evaluation.fakes import HEADER, DeflatingModel, pictures
from vcinr.evaluation.measure import MeasurementError, measure, rows_by_codec
from vcinr.evaluation.metrics import mean_squared_error, psnr_db
from vcinr.report.records import POINT_KEYS


def test_every_count_is_that_of_the_files():
    model, images = DeflatingModel(), [*pictures(3, (8, 12)), *pictures(1, (5, 7))]
    row = measure(model, images, "tiny", "test", points=[2])[0]
    files = model.encode_batch(images, point=2)
    pixels = [image.shape[0] * image.shape[1] for image in images]
    assert {*POINT_KEYS, "psnr_float_db"} <= set(row)
    assert (row["codec"], row["dataset"], row["split"], row["num_signals"], row["point"]) == ("deflate", "tiny", "test", 4, 2)
    assert (row["lambda"], row["name"], row["model_bytes"]) == (0.25, "drop2", 1234)
    assert row["file_bytes"] == pytest.approx(np.mean([len(data) for data in files]))
    assert row["file_bytes"] - row["payload_bytes"] == pytest.approx(HEADER.size)
    assert row["bpp_file"] == pytest.approx(np.mean([8 * len(data) / n for data, n in zip(files, pixels, strict=True)]))
    assert row["bpp_container"] == pytest.approx(8 * (sum(len(data) for data in files) + 4 * 4) / sum(pixels))
    assert row["bpp_payload"] - row["bpp_estimated"] == pytest.approx(np.mean([3 / n for n in pixels]))
    errors = [mean_squared_error(image, model.decode_batch([data])[0]) for image, data in zip(images, files, strict=True)]
    assert row["psnr_db"] == pytest.approx(np.mean(psnr_db(np.array(errors))))
    assert row["psnr_of_mean_mse_db"] == pytest.approx(psnr_db(np.mean(errors)))
    # Four equally frequent remainders, decoded to their middle: the float error is close to the uniform quantiser's (4² − 1)/12.
    assert row["psnr_float_db"] == pytest.approx(psnr_db((4**2 - 1) / 12 / 255**2), abs=0.3)
    assert row["psnr_float_db"] > row["psnr_db"]


def test_symbols_are_decoded_once_from_files_and_once_from_the_container():
    model = DeflatingModel()
    measure(model, pictures(3), "tiny", "test", points=[1])
    assert model.reads == 2 * 3


def test_all_points_in_order_with_progress():
    calls = []
    rows = measure(DeflatingModel(), pictures(2), "tiny", "test", progress=lambda *call: calls.append(call))
    assert [row["point"] for row in rows] == [0, 1, 2]
    assert rows[0]["num_lossless"] == 2
    assert rows[2]["num_lossless"] == 0
    assert rows[0]["bpp_file"] > rows[1]["bpp_file"] > rows[2]["bpp_file"]
    assert rows[0]["psnr_db"] > rows[1]["psnr_db"] > rows[2]["psnr_db"]
    assert [call[1:] for call in calls] == [(100 * k + step, 300) for k in range(3) for step in (0, 97, 97, 98, 99, 100)]
    assert [call[0] for call in calls[6:]][:3] == ["point 1: deflating", "point 1: deflating", "point 1: files written"]


def test_each_point_is_encoded_in_a_folder_of_its_own(tmp_path):
    model = DeflatingModel()
    measure(model, pictures(1), "tiny", "test", points=[2, 0], workdir=tmp_path)
    measure(model, pictures(1), "tiny", "test", points=[1])
    assert model.workdirs == [tmp_path, tmp_path, None]


def test_a_container_that_decodes_to_something_else_is_refused():
    class Swapping(DeflatingModel):
        def decode_samples_together(self, data, max_pixels=None, max_work=None):
            return super().decode_samples_together(data)[::-1]

    with pytest.raises(MeasurementError, match="otherwise from the container"):
        measure(Swapping(), pictures(2), "tiny", "test", points=[0])


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01])
def test_single_steps_of_rounding_are_counted_and_more_are_refused(share):
    class Rounding(DeflatingModel):
        def decode_samples_together(self, data, max_pixels=None, max_work=None):
            decoded = super().decode_samples_together(data)
            flat = decoded[0][0].reshape(-1)
            flat[: int(share * flat.size)] += 1
            return decoded

    images = pictures(1, (40, 40))
    if share > 0.001:
        with pytest.raises(MeasurementError, match="more than rounding explains"):
            measure(Rounding(), images, "tiny", "test", points=[1])
    else:
        row = measure(Rounding(), images, "tiny", "test", points=[1])[0]
        assert row["container_differences"] == int(share * images[0].size)


def test_lost_and_cropped_pictures_are_refused():
    class Losing(DeflatingModel):
        def values_of_codes(self, point, codes, grids):
            return super().values_of_codes(point, codes, grids)[1:]

    class Cropping(DeflatingModel):
        def values_of_codes(self, point, codes, grids):
            return [picture[1:] for picture in super().values_of_codes(point, codes, grids)]

    with pytest.raises(MeasurementError, match="1 signals, 2 were encoded"):
        measure(Losing(), pictures(2), "tiny", "test")
    with pytest.raises(MeasurementError, match="decodes to uint8"):
        measure(Cropping(), pictures(2), "tiny", "test")


def test_bad_arguments_name_the_mend():
    with pytest.raises(ValueError, match="no signals"):
        measure(DeflatingModel(), [], "tiny", "test")
    with pytest.raises(ValueError, match="points 0 to 2"):
        measure(DeflatingModel(), pictures(1), "tiny", "test", points=[3])
    with pytest.raises(ValueError, match="scale it to 0..255"):
        measure(DeflatingModel(), [np.zeros((4, 4, 3), np.float32)], "tiny", "test")


def test_rows_are_grouped_by_label_or_codec_and_sorted_by_rate():
    rows = [
        {"codec": "b", "point": 0, "bpp_file": 2.0},
        {"codec": "a", "point": 0, "bpp_file": 1.0},
        {"codec": "b", "point": 1, "bpp_file": 1.0},
        {"codec": "b", "point": 0, "bpp_file": 3.0, "label": "b (second)"},
    ]
    grouped = rows_by_codec(rows)
    assert list(grouped) == ["b", "a", "b (second)"]
    assert [row["bpp_file"] for row in grouped["b"]] == [1.0, 2.0]

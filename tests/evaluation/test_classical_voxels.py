"""Lossless packing of voxels and volumes: bytes against the libraries themselves, bounds, and what is refused."""

import gzip
import math

import numpy as np
import pytest

from vcinr.evaluation import classical_voxels
from vcinr.evaluation.classical_voxels import measure_packed_integers, measure_packed_voxels
from vcinr.evaluation.measure import MeasurementError
from vcinr.evaluation.metrics import lossless_psnr_db


def random_voxels(count=3, shape=(30, 30, 30), share=0.5):
    rng = np.random.default_rng(0)
    return [(rng.random((*shape, 1)) < share).astype(np.uint8) for _ in range(count)]


def row_of(rows, codec):
    return next(row for row in rows if row["codec"] == codec)


def test_noise_costs_a_bit_a_voxel_and_what_is_empty_next_to_nothing():
    for row in measure_packed_voxels(random_voxels(), "noise", "test"):
        assert 1 <= row["bpp_payload"] < 1.02
        assert row["bpp_payload"] < row["bpp_file"]
    empty = [np.zeros((30, 30, 30, 1), np.uint8)]
    for row in measure_packed_voxels(empty, "empty", "test"):
        assert row["file_bytes"] < 70


def test_skewed_bits_do_not_fall_below_their_entropy():
    share = 0.1
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    for row in measure_packed_voxels(random_voxels(share=share), "skewed", "test"):
        assert entropy * 0.98 < row["bpp_payload"] < 0.75


def test_rows_count_whole_files_and_are_lossless():
    voxels, calls = random_voxels(2, (5, 6, 7)), []
    rows = measure_packed_voxels(voxels, "tiny", "test", lambda *call: calls.append(call))
    assert calls == [("gzip", 1, 2), ("lzma", 2, 2)]
    sizes = [6 + len(gzip.compress(np.packbits(grid).tobytes(), 9)) for grid in voxels]
    row = row_of(rows, "gzip")
    assert row["file_bytes"] == np.mean(sizes)
    assert row["file_bytes"] - row["payload_bytes"] == 6 + 18
    assert row["bpp_file"] == pytest.approx(8 * np.mean(sizes) / 210)
    assert (row["num_signals"], row["num_lossless"], row["model_bytes"]) == (2, 2, 0)
    assert row["psnr_db"] == lossless_psnr_db(210, 1)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "int8"])
def test_volumes_come_back_in_their_type(dtype):
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    volumes = [rng.integers(limits.min, limits.max, (8, 9, 10, 1), endpoint=True).astype(dtype)]
    for row in measure_packed_integers(volumes, "noise", "test"):
        assert limits.bits <= row["bpp_payload"] < 1.1 * limits.bits
        assert row["num_lossless"] == 1


def test_a_loss_is_an_error(monkeypatch):
    compress, decompress, headers = classical_voxels._PACKERS["gzip"]
    monkeypatch.setitem(classical_voxels._PACKERS, "gzip", (lambda data: compress(data[:-1] + b"\x55"), decompress, headers))
    with pytest.raises(MeasurementError, match="gzip: an array does not come back"):
        measure_packed_voxels(random_voxels(1), "damaged", "test")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measure_packed_voxels([], "none", "test"), "no signals"),
        (lambda: measure_packed_voxels([np.full((2, 2, 2, 1), 2, np.uint8)], "two", "test"), "0 and 1"),
        (lambda: measure_packed_voxels([np.zeros((2, 2, 2), np.uint8)], "flat", "test"), r"\[z, y, x, 1\]"),
        (lambda: measure_packed_integers([np.zeros((2, 2, 2, 1), np.float32)], "floats", "test"), "whole numbers"),
        (lambda: measure_packed_integers([np.zeros((2, 2, 2, 1), np.int32)], "long", "test"), "whole numbers"),
    ],
)
def test_other_arrays_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_real_voxels_take_a_fraction_of_a_bit(vcinr_data):
    with np.load(vcinr_data / "voxels_modelnet10_30.npz") as arrays:
        bits = arrays["test_bits"][::10]
    grids = np.unpackbits(bits, axis=1, count=27000).reshape(-1, 30, 30, 30, 1).transpose(0, 3, 2, 1, 4)
    rows = measure_packed_voxels(list(grids), "modelnet10_30", "test")
    assert row_of(rows, "lzma")["bpp_file"] < row_of(rows, "gzip")["bpp_file"] < 0.2

"""The bytes that a file keeps of a field: what they are, that they return, and that no others pass."""

import json

import numpy as np
import pytest

from vcinr.modalities import climate_metadata as coding
from vcinr.modalities.climate_field import Axis, ClimateField, Scalar, Storage
from vcinr.modalities.climate_grid import globe_axes


def field(**labels):
    return ClimateField(np.zeros((2, 3), np.float32), np.array([1.0, 2]), np.arange(3.0), **labels)


RICH = {
    "name": "t2m",
    "units": "K",
    "attributes": {"long_name": "Temperatur in 2 m Höhe", "flag": np.array([1, 2], np.int8), "eps": np.array(0.1, np.float32)},
    "axes": (Axis("latitude", {"units": "degrees_north", "axis": "Y"}), Axis("longitude", {"units": "degrees_east"})),
    "scalars": {
        "time": Scalar(np.array(9.5), {"units": "days since 1850-01-01", "calendar": "noleap"}),
        "expver": Scalar("1", {}),
    },
    "about": {"Conventions": "CF-1.6", "sources": ["a", "b"], "id": np.array(2**63, np.uint64)},
    "storage": Storage("int16", np.float64(0.01), np.float64(273.15), np.int16(-32767)),
}


def test_golden_bytes_of_grids():
    shape = (43, 48)
    latitudes = np.round(46.9 - 0.25 * np.arange(43), 2).astype(np.float32)
    longitudes = np.round(6.57 + 0.25 * np.arange(48), 2).astype(np.float32)
    # Kind float32, tenths, 469 to 364; kind float32, hundredths, 657 to 1832.
    assert coding.encode_grid(latitudes, longitudes, shape) == bytes.fromhex("06 08aa07d805 10a20ad01c".replace(" ", ""))
    assert coding.encode_grid(*globe_axes((46, 90)), (46, 90)) == b""
    assert coding.encode_grid(globe_axes((46, 90))[0], np.arange(-180, 181, 4.0), (46, 90)).hex() == "0501e702e802"


def test_golden_bytes_of_masks():
    missing = np.zeros((4, 6), bool)
    missing[1:3, 2:4] = True
    # Rows: runs of 8, 2, 4, 2, 8; against the row above: 8, 2, 10, 2, 2; both deflated.
    assert coding.encode_mask(missing).hex() == "00e3606261e20000"
    np.testing.assert_array_equal(coding.decode_mask(bytes.fromhex("00e3606261e20000"), (4, 6)), missing)
    assert coding.encode_mask(np.zeros((4, 6), bool)) == b""


def test_golden_bytes_of_labels():
    assert coding.encode_labels(field()) == b""
    assert coding.decode_labels(b"") == {"storage": Storage()}
    # All of it lies in the dictionary; deflate may be spelt otherwise by other versions of zlib, and must be read all the same.
    assert len(coding.encode_labels(field(name="t2m", units="K"))) == 4
    found = coding.decode_labels(bytes.fromhex("c3220400"))
    assert (found["name"], found["units"]) == ("t2m", "K")


@pytest.mark.parametrize("dtype", coding.AXIS_TYPES)
@pytest.mark.parametrize(
    "axis",
    [
        [5],
        [-1, 3],
        [90, 45, -90],
        np.arange(0, 360, 7),
        np.arange(46.9, 36.3, -0.25),
        np.arange(0, 360, 1.40625),
        np.arange(1080) / 3,
        np.linspace(-90, 90, 192),
        np.random.default_rng(0).uniform(-90, 90, 100),
    ],
)
def test_axes_return_bit_for_bit(dtype, axis):
    axis = np.array(axis).astype(dtype)
    coded = coding._encode_axis(axis)
    reader = coding._Reader(coded)
    found = coding._decode_axis(reader, len(axis))
    assert found.dtype == axis.dtype
    np.testing.assert_array_equal(found, axis)
    reader.end("axis")
    assert len(coded) < 20 + axis.nbytes


@pytest.mark.parametrize(
    ("axis", "most"),
    [
        (np.arange(46.9, 36.3, -0.25), 5),
        (np.float32(np.arange(1080) / 3), 6),
        (np.arange(721) / 4 - 90, 7),
        (np.arange(3) * 0.7, 60),
    ],
)
def test_regular_axes_take_a_few_bytes(axis, most):
    assert len(coding._encode_axis(axis)) <= most


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (7, 9), (40, 300), (300, 40)])
@pytest.mark.parametrize("share", [0.5, 0.03, 0.99])
def test_masks_return(shape, share):
    missing = np.random.default_rng(0).random(shape) < share
    missing[0, 0], missing[-1, -1] = True, False
    coded = coding.encode_mask(missing)
    np.testing.assert_array_equal(coding.decode_mask(coded, shape), missing)
    assert len(coded) < 16 + missing.size / 3


def test_a_coast_costs_a_fraction_of_a_bit():
    y, x = np.mgrid[-1:1:181j, -1:1:360j]
    land = np.hypot(y, x + 0.1 * np.sin(9 * y)) < 0.6
    assert 8 * len(coding.encode_mask(land)) / land.size < 0.05


def test_labels_return():
    found = coding.decode_labels(coding.encode_labels(field(**RICH)))
    assert found.keys() == RICH.keys()
    again = field(**found)
    assert coding.encode_labels(again) == coding.encode_labels(field(**RICH))
    assert again.storage == RICH["storage"] and isinstance(again.storage.scale_factor, np.float64)
    for name in ("attributes", "about"):
        for key, value in RICH[name].items():
            np.testing.assert_array_equal(found[name][key], value)
            assert getattr(found[name][key], "dtype", None) == getattr(value, "dtype", None)
    assert again.axes == RICH["axes"] and again.scalars == RICH["scalars"]


def test_a_missing_number_of_nan_returns():
    storage = coding.decode_labels(coding.encode_labels(field(storage=Storage(fill_value=np.float32(np.nan)))))["storage"]
    assert np.isnan(storage.fill_value) and storage.fill_value.dtype == np.float32


def test_attributes_that_do_not_fit_name_the_option():
    with pytest.raises(ValueError, match="--attributes cf"):
        coding.encode_labels(field(about={"history": "x" * 2**20}))


@pytest.mark.parametrize(
    "parts",
    [
        {"x": 5},
        {"q": 1},
        [],
        {"n": 5},
        {"u": ["K"]},
        {"d": ["a"]},
        {"d": 7},
        {"d": [1, 2]},
        {"a": {"b": ["f9", 1]}},
        {"a": {"b": ["i1", 300]}},
        {"a": {"b": ["i4", 1.5]}},
        {"a": {"b": ["i4", [[1]]]}},
        {"a": {"b": ["f4", "1"]}},
        {"a": {"b": ["U", [1]]}},
        {"a": {"b": None}},
        {"a": ["b"]},
        {"s": {"time": ["f8", 1]}},
        {"s": [1]},
        {"t": []},
        {"t": ["int64"]},
        {"t": ["int16", ["f8", 0.0]]},
        {"t": ["int16", ["f8", [1.0]]]},
        {"t": ["int16", ["i4", 1]]},
        {"t": ["int16", "1"]},
        {"t": ["int16", ["f8", float("nan")]]},
        {"t": ["int16", None, None, ["i4", 70000]]},
        {"t": ["int16", None, None, ["f4", 1.0]]},
        {"t": ["int16", None, None, None, None]},
    ],
)
def test_labels_of_no_field_are_refused(parts):
    data = coding._deflate(json.dumps(parts).encode(), coding.DICTIONARY)
    with pytest.raises(ValueError, match="labels are not those of a field"):
        coding.decode_labels(data)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 10**5, b'{"n":"\xed\xa0\x80"}', b"1" * 5000])
def test_labels_that_are_no_text_are_refused(text):
    with pytest.raises(ValueError, match="labels are not those of a field"):
        coding.decode_labels(coding._deflate(text, coding.DICTIONARY))


def test_bombs_take_no_memory():
    bomb = coding._deflate(b" " * 2**28)
    assert len(bomb) < 2**20
    for read in (
        lambda: coding.decode_labels(bomb),
        lambda: coding.decode_mask(b"\0" + bomb, (40, 40)),
        lambda: coding.decode_grid(b"\x06\x40\0\0" + coding._varints(np.array([len(bomb)])) + bomb, (40, 40)),
    ):
        with pytest.raises(ValueError, match="longer or shorter|damaged"):
            read()


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\x08",
        b"\x01",
        b"\x02",
        b"\x02\x07\0\0",
        b"\x02\x80\0\0",
        b"\x02\0\0",
        b"\x02\0\x80\x80\x80\x80\x80\x01\0",
        b"\x02\0\x80\0\0",
        b"\x02\0\xff\xff\xff\x01\0",
        b"\x02\x40\0\0\x02\x03\0",
        b"\x02\x08\xaa\x07\xd8\x05\0",
        b"\x02\0\x02\x02",
    ],
)
def test_grids_that_no_encoder_writes_are_refused(data):
    with pytest.raises(ValueError):
        coding.decode_grid(data, (43, 48))


def test_masks_of_other_shapes_are_refused():
    missing = np.eye(6, dtype=bool)
    coded = coding.encode_mask(missing)
    for shape in ((6, 7), (5, 6)):
        with pytest.raises(ValueError):
            coding.decode_mask(coded, shape)
    for runs in ([0, 36], [36], [6, 0, 30], [6, 7, 24]):
        with pytest.raises(ValueError, match="mask"):
            coding.decode_mask(b"\0" + coding._deflate(coding._varints(np.array(runs))), (6, 6))
    with pytest.raises(ValueError, match="mask"):
        coding.decode_mask(b"\x02" + coded[1:], (6, 6))


def test_damaged_bytes_give_what_can_be_checked_or_the_one_error():
    rng = np.random.default_rng(0)
    grid = coding.encode_grid(np.random.default_rng(1).uniform(-90, 90, 6), np.arange(9) * 0.7, (6, 9))
    mask, labels = coding.encode_mask(rng.random((6, 9)) < 0.3), coding.encode_labels(field(**RICH))
    for data, read in (
        (grid, lambda data: coding.decode_grid(data, (6, 9))),
        (mask, lambda data: coding.decode_mask(data, (6, 9))),
        (labels, coding.decode_labels),
    ):
        for length in range(1, len(data)):
            with pytest.raises(ValueError):
                read(data[:length])
        for _ in range(300):
            damaged = bytearray(data)
            for position in rng.integers(len(data), size=2):
                damaged[position] = rng.integers(256)
            try:
                read(bytes(damaged))
            except ValueError:
                continue


@pytest.mark.parametrize("largest", [1, 127, 128, 2**14, 2**35 - 1])
def test_numbers_of_seven_bits_a_byte_return(largest):
    numbers = np.unique(np.random.default_rng(0).integers(0, largest, 100, endpoint=True))
    np.testing.assert_array_equal(coding._from_varints(coding._varints(numbers)), numbers)

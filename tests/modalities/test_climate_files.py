"""Climate fields in NetCDF, Zarr and .npz: what is read returns, what is not meant is refused with the mend."""

import dataclasses
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.modalities.test_climate import TIME, assert_same, globe, there_and_back
from vcinr.modalities import MODALITIES
from vcinr.modalities.climate_field import Axis, Scalar, Storage, restore, store
from vcinr.modalities.files.climate import count_times, npz_bytes, read_field, write_field
from vcinr.modalities.files.climate_xarray import ClimateFileError

CLIMATE = MODALITIES["climate"]
ROOT = Path(__file__).parent.parent.parent
SUFFIXES = (".nc", ".nc4", ".zarr", ".zip", ".npz")


@pytest.fixture(scope="module", autouse=True)
def _readers():
    for module in ("xarray", "netCDF4", "zarr"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install 'vcinr[climate]'")


def packed():
    storage = Storage("int16", np.float64(0.01), np.float64(250), np.int16(-32767))
    labels = {
        "attributes": {
            "long_name": "2 metre temperature",
            "missing_value": np.array(-32767, np.int64),
            "range": np.array([0.5, 2]),
        },
        "axes": (
            Axis("latitude", {"units": "degrees_north", "long_name": "latitude"}),
            Axis("longitude", {"units": "degrees_east"}),
        ),
        "scalars": {"time": TIME, "height": Scalar(np.array(2.0), {"units": "m"})},
        "about": {"Conventions": "CF-1.6", "history": "made for a test"},
        "storage": storage,
    }
    field = globe(dtype=np.float64, missing=[(1, 1)], **labels)
    return dataclasses.replace(
        field,
        values=restore(store(field.values, storage), storage)[::-1],
        latitudes=field.latitudes[::-1].astype(np.float64),
    )


FIELDS = {
    "float32": globe(missing=[(0, slice(2, 5))]),
    "float64": globe(dtype=np.float64),
    "float32 with a number for missing": globe(missing=[(0, 0)], storage=Storage("float32", fill_value=np.float32(1e20))),
    "packed": packed(),
    "integers": dataclasses.replace(globe(storage=Storage("int16")), values=np.arange(40, dtype=np.float32).reshape(5, 8)),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", FIELDS)
def test_files_return_what_was_written(name, suffix, tmp_path):
    field = FIELDS[name]
    path = tmp_path / f"field{suffix}"
    CLIMATE.write(path, field)
    assert_same(field, CLIMATE.read(path), share=0)
    if path.is_file() and suffix != ".zip":
        with open(path, "rb") as file:
            assert_same(field, CLIMATE.read(file), share=0)
    assert count_times(path) == 1


@pytest.mark.parametrize("name", FIELDS)
def test_prepared_data_return(name):
    assert_same(FIELDS[name], CLIMATE.from_bytes(CLIMATE.to_bytes(FIELDS[name])), share=0)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_others_read_the_same_values(suffix, tmp_path):
    import xarray

    field = packed()
    CLIMATE.write(tmp_path / f"a{suffix}", field)
    with xarray.open_dataset(tmp_path / f"a{suffix}") as data:
        np.testing.assert_allclose(data["t2m"].values, field.values, rtol=1e-12)
        np.testing.assert_array_equal(data["latitude"].values, field.latitudes)
        assert data["t2m"].encoding["dtype"] == np.int16
        assert data["time"].values == np.datetime64("2022-05-01T00:00")
        assert (data["t2m"].units, data.attrs["Conventions"]) == ("K", "CF-1.6")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A file as ERA5's: two variables, times, levels, and one more with a curvilinear grid."""
    import xarray

    latitudes, longitudes = np.linspace(90, -90, 5), np.arange(8) * 45.0
    rng = np.random.default_rng(0)
    dims = ("time", "level", "latitude", "longitude")
    data = xarray.Dataset(
        {
            "t": (dims, rng.normal(size=(4, 2, 5, 8)).astype(np.float32), {"units": "K"}),
            "sp": (("time", "longitude", "latitude"), rng.normal(size=(4, 8, 5)), {"units": "Pa", "coordinates": "station"}),
            "ocean": (("y", "x"), np.zeros((3, 3))),
            "nav": (("time",), np.zeros(4)),
        },
        coords={
            "time": (("time",), np.arange(4, dtype=np.int32) * 6, {"units": "hours since 2020-01-31", "calendar": "gregorian"}),
            "level": (("level",), np.array([500, 850], np.int32), {"units": "millibars"}),
            "latitude": (("latitude",), latitudes, {"units": "degrees_north"}),
            "longitude": (("longitude",), longitudes, {"units": "degrees_east"}),
            "station": ((), 7),
        },
    )
    folder = tmp_path_factory.mktemp("many")
    data.to_netcdf(folder / "era5.nc")
    data.to_netcdf(folder / "classic.nc", format="NETCDF3_64BIT")
    data.to_zarr(folder / "era5.zarr", zarr_format=3, consolidated=False)
    return folder, data


@pytest.mark.parametrize("name", ["era5.nc", "classic.nc", "era5.zarr"])
def test_one_of_many_is_chosen(many, name):
    folder, data = many
    path = folder / name
    field = CLIMATE.read(path, variable="t", time=-1, level=850)
    np.testing.assert_array_equal(field.values, data["t"].values[3, 1])
    assert field.values.dtype.isnative
    assert (field.name, field.units) == ("t", "K")
    assert int(field.scalars["time"].value) == 18 and int(field.scalars["level"].value) == 850
    for time, index in (("2020-01-31T06", 1), ("2020-01-31 12:00:00", 2), ("3", 3), (0, 0), ("-4", 0)):
        np.testing.assert_array_equal(CLIMATE.read(path, variable="t", time=time, level="500").values, data["t"].values[index, 0])
    # Longitudes before latitudes are turned.
    np.testing.assert_array_equal(CLIMATE.read(path, variable="sp", time=2).values, data["sp"].values[2].T)
    assert count_times(path, "t") == 4


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        ({}, "variables t, sp: name one with --variable"),
        ({"variable": "t2m"}, "no variable 't2m': it has t, sp"),
        ({"variable": "ocean"}, "no latitudes of one axis"),
        ({"variable": "t", "level": 500}, "holds 4 times, from 2020-01-31T00:00:00 to 2020-01-31T18:00:00: name one with --time"),
        ({"variable": "t", "time": 4, "level": 500}, "from 0 to 3"),
        ({"variable": "t", "time": "2020-01-31", "level": 500}, "4 times begin with"),
        ({"variable": "t", "time": "1999", "level": 500}, "there is no time 1999"),
        ({"variable": "t", "time": "1999-01", "level": 500}, "no time begins with '1999-01'"),
        ({"variable": "t", "time": 0}, "name one of 500, 850 with --level"),
        ({"variable": "t", "time": 0, "level": 700}, "level is nowhere 700: it is one of 500, 850"),
        ({"variable": "sp", "time": 0, "level": 500}, "leave --level out"),
        ({"variable": "sp", "time": 0, "attributes": "some"}, "'all', 'cf' or 'none'"),
        ({"variable": "sp", "time": 0, "max_samples": 39}, "5×8 samples are more than the limit of 39; raise --max-pixels"),
    ],
)
def test_what_is_not_one_field_names_the_option(many, options, mend):
    with pytest.raises(ValueError, match=mend):
        CLIMATE.read(many[0] / "era5.nc", **options)


def test_a_year_of_four_digits_is_a_number_of_a_time(many):
    """Documented: a number is a position, so a year alone is none; with its month it is a date."""
    with pytest.raises(ValueError, match="there is no time 2020"):
        CLIMATE.read(many[0] / "era5.nc", variable="sp", time="2020")


def test_arrays_of_fields_in_npz_are_read_by_name_and_time(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)
    field = globe()
    np.savez(tmp_path / "a.npz", train=values, lat=field.latitudes, lon=field.longitudes)
    found = CLIMATE.read(tmp_path / "a.npz", time=1)
    np.testing.assert_array_equal(found.values, values[1])
    assert found.name == "train" and count_times(tmp_path / "a.npz") == 3
    with pytest.raises(ValueError, match="holds 3 times: name one with --time"):
        CLIMATE.read(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="no array 'test': it has train, lat, lon"):
        CLIMATE.read(tmp_path / "a.npz", variable="test")
    np.savez(tmp_path / "b.npz", train=values, lat=field.latitudes)
    with pytest.raises(ValueError, match="no array longitudes of 8 degrees"):
        CLIMATE.read(tmp_path / "b.npz", time=0)
    np.savez(tmp_path / "c.npz", train=np.array([[None]]))
    with pytest.raises(ValueError, match="Python objects"):
        CLIMATE.read(tmp_path / "c.npz")


def test_an_npz_that_promises_too_much_is_refused_before_it_is_read(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("values.npy", header.getvalue())
    with pytest.raises(ValueError, match="more than the limit"):
        CLIMATE.read(tmp_path / "a.npz")


def test_integers_that_are_unsigned_by_attribute_and_scaled_are_values(tmp_path):
    import netCDF4

    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, values in (("lat", np.linspace(90, -90, 5)), ("lon", np.arange(8) * 45.0)):
            file.createDimension(name, len(values))
            file.createVariable(name, "f8", (name,))[:] = values
        variable = file.createVariable("a", "i1", ("lat", "lon"))
        variable.set_auto_maskandscale(False)
        variable.setncatts({"_Unsigned": "true", "scale_factor": np.float32(0.5), "missing_value": np.int8(-1)})
        variable[:] = np.arange(40, dtype=np.int8).reshape(5, 8) - 20
    field = CLIMATE.read(tmp_path / "a.nc")
    # 255 is missing, as −1 is by the attribute.
    assert np.nanmax(field.values) == 254 / 2 and field.stored_as.dtype == "uint8"
    assert np.isnan(field.values).sum() == 1
    CLIMATE.write(tmp_path / "b.nc", field)
    assert_same(field, CLIMATE.read(tmp_path / "b.nc"), share=0)


def test_packed_places_are_unpacked_and_text_is_no_field(tmp_path):
    import netCDF4

    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, values in (("lat", np.arange(900, -901, -450)), ("lon", np.arange(8) * 450)):
            file.createDimension(name, len(values))
            variable = file.createVariable(name, "i2", (name,))
            variable.set_auto_maskandscale(False)
            variable.setncatts({"scale_factor": np.float32(0.1)})
            variable[:] = values
        file.createVariable("a", "f4", ("lat", "lon"))[:] = np.arange(40).reshape(5, 8)
        file.createVariable("flag", str, ("lat", "lon"))
    field = CLIMATE.read(tmp_path / "a.nc", variable="a")
    np.testing.assert_allclose(field.latitudes, [90, 45, 0, -45, -90])
    assert field.axes[0].attributes == {}
    assert_same(field, there_and_back(CLIMATE, field))
    with pytest.raises(ValueError, match="not numbers"):
        CLIMATE.read(tmp_path / "a.nc", variable="flag")


@pytest.mark.parametrize("suffix", [".nc", ".npz", ".zip"])
def test_damaged_files_are_refused(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_field(path, globe())
    data = path.read_bytes()
    for length in range(0, len(data) * 3 // 4, max(1, len(data) // 12)):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(ClimateFileError, match="cut: "):
            read_field(tmp_path / "cut")
    if suffix == ".nc":
        return
    rng = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(data)
        for position in rng.integers(len(data), size=4):
            damaged[position] = rng.integers(256)
        (tmp_path / "cut").write_bytes(damaged)
        try:
            assert read_field(tmp_path / "cut").values.shape == (5, 8)
        except ClimateFileError:
            continue


@pytest.mark.parametrize(
    "data", [b"", b"hello there", b"GRIB\0\0\0\1" + bytes(100), b"CDF\x01" + bytes(20), b"\x89HDF\r\n\x1a\n" + bytes(50)]
)
def test_what_is_no_field_is_refused(data, tmp_path):
    with pytest.raises(ClimateFileError, match=r"not NetCDF, Zarr or .npz; convert it|damaged|holds no|has no variable"):
        read_field(io.BytesIO(data))


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_field(tmp_path / "none.nc")


def test_other_suffixes_and_a_store_that_is_there_are_refused(tmp_path):
    for call in (CLIMATE.write, lambda path, field: CLIMATE.check_target(path)):
        with pytest.raises(ValueError, match="are written as one of .nc, .nc4, .zarr"):
            call(tmp_path / "a.grib", globe())
    CLIMATE.write(tmp_path / "a.zarr", globe())
    with pytest.raises(ValueError, match="remove it first"):
        CLIMATE.write(tmp_path / "a.zarr", globe())


def test_readers_are_imported_when_they_are_needed_and_named_when_they_are_missing():
    program = """
import sys
from importlib.util import find_spec
import vcinr.cli.main, vcinr.modalities.climate
heavy = {"xarray", "netCDF4", "zarr", "zfpy"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
for name in heavy:
    sys.modules[name] = None
import importlib.util
importlib.util.find_spec = lambda name, *rest: None if name in heavy else find_spec(name, *rest)
import io
from vcinr.modalities import MODALITIES
for start in (b"\\x89HDF\\r\\n\\x1a\\n", b"CDF\\x01"):
    try:
        MODALITIES["climate"].read(io.BytesIO(start + bytes(50)))
    except ValueError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "climate field: .nc needs xarray and netCDF4: pip install 'vcinr[climate]'",
        "climate field: .nc needs xarray: pip install 'vcinr[climate]'",
    ]


def test_a_field_in_bytes_is_small():
    assert len(npz_bytes(globe((46, 90)))) < 4 * 46 * 90 + 1500

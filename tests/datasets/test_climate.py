"""Sets of climate fields: blocks of time that do not touch, real fields, and folders of NetCDF and Zarr."""

import shutil

import numpy as np
import pytest

from vcinr.datasets.catalogue import load_split, prepare
from vcinr.modalities import MODALITIES
from vcinr.modalities.climate import ClimateField

CLIMATE = MODALITIES["climate"]


def sequence(count, start=0):
    """Fields [count, 5, 8], each with its number as its mean."""
    pattern = np.linspace(-1, 1, 40).reshape(5, 8)
    return (np.arange(start, start + count)[:, None, None] + pattern).astype(np.float32)


@pytest.mark.parametrize("count", [1, 9, 10, 11, 39, 40, 100, 8760])
def test_blocks_of_time_are_apart(count):
    from vcinr.datasets.climate import time_blocks

    blocks = time_blocks(range(count))
    kept = [each for split in ("train", "validation", "test") for each in blocks.get(split, [])]
    assert kept == sorted(set(kept)) and kept[-1] == count - 1
    if count >= 10:
        assert kept[0] == 0
        assert blocks["validation"][0] - blocks["train"][-1] >= max(2, count // 40)
        assert blocks["test"][0] - blocks["validation"][-1] >= max(2, count // 40)
        assert min(map(len, blocks.values())) >= count // 10 > 0


@pytest.mark.parametrize("name", ["Era5Region", "ClimateGlobal"])
def test_validation_is_the_end_of_train_after_a_gap(name, tmp_path):
    from vcinr.datasets import climate

    builder = getattr(climate, name)
    np.savez(tmp_path / "a.npz", train=sequence(100), test=sequence(5, 200), lat=np.arange(5.0), lon=np.arange(8.0))
    made = builder(source=tmp_path / "a.npz", data_dir=str(tmp_path)).signals()
    means = {split: [round(float(field.values.mean())) for _, field in rows] for split, rows in made.items()}
    assert means["test"] == [200, 201, 202, 203, 204]
    assert means["validation"] == list(range(100 - builder.NUM_VALIDATION, 100))
    assert means["train"] == list(range(100 - builder.NUM_VALIDATION - builder.GAP))
    names = [name for rows in made.values() for name, _ in rows]
    assert len(set(names)) == len(names)


@pytest.fixture
def era5(tmp_path):
    """Two months in a NetCDF file and a Zarr store, and one field beside them; what is hidden is no part."""
    xarray = pytest.importorskip("xarray", reason="xarray is not installed: pip install 'vcinr[climate]'")
    pytest.importorskip("zarr")
    pytest.importorskip("netCDF4")
    root = tmp_path / "data" / "era5"
    root.mkdir(parents=True)

    def month(start):
        coords = {
            "time": (("time",), start + np.arange(20), {"units": "hours since 2020-01-01"}),
            "latitude": np.linspace(90, -90, 5),
            "longitude": np.arange(8) * 45.0,
        }
        return xarray.Dataset({"t2m": (("time", "latitude", "longitude"), sequence(20, start))}, coords=coords)

    month(0).to_netcdf(root / "2020-01.nc")
    month(20).to_zarr(root / "2020-02.zarr", zarr_format=2)
    field = ClimateField(sequence(1, 40)[0], np.linspace(90, -90, 5), np.arange(8) * 45.0, "t2m")
    CLIMATE.write(root / "2020-03.npz", field)
    (root / ".hidden.nc").write_bytes(b"")
    return root


def test_a_folder_is_a_signal_per_time(era5, datasets_dir, monkeypatch):
    monkeypatch.setenv("VCINR_DATA", str(era5.parent))
    assert prepare("era5").counts == {"train": 31, "validation": 4, "test": 4}
    means = {
        split: [round(float(field.values.mean())) for field in load_split("era5", split)]
        for split in ("train", "validation", "test")
    }
    assert means == {"train": list(range(31)), "validation": [32, 33, 34, 35], "test": [37, 38, 39, 40]}
    field = load_split("era5", "train")[25]
    assert (field.name, int(field.scalars["time"].value)) == ("t2m", 25)


def test_a_folder_of_ones_own_takes_the_readers_options(era5, datasets_dir):
    folder = str(era5)
    (era5 / "2020-03.npz").unlink()

    def means(time):
        prepare("folder", path=folder, modality="climate", time=time)
        fields = load_split("folder", "all", path=folder, modality="climate", time=time)
        return sorted(round(float(field.values.mean())) for field in fields)

    # Of the file and of the store, which is a folder.
    assert means("3") == [3, 23]
    (store,) = era5.glob("*.zarr")
    shutil.rmtree(store)
    assert means("2020-01-01T03") == [3]


def test_real_fields(vcinr_data, datasets_dir):
    assert prepare("era5_region").counts == {"train": 340, "validation": 40, "test": 50}
    assert prepare("climate_global").counts == {"train": 495, "validation": 50, "test": 55}
    assert prepare("climate_misc").counts == {"test": 39}
    for name, file, modality in (
        ("era5_region", "era5_t2m_region_43x48.npz", "climate_region"),
        ("climate_global", "t2m_ccsm_global_46x90_derived.npz", "climate"),
    ):
        with np.load(vcinr_data / "climate" / file) as arrays:
            train, test, latitudes = arrays["train"], arrays["test"], arrays["lat"]
        fields = load_split(name, "test")
        assert fields.modality == modality
        for i in (0, 17, -1):
            np.testing.assert_array_equal(fields[i].values, test[i])
            np.testing.assert_array_equal(fields[i].latitudes, latitudes)
            assert (fields[i].name, fields[i].units) == ("t2m", "K")
            _, metadata = MODALITIES[modality].unpack(fields[i])
            assert sum(len(each) for each in metadata.values() if isinstance(each, bytes)) <= 20
        np.testing.assert_array_equal(load_split(name, "validation")[-1].values, train[-1])
    shapes = {field.values.shape for field in load_split("climate_misc", "test")}
    assert shapes == {(73, 144), (241, 480)}
    for field in load_split("climate_misc", "test"):
        samples, metadata = CLIMATE.unpack(field)
        CLIMATE.check_metadata(metadata, samples.shape[:2])

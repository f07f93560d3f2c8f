"""Climate fields through a codec: files hold what NetCDF does, hostile metadata are refused, grids between the samples."""

import dataclasses

import numpy as np
import pytest

from vcinr.bitstream.container import BitstreamError
from vcinr.cli.main import main
from vcinr.codecs.klt import KLT, KLTConfig
from vcinr.datasets.sources import PatchSource, Samples
from vcinr.modalities import MODALITIES
from vcinr.modalities.climate import Axis, ClimateField, Scalar, Storage
from vcinr.modalities.climate_field import restore, store
from vcinr.modalities.climate_grid import globe_axes, sphere_points
from vcinr.model.model import make_model
from vcinr.training.run import train

SHAPE = (10, 18)
CLIMATE = MODALITIES["climate"]


def smooth(seed, **labels):
    """A field that is quadratic in the coordinates on the sphere: as few components as there are terms."""
    x, y, z = sphere_points(
        np.stack(np.meshgrid(*(np.linspace(-0.9, 0.9, n) for n in SHAPE), indexing="ij"), -1).reshape(-1, 2).astype(np.float32)
    ).T
    terms = np.stack([x, y, z, x * y, y * z, z * x, z * z])
    values = 280 + 10 * (np.random.default_rng(seed).normal(size=7) @ terms).reshape(SHAPE)
    return ClimateField(values.astype(np.float32), *globe_axes(SHAPE), "t2m", "K", **labels)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    codec = KLT(KLTConfig(modality="climate", patch=SHAPE, num_components=12, steps=(2.0, 0.5)))
    fields = PatchSource(Samples([smooth(seed) for seed in range(40)], CLIMATE), SHAPE, flips=CLIMATE.mirrored_axes)
    return make_model(codec, train(codec, fields, seed=0, workdir=str(tmp_path_factory.mktemp("run"))), {"about": "fields"})


def test_files_hold_fields_with_all_that_is_said_of_them(model):
    labels = {"attributes": {"long_name": "2 metre temperature"}, "axes": (Axis("latitude", {}), Axis("longitude", {}))}
    labels["scalars"] = {"time": Scalar(np.array(9, np.int32), {"units": "days since 2000-01-01"})}
    field = smooth(99, **labels)
    decoded = model.decode(model.encode(field, point=1))
    assert CLIMATE.metrics(field, decoded)["psnr_db"] > 35
    assert (decoded.name, decoded.units, decoded.attributes) == ("t2m", "K", labels["attributes"])
    assert decoded.axes == labels["axes"] and decoded.scalars == labels["scalars"]
    np.testing.assert_array_equal(decoded.latitudes, field.latitudes)
    plain = model.encode(smooth(99), point=1)
    # Range 8, lengths of grid and mask 2, labels 1 + 4, and 14 for head and checksum.
    assert len(plain) - model.payload_bytes(plain) == 29


def test_what_is_missing_stays_missing_and_what_surrounds_it_stays_good(model):
    field = smooth(7)
    field.values[2:5, 3:9] = np.nan
    decoded = model.decode(model.encode(field, point=1))
    np.testing.assert_array_equal(np.isnan(decoded.values), np.isnan(field.values))
    assert CLIMATE.metrics(field, decoded)["psnr_db"] > 25


def test_fields_of_different_types_share_a_container(model):
    storage = Storage("int16", np.float64(0.002), np.float64(280), np.int16(-32768))
    single = smooth(3)
    double = dataclasses.replace(single, values=single.values.astype(np.float64), latitudes=single.latitudes.astype(np.float64))
    packed = dataclasses.replace(double, values=restore(store(double.values, storage), storage), storage=storage)
    fields = model.decode_together(model.encode_together([single, double, packed], point=1))
    assert [field.values.dtype.name for field in fields] == ["float32", "float64", "float64"]
    assert [field.stored_as.dtype for field in fields] == ["float32", "float64", "int16"]
    steps = (fields[2].values - 280) / 0.002
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)


@pytest.mark.parametrize(
    "forged",
    [{"mask": b"\0"}, {"grid": b"\1"}, {"labels": b"\xff"}, {"scale": -1.0}, {"grid": bytes.fromhex("060800000000")}],
)
def test_hostile_metadata_are_refused(model, forged):
    point, codes, grids = model.read_codes(model.encode(smooth(1)))
    codes[0].metadata.update(forged)
    with pytest.raises(BitstreamError, match="the file's metadata are those of no climate"):
        model.decode(model.write_codes(point, codes, grids))


def test_a_finer_grid_has_places_of_its_own(model):
    field = smooth(5)
    finer = model.decode_at(model.encode(field, point=1), scale=2)
    assert finer.values.shape == (20, 36) == (len(finer.latitudes), len(finer.longitudes))
    # Places between the old ones hold values between the old ones.
    wanted = np.stack([np.interp(finer.latitudes, field.latitudes[::-1], row[::-1]) for row in field.values.T])
    wanted = np.stack([np.interp(finer.longitudes, field.longitudes, row, period=360) for row in wanted.T])
    assert np.sqrt(np.mean((finer.values - wanted)[3:-3] ** 2)) < 0.05 * np.ptp(field.values)


def test_the_command_line_reads_and_writes_netcdf_and_zarr(model, tmp_path, capsys):
    pytest.importorskip("netCDF4")
    pytest.importorskip("zarr")
    model.save(tmp_path / "model")
    CLIMATE.write(tmp_path / "in.nc", smooth(4))
    run = ["--model", str(tmp_path / "model")]
    assert main(["encode", str(tmp_path / "in.nc"), str(tmp_path / "a.vcinr"), *run, "--attributes", "cf"]) == 0
    for name in ("out.nc", "out.zarr", "out.npz"):
        assert main(["decode", str(tmp_path / "a.vcinr"), str(tmp_path / name), *run]) == 0
        assert CLIMATE.metrics(smooth(4), CLIMATE.read(tmp_path / name))["psnr_db"] > 25
    assert main(["encode", str(tmp_path / "out.zarr"), str(tmp_path / "b.vcinr"), *run]) == 0
    region = ClimateField(np.eye(4, 5), np.arange(4.0), np.arange(5.0))
    MODALITIES["climate_region"].write(tmp_path / "region.nc", region)
    capsys.readouterr()
    assert main(["encode", str(tmp_path / "region.nc"), str(tmp_path / "c.vcinr"), *run]) == 1
    assert "--modality climate_region" in capsys.readouterr().err

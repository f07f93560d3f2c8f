"""Climate fields: in and out of samples in any order, what is missing, what is refused, how far off a decoded field is."""

import dataclasses

import numpy as np
import pytest

from vcinr.modalities import MODALITIES
from vcinr.modalities.climate import Axis, ClimateField, Scalar, Storage, check_field, value_range
from vcinr.modalities.climate_field import restore, store, with_attributes
from vcinr.modalities.climate_grid import globe_axes

GLOBE, REGION = MODALITIES["climate"], MODALITIES["climate_region"]
TIME = Scalar(np.array(1072320, np.int32), {"units": "hours since 1900-01-01 00:00:00.0", "calendar": "gregorian"})


def globe(shape=(5, 8), missing=(), dtype=np.float32, **labels):
    """A field on the usual grid of the globe, each of whose values is its own."""
    latitudes, longitudes = globe_axes(shape)
    values = np.linspace(213.5, 301.25, shape[0] * shape[1]).astype(dtype).reshape(shape)
    for place in missing:
        values[place] = np.nan
    return ClimateField(values, latitudes, longitudes, "t2m", "K", **labels)


def there_and_back(row, field):
    samples, metadata = row.unpack(field)
    row.check(samples)
    row.check_metadata(metadata, samples.shape[:-1])
    return row.pack(samples, metadata)


def assert_same(field, other, share=2e-7):
    assert (field.values.dtype, field.name, field.units) == (other.values.dtype, other.name, other.units)
    assert field.stored_as == other.stored_as
    np.testing.assert_array_equal(np.isnan(field.values), np.isnan(other.values))
    np.testing.assert_allclose(field.values, other.values, rtol=1e-7, atol=share * np.nanmax(np.abs(field.values)))
    for own, their in ((field.latitudes, other.latitudes), (field.longitudes, other.longitudes)):
        assert own.dtype == their.dtype
        np.testing.assert_array_equal(own, their)
    for own, their in (
        (field.attributes, other.attributes),
        (field.about, other.about),
        *((axis.attributes, axes.attributes) for axis, axes in zip(field.axes, other.axes, strict=True)),
    ):
        assert own.keys() == their.keys()
        for name in own:
            np.testing.assert_array_equal(own[name], their[name])
    assert field.scalars == other.scalars
    assert [axis.name for axis in field.axes] == [axis.name for axis in other.axes]


def test_samples_fill_their_range_and_a_usual_grid_costs_nothing():
    samples, metadata = GLOBE.unpack(globe())
    assert samples.dtype == np.float32 and samples.shape == (5, 8, 1)
    assert samples.min() == 0 and samples.max() == 1
    assert (metadata["offset"], metadata["scale"]) == (213.5, 87.75)
    assert metadata["grid"] == metadata["mask"] == b"" and len(metadata["labels"]) < 8
    assert GLOBE.weights(samples, metadata) is None
    assert_same(globe(), GLOBE.pack(samples, metadata))


def test_a_globe_in_any_order_gives_the_same_samples_and_comes_back_in_its_own():
    plain = globe((46, 90))
    wanted, _ = GLOBE.unpack(plain)
    rows, columns = np.arange(46)[::-1], np.roll(np.arange(90), 45)
    west = np.where(plain.longitudes >= 180, plain.longitudes - 360, plain.longitudes)
    rng = np.random.default_rng(0)
    for chosen in ((rows, columns), (rows, columns[::-1]), (rng.permutation(46), rng.permutation(90))):
        values = plain.values[chosen[0][:, None], chosen[1]]
        turned = dataclasses.replace(
            plain, values=values, latitudes=plain.latitudes[chosen[0]], longitudes=west[chosen[1]].astype(np.float64)
        )
        samples, _ = GLOBE.unpack(turned)
        np.testing.assert_array_equal(samples, wanted)
        assert_same(turned, there_and_back(GLOBE, turned))


def test_a_repeated_meridian_is_left_out_and_put_back():
    plain = globe((46, 90))
    cyclic = dataclasses.replace(
        plain,
        values=np.concatenate([plain.values, plain.values[:, :1]], 1),
        longitudes=np.append(plain.longitudes, np.float32(360)),
    )
    samples, metadata = GLOBE.unpack(cyclic)
    np.testing.assert_array_equal(samples, GLOBE.unpack(plain)[0])
    GLOBE.check_metadata(metadata, (46, 90))
    assert_same(cyclic, GLOBE.pack(samples, metadata))
    # A region keeps it as it is.
    assert REGION.unpack(cyclic)[0].shape == (46, 91, 1)
    assert_same(cyclic, there_and_back(REGION, cyclic))
    other = dataclasses.replace(cyclic, values=cyclic.values + np.eye(1, 91, 90, dtype=np.float32))
    with pytest.raises(ValueError, match="drop one"):
        GLOBE.unpack(other)


def test_a_region_whose_longitudes_wrap_is_in_order():
    longitudes = np.array([350.0, 355, 0, 5])
    field = ClimateField(np.arange(8, dtype=np.float32).reshape(2, 4), np.array([10.0, 11]), longitudes)
    samples, _ = REGION.unpack(field)
    np.testing.assert_array_equal(samples[..., 0] * 7, field.values[::-1])
    turned = dataclasses.replace(field, values=field.values[:, [2, 0, 3, 1]], longitudes=longitudes[[2, 0, 3, 1]])
    np.testing.assert_array_equal(REGION.unpack(turned)[0], samples)
    for each in (field, turned):
        assert_same(each, there_and_back(REGION, each))


@pytest.mark.parametrize(
    ("latitudes", "longitudes", "gap"),
    [
        (np.linspace(46.9, 36.4, 5), np.linspace(6.57, 18.32, 8), "longitudes leave a gap of 348"),
        (np.linspace(90, -90, 5), np.linspace(0, 180, 8), "longitudes leave a gap of 180"),
        (np.linspace(60, -60, 61), np.arange(0, 360, 45), "latitudes leave a gap of 30"),
        (np.array([0.0]), np.arange(0, 360, 45), "1×8 samples are no grid"),
    ],
)
def test_a_part_of_the_globe_is_no_globe(latitudes, longitudes, gap):
    values = np.random.default_rng(0).normal(size=(len(latitudes), len(longitudes)))
    with pytest.raises(ValueError, match=rf"{gap}.*--modality climate_region"):
        GLOBE.unpack(ClimateField(values, latitudes, longitudes))
    assert REGION.unpack(ClimateField(values, latitudes, longitudes))[0].shape == (*values.shape, 1)


@pytest.mark.parametrize("shape", [(64, 128), (94, 192), (180, 360), (73, 144), (6, 7)])
def test_other_grids_of_the_globe_are_globes(shape):
    height, width = shape
    # Places of Gauss–Legendre, those of spectral models, are uneven and keep away from the poles.
    gaussian = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(height)[0]))
    field = ClimateField(np.random.default_rng(0).normal(size=shape), gaussian, np.arange(width) * 360 / width)
    assert_same(field, there_and_back(GLOBE, field))


def test_missing_values_weigh_nothing_and_come_back():
    field = globe(missing=[(0, 0), (2, slice(3, 6)), (slice(None), 7)])
    samples, metadata = GLOBE.unpack(field)
    weights = GLOBE.weights(samples, metadata)
    np.testing.assert_array_equal(weights, ~np.isnan(field.values))
    assert weights.dtype == np.float32 and np.isfinite(samples).all()
    assert samples.min() >= 0 and samples.max() <= 1
    assert_same(field, GLOBE.pack(samples, metadata))
    # The mask goes with the samples: north is up in both.
    south_up = dataclasses.replace(field, values=field.values[::-1], latitudes=field.latitudes[::-1])
    np.testing.assert_array_equal(GLOBE.weights(*GLOBE.unpack(south_up)), weights)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, -273.15, 101325.0])
def test_a_constant_field_works(dtype, value):
    field = dataclasses.replace(globe(dtype=dtype), values=np.full((5, 8), value, dtype))
    decoded = there_and_back(GLOBE, field)
    np.testing.assert_allclose(decoded.values, value, rtol=1e-7)
    assert decoded.values.dtype == dtype
    assert GLOBE.metrics(field, field)["psnr_db"] == np.inf


def test_decoded_packed_values_lie_on_the_steps_of_their_file():
    storage = Storage("int16", np.float64(0.002), np.float64(270), np.int16(-32767))
    raw = globe(dtype=np.float64, missing=[(1, 1)], attributes={"missing_value": np.array(-32767, np.int16)})
    field = dataclasses.replace(raw, values=restore(store(raw.values, storage), storage), storage=storage)
    assert_same(field, there_and_back(GLOBE, field), share=1e-15)
    samples, metadata = GLOBE.unpack(field)
    off = GLOBE.pack(np.clip(samples + np.float32(3e-5), 0, 1), metadata)
    steps = (off.values - 270) / 0.002
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
    assert 0 < np.nanmax(np.abs(off.values - field.values)) < 0.0061


def test_packing_stays_in_its_type_and_off_the_fill_value():
    storage = Storage("uint8", np.float32(1), None, np.uint8(255))
    values = np.array([[-3.0, 254.8, 400, np.nan, 7.4]], np.float32)
    np.testing.assert_array_equal(store(values, storage, clip=True), [[0, 254, 254, 255, 7]])
    with pytest.raises(ValueError, match="outside of what uint8 holds"):
        store(values, storage)
    with pytest.raises(ValueError, match="without a fill value"):
        store(values, Storage("uint8"), clip=True)


@pytest.mark.parametrize("lowest", [0.1, -0.1, 1e-12, 1e20, 273.15])
@pytest.mark.parametrize("span", [1.0, 1e-3, 0.7])
def test_the_range_holds_all_values_of_either_precision(lowest, span):
    values = np.linspace(lowest, lowest * (1 + span), 5)
    offset, scale = value_range(values)
    assert offset == np.float32(offset) and scale == np.float32(scale)
    assert offset <= values.min() and offset + scale >= values.max()
    assert scale <= np.ptp(values) * 1.1


@pytest.mark.parametrize(
    ("values", "mend"),
    [
        ([1.1, 1.1 + 1e-12], "subtract a constant"),
        ([1e300, 0.0], "change their unit"),
        ([-3e38, 3e38], "change their unit"),
        ([0.0, 1e-42], "change their unit"),
    ],
)
def test_a_range_that_float32_cannot_hold_is_refused(values, mend):
    with pytest.raises(ValueError, match=mend):
        value_range(np.array(values))


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        ({"values": np.zeros((2, 5, 8), np.float32)}, "one variable, time and level"),
        ({"values": np.zeros((0, 8), np.float32)}, "one variable, time and level"),
        ({"values": np.zeros((5, 8), np.int16)}, "storage=Storage"),
        ({"values": np.full((5, 8), np.nan, np.float32)}, "drop the field"),
        ({"values": np.full((5, 8), -np.inf, np.float32)}, "set it to NaN"),
        ({"latitudes": np.zeros(4)}, "latitudes are an array of 5 degrees"),
        ({"longitudes": np.zeros((5, 8))}, "longitudes are an array of 8 degrees"),
        ({"latitudes": np.linspace(100, 0, 5)}, "latitudes lie within ±90"),
        ({"longitudes": np.linspace(0, 1e7, 8)}, "longitudes lie within ±720"),
        ({"latitudes": np.array([90, 45, np.nan, -45, -90])}, "NaN"),
        ({"latitudes": np.array([90, 45, 45, -45, -90])}, "come twice"),
        ({"longitudes": np.array([0, 45, 90, 135, 180, 225, 270, 405.0])}, "come twice on the circle"),
        ({"storage": Storage("int16")}, None),
        ({"storage": Storage("float64")}, "values of this storage are float64"),
        ({"storage": Storage("complex64")}, "stored as one of"),
        ({"storage": Storage("int16", np.float32(0))}, "scale_factor is not 0"),
        ({"storage": Storage("int16", np.float32(1), None, np.int32(40000))}, "outside of int16"),
        ({"name": ""}, "rename it"),
        ({"name": "a/b"}, "rename it"),
        ({"name": "lat"}, "names of their own"),
        ({"scalars": {"t2m": TIME}}, "names of their own"),
        ({"scalars": {"time": Scalar(np.zeros(3), {})}}, "one value"),
        ({"attributes": {"units": "K"}}, "by units and storage"),
        ({"attributes": {"a": np.zeros((2, 2))}}, "text, NumPy numbers"),
        ({"attributes": {"a\0": "b"}}, "an attribute has a name"),
    ],
)
def test_what_is_no_field_is_refused_with_the_mend(change, mend):
    field = dataclasses.replace(globe(), **change)
    if mend is None:
        return check_field(field)
    with pytest.raises(ValueError, match=mend):
        GLOBE.unpack(field)


def test_what_is_missing_needs_a_number_in_packed_files():
    with pytest.raises(ValueError, match="give its storage a fill_value"):
        GLOBE.unpack(globe(missing=[(0, 0)], storage=Storage("int16")))


def test_an_array_is_no_field():
    with pytest.raises(ValueError, match=r"a ClimateField, not ndarray|ClimateField\(values"):
        GLOBE.unpack(np.zeros((5, 8)))


def test_metadata_that_no_field_has_are_refused():
    samples, good = GLOBE.unpack(globe(missing=[(0, 0)]))
    _, packed = GLOBE.unpack(globe(storage=Storage("int16")))
    GLOBE.check_metadata(good, (5, 8))
    GLOBE.check_metadata(GLOBE.example_metadata, (7, 9))
    REGION.check_metadata(REGION.example_metadata, (1, 1))
    region = REGION.unpack(ClimateField(np.eye(5, 8), np.linspace(40, 36, 5), np.linspace(0, 7, 8)))[1]
    for bad in (
        {"scale": -1.0},
        {"offset": 3.4e38, "scale": 1e39},
        {"mask": b"\0"},
        {"mask": good["mask"] + b"\0"},
        {"grid": b"\0"},
        {"grid": region["grid"]},
        {"labels": b"x"},
        {"labels": packed["labels"]},
    ):
        with pytest.raises(ValueError):
            GLOBE.check_metadata({**good, **bad}, (5, 8))
    for shape in ((5, 9), (40, 1), (1, 40)):
        with pytest.raises(ValueError):
            GLOBE.check_metadata(good, shape)
    assert samples.shape == (5, 8, 1)


def test_coordinates_are_on_the_unit_sphere_and_turn_once_round_it():
    points = GLOBE.coordinates((46, 90)).reshape(46, 90, 3)
    np.testing.assert_allclose((points**2).sum(-1), 1, atol=1e-6)
    assert (np.diff(points[:, 0, 2]) < 0).all()
    # Neighbours across the seam are as near as any.
    steps = np.linalg.norm(points - np.roll(points, -1, axis=1), axis=-1)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[:, :1], steps.shape), rtol=1e-4)
    np.testing.assert_array_equal(GLOBE.coordinates((46, 90), 100, 205), points.reshape(-1, 3)[100:205])
    assert REGION.coordinates((4, 6)).shape == (24, 2)
    assert np.abs(REGION.coordinates((4, 6))).max() < 1


def test_errors_are_in_the_fields_unit_and_by_area():
    field = globe((5, 8))
    polar = field.values.copy()
    polar[[0, -1]] += 2
    decoded = dataclasses.replace(field, values=polar)
    found = GLOBE.metrics(field, decoded)
    assert found["max_error"] == pytest.approx(2)
    assert found["rmse"] == pytest.approx(np.sqrt(4 * 2 / 5))
    share = 1 - np.sin(np.deg2rad(67.5))
    assert found["area_rmse"] == pytest.approx(np.sqrt(4 * share))
    assert found["psnr_db"] == pytest.approx(20 * np.log10(87.75 / found["rmse"]))
    assert found["area_psnr_db"] == pytest.approx(20 * np.log10(87.75 / found["area_rmse"]))


def test_missing_values_have_no_error_and_a_value_more_or_less_is_refused():
    field = globe(missing=[(slice(None), slice(0, 4))])
    assert GLOBE.metrics(field, dataclasses.replace(field, values=field.values + 1))["rmse"] == pytest.approx(1)
    with pytest.raises(ValueError, match="others missing"):
        GLOBE.metrics(field, globe())
    with pytest.raises(ValueError, match="compare those of one grid"):
        GLOBE.metrics(globe((5, 9)), globe())


def test_a_finer_grid_lies_between_the_old_rows_and_keeps_the_extent():
    field = globe((46, 90), missing=[(0, slice(0, 45))], attributes={"long_name": "x"})
    samples, metadata = GLOBE.unpack(field)
    finer = np.repeat(np.repeat(samples, 2, 0), 2, 1)
    decoded = GLOBE.pack(finer, GLOBE.resampled_metadata(metadata, (46, 90), (92, 180)))
    np.testing.assert_allclose(decoded.longitudes, np.arange(180) * 2 - 1)
    assert (np.diff(decoded.latitudes) < 0).all() and abs(decoded.latitudes).max() <= 90
    np.testing.assert_allclose(decoded.latitudes[3:-3], np.arange(85, -86, -2))
    assert np.isnan(decoded.values[:2, :90]).all() and np.isfinite(decoded.values[:, 90:]).all()
    assert decoded.attributes == {"long_name": "x"}
    region = ClimateField(np.eye(2, 3), np.array([10.0, 12]), np.array([359.0, 0, 1]))
    metadata = REGION.resampled_metadata(REGION.unpack(region)[1], (2, 3), (4, 1))
    coarse = REGION.pack(np.zeros((4, 1, 1), np.float32), metadata)
    np.testing.assert_allclose(coarse.latitudes, [12.5, 11.5, 10.5, 9.5])
    np.testing.assert_allclose(coarse.longitudes, [360])


def test_attributes_are_kept_as_asked():
    labels = {"attributes": {"long_name": "2 metre temperature", "GRIB_paramId": np.array(167)}, "scalars": {"time": TIME}}
    labels |= {"about": {"history": "made"}, "axes": (Axis("y", {"units": "degrees_north", "note": "n"}), Axis("x", {}))}
    field = globe(**labels)
    assert with_attributes(field, None) is field is with_attributes(field, "all")
    usual, bare = with_attributes(field, "cf"), with_attributes(field, "none")
    assert usual.attributes == {"long_name": "2 metre temperature"} and usual.scalars.keys() == {"time"}
    assert usual.axes[0] == ("y", {"units": "degrees_north"})
    assert bare.attributes == bare.scalars == bare.about == usual.about == {}
    sizes = [len(GLOBE.unpack(each)[1]["labels"]) for each in (field, usual, bare)]
    assert sizes == sorted(sizes, reverse=True) and sizes[2] < 8
    with pytest.raises(ValueError, match="'all', 'cf' or 'none'"):
        with_attributes(field, "some")

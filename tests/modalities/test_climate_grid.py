"""Latitudes and longitudes: orders, areas, and what is made up where values are missing."""

import numpy as np
import pytest

from vcinr.modalities import climate_grid as grid


def test_the_usual_grids_are_those_of_the_usual_data():
    latitudes, longitudes = grid.globe_axes((721, 1440))
    np.testing.assert_array_equal(latitudes, np.linspace(90, -90, 721, dtype=np.float32))
    np.testing.assert_array_equal(longitudes, np.arange(1440, dtype=np.float32) / 4)
    np.testing.assert_array_equal(grid.globe_axes((180, 360))[0][[0, -1]], [89.5, -89.5])


@pytest.mark.parametrize("shape", [(721, 1440), (180, 360), (46, 90), (1, 4), (2, 2)])
def test_areas_are_those_of_the_sphere(shape):
    latitudes, _ = grid.globe_axes(shape)
    areas = grid.cell_areas(latitudes)
    assert areas.sum() == pytest.approx(1)
    assert (areas > 0).all()
    # The mean of sin² of the latitude over the sphere is a third.
    if shape[0] > 40:
        assert (areas * np.sin(np.deg2rad(latitudes)) ** 2).sum() == pytest.approx(1 / 3, abs=1e-3)
    np.testing.assert_allclose(grid.cell_areas(latitudes[::-1]), areas[::-1])


def test_areas_of_an_even_grid_are_cosines_but_at_the_poles():
    latitudes = np.linspace(80, -80, 9)
    areas = grid.cell_areas(latitudes)
    np.testing.assert_allclose(areas / areas[4], np.cos(np.deg2rad(latitudes)), rtol=1e-12)
    poles = grid.cell_areas(np.linspace(90, -90, 10))
    assert 0 < poles[0] < poles[1] / 7


def test_points_are_where_they_should_be():
    def at(latitude, longitude):
        return grid.sphere_points(np.array([[-latitude / 90, longitude / 180 - 1]], np.float32))[0]

    np.testing.assert_allclose(at(90, 77), [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(at(0, 0), [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(at(0, 90), [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(at(-45, 180), [-np.sqrt(0.5), 0, -np.sqrt(0.5)], atol=1e-6)


def test_regions_begin_where_they_do():
    north = np.array([2.0, 1])
    for longitudes, columns in (
        ([-10.0, 0, 10], [0, 1, 2]),
        ([10.0, 0, -10], [2, 1, 0]),
        ([350.0, 355, 0, 5], [0, 1, 2, 3]),
        ([5.0, 0, 355, 350], [3, 2, 1, 0]),
        ([-180.0, -90, 0, 90, 180], [0, 1, 2, 3, 4]),
        ([7.0], [0]),
    ):
        np.testing.assert_array_equal(grid.canonical_order(north, np.array(longitudes), False)[1], columns)
    np.testing.assert_array_equal(grid.canonical_order(-north, np.array([7.0]), False)[0], [1, 0])
    with pytest.raises(ValueError, match="come twice on the circle"):
        grid.canonical_order(north, np.array([0.0, 350, 10, 360]), False)


def test_globes_begin_at_the_smallest_longitude_from_0_on():
    latitudes = np.array([-60.0, 0, 60])
    for longitudes, columns in (
        ([-180.0, -90, 0, 90], [2, 3, 0, 1]),
        ([-135.0, -45, 45, 135], [2, 3, 0, 1]),
        ([270.0, 180, 90, 0], [3, 2, 1, 0]),
        ([0.0, 90, 180, 270, 360], [0, 1, 2, 3]),
        ([-180.0, -90, 0, 90, 180], [2, 3, 0, 1]),
        # Rounding does not take the first meridian round the globe.
        ([-1e-6, 90, 180, 270], [0, 1, 2, 3]),
    ):
        rows, found = grid.canonical_order(latitudes, np.array(longitudes), True)
        np.testing.assert_array_equal(found, columns)
        np.testing.assert_array_equal(rows, [2, 1, 0])


def test_finer_axes_keep_extent_and_order():
    axis = np.array([10.0, 12, 14])
    np.testing.assert_allclose(grid.finer_axis(axis, 3), axis)
    np.testing.assert_allclose(grid.finer_axis(axis, 6), [9.5, 10.5, 11.5, 12.5, 13.5, 14.5])
    np.testing.assert_allclose(grid.finer_axis(axis, 1), [12])
    np.testing.assert_allclose(grid.finer_axis(np.array([5.0]), 2), [4.75, 5.25])
    for new in (2, 91, 92, 450):
        found = grid.finer_axis(np.linspace(90, -90, 46), new, 90)
        assert (np.diff(found) < 0).all() and found[0] < 90 and found[-1] > -90
        np.testing.assert_allclose(found, -found[::-1], atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1), (5, 8), (33, 64)])
def test_what_is_made_up_lies_between_what_is_there(shape):
    rng = np.random.default_rng(0)
    values, missing = rng.uniform(3, 5, shape), rng.random(shape) < 0.7
    missing[0, 0] = False
    filled = grid.smooth_fill(values, missing)
    np.testing.assert_array_equal(filled[~missing], values[~missing])
    known = values[~missing]
    assert known.min() - 1e-9 <= filled.min() and filled.max() <= known.max() + 1e-9


def test_a_hole_in_a_plane_is_filled_about_flat():
    y, x = np.mgrid[:32, :32]
    plane = 0.5 * y - 0.25 * x
    missing = (np.hypot(y - 16, x - 12) < 5) & (y > 0)
    filled = grid.smooth_fill(plane.astype(np.float64), missing)
    assert np.abs(filled - plane)[missing].max() < 2
    assert np.abs(np.diff(filled, axis=0)).max() < 3

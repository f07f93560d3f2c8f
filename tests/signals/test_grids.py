"""Coordinates of regular grids."""

import numpy as np
import pytest

from vcinr.signals.grids import pixel_grid


def test_half_pixel_centres_in_row_major_order():
    expected = [[-0.5, -0.75], [-0.5, -0.25], [-0.5, 0.25], [-0.5, 0.75], [0.5, -0.75], [0.5, -0.25], [0.5, 0.25], [0.5, 0.75]]
    np.testing.assert_array_equal(pixel_grid((2, 4)), np.array(expected, np.float32))


@pytest.mark.parametrize("shape", [(1,), (7,), (32, 32), (5, 3, 2), (1, 1)])
def test_symmetric_inside_the_cube_and_evenly_spaced(shape):
    grid = pixel_grid(shape)
    assert grid.shape == (np.prod(shape), len(shape))
    assert grid.dtype == np.float32
    assert np.abs(grid).max() < 1
    np.testing.assert_allclose(grid, -grid[::-1], atol=1e-7)
    cube = grid.reshape(*shape, len(shape))
    for axis, n in enumerate(shape):
        np.testing.assert_allclose(np.diff(cube[..., axis], axis=axis), 2 / n, atol=1e-6)


def test_a_coarse_pixel_is_the_mean_of_the_fine_pixels_in_it():
    """What makes decoding at another resolution line up: pixels are cells, not points on a lattice that ends at ±1."""
    fine = pixel_grid((8, 12)).reshape(4, 2, 6, 2, 2).mean(axis=(1, 3)).reshape(-1, 2)
    np.testing.assert_allclose(fine, pixel_grid((4, 6)), atol=1e-6)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (-1, 2)])
def test_a_shape_without_samples_is_refused(shape):
    with pytest.raises(ValueError, match="at least one"):
        pixel_grid(shape)

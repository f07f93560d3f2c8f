"""New grids over the extent of a signal: each new sample belongs to one patch, at its place there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcinr.signals.grids import pixel_grid
from vcinr.signals.resampling import Resampling, along_axis
from vcinr.signals.signal import Grid

axis = st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 40))


@given(axes=st.lists(axis, min_size=1, max_size=3))
def test_patches_and_positions_together_are_the_new_centres(axes):
    shape, patch, new = zip(*axes, strict=True)
    grid = Grid(shape, patch)
    finer = Resampling(grid, new)

    def centres():
        for block in np.array_split(np.arange(grid.num_patches), 2):
            corner = np.stack(np.unravel_index(block, grid.counts), axis=-1) * np.array(patch)
            inside = (finer.positions(block) + 1) / 2 * np.array(patch)
            yield 2 * (corner[:, None] + inside) / np.array(shape) - 1

    np.testing.assert_allclose(finer.assemble(centres()), pixel_grid(new).reshape(*new, -1), atol=1e-5)


@given(axis)
def test_each_new_sample_belongs_to_the_patch_that_holds_its_centre(axis):
    samples, patch, new = axis
    found = along_axis(samples, patch, new)
    assert found.counts.sum() == new
    for k, (start, count) in enumerate(zip(found.starts, found.counts, strict=True)):
        centres = (np.arange(start, start + count) + 0.5) * samples / new
        assert ((centres >= k * patch) & (centres < (k + 1) * patch)).all()
    assert (np.abs(found.positions) < 1 + 1e-6).all()


def test_the_own_grid_is_that_of_every_patch():
    positions = Resampling(Grid((8, 12), (4, 4)), (8, 12)).positions([0, 5])
    np.testing.assert_allclose(positions, np.tile(pixel_grid((4, 4)), (2, 1, 1)), atol=1e-6)


@pytest.mark.parametrize("shape", [(8,), (8, 0)])
def test_grids_that_mean_nothing_are_refused(shape):
    with pytest.raises(ValueError, match="grid of"):
        Resampling(Grid((8, 12), (4, 4)), shape)

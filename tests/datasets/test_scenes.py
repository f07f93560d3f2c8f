"""The set of scenes: what its renderer sees, and what is prepared and read back offline."""

import numpy as np
import pytest

from vcinr.datasets import scenes
from vcinr.datasets.catalogue import load_split, prepare
from vcinr.datasets.scenes import NUM_HELD_OUT, NUM_VIEWS, RADIUS, SIZE, paint, render_voxels
from vcinr.modalities import MODALITIES
from vcinr.modalities.radiance_field import Scene

RIG = MODALITIES["radiance_field"].rig


def column(height):
    """A column of voxels that stands on the floor of a grid."""
    voxels = np.zeros((12, 12, 12), bool)
    voxels[2 : 2 + height, 4:6, 7:9] = True
    return voxels


def test_a_voxel_is_seen_in_its_colour_and_the_rest_is_white():
    voxels = column(2)
    colours = np.zeros((*voxels.shape, 3), np.float32)
    colours[voxels] = (0.2, 0.4, 0.6)
    views = render_voxels(voxels, colours, RIG.poses(3), RIG.tangent, 32)
    assert views.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(views[:, 15:17, 15:17], np.broadcast_to([51, 102, 153], (3, 2, 2, 3)))
    np.testing.assert_array_equal(views[:, [0, -1]], 255)


def test_silhouettes_are_those_of_the_ball_around_the_box():
    """A cube whose corners are `RADIUS` from the centre, seen along an axis, ends where its face nearest to the camera does."""
    voxels = np.ones((8, 8, 8), bool)
    pose = np.array([[0.0, 0, 1, 2.6], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])[None]
    (view,) = render_voxels(voxels, np.zeros((8, 8, 8, 3), np.float32), pose, RIG.tangent, 200)
    half = RADIUS / np.sqrt(3)
    wanted = half / (RIG.radius - half) / RIG.tangent
    for axis in (0, 1):
        covered = (view[..., 0] < 128).any(axis=axis).mean()
        assert covered == pytest.approx(wanted, abs=0.02)


def test_light_comes_from_above_and_colours_follow_from_the_name():
    voxels = column(6)
    found, colours = paint(voxels, "chair")
    np.testing.assert_array_equal(found, voxels)
    bright = colours.mean(axis=-1)
    assert bright[7, 4, 7] > 1.3 * bright[6, 5, 8] or bright[7, 4, 7] > 1.3 * bright[3, 5, 7]
    assert 0 <= colours.min() and colours.max() <= 1
    np.testing.assert_array_equal(paint(voxels, "chair")[1], colours)
    assert np.abs(paint(voxels, "table")[1] - colours)[voxels].max() > 0.05


def test_scenes_are_prepared_and_read_back_and_test_scenes_have_views_from_other_cameras(vcinr_data, datasets_dir, monkeypatch):
    path = vcinr_data / "voxels_modelnet10_30.npz"
    if not path.exists():
        pytest.skip(f"no voxels in $VCINR_DATA: {path} is not there")
    monkeypatch.setattr(scenes, "COUNTS", {"train": 4, "validation": 2, "test": 2})
    assert prepare("scenes").counts == {"train": 4, "validation": 2, "test": 2}
    seen = []
    for split in ("train", "validation"):
        for views in load_split("scenes", split):
            assert views.dtype == np.uint8 and views.shape == (NUM_VIEWS, SIZE, SIZE, 3)
            assert (views[:, 0] == 255).all() and (views < 200).any(axis=(1, 2, 3)).all()
            seen.append(views.tobytes())
    assert len(set(seen)) == 6
    builder = scenes.Scenes(source=path, data_dir=str(datasets_dir))
    for scene, (_, source) in zip(load_split("scenes", "test"), builder.signals()["test"], strict=True):
        assert isinstance(scene, Scene) and scene.held_out.images.shape == (NUM_HELD_OUT, SIZE, SIZE, 3)
        assert RIG.missed_by(scene.held_out.poses, scene.held_out.tangents)
        np.testing.assert_array_equal(builder.read(source).views, scene.views)

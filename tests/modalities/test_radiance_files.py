"""Views with their cameras from folders and .npz files, and back."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.conftest import smooth_picture
from vcinr.modalities import MODALITIES
from vcinr.modalities.files.radiance import SRN_UNIT, read_cameras, read_views, write_poses
from vcinr.modalities.radiance_field import Rig, Scene, Views

ROW = MODALITIES["radiance_field"]
VIEWS = np.stack([smooth_picture(10, 12, seed) for seed in range(3)])
OTHERS = Views(VIEWS[:2], Rig(turns=1.3).poses(2), (0.5, 0.4))


@pytest.mark.parametrize("name", ["a.views", "a.npz"])
def test_views_of_the_rig_go_out_and_come_back(tmp_path, name):
    ROW.write(tmp_path / name, VIEWS)
    np.testing.assert_array_equal(ROW.read(tmp_path / name), VIEWS)


@pytest.mark.parametrize("name", ["a.views", "a.npz"])
def test_views_of_other_cameras_are_written_and_read_as_what_they_are(tmp_path, name):
    ROW.write(tmp_path / name, OTHERS)
    found = read_views(tmp_path / name, 2**20, ROW.rig)
    np.testing.assert_array_equal(found.images, OTHERS.images)
    np.testing.assert_allclose(found.poses, OTHERS.poses, atol=1e-12)
    np.testing.assert_allclose(found.tangents, OTHERS.tangents, rtol=1e-12)
    with pytest.raises(ValueError, match=r"a\.(views|npz): .*seen from the same cameras"):
        ROW.read(tmp_path / name)


def test_cameras_are_read_without_pictures(tmp_path):
    write_poses(tmp_path / "poses.json", OTHERS.poses, OTHERS.tangents, (7, 9))
    for source in (tmp_path / "poses.json", tmp_path):
        poses, tangents, size = read_cameras(source, 2**20)
        np.testing.assert_allclose(poses, OTHERS.poses)
        assert tangents == pytest.approx(OTHERS.tangents) and size == (7, 9)
    with pytest.raises(ValueError, match="more pixels than the limit"):
        read_cameras(tmp_path, 125)


def test_scenes_of_nerf_are_read_with_square_pixels_and_names_without_suffix(tmp_path):
    folder = tmp_path / "lego"
    (folder / "train").mkdir(parents=True)
    angle = 2 * np.arctan(ROW.rig.tangent)
    frames = [{"file_path": f"./train/r_{i}", "transform_matrix": pose.tolist()} for i, pose in enumerate(ROW.rig.poses(2))]
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    see_through = np.zeros((6, 6, 4), np.uint8)
    for i in range(2):
        Image.fromarray(see_through).save(folder / "train" / f"r_{i}.png")
    np.testing.assert_array_equal(ROW.read(folder), np.full((2, 6, 6, 3), 255))


def srn(folder, poses, focal=131.25, size=128, flag=""):
    """A scene in SRN's layout; its cameras look along z, with y downwards."""
    for name in ("rgb", "pose"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, pose in enumerate(poses):
        own = pose.copy()
        own[:3, 3] /= SRN_UNIT
        own = own @ np.diag([1.0, -1.0, -1.0, 1.0])
        own = np.linalg.inv(own) if flag == "1" else own
        (folder / "pose" / f"{i:06}.txt").write_text(" ".join(f"{number:.6f}" for number in own.ravel()))
        Image.fromarray(np.full((size, size, 3), i, np.uint8)).save(folder / "rgb" / f"{i:06}.png")
    text = f"{focal:f} {size / 2:f} {size / 2:f} 0.\n0. 0. 0.\n1.\n{size} {size}\n{flag}"
    (folder / "intrinsics.txt").write_text(text)
    return folder


@pytest.mark.parametrize("flag", ["", "1"])
def test_srns_layout_is_read_where_its_cameras_are_the_rigs(tmp_path, flag):
    found = ROW.read(srn(tmp_path / "car", ROW.rig.poses(4), flag=flag))
    assert found.shape == (4, 128, 128, 3)
    np.testing.assert_array_equal(found[:, 0, 0, 0], range(4))


def test_a_scene_with_poses_of_its_own_is_refused_and_told_why(tmp_path):
    folder = srn(tmp_path / "car", Rig(highest=0.5, turns=2.0).poses(4))
    with pytest.raises(ValueError, match=r"car: the pose of view 0 is not the rig's: a file holds no poses, so all scenes"):
        ROW.read(folder)
    with pytest.raises(ValueError, match="tangents of half its angles of view are 0.64"):
        ROW.read(srn(tmp_path / "wide", ROW.rig.poses(2), focal=100.0))


def rewritten(folder, change):
    ROW.write(folder, VIEWS)
    data = json.loads((folder / "poses.json").read_text())
    change(data)
    (folder / "poses.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(frames=[]), 'no "frames"'),
        (lambda d: d.update(frames=[1]), "is an object"),
        (lambda d: d["frames"][1].update(transform_matrix=[[1, 2], [3]]), "4×4 numbers"),
        (lambda d: d["frames"][1].update(transform_matrix="x"), "4×4 numbers"),
        (lambda d: d["frames"][1]["transform_matrix"][0].__setitem__(0, float("nan")), "no rotation and position"),
        (lambda d: d["frames"][1]["transform_matrix"][0].__setitem__(0, 10**400), "4×4 numbers"),
        (lambda d: d["frames"][1].update(transform_matrix=np.zeros((4, 4)).tolist()), "no rotation and position"),
        (lambda d: d["frames"][1].update(transform_matrix=np.diag([1, 1, -1, 1]).tolist()), "no rotation and position"),
        (lambda d: d["frames"][1].update(file_path="../000001.png"), "not in the folder"),
        (lambda d: d["frames"][1].update(file_path="/etc/passwd"), "not in the folder"),
        (lambda d: d["frames"][1].pop("file_path"), "or none has"),
        (lambda d: d.update(camera_angle_x=0), "angle of view"),
        (lambda d: d.update(camera_angle_x=None), "angle of view"),
        (lambda d: d.update(camera_angle_y=4), "angle of view"),
        (lambda d: d.update(w=13), "its pictures are 12×10"),
        (lambda d: d.update(w=-1), "are pixels"),
        (lambda d: d.update(h=1e3), "are pixels"),
    ],
)
def test_hostile_cameras_are_refused(tmp_path, change, message):
    rewritten(tmp_path / "a.views", change)
    with pytest.raises(ValueError, match=message) as refused:
        ROW.read(tmp_path / "a.views")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 10**5])
def test_what_is_no_list_of_cameras_is_refused(tmp_path, text):
    (tmp_path / "poses.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"poses.json: "):
        read_cameras(tmp_path / "poses.json", 2**20)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "intrinsics.txt").write_text("1 2"), "has four lines"),
        (lambda f: (f / "intrinsics.txt").write_text("x"), "which is no number"),
        (lambda f: (f / "intrinsics.txt").write_text("nan 64 64\n0\n0\n128 128"), "not finite"),
        (lambda f: (f / "intrinsics.txt").write_text("131 60 64\n0\n0\n128 128"), "not in the middle"),
        (lambda f: (f / "pose" / "000001.txt").write_text("1 2 3"), "16 numbers"),
        (lambda f: (f / "pose" / "000001.txt").unlink(), "each rgb/NAME.png has a pose"),
    ],
)
def test_damaged_scenes_of_srn_are_refused(tmp_path, break_it, message):
    folder = srn(tmp_path / "car", ROW.rig.poses(2), size=8, focal=131.25 / 16)
    break_it(folder)
    with pytest.raises(ValueError, match=message):
        ROW.read(folder)


def test_folders_without_cameras_and_views_of_different_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has a poses\.json"):
        ROW.read(tmp_path)
    ROW.write(tmp_path / "a.views", VIEWS)
    Image.fromarray(VIEWS[0, :5]).save(tmp_path / "a.views" / "000001.png")
    with pytest.raises(ValueError, match="make views equal"):
        ROW.read(tmp_path / "a.views")
    with pytest.raises(ValueError, match="exists: remove it first"):
        ROW.write(tmp_path / "a.views", VIEWS)
    with pytest.raises(ValueError, match=r"written as \.views"):
        ROW.write(tmp_path / "a.png", VIEWS)


def test_more_pixels_than_allowed_are_refused_before_all_are_read(tmp_path):
    for name in ("a.views", "a.npz"):
        ROW.write(tmp_path / name, VIEWS)
        with pytest.raises(ValueError, match="than the limit of"):
            ROW.read(tmp_path / name, max_samples=100)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"views": VIEWS[0]},
        {"views": VIEWS.astype(np.float32)},
        {"views": VIEWS, "poses": ROW.rig.poses(3)},
        {"views": VIEWS, "poses": ROW.rig.poses(2), "tangents": np.ones(2)},
        {"views": VIEWS, "poses": ROW.rig.poses(3), "tangents": np.array([0.1, np.nan])},
        {"views": VIEWS, "poses": np.full((3, 4, 4), np.inf), "tangents": np.ones(2)},
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=r"a\.npz: "):
        ROW.read(tmp_path / "a.npz")


def test_views_alone_in_an_npz_file_are_the_rigs(tmp_path):
    np.savez(tmp_path / "a.npz", views=VIEWS)
    np.testing.assert_array_equal(ROW.read(tmp_path / "a.npz"), VIEWS)
    with open(tmp_path / "a.npz", "rb") as file:
        np.testing.assert_array_equal(ROW.read(io.BytesIO(file.read())), VIEWS)


def test_prepared_sets_keep_scenes_with_their_held_out_views():
    np.testing.assert_array_equal(ROW.from_bytes(ROW.to_bytes(VIEWS)), VIEWS)
    scene = ROW.from_bytes(ROW.to_bytes(Scene(VIEWS, OTHERS)))
    np.testing.assert_array_equal(scene.views, VIEWS)
    np.testing.assert_array_equal(scene.held_out.images, OTHERS.images)
    np.testing.assert_array_equal(scene.held_out.poses, OTHERS.poses)
    assert scene.held_out.tangents == OTHERS.tangents
    data = ROW.to_bytes(VIEWS)
    for wrong in (b"", data[:9], b"\x04" + data[1:], b"\0" + data[1:], data + b"x"):
        with pytest.raises(ValueError, match="."):
            ROW.from_bytes(wrong)

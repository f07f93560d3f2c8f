"""Voxels, distance fields and scanner volumes: what is prepared is what the files hold, and no shape is on two sides."""

import numpy as np
import pytest

from vcinr.datasets.catalogue import load_split, prepare
from vcinr.datasets.distance_fields import silhouettes
from vcinr.datasets.scanner_volumes import GAP, lower_part, upper_part
from vcinr.datasets.voxels import modelnet10, outline
from vcinr.modalities import MODALITIES
from vcinr.modalities.distance_field import signed_distance
from vcinr.modalities.scanner_volume import Header, Volume

COUNTS = {"train": 3448, "validation": 347, "test": 629}


def shape(seed):
    """A box with a rim of three empty voxels."""
    rng = np.random.default_rng(seed)
    grid = np.zeros((30, 30, 30, 1), np.uint8)
    grid[3 : rng.integers(8, 27), 3 : rng.integers(8, 27), 3 : rng.integers(8, 27)] = 1
    return grid


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A file as ModelNet10's, of 60 boxes, the first twenty twice, and 5 in its test part; x first."""
    boxes = [shape(seed) for seed in [*range(40), *range(20), *range(100, 105)]]
    bits = np.packbits(np.stack(boxes)[..., 0].transpose(0, 3, 2, 1).reshape(65, -1), axis=1)
    labels = np.arange(65, dtype=np.uint8) % 10
    np.savez(
        tmp_path / "voxels_modelnet10_30.npz", train_bits=bits[:60], y_train=labels[:60], test_bits=bits[60:], y_test=labels[60:]
    )
    monkeypatch.setenv("VCINR_DATA", str(tmp_path))
    return boxes


def test_sets_made_of_voxels_hold_the_same_shapes_in_the_same_splits(small, datasets_dir):
    found = modelnet10(datasets_dir.parent / "voxels_modelnet10_30.npz")
    counts = {split: len(shapes) for split, shapes in found.items()}
    assert counts["test"] == 5
    assert sum(counts.values()) == 65
    assert counts["validation"] >= 1
    assert prepare("modelnet10_30").counts == counts
    assert prepare("modelnet10_sdf").counts == counts
    assert prepare("silhouettes_sdf").counts == {split: 3 * count for split, count in counts.items()}
    for split, shapes in found.items():
        grids = load_split("modelnet10_30", split)
        fields, shadows = load_split("modelnet10_sdf", split), load_split("silhouettes_sdf", split)
        for index, (name, grid) in enumerate(shapes):
            np.testing.assert_array_equal(grid, small[int(name.split("_")[1]) + (60 if split == "test" else 0)])
            np.testing.assert_array_equal(grids[index], grid)
            np.testing.assert_array_equal(fields[index].values, signed_distance(grid))
            for view in range(3):
                np.testing.assert_array_equal(shadows[3 * index + view].values[..., 0] < 0, grid.any(axis=view)[..., 0])


def test_equal_shapes_are_on_one_side(small, datasets_dir):
    found = modelnet10(datasets_dir.parent / "voxels_modelnet10_30.npz")
    sides = [{grid.tobytes() for _, grid in found[split]} for split in ("train", "validation")]
    assert not sides[0] & sides[1]


def test_an_outline_forgives_a_few_voxels_and_tells_shapes_apart():
    grid = shape(1)
    dented = grid.copy()
    dented[3, 3, 3] = 0
    assert outline(dented) == outline(grid)
    assert len({outline(shape(seed)) for seed in range(20)}) > 10
    # Pinned: no shape may change sides.
    filled = np.zeros((30, 30, 30, 1), np.uint8)
    filled[3:7, 3:7, 3:7] = 1
    assert outline(filled) == "80" + "00" * 26


def test_shadows_fall_along_z_y_and_x():
    grid = np.zeros((2, 3, 4, 1), np.uint8)
    grid[1, 2, 0] = 1
    found = dict(silhouettes(grid))
    assert {name: shadow.shape for name, shadow in found.items()} == {"above": (3, 4), "front": (2, 4), "side": (2, 3)}
    assert [np.argwhere(shadow).tolist() for shadow in found.values()] == [[[2, 0]], [[1, 0]], [[1, 2]]]


def test_slabs_keep_their_place_in_space_and_the_range_of_the_whole():
    voxels = np.arange(32 * 3 * 4, dtype=np.int16).reshape(32, 3, 4, 1)
    affine = np.array([[2, 0, 0.5, -9], [0, 3, 0, -8], [0.25, 0, 4, -7]], np.float32)
    volume = Volume(voxels, Header(affine=tuple(affine.ravel().tolist()), sform_code=1))
    low, high = lower_part(volume), upper_part(volume)
    assert low.voxels.shape[0] == 4
    assert high.voxels.shape[0] == 32 - 4 - GAP
    np.testing.assert_array_equal(np.concatenate([low.voxels, voxels[4 : 4 + GAP], high.voxels]), voxels)
    np.testing.assert_allclose(np.reshape(high.header.affine, (3, 4)) @ [1, 2, 0, 1], affine @ [1, 2, 4 + GAP, 1])
    assert low.span == high.span == (0.0, float(voxels.max()))
    samples = [MODALITIES["scanner_volume"].unpack(each)[0] for each in (volume, high)]
    np.testing.assert_array_equal(samples[0][4 + GAP :], samples[1])


def test_real_voxels(vcinr_data, datasets_dir):
    assert prepare("modelnet10_30").counts == COUNTS
    with np.load(vcinr_data / "voxels_modelnet10_30.npz") as arrays:
        raw = np.unpackbits(arrays["test_bits"], axis=1)[:, :27000].reshape(-1, 30, 30, 30)
    grids = load_split("modelnet10_30", "test")
    for index in (0, 1, 300, -1):
        np.testing.assert_array_equal(grids[index][..., 0], raw[index].transpose(2, 1, 0))


@pytest.mark.slow
def test_real_distances(vcinr_data, datasets_dir):
    assert prepare("modelnet10_sdf").counts == COUNTS
    assert prepare("silhouettes_sdf").counts == {split: 3 * count for split, count in COUNTS.items()}


@pytest.mark.slow
def test_real_scanners(vcinr_data, datasets_dir):
    assert prepare("scanners").counts == {"train": 3, "validation": 2, "test": 2}
    row = MODALITIES["scanner_volume"]
    train, test = load_split("scanners", "train"), load_split("scanners", "test")
    assert [volume.voxels.shape for volume in test] == [(144, 188, 176, 1), (58, 248, 175, 1)]
    for volume, name in zip(test, ("MR_Gd", "CT_pitch"), strict=True):
        whole = row.read(vcinr_data / "mri" / f"{name}.nii.gz")
        np.testing.assert_array_equal(volume.voxels, whole.voxels)
        assert volume.header == whole.header
    assert [volume.voxels.dtype.name for volume in train] == ["uint8", "uint8", "int16"]
    assert [volume.voxels.shape[0] for volume in train] == [190 - 23 - GAP, 215, 256 - 32 - GAP]
    assert [volume.voxels.shape[0] for volume in load_split("scanners", "validation")] == [23, 32]

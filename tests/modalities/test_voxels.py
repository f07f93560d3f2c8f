"""Voxels: their quality, files of bits and of runs, meshes filled and drawn around them."""

import io
import itertools
import zipfile

import numpy as np
import pytest

from vcinr.modalities.files.npz import read_npz
from vcinr.modalities.files.voxel_meshes import fill_mesh, inside_mesh, mesh_text, parse_off, surface
from vcinr.modalities.files.voxels import binvox_bytes, parse_binvox, read_voxels, write_voxels
from vcinr.modalities.voxels import Voxels

ROW = Voxels()
CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
CUBE_FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def blob(shape=(5, 7, 9), seed=0, share=0.4):
    return (np.random.default_rng(seed).random((*shape, 1)) < share).astype(np.uint8)


def triangles(polygons):
    return np.array([(p[0], a, b) for p in polygons for a, b in itertools.pairwise(p[1:])])


def volume(vertices, faces):
    """By the divergence theorem: positive where triangles are seen anticlockwise from outside."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def off(text, **options):
    return read_voxels(io.BytesIO(text.encode()), **options)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return io.BytesIO(file.getvalue())


def test_quality_of_two_overlapping_boxes():
    one, other = np.zeros((4, 4, 4, 1), np.uint8), np.zeros((4, 4, 4, 1), np.uint8)
    one[:2], other[1:3] = 1, 1
    found = ROW.metrics(one, other)
    assert found["accuracy"] == 0.5
    assert found["iou"] == pytest.approx(1 / 3)
    assert found["psnr_db"] == pytest.approx(10 * np.log10(2))
    assert ROW.metrics(one, one) == {"psnr_db": np.inf, "accuracy": 1.0, "iou": 1.0}
    empty = np.zeros_like(one)
    assert ROW.metrics(empty, empty)["iou"] == 1
    assert ROW.metrics(one, empty)["iou"] == 0


def test_fields_are_occupied_above_one_half():
    values = np.array([-1, 0, 0.499, 0.501, 1, 7], np.float32).reshape(1, 1, 6, 1)
    np.testing.assert_array_equal(ROW.denormalise(values).ravel(), [0, 0, 0, 1, 1, 1])
    grid = blob()
    np.testing.assert_array_equal(ROW.denormalise(ROW.normalise(grid)), grid)


@pytest.mark.parametrize(
    ("array", "mend"),
    [
        ([[[[0]]]], "np.asarray"),
        (np.zeros((2, 2, 2), np.uint8), r"\[\.\.\., None\]"),
        (np.zeros((2, 2, 2, 3), np.uint8), "one at a time"),
        (np.zeros((2, 0, 2, 1), np.uint8), "no voxels"),
        (np.zeros((2, 2, 2, 1), bool), "astype"),
        (np.zeros((2, 2, 2, 1), np.float32), "threshold"),
        (np.full((2, 2, 2, 1), 255, np.uint8), "it holds 255"),
    ],
)
def test_a_wrong_array_is_refused_with_the_mend(array, mend):
    with pytest.raises(ValueError, match=mend):
        ROW.check(array)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (16, 1, 20)])
@pytest.mark.parametrize("suffix", [".npz", ".binvox"])
def test_files_of_all_voxels_read_back_as_they_were(shape, suffix, tmp_path):
    for share in (0, 0.3, 1):
        grid = blob(shape, share=share)
        ROW.write(tmp_path / f"a{suffix}", grid)
        for source in (tmp_path / f"a{suffix}", io.BytesIO((tmp_path / f"a{suffix}").read_bytes())):
            read = ROW.read(source)
            assert read.dtype == np.uint8
            np.testing.assert_array_equal(read, grid)


def test_prepared_bytes_return_and_are_few():
    for grid in (blob(), blob((1, 1, 1), share=1), np.zeros((30, 30, 30, 1), np.uint8)):
        np.testing.assert_array_equal(ROW.from_bytes(ROW.to_bytes(grid)), grid)
    assert len(ROW.to_bytes(np.zeros((30, 30, 30, 1), np.uint8))) < 60
    data = ROW.to_bytes(blob())
    for damaged in (b"", data[:5], data[:-8], b"\xff" * 6 + data[6:], b"\0" * 6 + data[6:], b"\1" + data[1:]):
        with pytest.raises(ValueError, match="not voxels of a prepared set"):
            ROW.from_bytes(damaged)


def test_the_order_of_a_binvox_file_is_x_then_z_then_y():
    grid = np.zeros((3, 4, 2), np.uint8)
    grid[2, 1, 0] = 1
    data = binvox_bytes(grid)
    assert data.startswith(b"#binvox 1\ndim 2 3 4\n")
    # Index x · 12 + z · 4 + y.
    assert data.endswith(b"\ndata\n" + bytes([0, 9, 1, 1, 0, 14]))
    np.testing.assert_array_equal(parse_binvox(data), grid)


def test_runs_of_any_length_return():
    for length in (1, 254, 255, 256, 510, 511, 700):
        grid = np.ones((1, length, 1), np.uint8)
        np.testing.assert_array_equal(parse_binvox(binvox_bytes(grid)), grid)
        grid[0, length // 3] = 0
        np.testing.assert_array_equal(parse_binvox(binvox_bytes(grid)), grid)


BINVOX = b"#binvox 1\ndim 2 2 2\ntranslate 0 0 0\nscale 1\ndata\n"


@pytest.mark.parametrize(
    "data",
    [
        BINVOX,
        BINVOX + bytes([0, 7]),
        BINVOX + bytes([0, 8, 1]),
        BINVOX + bytes([0, 9]),
        BINVOX + bytes([2, 8]),
        BINVOX.replace(b"2 2 2", b"2 2"),
        BINVOX.replace(b"2 2 2", b"2 2 -2"),
        BINVOX.replace(b"2 2 2", b"0 2 2"),
        BINVOX.replace(b"2 2 2", b"9999999 9999999 9999999") + bytes([0, 8]),
        BINVOX.replace(b"2 2 2", b"65535 65535 65535") + bytes([0, 8]),
        BINVOX.replace(b"dim", b"mid") + bytes([0, 8]),
        BINVOX[:-6] + bytes([0, 8]),
    ],
)
def test_damaged_binvox_files_are_refused(data, tmp_path):
    path = tmp_path / "a.binvox"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.binvox: "):
        read_voxels(path)


def test_foreign_npz_files_are_read_where_they_are_plain():
    grid = blob()
    for array in (grid, grid[..., 0], grid.astype(bool), grid[..., 0].astype(np.float64), np.asfortranarray(grid[..., 0])):
        np.testing.assert_array_equal(read_voxels(npz(anything=array)), grid)
    np.testing.assert_array_equal(read_voxels(npz(voxels=grid, other=grid[:2])), grid)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((2, 2))}, "3 or 4 axes"),
        ({"a": np.zeros((2, 2, 2)), "b": np.zeros((2, 2, 2))}, "voxels=array"),
        ({"a": np.full((2, 2, 2), 0.5)}, "threshold"),
        ({"a": np.zeros((0, 2, 2))}, "empty"),
        ({"a": np.zeros((5, 2, 2, 2))}, "one at a time"),
        ({"a": np.array([{}, None])}, "not real numbers"),
        ({"bits": np.zeros(1, np.uint8), "shape": np.array([2, 2, 3])}, "do not fill"),
        ({"bits": np.zeros(1, np.uint8), "shape": np.array([2, 2])}, "three axes"),
        ({"bits": np.zeros(1, np.uint8), "shape": np.array([2, 2, -2])}, "three axes"),
        ({"bits": np.zeros(1, np.uint8), "shape": np.array([60000, 60000, 60000])}, "the limit"),
        ({"bits": np.zeros(1, np.uint8), "shape": np.array([2.0, 2.0, 2.0])}, "three axes"),
        ({"bits": np.zeros((1, 1), np.uint8), "shape": np.array([2, 2, 2])}, "do not fill"),
        ({}, "holds nothing"),
    ],
)
def test_npz_files_that_are_no_voxels_say_what_to_write(arrays, message):
    with pytest.raises(ValueError, match=message):
        read_voxels(npz(**arrays))


def test_an_array_larger_than_the_limit_is_refused_before_it_is_unpacked():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**20, 2**20, 2**20)})
        archive.writestr("a.npy", header.getvalue())
    with pytest.raises(ValueError, match="more than the limit of 1000"):
        read_npz(file.getvalue(), 1000)
    for length in (7, 9):
        with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
            np.lib.format.write_array_header_1_0(header := io.BytesIO(), {"descr": "|u1", "fortran_order": False, "shape": (8,)})
            archive.writestr("a.npy", header.getvalue() + bytes(length))
        with pytest.raises(ValueError, match="not as long as its header says"):
            read_npz(file.getvalue(), 1000)
    assert read_voxels(npz(a=blob((10, 10, 10))), max_samples=1000).size == 1000
    with pytest.raises(ValueError, match="more than the limit of 999"):
        read_voxels(npz(a=blob((10, 10, 10))), max_samples=999)


def test_damaged_npz_files_give_voxels_or_the_one_error(tmp_path):
    write_voxels(tmp_path / "a.npz", blob())
    data = (tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data[: rng.integers(len(data) // 2, len(data) + 1)])
        for position in rng.integers(len(damaged), size=3):
            damaged[position] = rng.integers(256)
        try:
            read_voxels(io.BytesIO(bytes(damaged)), max_samples=10**5)
        except ValueError:
            continue


def test_a_cube_fills_the_grid_but_for_its_rim():
    filled = fill_mesh(CUBE, triangles(CUBE_FACES), 10)
    expected = np.zeros((10, 10, 10), np.uint8)
    expected[1:9, 1:9, 1:9] = 1
    np.testing.assert_array_equal(filled, expected)


def test_a_box_keeps_its_proportions_and_its_axes():
    filled = fill_mesh(CUBE * [8, 4, 2] + 5, triangles(CUBE_FACES), 18)
    assert filled.sum() == 16 * 8 * 4
    assert [int(filled.any(axis=tuple({0, 1, 2} - {axis})).sum()) for axis in range(3)] == [4, 8, 16]


def test_the_volume_of_a_ball():
    from skimage.measure import marching_cubes

    grid = np.indices((24, 24, 24)) - 11.5
    vertices, faces, _, _ = marching_cubes(9.0 - np.sqrt((grid**2).sum(0)), 0.0)
    filled = fill_mesh(vertices, faces, 40)
    assert filled.sum() == pytest.approx(4 / 3 * np.pi * 19**3, rel=0.01)


def test_a_mesh_with_holes_is_filled_by_the_rays_that_cross_it_whole():
    # Bottom and front are missing: rays along z and y cross once, would vote for outside, and have no vote.
    open_box = triangles([face for face in CUBE_FACES if face not in ((0, 2, 6, 4), (0, 4, 5, 1))])
    np.testing.assert_array_equal(fill_mesh(CUBE, open_box, 10), fill_mesh(CUBE, triangles(CUBE_FACES), 10))


@pytest.mark.parametrize("seed", range(3))
def test_the_surface_of_voxels_fills_to_the_same_voxels(seed):
    grid = blob((6, 7, 5), seed)[..., 0]
    vertices, faces = surface(grid)
    np.testing.assert_array_equal(inside_mesh(vertices, faces, grid.shape), grid.astype(bool))
    assert 0 < volume(vertices, faces) < grid.sum() + 1


def test_a_box_of_voxels_has_its_volume_and_its_place(tmp_path):
    grid = np.zeros((6, 8, 10, 1), np.uint8)
    grid[1:4, 2:7, 3:9] = 1
    for suffix in (".off", ".obj", ".ply"):
        write_voxels(tmp_path / f"a{suffix}", grid)
    vertices, faces = parse_off((tmp_path / "a.off").read_text())
    np.testing.assert_allclose(vertices.min(0), [3, 2, 1])
    np.testing.assert_allclose(vertices.max(0), [9, 7, 4])
    # Edges are cut at 45 degrees, by an eighth of a voxel for each step of an edge.
    assert 0.85 * 90 < volume(vertices, faces) < 90
    lines = (tmp_path / "a.obj").read_text().splitlines()
    corners = np.array([line.split()[1:] for line in lines if line.startswith("f ")], int)
    np.testing.assert_array_equal(corners - 1, faces)
    head, _, body = (tmp_path / "a.ply").read_text().partition("end_header\n")
    assert f"element vertex {len(vertices)}\n" in head
    assert f"element face {len(faces)}\n" in head
    assert len(body.splitlines()) == len(vertices) + len(faces)


def test_a_mesh_of_nothing_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"a\.off: nothing is occupied.*\.npz"):
        write_voxels(tmp_path / "a.off", np.zeros((2, 2, 2, 1), np.uint8))
    with pytest.raises(ValueError, match=r"a\.stl: voxels are written as one of \.npz"):
        write_voxels(tmp_path / "a.stl", blob())
    assert not list(tmp_path.iterdir())


def test_polygons_comments_and_counts_on_the_first_line_are_read():
    body = "\n".join(" ".join(map(str, corner)) for corner in CUBE) + "\n"
    body += "\n".join(f"4 {a} {b} {c} {d} 255 0 0 # red" for a, b, c, d in CUBE_FACES)
    expected = fill_mesh(CUBE, triangles(CUBE_FACES), 12)[..., None]
    for text in (f"OFF\n8 6 0\n{body}", f"OFF8 6 0\n{body}\n\n", f"OFF # a cube\n\n8 6 12\n{body}"):
        np.testing.assert_array_equal(off(text, resolution="12"), expected)
    assert off(f"OFF\n8 6 0\n{body}").shape == (32, 32, 32, 1)


@pytest.mark.parametrize(
    "text",
    [
        "OFF",
        "OFF\n",
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n",
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n",
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 -1\n",
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n2 0 1\n",
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n4 0 1 2\n",
        "OFF\n3 1 0\n0 0 0\n1 0 nan\n0 1 0\n3 0 1 2\n",
        "OFF\n3 1 0\n0 0 0\n1 0\n0 1 0\n3 0 1 2\n",
        "OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n",
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
        "OFF\n3 1 0\n-1e308 0 0\n1e308 0 0\n0 1 0\n3 0 1 2\n",
        "OFF\n-3 1 0\n",
        "OFF\n99999999999999999999 1 0\n",
        "OFF\nthree one\n",
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n99999999999999999999 0 1 2\n",
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 99999999999999999999\n",
    ],
)
def test_meshes_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="the file: "):
        off(text)


@pytest.mark.parametrize("resolution", ["two", "2", 2, "-5", "1e3", 10**6, "999999999999"])
def test_a_resolution_is_a_whole_number_within_the_limit(resolution):
    text = mesh_text(CUBE, triangles(CUBE_FACES), ".off")
    with pytest.raises(ValueError, match="a resolution is a whole number from 3"):
        off(text, resolution=resolution)
    assert off(text, resolution=10, max_samples=1000).size == 1000


def test_a_resolution_is_for_meshes_and_other_files_are_refused():
    with pytest.raises(ValueError, match=r"\.off.*leave it out"):
        read_voxels(io.BytesIO(binvox_bytes(blob()[..., 0])), 16)
    for data in (b"", b"hello", bytes(100)):
        with pytest.raises(ValueError, match=r"\.npz, \.binvox and \.off are read"):
            read_voxels(io.BytesIO(data))
    with pytest.raises(FileNotFoundError):
        read_voxels("no_such_file.npz")

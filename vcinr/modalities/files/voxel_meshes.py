"""Triangle meshes and voxels: filling a mesh by ray parity, and the surface of voxels by marching cubes."""

from __future__ import annotations

import itertools

import numpy as np

# Rays a little off the centres, by different amounts: those of regular meshes have edges and diagonals through them.
_OFF_CENTRE = (1.3e-5, 2.9e-5)
_CHUNK = 2**18


def parse_off(text: str) -> tuple[np.ndarray, np.ndarray]:
    """(vertices float64 [n, 3], triangles int64 [m, 3]) of an .off file's text; polygons are cut into fans.

    Accepts ModelNet's files whose counts stand on the first line. ValueError for anything but a whole mesh.
    """
    lines = [line for raw in text.splitlines() if (line := raw.split("#")[0].strip())]
    if not lines or not lines[0].startswith("OFF"):
        raise ValueError("not an .off file: it does not begin with OFF")
    lines[0] = lines[0][3:].strip()
    lines = lines if lines[0] else lines[1:]
    try:
        num_vertices, num_faces = (int(word) for word in lines[0].split()[:2])
        if min(num_vertices, num_faces) < 1 or len(lines) < 1 + num_vertices + num_faces:
            raise ValueError(f"its {len(lines) - 1} lines do not hold {num_vertices} vertices and {num_faces} faces")
        vertices = np.array([line.split()[:3] for line in lines[1 : 1 + num_vertices]], np.float64)
        triangles = []
        for line in lines[1 + num_vertices : 1 + num_vertices + num_faces]:
            count, *rest = line.split()
            corners = [int(word) for word in rest[: int(count)]]
            if len(corners) < 3 or len(corners) != int(count):
                raise ValueError(f"the face {line[:40]!r} is no polygon")
            triangles += [(corners[0], second, third) for second, third in itertools.pairwise(corners[1:])]
        faces = np.array(triangles, np.int64)
    except (IndexError, OverflowError, ValueError) as error:
        raise ValueError(f"a damaged .off file: {error}") from error
    if vertices.shape != (num_vertices, 3) or not np.isfinite(vertices).all():
        raise ValueError("a damaged .off file: its vertices are not three finite numbers each")
    if faces.min() < 0 or faces.max() >= num_vertices:
        raise ValueError("a damaged .off file: faces name vertices that it does not hold")
    return vertices, faces


def fill_mesh(vertices: np.ndarray, triangles: np.ndarray, resolution: int) -> np.ndarray:
    """The voxels inside a mesh, uint8 [resolution]³ in the order z, y, x: its longest side fills the cube but for a rim.

    vertices: [n, 3], x, y, z.   triangles: [m, 3].   resolution: at least 3.
    ValueError for a mesh without extent, or one that holds no voxel's centre.
    """
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    with np.errstate(over="ignore"):
        longest = (high - low).max()
    if not np.isfinite(longest) or not longest > 0:
        raise ValueError("the mesh has no extent: it has no inside")
    placed = (vertices - low - (high - low) / 2) / longest * (resolution - 2) + resolution / 2
    inside = inside_mesh(placed, triangles, (resolution,) * 3)
    if not inside.any():
        raise ValueError("no voxel's centre lies inside the mesh: raise the resolution (--resolution), or close its holes")
    return inside.astype(np.uint8)


def inside_mesh(vertices: np.ndarray, triangles: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Whether voxel centres, at index + 1/2, lie inside a mesh, bool [z, y, x].

    vertices: [n, 3], x, y, z, in units of voxels.   triangles: [m, 3].
    Rays run along each of the three axes and are inside after an odd number of crossings. Of the rays through a centre that
    cross the whole mesh an even number of times (all, where it is closed) the majority decides.
    """
    corners = vertices[:, ::-1][triangles]
    votes, voters = np.zeros(shape, np.int8), np.zeros(shape, np.int8)
    for axis in range(3):
        crossings = np.moveaxis(_crossings(corners, shape, axis), 2, axis)
        count = np.cumsum(crossings, axis=axis)
        valid = count.take([-1], axis) % 2 == 0
        odd = count.take(np.arange(shape[axis]), axis) % 2 == 1
        votes += odd & valid
        voters += valid
    return 2 * votes > voters


def surface(voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(vertices float64 [n, 3] in x, y, z and units of voxels, triangles [m, 3] seen anticlockwise from outside) of [z, y, x].

    By marching cubes at one half: `inside_mesh` of it gives the voxels again. ValueError where nothing is occupied.
    """
    from skimage.measure import marching_cubes

    if not voxels.any():
        raise ValueError("nothing is occupied, so there is no surface: write .npz")
    vertices, triangles, _, _ = marching_cubes(np.pad(voxels, 1).astype(np.float32), 0.5)
    return vertices[:, ::-1].astype(np.float64) - 0.5, triangles.astype(np.int64)


def mesh_text(vertices: np.ndarray, triangles: np.ndarray, suffix: str) -> str:
    """The text of a mesh's file, by suffix: .off, .obj or .ply."""
    points = [f"{x:g} {y:g} {z:g}" for x, y, z in vertices]
    if suffix == ".obj":
        return "\n".join([*(f"v {p}" for p in points), *(f"f {a} {b} {c}" for a, b, c in triangles + 1), ""])
    faces = [f"3 {a} {b} {c}" for a, b, c in triangles]
    head = ["OFF", f"{len(points)} {len(faces)} 0"]
    if suffix == ".ply":
        axes = [f"property float {axis}" for axis in "xyz"]
        head = ["ply", "format ascii 1.0", f"element vertex {len(points)}", *axes, f"element face {len(faces)}"]
        head += ["property list uchar int vertex_indices", "end_header"]
    return "\n".join([*head, *points, *faces, ""])


def _crossings(corners: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Crossings int32 [a, b, n + 1] along an axis: how many lie between the centres k − 1 and k of each ray, others last."""
    first, second = (each for each in range(3) if each != axis)
    sizes = np.array([shape[first], shape[second]])
    found = np.zeros((*sizes, shape[axis] + 1), np.int32)
    flat, depth = corners[:, :, [first, second]] - 0.5 - np.array(_OFF_CENTRE), corners[:, :, axis]
    low = np.clip(np.ceil(flat.min(axis=1)), 0, sizes).astype(np.int64)
    high = np.clip(np.floor(flat.max(axis=1)) + 1, 0, sizes).astype(np.int64)
    width = np.maximum(high - low, 0)
    rays = width.prod(axis=1)
    ends = np.cumsum(rays)
    start = 0
    while start < len(rays):
        # Many small triangles at a time, or one large one.
        begun = ends[start] - rays[start]
        stop = max(int(np.searchsorted(ends, begun + _CHUNK, side="right")), start + 1)
        part = slice(start, stop)
        which = np.repeat(np.arange(start, stop), rays[part])
        offset = np.arange(len(which)) - (ends[which] - rays[which] - begun)
        point = low[which] + np.stack([offset // width[which, 1], offset % width[which, 1]], axis=-1)
        inside, at = _pierce(point, flat[which], depth[which])
        first_after = np.clip(np.ceil(at - 0.5), 0, shape[axis]).astype(np.int64)
        np.add.at(found, (point[inside, 0], point[inside, 1], first_after), 1)
        start = stop
    return found


def _pierce(point: np.ndarray, triangle: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which points [n, 2] lie in their triangles [n, 3, 2], and at which depth those of them that do."""
    a, b, c = (triangle[:, i] - point for i in range(3))
    areas = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=-1)
    total = areas.sum(axis=-1)
    inside = ((areas >= 0).all(axis=-1) | (areas <= 0).all(axis=-1)) & (total != 0)
    return inside, (areas[inside] * depth[inside]).sum(axis=-1) / total[inside]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]

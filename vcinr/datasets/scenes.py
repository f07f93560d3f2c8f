"""Builder of a set of radiance fields for tensorflow-datasets: views of coloured shapes, rendered from voxels."""

from __future__ import annotations

import colorsys
import hashlib
import pathlib

import numpy as np
import scipy.ndimage

from vcinr.datasets.builders import SignalBuilder
from vcinr.datasets.voxels import modelnet10
from vcinr.modalities import MODALITIES
from vcinr.modalities.radiance_field import Rig, Scene, Views, rays_of

COUNTS = {"train": 300, "validation": 40, "test": 60}
NUM_VIEWS, SIZE = 12, 32
HELD_OUT = Rig(highest=0.8, lowest=0.0, turns=6.5)
"""Cameras of the views that are kept to compare with: at the rig's distance, on another spiral."""
NUM_HELD_OUT = 8
RADIUS = 0.95
"""Of the ball around a shape's box, which its cameras look at the middle of."""
STEP = 0.45
"""Of rays, in voxels."""
SAMPLES = 2
"""Rays per pixel along each axis."""
AMBIENT = 0.45
SUN = np.array([0.35, -0.25, 0.9]) / np.linalg.norm([0.35, -0.25, 0.9])
"""Where light comes from."""


class VoxelScene(type(pathlib.Path())):
    """Where voxels come from, with those of one scene, bool [z, y, x], and the name that its colours follow from."""

    voxels: np.ndarray
    label: str
    held_out: bool


class Scenes(SignalBuilder, skip_registration=True):
    """Furniture of ModelNet10's voxels, two-coloured and lit from above, in 12 views of 32x32 from the cameras of one rig.

    Test scenes have eight views from other cameras besides.
    """

    modality = "radiance_field"

    def signals(self):
        """Shapes spread evenly over each part of the set of voxels.

        Its validation part shares no near-duplicates with training: see `vcinr.datasets.voxels.modelnet10`.
        """
        splits = {}
        for split, shapes in modelnet10(self.source).items():
            chosen = np.linspace(0, len(shapes) - 1, min(COUNTS[split], len(shapes))).round().astype(int)
            splits[split] = [(shapes[i][0], self._scene(*shapes[i], held_out=split == "test")) for i in np.unique(chosen)]
        return splits

    def read(self, path: pathlib.Path) -> np.ndarray | Scene:
        """The views of a scene, rendered."""
        painted = paint(path.voxels, path.label)
        rig = MODALITIES[self.modality].rig
        views = render_voxels(*painted, rig.poses(NUM_VIEWS), rig.tangent, SIZE)
        if not path.held_out:
            return views
        poses = HELD_OUT.poses(NUM_HELD_OUT)
        others = render_voxels(*painted, poses, HELD_OUT.tangent, SIZE)
        return Scene(views, Views(others, poses, (HELD_OUT.tangent,) * 2))

    def _scene(self, label: str, voxels: np.ndarray, held_out: bool) -> VoxelScene:
        scene = VoxelScene(self.source)
        scene.voxels, scene.label, scene.held_out = voxels[..., 0].astype(bool), label, held_out
        return scene


def paint(voxels: np.ndarray, label: str) -> tuple[np.ndarray, np.ndarray]:
    """(occupancy bool [z, y, x], colours float32 [z, y, x, 3] in [0, 1] of each voxel): two hues, light from above.

    voxels: [z, y, x].   label: what the hues follow from.
    """
    first, second, height, lightness = np.frombuffer(hashlib.sha256(label.encode()).digest()[:4], np.uint8) / 255
    hues = [first, (first + 0.25 + 0.5 * second) % 1]
    low, high = (np.array(colorsys.hls_to_rgb(hue, 0.4 + 0.2 * lightness, 0.75)) for hue in hues)
    occupied = np.flatnonzero(voxels.any(axis=(1, 2)))
    edge = occupied[0] + (0.25 + 0.5 * height) * (occupied[-1] - occupied[0])
    share = 1 / (1 + np.exp(-(np.arange(len(voxels)) - edge)))[:, None, None, None]
    soft = scipy.ndimage.gaussian_filter(voxels.astype(np.float32), 1.0)
    outwards = -np.stack(np.gradient(soft)[::-1], axis=-1)
    outwards /= np.maximum(np.linalg.norm(outwards, axis=-1, keepdims=True), 1e-6)
    light = AMBIENT + (1 - AMBIENT) * np.maximum(outwards @ SUN, 0)
    return voxels.astype(bool), ((low + share * (high - low)) * light[..., None]).astype(np.float32)


def render_voxels(voxels: np.ndarray, colours: np.ndarray, poses: np.ndarray, tangent: float, size: int) -> np.ndarray:
    """Views uint8 [v, size, size, 3] of opaque voxels over white: what each ray meets first, `SAMPLES`² rays a pixel.

    voxels: bool [z, y, x]; the corners of their box are `RADIUS` from the origin, its middle.   colours: [z, y, x, 3].
    poses: [v, 4, 4], as of `vcinr.modalities.radiance_field.Views`.   tangent: of half the angle of view.
    """
    fine = SAMPLES * size
    rays = rays_of(poses, (tangent, tangent), (fine, fine))
    seen = np.ones((len(rays), 3), np.float32)
    where = np.argwhere(voxels)
    low, high = where.min(axis=0), where.max(axis=0) + 1
    # In voxels from the grid's corner, in the order of its axes.
    origins = rays[:, 2::-1] * (np.linalg.norm(high - low) / 2 / RADIUS) + (low + high) / 2
    steps = STEP * rays[:, :2:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        sides = np.sort(np.stack([(low - origins) / steps, (high - origins) / steps]), axis=0)
    start, stop = np.nanmax(sides[0], axis=1), np.nanmin(sides[1], axis=1)
    active = np.flatnonzero(stop > start)
    number = np.ceil(start[active]).astype(np.int64)
    flat, palette = voxels.ravel(), colours.reshape(-1, 3)
    while len(active):
        place = np.floor(origins[active] + number[:, None] * steps[active]).astype(np.int64)
        index = np.ravel_multi_index(tuple(np.clip(place, 0, np.array(voxels.shape) - 1).T), voxels.shape)
        inside = ((place >= low) & (place < high)).all(axis=1)
        hit = flat[index] & inside
        seen[active[hit]] = palette[index[hit]]
        number += 1
        going = ~hit & (number <= stop[active])
        active, number = active[going], number[going]
    seen = seen.reshape(len(poses), size, SAMPLES, size, SAMPLES, 3).mean(axis=(2, 4))
    return np.rint(255 * seen).astype(np.uint8)

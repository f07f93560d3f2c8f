"""Radiance fields: views of one scene, uint8 [view, height, width, 3], all from the cameras of one rig."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES, Metadata, Modality

VIEWS = ".views"
"""Suffix of a folder of .png views with their poses.json."""
SUFFIXES = (VIEWS, ".npz")
MAX_RAYS = 2**23
"""Most pixels of all views of one scene: each takes as many evaluations of a field as its ray has samples."""
RAYS_AT_ONCE = 512
"""Rays that are rendered together, which bounds memory."""
TOLERANCE = 2e-3
"""How far entries of a pose, and tangents of a field of view, may be from the rig's: cameras in files are rounded."""


class Views(NamedTuple):
    """Pictures from any cameras.

    images: uint8 [v, h, w, 3].
    poses: camera to world, float64 [v, 4, 4]: columns right, up, backward, position. The scene lies in the unit ball, z upwards.
    tangents: of half the horizontal and half the vertical angle of view.
    """

    images: np.ndarray
    poses: np.ndarray
    tangents: tuple[float, float]

    def rays(self) -> np.ndarray:
        """The ray of each pixel, float32 [v·h·w, 6]: origin, then unit direction."""
        return rays_of(self.poses, self.tangents, self.images.shape[1:3])


class Scene(NamedTuple):
    """The rig's views of a scene, uint8 [v, h, w, 3], and views from other cameras, which no file holds, to compare with."""

    views: np.ndarray
    held_out: Views | None = None


@dataclasses.dataclass(frozen=True)
class Rig:
    """Cameras on a spiral around the origin, all looking at it, with z upwards; files depend on every number here.

    View i of n is taken at t = (i + ½) / n. The sine of its elevation is s = highest + (lowest − highest) t, its azimuth
    a = 2π turns t, its position radius · (√(1 − s²) cos a, √(1 − s²) sin a, s). Every view is a square pyramid: at distance 1
    before the camera it reaches ``tangent`` to the left, right, up and down, whatever the number of its pixels.

    radius: distance of cameras from the origin.
    tangent: of half the angle of view.
    highest, lowest: sines of the first and last elevation, strictly between −1 and 1.
    turns: around the z axis from the first view to the last.
    """

    # Distance and angle are those of SRN Cars, whose unit is two of ours. Twelve views lie a golden angle apart.
    radius: float = 2.6
    tangent: float = 64 / 131.25
    highest: float = 0.9
    lowest: float = -0.1
    turns: float = 6 * (3 - math.sqrt(5))

    def frames(self, t: np.ndarray) -> np.ndarray:
        """Poses float64 [n, 4, 4], as of `Views`, at places t [n] in [0, 1] on the spiral."""
        s = self.highest + (self.lowest - self.highest) * t
        a, c = 2 * np.pi * self.turns * t, np.sqrt(1 - s**2)
        zero, one = np.zeros_like(s), np.ones_like(s)
        backward = np.stack([c * np.cos(a), c * np.sin(a), s], axis=-1)
        right = np.stack([-np.sin(a), np.cos(a), zero], axis=-1)
        columns = [right, np.cross(backward, right), backward, self.radius * backward]
        bottom = np.stack([zero, zero, zero, one], axis=-1)[:, None]
        return np.concatenate([np.stack(columns, axis=-1), bottom], axis=1)

    def poses(self, count: int) -> np.ndarray:
        """Poses float64 [count, 4, 4] of that many views."""
        return self.frames((np.arange(count) + 0.5) / count)

    def places(self, positions: np.ndarray) -> np.ndarray:
        """Rays float32 [n, 6] at positions [n, 3] (view, y, x) in [−1, 1]."""
        frames = self.frames((positions[:, 0].astype(np.float64) + 1) / 2)
        return _rays(frames, self.tangent * positions[:, 2], -self.tangent * positions[:, 1])

    def missed_by(self, poses: np.ndarray, tangents: tuple[float, float]) -> str:
        """What tells these cameras from as many of the rig's; "" where nothing does."""
        if max(abs(each - self.tangent) for each in tangents) > TOLERANCE:
            return f"the tangents of half its angles of view are {tangents[0]:.4g} and {tangents[1]:.4g}, not {self.tangent:.4g}"
        gap = np.abs(poses - self.poses(len(poses))).max(axis=(1, 2))
        gap[np.isnan(gap)] = np.inf
        wrong = np.flatnonzero(gap > TOLERANCE * max(1.0, self.radius))
        return f"the pose of view {wrong[0]} is not the rig's" if wrong.size else ""


@dataclasses.dataclass(frozen=True, eq=False)
class RadianceField(Modality):
    """Views of a scene; the field maps (x, y, z) in the unit ball to colour and density, and a pixel sees it along its ray.

    **All scenes of a row are seen by the same cameras**, those of its rig: a file holds no poses, since coordinates depend on a
    signal's shape alone. A scene with other poses is refused; scenes of another rig are another row,
    ``MODALITIES["turntable"] = RadianceField("turntable", rig=Rig(…))``. Decoded fields are seen from anywhere
    (`Model.decode_coordinates`, ``vcinr decode --poses``). Colour does not depend on the direction of view.

    Raw is an array of the rig's views, uint8 [v, h, w, 3]; a `Scene`; or `Views` whose poses are the rig's. On a finer grid,
    views between the rig's lie on its spiral.

    rig: where views are taken from.
    evaluations: samples of a ray: the middles of as many equal parts of its way through the unit ball.
    """

    name: str = "radiance_field"
    coord_dim: int = 3
    channels: int = 3
    num_axes: int = 3
    field_channels: int = 4
    evaluations: int = 32
    divisible: bool = False
    common_grid: bool = False
    read_suffixes: tuple[str, ...] = SUFFIXES
    write_suffixes: tuple[str, ...] = SUFFIXES
    rig: Rig = Rig()

    def check(self, samples: Any) -> None:
        """ValueError that names the mend where these are no views, uint8 [v, h, w, 3]."""
        wanted = "views of a radiance field are a NumPy array of uint8 [view, height, width, 3]"
        if not isinstance(samples, np.ndarray):
            raise ValueError(f"{wanted}, not {type(samples).__name__}: use np.stack")
        if samples.ndim == 3:
            mend = "one view is views[None]"
        elif samples.ndim == 4 and samples.shape[-1] == 4:
            mend = "composite it over white and drop alpha"
        elif samples.ndim == 4 and samples.shape[-1] != 3 and samples.shape[1] == 3:
            mend = "put channels last: np.moveaxis(views, 1, -1)"
        elif samples.ndim != 4 or samples.shape[-1] != 3:
            mend = "give it four axes, the last of length 3; pass scenes one at a time"
        elif 0 in samples.shape:
            mend = "drop it: it has no views or no pixels"
        elif samples.dtype == np.uint8:
            return
        else:
            mend = "scale it to 0..255, then np.round(views).astype(np.uint8)"
        raise ValueError(f"{wanted}, not {samples.dtype} {list(samples.shape)}: {mend}")

    def unpack(self, raw: Any) -> tuple[np.ndarray, dict[str, int | float | bytes]]:
        """(the rig's views, {}). ValueError as `check`, and for poses that are not the rig's."""
        if isinstance(raw, Views):
            self.check_poses(raw)
        samples = raw.views if isinstance(raw, Scene) else raw.images if isinstance(raw, Views) else raw
        self.check(samples)
        return samples, {}

    def check_poses(self, views: Views) -> None:
        """ValueError where these are not the rig's cameras."""
        if missed := self.rig.missed_by(views.poses, views.tangents):
            raise ValueError(
                f"{missed}: a file holds no poses, so all scenes of a {self.name} are seen from the same cameras "
                "(vcinr.modalities.radiance_field.Rig): render views from those, or declare a row with another rig"
            )

    def check_metadata(self, metadata: Metadata, shape: tuple[int, ...]) -> None:
        """ValueError for more than `MAX_RAYS` pixels: rendering them takes too long."""
        if math.prod(shape) > MAX_RAYS:
            raise ValueError(f"{math.prod(shape)} pixels of all views are more than {MAX_RAYS}: take fewer or smaller views")

    def locate(self, positions: np.ndarray) -> np.ndarray:
        """Rays float32 [n, 6], origin and unit direction, at positions [n, 3] (view, y, x): what `observe` takes."""
        return self.rig.places(positions)

    def observe(self, field: Callable[[Any], Any], coords: Any) -> Any:
        """Colours [n, 3] that rays [n, 6] see of a field by volume rendering: see `vcinr.fields.rendering`."""
        from vcinr.fields.rendering import render_in_parts

        return render_in_parts(field, coords, self.evaluations, RAYS_AT_ONCE)

    def read(self, source: Any, *, max_samples: int = DEFAULT_MAX_SAMPLES) -> np.ndarray:
        """The rig's views uint8 [v, h, w, 3] in a folder or file: see `vcinr.modalities.files.radiance.read_views`.

        ValueError for views from other cameras.
        """
        from vcinr.modalities.files.npz import about
        from vcinr.modalities.files.radiance import read_views

        views = read_views(source, max_samples, self.rig)
        with about(source):
            return self.unpack(views)[0]

    def read_coordinates(self, source: Any, *, max_samples: int = DEFAULT_MAX_SAMPLES) -> tuple[np.ndarray, Callable]:
        """(rays float32 [n, 6], a function that makes `Views` of their samples [n, 3]) of the cameras in a poses.json."""
        from vcinr.modalities.files.radiance import read_cameras

        poses, tangents, size = read_cameras(source, max_samples)
        return rays_of(poses, tangents, size), lambda seen: Views(seen.reshape(len(poses), *size, 3), poses, tangents)

    def write(self, path: str | os.PathLike, raw: Any) -> None:
        """Writes views, of a `Scene` the rig's, of `Views` from any cameras: see `files.radiance.write_views`."""
        from vcinr.modalities.files.radiance import write_views

        self.check_target(path)
        write_views(path, self.with_poses(raw))

    def with_poses(self, raw: Any) -> Views:
        """The views that a file shows, with their cameras. ValueError as `check`."""
        images = raw.views if isinstance(raw, Scene) else raw.images if isinstance(raw, Views) else raw
        self.check(images)
        return raw if isinstance(raw, Views) else Views(images, self.rig.poses(len(images)), (self.rig.tangent,) * 2)

    def check_target(self, path: str | os.PathLike) -> None:
        """ValueError where `write` has no format for this suffix."""
        if Path(path).suffix.lower() not in self.write_suffixes:
            raise ValueError(f"{os.fspath(path)}: views are written as {VIEWS}, a folder of .png and poses.json, or .npz")

    def to_bytes(self, raw: Any) -> bytes:
        """The rig's views as one PNG, views from other cameras after it."""
        from vcinr.modalities.files.radiance import scene_bytes

        return scene_bytes(self.unpack(raw)[0], raw.held_out if isinstance(raw, Scene) else None)

    def from_bytes(self, data: bytes) -> np.ndarray | Scene:
        """The views of `to_bytes`; a `Scene` where there are some from other cameras. ValueError for other bytes."""
        from vcinr.modalities.files.radiance import scene_of_bytes

        views, held_out = scene_of_bytes(data)
        return views if held_out is None else Scene(views, held_out)


def rays_of(poses: np.ndarray, tangents: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Rays float32 [v·h·w, 6], origin and unit direction, of the pixels of views.

    poses, tangents: as of `Views`.   size: height and width in pixels.
    """
    height, width = size
    y, x = np.meshgrid((2 * np.arange(height) + 1) / height - 1, (2 * np.arange(width) + 1) / width - 1, indexing="ij")
    count = len(poses)
    right, up = np.tile(tangents[0] * x.ravel(), count), np.tile(-tangents[1] * y.ravel(), count)
    return _rays(np.repeat(poses, height * width, axis=0), right, up)


def _rays(poses: np.ndarray, right: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Rays [n, 6] of poses [n, 4, 4] to points ``right`` and ``up`` of the axis of view at distance 1."""
    towards = right[:, None] * poses[:, :3, 0] + up[:, None] * poses[:, :3, 1] - poses[:, :3, 2]
    towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
    return np.concatenate([poses[:, :3, 3], towards], axis=-1).astype(np.float32)

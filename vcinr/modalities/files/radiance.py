"""Views with their cameras, from files and back: folders of pictures with poses.json, SRN's folders, .npz; or one clear error.

poses.json is what NeRF's own scenes call transforms.json, and is read under that name too: ``camera_angle_x`` (and, where pixels
are no squares, ``camera_angle_y``) in radians, ``w`` and ``h`` in pixels, and ``frames``, each with ``file_path`` and
``transform_matrix``, the camera to world as of `vcinr.modalities.radiance_field.Views`.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.modalities.files.npz import File, about, npz_bytes, read_all, read_npz
from vcinr.modalities.files.picture import read_image, write_image
from vcinr.modalities.radiance_field import VIEWS, Rig, Views

POSES = ("poses.json", "transforms.json")
MAX_JSON_BYTES = 2**24
SRN_UNIT = 2.0
"""Of ours: SRN Cars' cameras are 1.3 of its units from the centre."""
_COUNTS = struct.Struct("<2I")


def read_views(source: File, max_samples: int, rig: Rig) -> Views:
    """The views in a folder or an .npz file, from whatever cameras.

    source: a folder with poses.json and pictures; one with rgb/*.png, pose/*.txt and intrinsics.txt as SRN has them; or an .npz
      file with ``views`` and, unless they are those of the rig, ``poses`` and ``tangents``.
    max_samples: pixels of all views; what promises more is refused before it is decoded.
    rig: of views in an .npz file that says nothing of their cameras.
    Raises ValueError that names the file and the mend, OSError where it cannot be opened. What is translucent is over white.
    """
    with about(source):
        if not isinstance(source, str | os.PathLike) or not Path(source).is_dir():
            return _read_npz(read_all(source), max_samples, rig)
        folder = Path(source)
        if (folder / "intrinsics.txt").is_file():
            return _read_srn(folder, max_samples)
        path = _poses_file(folder)
        data = _load(path)
        poses, tangents, size, names = _parse(data)
        if not names:
            raise ValueError(f"{path.name} names no pictures: give each of its frames a file_path")
        images = _read_images([_inside(folder, name) for name in names], max_samples)
        if size is not None and size != images.shape[1:3]:
            raise ValueError(f"its pictures are {images.shape[2]}×{images.shape[1]}, but {path.name} says {size[1]}×{size[0]}")
        return Views(images, poses, tangents or _square(data, images.shape[1:3]))


def read_cameras(source: File, max_samples: int) -> tuple[np.ndarray, tuple[float, float], tuple[int, int]]:
    """(poses, tangents, (height, width)) of a poses.json, or of the one in a folder; no pictures are needed.

    max_samples: pixels of all views.   Raises as `read_views`.
    """
    with about(source):
        folder = isinstance(source, str | os.PathLike) and Path(source).is_dir()
        data = _load(_poses_file(Path(source)) if folder else source)
        poses, tangents, size, _ = _parse(data)
        if size is None:
            raise ValueError('how large are the views? say "w": 32, "h": 32 beside "frames"')
        if len(poses) * math.prod(size) > max_samples:
            raise ValueError(f"{len(poses)} views of {size[1]}×{size[0]} are more pixels than the limit of {max_samples}")
        return poses, tangents or _square(data, size), size


def write_views(path: str | os.PathLike, views: Views) -> None:
    """Writes views with their cameras: a folder (.views) of 000000.png and so on and poses.json, or an .npz file.

    ValueError for a folder that is there already.
    """
    path = Path(path)
    if path.suffix.lower() != VIEWS:
        path.write_bytes(npz_bytes({"views": views.images, "poses": views.poses, "tangents": np.array(views.tangents)}))
        return
    if path.exists():
        raise ValueError(f"{path} exists: remove it first, or choose another output")
    path.mkdir()
    for index, image in enumerate(views.images):
        write_image(path / f"{index:06}.png", image)
    write_poses(path / POSES[0], views.poses, views.tangents, views.images.shape[1:3])


def write_poses(path: str | os.PathLike, poses: np.ndarray, tangents: tuple[float, float], size: Sequence[int]) -> None:
    """Writes a poses.json of cameras alone, which ``vcinr decode --poses`` takes.

    poses, tangents: as of `vcinr.modalities.radiance_field.Views`.   size: height and width in pixels.
    """
    angles = {f"camera_angle_{axis}": 2 * math.atan(tangent) for axis, tangent in zip("xy", tangents, strict=True)}
    frames = [{"file_path": f"{i:06}.png", "transform_matrix": pose.tolist()} for i, pose in enumerate(np.asarray(poses))]
    text = json.dumps({**angles, "w": int(size[1]), "h": int(size[0]), "frames": frames}, indent=1)
    Path(path).write_text(text + "\n", encoding="utf-8")


def scene_bytes(views: np.ndarray, held_out: Views | None) -> bytes:
    """A scene as prepared data sets keep it: how many views, one PNG of all of them, then .npz of those from other cameras."""
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(views.reshape(-1, *views.shape[2:])).save(png, "PNG", optimize=True)
    rest = b""
    if held_out is not None:
        rest = npz_bytes({"views": held_out.images, "poses": held_out.poses, "tangents": np.array(held_out.tangents)})
    return _COUNTS.pack(len(views), png.tell()) + png.getvalue() + rest


def scene_of_bytes(data: bytes) -> tuple[np.ndarray, Views | None]:
    """The inverse of `scene_bytes`. ValueError for other bytes."""
    try:
        count, length = _COUNTS.unpack_from(data)
    except struct.error as error:
        raise ValueError(f"not views of a prepared set: {error}") from error
    tall = read_image(io.BytesIO(data[_COUNTS.size : _COUNTS.size + length]))
    if not count or len(tall) % count:
        raise ValueError(f"not views of a prepared set: {count} views do not share {len(tall)} rows")
    rest = data[_COUNTS.size + length :]
    held_out = _read_npz(rest, len(rest) * 2**10, None) if rest else None
    return tall.reshape(count, -1, *tall.shape[1:]), held_out


def _read_npz(data: bytes, max_samples: int, rig: Rig | None) -> Views:
    arrays = read_npz(data, 3 * max_samples)
    views = arrays.get("views")
    if views is None or views.ndim != 4 or views.dtype != np.uint8 or views.shape[-1] != 3 or not views.size:
        raise ValueError("an .npz file of views holds uint8 [view, height, width, 3]: np.savez_compressed(path, views=views)")
    if rig is not None and not {"poses", "tangents"} & set(arrays):
        return Views(views, rig.poses(len(views)), (rig.tangent, rig.tangent))
    poses, tangents = arrays.get("poses"), arrays.get("tangents")
    if poses is None or poses.shape != (len(views), 4, 4) or tangents is None or tangents.shape != (2,):
        raise ValueError("its cameras are poses [view, 4, 4] and tangents [2], of half the angles of view; or leave both out")
    return Views(views, _checked(poses), _tangents(*tangents.tolist()))


def _poses_file(folder: Path) -> Path:
    for name in POSES:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"a folder of views has a {POSES[0]} that says where they were taken from, or rgb, pose and intrinsics.txt")


def _load(source: File) -> dict[str, Any]:
    data = read_all(source)
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"{len(data)} bytes are more than the {MAX_JSON_BYTES} of a list of cameras")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its cameras are no JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("frames"), list) or not found["frames"]:
        raise ValueError('it has no "frames", each with a "transform_matrix"')
    return found


def _parse(
    found: dict[str, Any],
) -> tuple[np.ndarray, tuple[float, float] | None, tuple[int, int] | None, list[str]]:
    """(poses, tangents or None where only the horizontal is given, size or None, names of pictures or none)."""
    frames = found["frames"]
    if not all(isinstance(frame, dict) for frame in frames):
        raise ValueError('each of its frames is an object with a "transform_matrix"')
    try:
        poses = np.array([frame.get("transform_matrix") for frame in frames], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError('every "transform_matrix" is 4×4 numbers') from error
    size = None
    if "w" in found or "h" in found:
        size = (found.get("h"), found.get("w"))
        if not all(isinstance(n, int) and 0 < n < 2**16 for n in size):
            raise ValueError(f'"w" and "h" are pixels, whole numbers below 65536, not {size[1]!r:.20} and {size[0]!r:.20}')
    names = [frame.get("file_path") for frame in frames]
    if any(name is not None for name in names) and not all(isinstance(name, str) and name for name in names):
        raise ValueError('every frame has a "file_path", or none has')
    across = _tangent_of(found, "camera_angle_x")
    tangents = _tangents(across, _tangent_of(found, "camera_angle_y")) if "camera_angle_y" in found else None
    return _checked(poses), tangents, size, [name for name in names if name is not None]


def _tangent_of(found: dict[str, Any], key: str) -> float:
    angle = found.get(key)
    if not isinstance(angle, int | float) or not 0 < angle < math.pi:
        raise ValueError(f'"{key}" is the angle of view in radians, above 0 and below π, not {angle!r:.20}')
    return math.tan(angle / 2)


def _square(found: dict[str, Any], size: Sequence[int]) -> tuple[float, float]:
    """Tangents where pixels are squares."""
    across = _tangent_of(found, "camera_angle_x")
    return _tangents(across, across * size[0] / size[1])


def _tangents(x: float, y: float) -> tuple[float, float]:
    if not all(0 < each < 1e3 for each in (x, y)):
        raise ValueError(f"the tangents of half its angles of view are {x:g} and {y:g}, which no camera has")
    return x, y


def _checked(poses: np.ndarray) -> np.ndarray:
    """Poses as float64. ValueError where they are not rotations and finite positions."""
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise ValueError("every pose is a matrix of 4×4 numbers, camera to world")
    poses = poses.astype(np.float64)
    turns = poses[:, :3, :3]
    fine = np.isfinite(poses).all() and np.abs(poses).max() < 1e6 and (np.abs(poses[:, 3] - [0, 0, 0, 1]) < 1e-3).all()
    if not fine or np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max() > 1e-2 or np.linalg.det(turns).min() < 0:
        raise ValueError("a pose is no rotation and position, [R p; 0 0 0 1]: columns of R are right, up, backward")
    return poses


def _inside(folder: Path, name: str) -> Path:
    path = Path(name if Path(name).suffix else f"{name}.png")
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"the picture {name[:40]!r} is not in the folder")
    return folder / path


def _read_images(paths: Sequence[Path], max_samples: int) -> np.ndarray:
    """Pictures of one size, uint8 [v, h, w, 3]."""
    first = read_image(paths[0], "#ffffff", max_pixels=max_samples)
    if len(paths) * first.shape[0] * first.shape[1] > max_samples:
        size = f"{first.shape[1]}×{first.shape[0]}"
        raise ValueError(f"{len(paths)} views of {size} are more pixels than the limit of {max_samples}")
    images = np.empty((len(paths), *first.shape), np.uint8)
    images[0] = first
    for index, path in enumerate(paths[1:], 1):
        image = read_image(path, "#ffffff", max_pixels=max_samples)
        if image.shape != first.shape:
            raise ValueError(f"{path.name} is {image.shape[1]}×{image.shape[0]}, and {paths[0].name} is not: make views equal")
        images[index] = image
    return images


def _read_srn(folder: Path, max_samples: int) -> Views:
    """SRN's layout: pose/*.txt are 16 numbers, camera to world, whose y axis points down and z axis forward."""
    pictures, files = sorted((folder / "rgb").glob("*.png")), sorted((folder / "pose").glob("*.txt"))
    if not pictures or [each.stem for each in pictures] != [each.stem for each in files]:
        raise ValueError("as in SRN, each rgb/NAME.png has a pose/NAME.txt, and there is at least one")
    lines = [_numbers(line, folder / "intrinsics.txt") for line in _text(folder / "intrinsics.txt").splitlines()]
    if len(lines) < 4 or len(lines[0]) < 3 or len(lines[3]) < 2 or min(lines[0][0], *lines[3][:2]) <= 0:
        raise ValueError("intrinsics.txt has four lines as in SRN: f cx cy 0; barycentre; scale; height width")
    (focal, *centre), (height, width) = lines[0][:3], lines[3][:2]
    if max(abs(2 * centre[0] - width), abs(2 * centre[1] - height)) > 1:
        raise ValueError(f"its axis of view is at {centre[0]:g}, {centre[1]:g}, not in the middle of the pictures: crop them")
    poses = [_numbers(_text(path), path) for path in files]
    if any(len(pose) != 16 for pose in poses):
        raise ValueError("every pose/*.txt is 16 numbers, camera to world")
    matrices = np.array(poses).reshape(-1, 4, 4)
    if len(lines) > 4 and lines[4][:1] not in ([], [0.0]):
        # World to camera. Of a matrix that has no inverse this is none either, and `_checked` refuses it.
        matrices = np.linalg.pinv(matrices)
    matrices = matrices @ np.diag([1.0, -1.0, -1.0, 1.0])
    matrices[:, :3, 3] *= SRN_UNIT
    images = _read_images(pictures, max_samples)
    return Views(images, _checked(matrices), _tangents(width / (2 * focal), height / (2 * focal)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is no text of numbers") from error


def _numbers(text: str, path: Path) -> list[float]:
    try:
        found = [float(word) for word in text.split()]
    except ValueError as error:
        raise ValueError(f"{path.name} holds {str(error).split(':')[-1].strip():.20}, which is no number") from error
    if not all(math.isfinite(number) for number in found):
        raise ValueError(f"{path.name} holds numbers that are not finite")
    return found

"""Distance fields: how far each point lies from a shape's surface, negative inside, in three axes or two."""

from __future__ import annotations

import dataclasses
import math
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vcinr.evaluation.metrics import psnr_db
from vcinr.modalities.files.npz import File, about, npz_bytes, only_array, read_all, read_npz
from vcinr.modalities.modality import DEFAULT_MAX_SAMPLES, Metadata, Modality


class Distances(NamedTuple):
    """values: float32 [z, y, x, 1], or [y, x, 1], negative inside, in units of one's own.

    bound: of their size, where they are truncated or read from a file, so that −bound and bound become 0 and 1; None: the
    largest size of these values.
    """

    values: np.ndarray
    bound: float | None = None


def signed_distance(inside: np.ndarray) -> np.ndarray:
    """Distance to the surface between samples that are inside and outside, float32 of the same shape, in samples.

    The exact Euclidean distance of each sample's centre to the nearest centre on the other side, less the half that lies
    beyond the surface; negative inside. ValueError where all samples are on one side: there is no surface.
    """
    from scipy.ndimage import distance_transform_edt

    inside = np.asarray(inside, bool)
    if not inside.any() or inside.all():
        raise ValueError(f"a shape of {list(inside.shape)} that is {'full' if inside.all() else 'empty'} has no surface: drop it")
    within, without = distance_transform_edt(inside), distance_transform_edt(~inside)
    return np.where(inside, 0.5 - within, without - 0.5).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class DistanceField(Modality):
    """Signed distances on a grid; coordinates in the order z, y, x. A file holds the bound of their size besides.

    A raw signal is a `Distances`, or its values alone. Samples are values / (2 bound) + 1/2, so that the surface stays where it
    is whatever the bound.
    """

    name: str = "distance_field"
    coord_dim: int = 3
    channels: int = 1
    sample_type: str = "float32"
    peak: float | int = 65535
    mirrored_axes: tuple[int, ...] = (1, 2)
    meta_types: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"bound": "float32"})
    example_metadata: Metadata = dataclasses.field(default_factory=lambda: {"bound": 1.0})
    read_suffixes: tuple[str, ...] = (".npz",)
    write_suffixes: tuple[str, ...] = (".npz",)

    def unpack(self, raw: Any) -> tuple[np.ndarray, dict[str, float]]:
        """(samples float32 [*shape, 1] in [0, 1], bound). ValueError that names the mend for other arrays, NaN and infinity."""
        values, bound = raw if isinstance(raw, Distances) else (raw, None)
        self.check(values)
        if not np.isfinite(values).all():
            raise ValueError(f"a {self.name} holds finite distances: truncate it, np.clip(values, -bound, bound)")
        largest = float(np.abs(values).max())
        bound = largest if bound is None else float(np.float32(bound))
        if not (bound > 0 and math.isfinite(bound) and largest <= bound):
            raise ValueError(
                f"a {self.name} with distances up to {largest:g} needs a positive bound of their size, not {bound:g}: "
                "Distances(np.clip(values, -bound, bound), bound)"
            )
        return np.clip(values / np.float64(2 * bound) + 0.5, 0, 1).astype(np.float32), {"bound": bound}

    def pack(self, samples: np.ndarray, metadata: Metadata) -> Distances:
        """The distances within their bound."""
        bound = metadata["bound"]
        return Distances(((samples.astype(np.float64) - 0.5) * 2 * bound).astype(np.float32), bound)

    def check_metadata(self, metadata: Metadata, shape: tuple[int, ...]) -> None:
        """ValueError for a bound that is not positive."""
        del shape
        if not (metadata["bound"] > 0 and math.isfinite(metadata["bound"])):
            raise ValueError(f"the bound of a {self.name} is positive, not {metadata['bound']}")

    def metrics(self, original: Any, decoded: Any) -> dict[str, float]:
        """``psnr_db``, whose peak is twice the original's bound; ``mse`` in squared units; ``sign_accuracy``, a share."""
        bound = self.unpack(original)[1]["bound"]
        self.unpack(decoded)
        first, second = (each.values if isinstance(each, Distances) else each for each in (original, decoded))
        if first.shape != second.shape:
            raise ValueError(f"distance fields of different shapes have no error: {first.shape} and {second.shape}")
        mse = float(np.mean((first.astype(np.float64) - second) ** 2))
        # Inside is what is negative, on the surface is neither.
        agree = float(np.mean((first < 0) == (second < 0)))
        return {"psnr_db": float(psnr_db(mse, 2 * bound)), "mse": mse, "sign_accuracy": agree}

    def read(self, source: File, *, max_samples: int = DEFAULT_MAX_SAMPLES) -> Distances:
        """The distances in an .npz file: ``distances`` [*shape] and ``bound``, or one array of floats alone.

        float64 becomes float32. ValueError, one line that names the file and the mend; OSError where it cannot be opened.
        """
        data = read_all(source)
        with about(source):
            arrays = read_npz(data, max_samples)
            values = only_array(arrays, "distances", (self.rank, self.rank + 1))
            if values.dtype.kind != "f" or (values.ndim > self.rank and values.shape[-1] != 1):
                shape = f"{values.dtype} {list(values.shape)}"
                raise ValueError(f"a {self.name} is an array of floats with {self.rank} axes, not {shape}")
            bound = arrays.get("bound")
            if bound is not None and (bound.size != 1 or bound.dtype.kind != "f"):
                raise ValueError("its bound is not one float")
            values = values.reshape(*values.shape[: self.rank], 1).astype(np.float32)
            raw = Distances(values, None if bound is None else float(bound.ravel()[0]))
            self.unpack(raw)
            return raw

    def write(self, path: str | os.PathLike, raw: Any) -> None:
        """Writes distances and their bound as .npz."""
        self.check_target(path)
        bound = self.unpack(raw)[1]["bound"]
        values = raw.values if isinstance(raw, Distances) else raw
        Path(path).write_bytes(npz_bytes({"distances": values[..., 0], "bound": np.float32(bound)}))

    def to_bytes(self, raw: Any) -> bytes:
        """Bound and length of each axis, then all values through zlib: transforms of grids have few different ones."""
        bound = self.unpack(raw)[1]["bound"]
        values = raw.values if isinstance(raw, Distances) else raw
        head = struct.pack(f"<f{self.rank}I", bound, *values.shape[:-1])
        return head + zlib.compress(values.astype("<f4").tobytes(), 9)

    def from_bytes(self, data: bytes) -> Distances:
        """The distances of `to_bytes`. ValueError for other bytes."""
        head = struct.Struct(f"<f{self.rank}I")
        try:
            bound, *shape = head.unpack_from(data)
            count = math.prod(shape)
            stored = zlib.decompressobj().decompress(data[head.size :], 4 * count + 1)
        except (struct.error, zlib.error, OverflowError) as error:
            raise ValueError(f"not a {self.name} of a prepared set: {error}") from error
        if not count or len(stored) != 4 * count:
            raise ValueError(f"not a {self.name} of a prepared set: its values do not fill its shape")
        return Distances(np.frombuffer(stored, "<f4").astype(np.float32).reshape(*shape, 1), bound)

"""The interface of a modality: everything that the library must know of one kind of signal."""

from __future__ import annotations

import dataclasses
import io
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.evaluation.metrics import mean_squared_error, psnr_db
from vcinr.signals.grids import pixel_grid

DEFAULT_MAX_SAMPLES = 2**26
Source = str | os.PathLike | io.BufferedIOBase
Metadata = Mapping[str, int | float | bytes]
"""What a signal has besides its samples, by the names of `Modality.meta_types`."""


@dataclasses.dataclass(frozen=True)
class ReadOption:
    """A choice that `Modality.read` takes as a keyword; on the command line ``--name``.

    name: the keyword.   help: one line.   metavar: what the value stands for; empty for a switch, which is True or False.
    """

    name: str
    help: str
    metavar: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Modality:
    """One kind of signal: its samples, coordinates, metadata, files and quality. The defaults are those of integer samples.

    *Raw* is a signal as callers hold it: an array of samples, or whatever `unpack` takes apart into samples and metadata. Where
    signals have ranges of their own, samples are float32 that `unpack` has brought into [0, 1], and metadata say from where.

    Attributes:
        name: key in `MODALITIES`, a noun in the singular.
        coord_dim: number of coordinates that the field takes for a sample.
        channels: number of values per sample.
        num_axes: number of axes of a signal; 0: as many as coordinates.
        field_channels: number of values that the field gives; 0: as many as a sample has. See `observe`.
        evaluations: how many points of the field one sample takes, along a ray, say.
        divisible: whether a patch of a signal is a signal; of views of one scene it is not, and its fields are of whole signals.
        sample_type: NumPy name of the type of samples; "float32" for those that lie in [0, 1] already.
        lowest: sample that becomes 0.
        peak: largest sample less the lowest, which becomes 1; the peak of PSNR in raw units (255 for 8-bit pictures). Of float32
            samples, whose range is 1, only how many steps it has: what is wrong by less than one step counts as lossless.
        common_grid: whether all patches lie on the same coordinates, so that they have principal components.
        mirrored_axes: axes along which a mirrored signal is as good a training example.
        meta_types: what a file holds of a signal besides its samples: name → "int" (fits int32), "float32" or "bytes" (at most
            `vcinr.bitstream.container.MAX_BYTES_META` of them), in file order.
        example_metadata: of samples that come without a signal around them, such as training patches; a value per meta type.
        read_suffixes: suffixes of files that `read` takes, in lower case; others are tried too.
        write_suffixes: suffixes of files that `write` makes, which keep every value; the first is the default.
        read_options: keywords of `read`.
        references: "module:function" of what people use today, each a function (raw signals, dataset, split) → rows as of
            `vcinr.evaluation.measure.measure`.
    """

    name: str
    coord_dim: int
    channels: int
    num_axes: int = 0
    field_channels: int = 0
    evaluations: int = 1
    divisible: bool = True
    sample_type: str = "uint8"
    lowest: float | int = 0
    peak: float | int = 255
    common_grid: bool = True
    mirrored_axes: tuple[int, ...] = ()
    meta_types: Mapping[str, str] = dataclasses.field(default_factory=dict)
    example_metadata: Metadata = dataclasses.field(default_factory=dict)
    read_suffixes: tuple[str, ...] = ()
    write_suffixes: tuple[str, ...] = ()
    read_options: tuple[ReadOption, ...] = ()
    references: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Number of axes of a signal."""
        return self.num_axes or self.coord_dim

    @property
    def outputs(self) -> int:
        """Number of values that the field gives."""
        return self.field_channels or self.channels

    def check(self, samples: Any) -> None:
        """ValueError that names the mend where these are no samples [*shape, channels] of one whole signal."""
        axes = ["samples"] if self.rank == 1 else [f"n{i}" for i in range(self.rank)]
        wanted = f"a {self.name} is a NumPy array of {self.sample_type} [{', '.join([*axes, str(self.channels)])}]"
        if not isinstance(samples, np.ndarray):
            raise ValueError(f"{wanted}, not {type(samples).__name__}")
        fits = samples.ndim == self.rank + 1 and samples.shape[-1] == self.channels and samples.size
        if not fits or samples.dtype.name != self.sample_type:
            raise ValueError(f"{wanted}, not {samples.dtype} {list(samples.shape)}")

    def unpack(self, raw: Any) -> tuple[np.ndarray, dict[str, int | float | bytes]]:
        """(samples [*shape, channels], metadata) of a raw signal. ValueError as `check`."""
        samples = np.asarray(raw)
        self.check(samples)
        return samples, {}

    def pack(self, samples: np.ndarray, metadata: Metadata) -> Any:
        """The raw signal: the inverse of `unpack`."""
        del metadata
        return samples

    def check_metadata(self, metadata: Metadata, shape: tuple[int, ...]) -> None:
        """ValueError for metadata that no signal of this shape has, wherever they come from: a file may say anything.

        Types, int32 and lengths are checked already.
        """

    def weights(self, samples: np.ndarray, metadata: Metadata) -> np.ndarray | None:
        """Share of each sample in every error, float32 [*shape], 0 where it is missing; None: all alike."""
        del samples, metadata
        return None

    def observe(self, field: Callable[[Any], Any], coords: Any) -> Any:
        """Samples [n, channels] (JAX) at coordinates [n, d] of a field, which maps points [m, coord_dim] to [m, field_channels].

        What is sampled is the field itself, unless instruments stand between: a camera sees the integral along a ray.
        """
        return field(coords)

    def rate_units(self, raw: Any) -> dict[str, float]:
        """Further units of rate: name → what a file's bits are divided by, such as 1,000 × seconds for "kbps"."""
        del raw
        return {}

    def normalise(self, samples: Any) -> np.ndarray:
        """Samples → float32 in [0, 1], each sample by itself: training normalises patches, encoding whole signals."""
        self.check(samples)
        if self.sample_type == "float32":
            return samples
        return (samples.astype(np.float32) - np.float32(self.lowest)) / np.float32(self.peak)

    def denormalise(self, values: Any) -> np.ndarray:
        """float [..., channels] → samples; what lies outside [0, 1] is clipped. ValueError for NaN."""
        values = np.asarray(values)
        if np.isnan(values).any():
            raise ValueError(f"a {self.name} with NaN has no {self.sample_type} values: the field that made it has diverged")
        if self.sample_type == "float32":
            return np.clip(values, 0, 1).astype(np.float32)
        return (np.rint(np.clip(values, 0, 1) * self.peak) + self.lowest).astype(self.sample_type)

    def locate(self, positions: np.ndarray) -> np.ndarray:
        """Coordinates float32 [n, coord_dim] of positions [n, axes] in a patch or whole signal, which extends from −1 to 1."""
        return positions

    def coordinates(self, shape: tuple[int, ...], start: int = 0, stop: int | None = None) -> np.ndarray:
        """Coordinates float32 [n, coord_dim] in [-1, 1] of a patch of this shape, or of a signal fitted whole, row-major.

        start, stop: samples from and to, of all; memory is taken for these alone.
        """
        return self.locate(pixel_grid(shape, start, stop))

    def resampled_metadata(self, metadata: Metadata, shape: tuple[int, ...], new: tuple[int, ...]) -> Metadata:
        """Metadata of a signal of this shape on a new grid over the same extent; a sample rate changes with it, say."""
        del shape, new
        return metadata

    def shape_at_rate(self, metadata: Metadata, shape: tuple[int, ...], rate: float | int) -> tuple[int, ...]:
        """The shape of a signal with another sample rate. ValueError where there is no such rate."""
        del metadata, shape
        raise ValueError(f"a {self.name} has no sample rate ({rate:g}): give a scale or a shape")

    def squared_error(self, original: np.ndarray, decoded: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Mean squared error, peak 1, of samples against samples or against floats in normalised units; see `weights`."""
        return mean_squared_error(original, decoded, weights, lowest=self.lowest, peak=self.peak)

    def metrics(self, original: Any, decoded: Any) -> dict[str, float]:
        """Quality of a decoded raw signal: name with unit → value; always ``psnr_db``, infinite for equal samples."""
        (samples, metadata), (other, _) = self.unpack(original), self.unpack(decoded)
        return {"psnr_db": float(psnr_db(self.squared_error(samples, other, self.weights(samples, metadata))))}

    def read(self, source: Source, *, max_samples: int = DEFAULT_MAX_SAMPLES, **options: Any) -> Any:
        """The raw signal in a file, given by path or opened for bytes.

        max_samples: files that promise more are refused before they are decoded.   options: see ``read_options``.
        ValueError, one line that names the file and the mend, for what is no such signal; OSError where it cannot be opened.
        """
        raise ValueError(f"files of a {self.name} are not read: its Modality declares no reader")

    def read_coordinates(self, source: Source, *, max_samples: int = DEFAULT_MAX_SAMPLES) -> tuple[np.ndarray, Callable]:
        """(coordinates float32 [n, d], a function from samples [n, channels] there to what `write` takes) that a file asks for.

        ValueError where signals of this kind are not asked for otherwise than on their grid.
        """
        raise ValueError(f"{source}: a {self.name} is not seen by cameras: leave --poses out, or give --scale or --shape")

    def write(self, path: str | os.PathLike, raw: Any) -> None:
        """Writes a raw signal to a file of one of ``write_suffixes``. ValueError for another suffix or signal."""
        raise ValueError(f"{os.fspath(path)}: files of a {self.name} are not written: its Modality declares no writer")

    def check_target(self, path: str | os.PathLike) -> None:
        """ValueError where `write` has no format for this suffix."""
        if Path(path).suffix.lower() not in self.write_suffixes:
            valid = ", ".join(self.write_suffixes) or "none"
            raise ValueError(f"{os.fspath(path)}: {self.name}s are written as one of {valid}, which keep every value")

    def to_bytes(self, raw: Any) -> bytes:
        """A raw signal as prepared data sets keep it, without loss: by default a file's bytes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"signal{self.write_suffixes[0]}"
            self.write(path, raw)
            return path.read_bytes()

    def from_bytes(self, data: bytes) -> Any:
        """The raw signal of `to_bytes`."""
        return self.read(io.BytesIO(data))

"""A model whose files hold deflated pixels, so that every count can be checked by hand."""

import struct
import types
import zlib

import numpy as np

from vcinr.modalities import MODALITIES

HEADER = struct.Struct("<HHB")


class DeflatingModel:
    """Drops the `point` lowest bits of every pixel and deflates the rest; decodes to the middle of what was dropped.

    What it calls codes are its files, its grids are their symbols.
    """

    def __init__(self, num_points=3):
        self.codec = types.SimpleNamespace(name="deflate", needs_model=True, modelled_bits=lambda params, point, codes: None)
        self.params = {}
        self.points = [{"name": f"drop{k}", "fingerprint": f"{k:08x}", "lambda": 2.0**-k} for k in range(num_points)]
        self.num_bytes = 1234
        self.modality = MODALITIES["picture"]
        self.workdirs = []
        self.reads = 0

    def encode_batch(self, arrays, point=0, effort=0, *, workdir=None, progress=None):
        self.workdirs.append(workdir)
        if progress is not None:
            progress("deflating", 0, len(arrays))
            progress("deflating", len(arrays), len(arrays))
        return [HEADER.pack(*array.shape[:2], point) + zlib.compress((array >> point).tobytes()) for array in arrays]

    def read_codes(self, data, max_pixels=None, max_work=None):
        self.reads += 1
        height, width, point = HEADER.unpack_from(data)
        symbols = np.frombuffer(zlib.decompress(data[HEADER.size :]), np.uint8).reshape(height, width, 3)
        return point, [data], [symbols]

    def write_codes(self, point, codes, grids):
        return b"".join(struct.pack("<I", len(data)) + data for data in codes)

    def values_of_codes(self, point, codes, grids):
        return [((symbols.astype(np.float32) + 0.5) * 2**point - 0.5) / 255 for symbols in grids]

    def bits_of_codes(self, point, codes, grids):
        return [8.0 * self.payload_bytes(data) - 3 for data in codes]

    def denormalise(self, values):
        return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)

    def decode_batch(self, files):
        read = [self.read_codes(data) for data in files]
        return [self.denormalise(*self.values_of_codes(point, codes, grids)) for point, codes, grids in read]

    def decode_samples_together(self, data, max_pixels=None, max_work=None):
        files, position = [], 0
        while position < len(data):
            (length,) = struct.unpack_from("<I", data, position)
            files.append(data[position + 4 : position + 4 + length])
            position += 4 + length
        return [(picture, {}) for picture in self.decode_batch(files)]

    def payload_bytes(self, data):
        return len(data) - HEADER.size


def pictures(count=4, shape=(8, 12)):
    """Smooth pictures with a little noise, uint8 [h, w, 3]."""
    rng = np.random.default_rng(7)
    ramp = np.add.outer(np.arange(shape[0]), np.arange(shape[1]))[..., None] * np.array([3, 5, 7]) + 40
    return [(ramp + rng.integers(-4, 5, (*shape, 3))).astype(np.uint8) for _ in range(count)]


def points(codec="klt", curve=((0.5, 24.0), (1.0, 27.0), (2.0, 31.0), (4.0, 36.0)), overhead=0.1, **extra):
    """Rows of the shape that `measure` returns, along a curve of (payload rate, PSNR)."""
    return [
        {
            "codec": codec,
            "dataset": "cifar10_small",
            "split": "test",
            "num_signals": 517,
            "point": k,
            "file_bytes": (bpp + overhead) * 128,
            "payload_bytes": bpp * 128,
            "bpp_file": bpp + overhead,
            "bpp_container": bpp + 0.01,
            "bpp_payload": bpp,
            "bpp_estimated": bpp - 0.01,
            "psnr_db": decibels,
            "psnr_of_mean_mse_db": decibels - 0.5,
            "psnr_float_db": decibels + 0.01,
            "num_lossless": 0,
            "model_bytes": 4567,
            **extra,
        }
        for k, (bpp, decibels) in enumerate(curve)
    ]


def with_signals(rows, rates, decibels):
    """Rows with values per signal, and the means that belong to them: rates and decibels are [points, signals]."""
    made = []
    for row, bpp, quality in zip(rows, np.asarray(rates, float), np.asarray(decibels, float), strict=True):
        means = {"bpp_file": bpp.mean(), "bpp_payload": bpp.mean(), "psnr_db": quality.mean(), "num_signals": len(bpp)}
        signals = {"bpp_file": bpp.tolist(), "bpp_payload": bpp.tolist(), "psnr_db": quality.tolist()}
        made.append({**row, **means, "signals": signals})
    return made

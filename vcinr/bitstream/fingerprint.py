"""Fingerprints: which operating point, of which model, decodes a file."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from vcinr.bitstream.container import FINGERPRINT_SIZE
from vcinr.codec import Codec
from vcinr.stage import Params


def fingerprint(codec: Codec, params: Params, point: int) -> bytes:
    """Four bytes that tell operating points apart: a SHA-256 prefix over exactly what decoding uses.

    Covered: the codec's name, modality, patch and `decoder_config()` (JSON-able), and `decoder_arrays` with names, types,
    shapes and values, as they are stored.
    """
    about = {"codec": codec.format_name, "modality": codec.modality, "patch": list(codec.patch), "config": codec.decoder_config()}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
    for name, array in sorted(codec.decoder_arrays(params, point).items()):
        array = np.asarray(array)
        digest.update(json.dumps([name, array.dtype.name, list(array.shape)], separators=(",", ":")).encode())
        digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.digest()[:FINGERPRINT_SIZE]

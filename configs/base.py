"""What every config has: data, codec, seed, precision. The codec's own config lies flat beside them, defaults filled in."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from vcinr.codecs import CODECS, Codec, build_config, make_codec

DATA = {
    "name": "",  # of a set in `vcinr.signals.datasets.DATASETS`
    "path": "",  # for the set `folder`
    "data_dir": "",  # where prepared sets lie; empty for the default
    "train": "train",
    "validation": "validation",
    "test_name": "",  # the set that is evaluated; empty for `name`
    "test": "test",
    "test_limit": 0,  # signals to evaluate; 0 for all
    "test_tiles": 0,  # cut test pictures into whole tiles of this side, each a signal of its own; 0 for whole pictures
    "flips": True,
}


def make_config(codec: str, data: Mapping[str, Any], values: Mapping[str, Any]) -> ConfigDict:
    """A locked config.

    codec: key of `CODECS`.   data: overrides of `DATA`.   values: nested overrides of the codec's own defaults.
    ValueError for a key or type that the codec does not have, naming the nearest.
    """
    resolved = build_config(CODECS[codec][1], values, codec)
    config = ConfigDict({"codec": codec, "seed": 0, "matmul_precision": "float32", "model_precision": "float32", "data": DATA})
    config.data.update(data)
    config.update(dataclasses.asdict(resolved))
    return config.lock()


def codec_of(config: ConfigDict) -> Codec:
    """The codec that a config describes."""
    common = ("codec", "seed", "matmul_precision", "model_precision", "data")
    return make_codec(config.codec, {key: value for key, value in config.to_dict().items() if key not in common})


def choose(variants: Mapping[str, Callable[[], ConfigDict]], name: str | None) -> ConfigDict:
    """The variant of that name; ValueError that names the nearest and all others for anything else."""
    if name not in variants:
        close = difflib.get_close_matches(str(name), variants, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"no config variant {name!r}{hint} (valid: {', '.join(variants)})")
    return variants[name]()

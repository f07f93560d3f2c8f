"""The keys of every config: data, codec, seed, precision. All keys of the codec's own config lie beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from vcinr.codecs import CODECS, Codec, make_codec
from vcinr.config import build_config, nearest

DATA = {
    "name": "",  # of a set in `vcinr.datasets.table.DATASETS`
    "path": "",  # for the set `folder`
    "background": "",  # for `folder`, as `python -m experiments.prepare folder --background`
    "eight_bit": False,  # for `folder`, likewise
    "data_dir": "",  # where prepared sets lie; empty for the default
    "train": "train",
    "validation": "validation",
    "test_name": "",  # the set that is evaluated; empty for `name`
    "test": "test",
    "test_limit": 0,  # signals to evaluate; 0 for all
    "test_tiles": 0,  # cut test pictures into whole tiles of this side, each a signal of its own; 0 for whole pictures
    "flips": True,
}

COMMON = ("codec", "seed", "matmul_precision", "model_precision", "data")
"""Keys that every config has; all others belong to the codec's config."""


def make_config(codec: str, data: Mapping[str, Any], values: Mapping[str, Any]) -> ConfigDict:
    """A locked config.

    Args:
      codec: key of `CODECS`.
      data: overrides of `DATA`.
      values: nested overrides of the codec's defaults.

    Raises:
      ValueError: a key that the codec's config lacks (names the nearest), or a value of the wrong type.
    """
    resolved = build_config(CODECS[codec][1], values, codec)
    config = ConfigDict({"codec": codec, "seed": 0, "matmul_precision": "float32", "model_precision": "float32", "data": DATA})
    config.data.update(data)
    config.update(dataclasses.asdict(resolved))
    return config.lock()


def codec_of(config: ConfigDict) -> Codec:
    """The codec that a config describes. Keys that are common and also the codec's, such as ``seed``, go to the codec too."""
    own = {field.name for field in dataclasses.fields(CODECS[config.codec][1])} if config.codec in CODECS else set()
    values = {key: value for key, value in config.to_dict().items() if key not in COMMON or key in own}
    return make_codec(config.codec, values)


def choose(variants: Mapping[str, Callable[[], ConfigDict]], name: str | None) -> ConfigDict:
    """The config of the variant ``name``. ValueError for an unknown one, which names the nearest and all valid ones."""
    if name not in variants:
        raise ValueError(f"no config variant {name!r}{nearest(str(name), variants)}")
    return variants[name]()


def check_key(config: ConfigDict, path: str) -> None:
    """ValueError where a config has no dotted path such as "meta.num_steps"; it names the nearest key."""
    node, where = config, "config"
    for key in path.split("."):
        if not isinstance(node, ConfigDict):
            raise ValueError(f"{where} is a value and has no key {key!r}")
        if key not in node:
            raise ValueError(f"{where} has no key {key!r}{nearest(key, node)}")
        node, where = node[key], f"{where}.{key}"

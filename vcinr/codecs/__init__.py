"""Codecs: one system per file, each a composition of field, adaptation, quantiser and entropy coder."""

from __future__ import annotations

import importlib
from collections import UserDict
from collections.abc import Mapping
from typing import Any

from vcinr.codec import Code, Codec
from vcinr.config import build_config, nearest
from vcinr.stage import Stage, TrainingConfig

__all__ = ["CODECS", "Code", "Codec", "Stage", "TrainingConfig", "make_codec"]


class _Codecs(UserDict):
    """A dict whose values (module, codec, config) are imported from this room when they are first asked for."""

    def __getitem__(self, name: str) -> tuple[type, type]:
        value = self.data[name]
        if len(value) == 3:
            module = importlib.import_module(f"{__name__}.{value[0]}")
            value = self.data[name] = getattr(module, value[1]), getattr(module, value[2])
        return value


CODECS = _Codecs(
    {
        "coin": ("coin", "Coin", "CoinConfig"),
        "coinpp": ("coinpp", "CoinPP", "CoinPPConfig"),
        "combiner": ("combiner", "Combiner", "CombinerConfig"),
        "combiner_plus": ("combiner", "CombinerPlus", "CombinerPlusConfig"),
        "contextual_inr": ("contextual_inr", "ContextualINR", "ContextualINRConfig"),
        "functa": ("functa", "Functa", "FunctaConfig"),
        "klt": ("klt", "KLT", "KLTConfig"),
        "meta_sparse_inr": ("meta_sparse_inr", "MetaSparseINR", "MetaSparseINRConfig"),
        "mscn_per_signal": ("mscn", "MSCNPerSignal", "PerSignalConfig"),
        "mscn_structured": ("mscn", "MSCNStructured", "StructuredConfig"),
        "mscn_unstructured": ("mscn", "MSCNUnstructured", "MSCNConfig"),
        "strumpler_basic": ("strumpler_basic", "StrumplerBasic", "StrumplerBasicConfig"),
        "strumpler_meta": ("strumpler_meta", "StrumplerMeta", "StrumplerMetaConfig"),
        "vc_inr": ("vc_inr", "VCINR", "VCINRConfig"),
    }
)
"""Name → (codec, its config). The command line starts faster for not importing all of them."""


def make_codec(name: str, config: Mapping[str, Any]) -> Codec:
    """A codec from its name and its config as a nested mapping, as in a model's JSON or an experiment's config.

    ValueError for an unknown codec or key (names the nearest valid one), or a value of the wrong type.
    """
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}{nearest(name, CODECS)}")
    codec, config_type = CODECS[name]
    return codec(build_config(config_type, config, name))

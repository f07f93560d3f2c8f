"""Codecs: one system per file, each a composition of field, adaptation, quantiser and entropy coder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vcinr.codec import Code, Codec
from vcinr.codecs.coin import Coin, CoinConfig
from vcinr.codecs.coinpp import CoinPP, CoinPPConfig
from vcinr.codecs.contextual_inr import ContextualINR, ContextualINRConfig
from vcinr.codecs.functa import Functa, FunctaConfig
from vcinr.codecs.klt import KLT, KLTConfig
from vcinr.codecs.meta_sparse_inr import MetaSparseINR, MetaSparseINRConfig
from vcinr.codecs.mscn import MSCNConfig, MSCNPerSignal, MSCNStructured, MSCNUnstructured, PerSignalConfig, StructuredConfig
from vcinr.codecs.strumpler_basic import StrumplerBasic, StrumplerBasicConfig
from vcinr.codecs.strumpler_meta import StrumplerMeta, StrumplerMetaConfig
from vcinr.codecs.vc_inr import VCINR, VCINRConfig
from vcinr.config import build_config, nearest
from vcinr.stage import Stage, TrainingConfig

__all__ = ["CODECS", "Code", "Codec", "Stage", "TrainingConfig", "make_codec"]

CODECS: dict[str, tuple[type, type]] = {
    "coin": (Coin, CoinConfig),
    "coinpp": (CoinPP, CoinPPConfig),
    "contextual_inr": (ContextualINR, ContextualINRConfig),
    "functa": (Functa, FunctaConfig),
    "klt": (KLT, KLTConfig),
    "meta_sparse_inr": (MetaSparseINR, MetaSparseINRConfig),
    "mscn_per_signal": (MSCNPerSignal, PerSignalConfig),
    "mscn_structured": (MSCNStructured, StructuredConfig),
    "mscn_unstructured": (MSCNUnstructured, MSCNConfig),
    "strumpler_basic": (StrumplerBasic, StrumplerBasicConfig),
    "strumpler_meta": (StrumplerMeta, StrumplerMetaConfig),
    "vc_inr": (VCINR, VCINRConfig),
}
"""Name → (codec class, config class)."""


def make_codec(name: str, config: Mapping[str, Any]) -> Codec:
    """A codec from its name and its config as a nested mapping, as in a model's JSON or an experiment's config.

    ValueError for an unknown codec or key (names the nearest valid one), or a value of the wrong type.
    """
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}{nearest(name, CODECS)}")
    codec, config_type = CODECS[name]
    return codec(build_config(config_type, config, name))

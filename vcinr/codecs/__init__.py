"""Codecs: one system a file, each a composition of field, adaptation, quantiser and entropy coder."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from vcinr.codecs.codec import Code, Codec, Stage, TrainingConfig
from vcinr.codecs.coin import Coin, CoinConfig
from vcinr.codecs.coinpp import CoinPP, CoinPPConfig
from vcinr.codecs.functa import Functa, FunctaConfig
from vcinr.codecs.klt import KLT, KLTConfig
from vcinr.codecs.meta_sparse_inr import MetaSparseINR, MetaSparseINRConfig
from vcinr.codecs.mscn import MSCNConfig, MSCNStructured, MSCNUnstructured, StructuredConfig
from vcinr.codecs.strumpler_basic import StrumplerBasic, StrumplerBasicConfig
from vcinr.codecs.strumpler_meta import StrumplerMeta, StrumplerMetaConfig
from vcinr.codecs.vc_inr import VCINR, VCINRConfig

__all__ = ["CODECS", "Code", "Codec", "Stage", "TrainingConfig", "make_codec"]

CODECS: dict[str, tuple[type, type]] = {
    "coin": (Coin, CoinConfig),
    "coinpp": (CoinPP, CoinPPConfig),
    "functa": (Functa, FunctaConfig),
    "klt": (KLT, KLTConfig),
    "meta_sparse_inr": (MetaSparseINR, MetaSparseINRConfig),
    "mscn_structured": (MSCNStructured, StructuredConfig),
    "mscn_unstructured": (MSCNUnstructured, MSCNConfig),
    "strumpler_basic": (StrumplerBasic, StrumplerBasicConfig),
    "strumpler_meta": (StrumplerMeta, StrumplerMetaConfig),
    "vc_inr": (VCINR, VCINRConfig),
}
"""Name → (codec, its config)."""


def make_codec(name: str, config: Mapping[str, Any]) -> Codec:
    """A codec from its name and a nested mapping of its config, as in a model's JSON or an experiment's config.

    ValueError for an unknown codec or key, or a value of the wrong type; it names the nearest valid one.
    """
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}{_nearest(name, CODECS)}")
    codec, config_type = CODECS[name]
    return codec(build_config(config_type, config, name))


def build_config(config_type: type, values: Mapping[str, Any], where: str, default: Any = None) -> Any:
    """A frozen config dataclass from a nested mapping; lists become tuples. ValueError as for `make_codec`.

    default: what keys that are left out are taken from, instead of the type's own defaults. So a part of a nested config
    overrides a part of what its owner has there.
    """
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    hints = typing.get_type_hints(config_type)
    built = {}
    for key, value in values.items():
        if key not in fields:
            raise ValueError(f"{where} has no key {key!r}{_nearest(key, fields)}")
        owned = getattr(default, key) if default is not None else fields[key].default
        built[key] = _convert(hints[key], value, f"{where}.{key}", owned)
    return config_type(**built) if default is None else dataclasses.replace(default, **built)


def _convert(hint: Any, value: Any, where: str, default: Any = None) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build_config(hint, value, where, default if isinstance(default, hint) else None)
    if typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        element = typing.get_args(hint)[0]
        return tuple(_convert(element, item, where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and type(value) is hint:
        return value
    raise ValueError(f"{where} must be {getattr(hint, '__name__', hint)}, not {value!r}")


def _nearest(name: str, valid: Any) -> str:
    close = difflib.get_close_matches(name, list(valid), 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} Valid are {', '.join(sorted(valid))}." if not close else f"{hint} (valid: {', '.join(sorted(valid))})"

"""Config dataclasses from nested mappings, with errors that name the nearest valid key."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any


def build_config(config_type: type, values: Mapping[str, Any], where: str, default: Any = None) -> Any:
    """A frozen config dataclass from a nested mapping; lists become tuples.

    Of a union of dataclasses, ``kind`` selects the member.

    Args:
      config_type: the dataclass.
      values: key → value; a nested dataclass is a nested mapping.
      where: the config's name in errors.
      default: config that missing keys are taken from, instead of the dataclass's defaults. Missing keys of nested mappings
        are thus taken from the default that the owner has there.

    Raises:
      ValueError: unknown key (names the nearest valid one), or a value of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    hints = typing.get_type_hints(config_type)
    built = {}
    for key, value in values.items():
        if key not in fields:
            raise ValueError(f"{where} has no key {key!r}{nearest(key, fields)}")
        owned = getattr(default, key) if default is not None else fields[key].default
        built[key] = _convert(hints[key], value, f"{where}.{key}", owned)
    return config_type(**built) if default is None else dataclasses.replace(default, **built)


def _convert(hint: Any, value: Any, where: str, default: Any = None) -> Any:
    if isinstance(hint, types.UnionType) and isinstance(value, Mapping):
        hint = _of_kind(hint, value, where, default)
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


def _of_kind(union: Any, values: Mapping[str, Any], where: str, default: Any) -> type:
    """The member of a union of dataclasses that has the ``kind`` of ``values``, or else of ``default``."""
    kinds = {each.kind: each for each in typing.get_args(union)}
    kind = values.get("kind", default.kind)
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{where} has no kind {kind!r}{nearest(str(kind), kinds)}")
    return kinds[kind]


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest valid name, if one is near, and all valid names."""
    names = list(valid)
    close = difflib.get_close_matches(name, names, 1)
    return (f"; did you mean {close[0]!r}?" if close else "") + f" (valid: {', '.join(names)})"

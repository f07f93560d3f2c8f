"""Trees of arrays on disk: nested dicts and lists in one safetensors file, never pickle."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

_DTYPES = frozenset(
    ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")
)
_MAX_DEPTH = 64


def digest(about: str, tree: Any) -> bytes:
    """32 bytes that differ where a text, or a leaf's type, shape or numbers differ; for names of caches and checkpoints."""
    found = hashlib.sha256(about.encode())
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        found.update(f"{array.dtype.name} {array.shape}".encode())
        found.update(array.tobytes())
    return found.digest()


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file so that, at every moment and after any crash, the path holds the whole old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(scratch, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def save_tree(path: str | os.PathLike, tree: Any) -> None:
    """Writes nested dicts and lists of arrays as a safetensors file, atomically.

    Tensors are named by their "/"-joined path. The nesting is JSON in the file's metadata, which keeps empty dicts and lists too.

    tree: dict whose keys are strings without "/"; leaves are NumPy or JAX arrays of a real dtype. ValueError for any other leaf,
        key or container; it names the path.
    """
    if not isinstance(tree, dict):
        raise ValueError(f"a tree to be saved must be a dict of arrays, not {type(tree).__name__}")
    arrays: dict[str, np.ndarray] = {}
    layout = _flatten(tree, "", arrays)
    # One metadata entry only: safetensors orders several of them at random, and equal trees should give equal files.
    write_atomically(path, save(arrays, metadata={"tree": json.dumps(layout, sort_keys=True)}))


def load_tree(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a file of `save_tree`: nested dicts and lists of NumPy arrays, bit for bit.

    Raises FileNotFoundError where there is no file, ValueError where it is damaged or was not written by `save_tree`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safe_open(path, framework="np") as file:
            layout = json.loads((file.metadata() or {})["tree"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        tree = _nest(layout, "", arrays)
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or not a tree of arrays that this program wrote ({error})") from error
    if arrays or not isinstance(tree, dict):
        raise ValueError(f"{path} is damaged: its layout does not name the tensors {sorted(arrays)[:3]}")
    return tree


def _flatten(node: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if path.count("/") > _MAX_DEPTH:
        raise ValueError(f"a tree to be saved is nested deeper than {_MAX_DEPTH} levels at {path!r}")
    prefix = f"{path}/" if path else ""
    if isinstance(node, dict):
        for key in node:
            if not isinstance(key, str) or not key or "/" in key:
                raise ValueError(f"keys of a saved tree are non-empty strings without '/', not {key!r} (in {path!r})")
        return {key: _flatten(node[key], prefix + key, arrays) for key in sorted(node)}
    if isinstance(node, list):
        return [_flatten(child, f"{prefix}{index}", arrays) for index, child in enumerate(node)]
    if not isinstance(node, np.ndarray | np.generic | jax.Array) or getattr(node.dtype, "name", None) not in _DTYPES:
        kind = getattr(node, "dtype", type(node).__name__)
        raise ValueError(f"{path!r} is {kind}; a saved tree holds dicts, lists and arrays of {', '.join(sorted(_DTYPES))}")
    array = np.asarray(node, order="C")  # safetensors copies raw memory, whatever the strides
    arrays[path] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return "array"


def _nest(layout: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    prefix = f"{path}/" if path else ""
    if isinstance(layout, dict):
        return {key: _nest(child, prefix + key, arrays) for key, child in layout.items()}
    if isinstance(layout, list):
        return [_nest(child, f"{prefix}{index}", arrays) for index, child in enumerate(layout)]
    if layout != "array":
        raise ValueError(f"unknown layout entry at {path!r}")
    return arrays.pop(path)

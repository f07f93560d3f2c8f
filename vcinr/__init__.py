"""vcinr: neural compression with implicit neural representations, in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcinr.bitstream.container import BitstreamError
    from vcinr.model.finding import load
    from vcinr.model.model import Model
    from vcinr.model.places import ModelError

__version__ = "0.1.0"
__all__ = ["BitstreamError", "Model", "ModelError", "load"]

_HOMES = {
    "BitstreamError": "vcinr.bitstream.container",
    "Model": "vcinr.model.model",
    "ModelError": "vcinr.model.places",
    "load": "vcinr.model.finding",
}


def __getattr__(name: str) -> Any:
    # Importing JAX takes half a second, which `vcinr --help` and `vcinr info` need not wait for; and the command line chooses how
    # NumPy works before it is imported.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""vcinr: neural compression with implicit neural representations, in JAX."""

from vcinr.bitstream import BitstreamError
from vcinr.model import Model, ModelError, load

__version__ = "0.1.0"
__all__ = ["BitstreamError", "Model", "ModelError", "load"]

"""Training: a codec's stages become compiled steps, spread over devices, checkpointed, resumed and rolled back."""

from vcinr.devices import pmapped

__all__ = ["pmapped"]

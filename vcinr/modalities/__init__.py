"""Kinds of signal, one per file: samples, coordinates, metadata, files, quality."""

from vcinr.modalities.modality import Modality
from vcinr.modalities.picture import Picture

__all__ = ["MODALITIES", "Modality"]

MODALITIES: dict[str, Modality] = {"picture": Picture()}
"""Name → modality. A new one is a new entry, made before a codec of that modality is; see docs/extending.md."""

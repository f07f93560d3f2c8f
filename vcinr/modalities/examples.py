"""Training examples in the units that codecs fit."""

from __future__ import annotations

import dataclasses

import numpy as np

from vcinr.fields.field import FieldConfig
from vcinr.modalities import MODALITIES, Modality
from vcinr.stage import ExampleSource


def modality_of(name: str, patch: tuple[int, ...]) -> Modality:
    """The modality's row. ValueError where there is none of that name, or a patch has not its number of axes."""
    if name not in MODALITIES:
        raise ValueError(f"unknown modality {name!r}: valid are {', '.join(MODALITIES)}; import the module that adds another")
    if len(patch) != MODALITIES[name].rank:
        raise ValueError(f"a patch of a {name} has {MODALITIES[name].rank} axes, not {patch}")
    return MODALITIES[name]


def check_field(row: Modality, field: FieldConfig) -> None:
    """ValueError where a field is not from this modality's coordinates to what it observes."""
    for key, wanted in (("coord_dim", row.coord_dim), ("channels", row.outputs)):
        if getattr(field, key) != wanted:
            raise ValueError(f"field.{key} is {getattr(field, key)}, but a {row.name} has {wanted}")


def check_direct(row: Modality, codec: str) -> None:
    """ValueError where samples are not the field's own values: for codecs that evaluate their field at samples alone."""
    if type(row).observe is not Modality.observe:
        raise ValueError(
            f"{codec} has no {row.name}: its samples are no values of a field; choose vc_inr, coinpp, functa or coin"
        )


def normalise_batch(modality: str, raw: np.ndarray) -> np.ndarray:
    """Raw patches [b, *patch, c] → float32 [b, n, c] in normalised units.

    The batch is read as one long signal, which is the same for a modality that normalises each sample by itself.
    """
    joined = raw.reshape(raw.shape[0] * raw.shape[1], *raw.shape[2:])
    return MODALITIES[modality].normalise(joined).reshape(raw.shape[0], -1, raw.shape[-1])


@dataclasses.dataclass(frozen=True)
class NormalisedSource:
    """Patches of a source as ``{"values": float32 [b, n, c]}``."""

    patches: ExampleSource
    modality: str

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        """A batch of normalised patches."""
        return {"values": normalise_batch(self.modality, self.patches.batch(rng, size)["values"])}

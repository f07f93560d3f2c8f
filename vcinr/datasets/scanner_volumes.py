"""A builder of scanner volumes for tensorflow-datasets: few, whole, and large enough that patches make the examples."""

from __future__ import annotations

from vcinr.datasets.builders import SignalBuilder
from vcinr.modalities.scanner_volume import Volume

# By person and machine: an MR and a CT that no other volume shares are the test.
SCANNER_SPLITS = {
    "train": ("chris_t1.nii.gz", "spm152.nii.gz", "stent.npz"),
    "validation": ("chris_t1.nii.gz", "stent.npz"),
    "test": ("MR_Gd.nii.gz", "CT_pitch.nii.gz"),
}
VALIDATION_SHARE = 8
"""The first part of so many, along z, of each volume that training and validation share."""
GAP = 8
"""Slices between the two that neither has: neighbours are alike."""


def lower_part(volume: Volume) -> Volume:
    """What validation has of a volume that it shares with training."""
    return _sliced(volume, 0, volume.voxels.shape[0] // VALIDATION_SHARE)


def upper_part(volume: Volume) -> Volume:
    """What training has of it."""
    size = volume.voxels.shape[0]
    return _sliced(volume, size // VALIDATION_SHARE + GAP, size)


def _sliced(volume: Volume, start: int, stop: int) -> Volume:
    """Slices from and to; the affine follows, and the range is that of the whole volume."""
    header = volume.header
    if header.affine is not None:
        a = header.affine
        header = header._replace(affine=tuple(a[i] + (start * a[i - 1] if i % 4 == 3 else 0.0) for i in range(12)))
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    return Volume(volume.voxels[start:stop].copy(), header, (low, high - low))


class Scanners(SignalBuilder, skip_registration=True):
    """Three MR and two CT volumes of five people and things; validation is a slab of two that training has the rest of."""

    modality = "scanner_volume"

    def signals(self):
        """See `SCANNER_SPLITS`."""
        return {
            split: [(name.split(".")[0], self._part(name, split)) for name in names] for split, names in SCANNER_SPLITS.items()
        }

    def _part(self, name: str, split: str) -> Volume:
        volume = self.read(self.source / name)
        if split == "test" or name not in SCANNER_SPLITS["validation"]:
            return volume
        return upper_part(volume) if split == "train" else lower_part(volume)

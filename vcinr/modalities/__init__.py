"""Kinds of signal, one per file: samples, coordinates, metadata, files, quality."""

from vcinr.modalities.climate import Climate
from vcinr.modalities.distance_field import DistanceField
from vcinr.modalities.modality import Modality
from vcinr.modalities.picture import DeepPicture, GreyPicture, Picture
from vcinr.modalities.radiance_field import RadianceField
from vcinr.modalities.scanner_volume import ScannerVolume
from vcinr.modalities.sound import SECONDS, SIXTEEN_BIT, Sound
from vcinr.modalities.video import Video
from vcinr.modalities.voxels import Voxels

__all__ = ["MODALITIES", "Modality"]

MODALITIES: dict[str, Modality] = {
    row.name: row
    for row in (
        Picture(),
        GreyPicture(),
        DeepPicture(),
        DeepPicture(name="deep_grey_picture", channels=1),
        Sound(),
        Sound(name="stereo_sound", channels=2, example_metadata={"rate": 44100}, read_options=(SECONDS, SIXTEEN_BIT)),
        Video(),
        Voxels(),
        DistanceField(),
        DistanceField(name="distance_field_2d", coord_dim=2, mirrored_axes=(0, 1)),
        ScannerVolume(),
        Climate(),
        Climate(name="climate_region", coord_dim=2, globe=False),
        RadianceField(),
    )
}
"""Name → modality. A new one is a new entry, made before a codec of that modality is; see docs/extending.md."""

"""The table of data sets: what each is, its splits, and what it is made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

DATA_VARIABLE = "VCINR_DATA"
INSTALL = "pip install 'vcinr[prepare]'"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One row of `DATASETS`.

    name: its key.  description: one line.
    splits: our split → tensorflow-datasets' split expression.
    builder: class of a builder, "module:Class" in `vcinr.datasets`; None for a stock set.
    source: for our own sets, the file or folder under $VCINR_DATA that preparing reads; "" where it is found otherwise.
    stock: for stock sets, ``name/config`` in tensorflow-datasets' catalogue.
    feature: key of the picture in an example of a stock set.
    modality: key of `MODALITIES`; of the set ``folder`` an option.
    """

    name: str
    description: str
    splits: Mapping[str, str]
    builder: str | None = None
    source: str = ""
    stock: str = ""
    feature: str = "image"
    modality: str = "picture"

    @property
    def environment(self) -> str:
        """The shell command that makes preparing possible."""
        if self.stock:
            return INSTALL
        if self.source:
            return f"export {DATA_VARIABLE}=DIR  # the folder that holds {self.source}"
        return "pip install scikit-image" if self.name == "demo" else ""


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_NO_VALIDATION = {"train": "train[:95%]", "validation": "train[95%:]"}

DATASETS: dict[str, Dataset] = {
    row.name: row
    for row in (
        Dataset("demo", "colour photographs of scikit-image's wheel", _same("train", "validation", "test"), "builders:Demo"),
        Dataset(
            "cifar10_small",
            "5,000 training and 517 test pictures of CIFAR-10",
            _same("train", "validation", "test"),
            "builders:Cifar10Small",
            source="cifar10_small.npz",
        ),
        Dataset(
            "faces",
            "2,000 training and 200 test faces of CelebA at 64×64, mildly JPEG-compressed; for non-commercial research",
            _same("train", "validation", "test"),
            "builders:Faces",
            source="faces_celeba64.npz",
        ),
        Dataset("kodak", "the 24 Kodak photographs, whole; evaluation only", _same("test"), "builders:Kodak", source="kodak"),
        Dataset(
            "photos",
            "lossless photographs to train on; among them crops of DIV2K's validation pictures (our div2k test split)",
            _same("train", "validation"),
            "builders:Photos",
            source="photos",
        ),
        Dataset(
            "clips",
            "17 videos of 24 frames at 128×128, of eight sources",
            _same("train", "validation", "test"),
            "video:Clips",
            source="video/clips_24x128x128.npz",
            modality="video",
        ),
        Dataset(
            "ucf101",
            "UCF-101, the first 24 frames of each video; test is that of its split 1",
            _same("train", "validation", "test"),
            "video:Ucf101",
            source="UCF-101",
            modality="video",
        ),
        Dataset(
            "speech",
            "read speech of LibriSpeech at 16 kHz, one utterance of each of 144 speakers",
            _same("train", "validation", "test"),
            "sound:Speech",
            source="speech",
            modality="sound",
        ),
        Dataset(
            "speech_3s",
            "the first three seconds of each recording of speech",
            _same("train", "validation", "test"),
            "sound:Speech3s",
            source="speech",
            modality="sound",
        ),
        Dataset(
            "librispeech",
            "LibriSpeech as it is published: train-* and test-clean, validation by speaker",
            _same("train", "validation", "test"),
            "sound:LibriSpeech",
            source="LibriSpeech",
            modality="sound",
        ),
        Dataset(
            "librispeech_3s",
            "the first three seconds of each utterance of LibriSpeech, as COIN++ takes them",
            _same("train", "validation", "test"),
            "sound:LibriSpeech3s",
            source="LibriSpeech",
            modality="sound",
        ),
        Dataset(
            "modelnet10_30",
            "furniture of ModelNet10 as 30×30×30 voxels; validation by outline, as many shapes are there several times",
            _same("train", "validation", "test"),
            "voxels:ModelNet10",
            source="voxels_modelnet10_30.npz",
            modality="voxels",
        ),
        Dataset(
            "modelnet10_sdf",
            "exact signed distances, in voxels, of modelnet10_30; not truncated",
            _same("train", "validation", "test"),
            "distance_fields:ModelNet10Distances",
            source="voxels_modelnet10_30.npz",
            modality="distance_field",
        ),
        Dataset(
            "silhouettes_sdf",
            "exact signed distances of the three 30×30 shadows of each shape of modelnet10_30; not truncated",
            _same("train", "validation", "test"),
            "distance_fields:Silhouettes",
            source="voxels_modelnet10_30.npz",
            modality="distance_field_2d",
        ),
        Dataset(
            "scanners",
            "three MR and two CT volumes, whole; test is one of each, validation slabs of two that training has the rest of",
            _same("train", "validation", "test"),
            "scanner_volumes:Scanners",
            source="mri",
            modality="scanner_volume",
        ),
        Dataset(
            "folder",
            "pictures, or other signals, of one's own, from a folder (path=…)",
            {**_same("train", "validation"), "all": "train+validation"},
            "builders:Folder",
        ),
        Dataset(
            "era5_region",
            "ERA5 temperature at 2 m over Italy, 43×48, every three hours",
            _same("train", "validation", "test"),
            "climate:Era5Region",
            source="climate/era5_t2m_region_43x48.npz",
            modality="climate_region",
        ),
        Dataset(
            "climate_global",
            "annual means of temperature at 2 m of a climate model on the globe, 46×90",
            _same("train", "validation", "test"),
            "climate:ClimateGlobal",
            source="climate/t2m_ccsm_global_46x90_derived.npz",
            modality="climate",
        ),
        Dataset(
            "climate_misc",
            "fields on the globe of other sizes and variables; evaluation only",
            _same("test"),
            "climate:ClimateMisc",
            source="climate/global_misc.npz",
            modality="climate",
        ),
        Dataset(
            "era5",
            "ERA5 on the globe, or other fields, from a folder of NetCDF and Zarr, one signal per time",
            _same("train", "validation", "test"),
            "climate:Era5",
            source="era5",
            modality="climate",
        ),
        Dataset(
            "scenes",
            "furniture in 12 views of 32×32 from one rig, rendered from voxels; test scenes with eight views from other cameras",
            _same("train", "validation", "test"),
            "scenes:Scenes",
            source="voxels_modelnet10_30.npz",
            modality="radiance_field",
        ),
        Dataset("cifar10", "CIFAR-10", {**_NO_VALIDATION, "test": "test"}, stock="cifar10"),
        Dataset(
            "div2k",
            "DIV2K, high resolution; test is its validation split",
            {**_NO_VALIDATION, "test": "validation"},
            stock="div2k/bicubic_x2",
            feature="hr",
        ),
        Dataset("celeb_a", "CelebA, aligned faces", _same("train", "validation", "test"), stock="celeb_a"),
        Dataset(
            "imagenette",
            "Imagenette v2 at full size; test is its validation split",
            {**_NO_VALIDATION, "test": "validation"},
            stock="imagenette/full-size-v2",
        ),
    )
}

"""Sets of video: prepared and read offline, and no source on two sides."""

import numpy as np
import pytest

pytest.importorskip("av", reason="reading and writing video needs PyAV: pip install 'vcinr[video]'")

from tests.modalities.test_video_files import encoded, smooth
from vcinr.datasets.catalogue import load_split, prepare
from vcinr.datasets.video import CLIP_SPLITS, NOMINAL_RATE, clip_source
from vcinr.modalities import MODALITIES
from vcinr.modalities.video import Clip

VIDEO = MODALITIES["video"]


@pytest.fixture
def clips(vcinr_data, datasets_dir):
    path = vcinr_data / "video" / "clips_24x128x128.npz"
    if not path.exists():
        pytest.skip(f"no video in $VCINR_DATA: {path} is not there")
    with np.load(path) as arrays:
        return dict(arrays)


def test_clips_are_prepared_and_read_back_exactly_each_on_one_side(clips):
    assert prepare("clips").counts == {"train": 11, "validation": 2, "test": 4}
    wanted = {split: [name for name in sorted(clips) if clip_source(name) in CLIP_SPLITS[split]] for split in CLIP_SPLITS}
    assert wanted["test"] == ["carphone_pristine_0", "carphone_pristine_1", "cockatoo_0", "cockatoo_1"]
    for split, names in wanted.items():
        found = load_split("clips", split)
        assert found.modality == "video"
        for clip, name in zip(found, names, strict=True):
            np.testing.assert_array_equal(clip.frames, clips[name])
            assert clip.rate == NOMINAL_RATE
    sources = [{clip_source(name) for name in names} for names in wanted.values()]
    assert sum(map(len, sources)) == len(set().union(*sources))
    assert sum(map(len, wanted.values())) == len(clips) == 17


def test_a_clip_of_no_known_source_is_refused(tmp_path, datasets_dir, monkeypatch):
    (tmp_path / "data" / "video").mkdir(parents=True)
    np.savez(tmp_path / "data" / "video" / "clips_24x128x128.npz", stranger_0=np.zeros((1, 2, 2, 3), np.uint8))
    monkeypatch.setenv("VCINR_DATA", str(tmp_path / "data"))
    with pytest.raises(ValueError, match="stranger_0 is of no known source"):
        prepare("clips")


@pytest.fixture
def ucf101(tmp_path):
    """Two classes of six groups with two clips each, as UCF-101 is laid out, in MPEG-4 with B-frames."""
    folder = tmp_path / "data" / "UCF-101"
    data = encoded(smooth(30, 24, 32), "avi", "mpeg4", bf="2").getvalue()
    for kind in ("ApplyEyeMakeup", "YoYo"):
        (folder / kind).mkdir(parents=True)
        for group in (1, 7, 8, 9, 24, 25):
            for number in (1, 2):
                (folder / kind / f"v_{kind}_g{group:02}_c{number:02}.avi").write_bytes(data)
    return folder


def test_ucf101_keeps_its_own_test_groups_and_no_group_is_split(ucf101, datasets_dir, monkeypatch):
    monkeypatch.setenv("VCINR_DATA", str(ucf101.parent))
    prepared = prepare("ucf101")
    assert prepared.counts["test"] == 8
    assert prepared.counts["train"] + prepared.counts["validation"] == 16
    # Clips of a group come in pairs.
    assert prepared.counts["train"] % 2 == 0
    clip = load_split("ucf101", "test")[0]
    assert clip.frames.shape == (24, 24, 32, 3)
    assert clip.rate == 25
    assert np.abs(clip.frames.astype(int) - smooth(30, 24, 32)[:24]).mean() < 10


def test_class_folders_are_read_as_a_folder_of_videos_too(ucf101, datasets_dir):
    options = {"path": str(ucf101), "modality": "video", "frames": "3"}
    assert prepare("folder", **options).counts["all"] == 24
    assert load_split("folder", "all", **options)[5].frames.shape == (3, 24, 32, 3)


def test_an_example_takes_less_than_two_thirds_of_its_samples(clips):
    clip = Clip(clips["carphone_pristine_0"], NOMINAL_RATE)
    assert len(VIDEO.to_bytes(clip)) < 0.66 * clip.frames.nbytes

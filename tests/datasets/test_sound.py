"""Sets of sound: real speech whole and in part, LibriSpeech's folders, and folders of one's own."""

import numpy as np
import pytest

from vcinr.datasets.builders import side
from vcinr.datasets.catalogue import load_split, prepare
from vcinr.modalities import MODALITIES
from vcinr.modalities.sound import Recording

pytest.importorskip("soundfile")
SOUND = MODALITIES["sound"]
SPEAKERS = (103, 1034, 26, 40, 411, 78, 83, 87, 89, 911)


def utterance(path, seconds, seed):
    """Noise in a file, and what it holds."""
    samples = np.random.default_rng(seed).integers(-3000, 3000, (int(16000 * seconds), 1)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    SOUND.write(path, Recording(samples, 16000))
    return samples


@pytest.fixture
def librispeech(tmp_path):
    """LibriSpeech's layout with two utterances a speaker, of one and of four seconds."""
    root, found = tmp_path / "data" / "LibriSpeech", {}
    for part, speakers in (("train-clean-100", SPEAKERS), ("train-clean-360", (5, 6)), ("test-clean", (9, 10))):
        for speaker in speakers:
            for number, seconds in ((0, 1), (1, 4)):
                name = f"{speaker}-1{speaker}-{number:04}"
                path = root / part / str(speaker) / f"1{speaker}" / f"{name}.flac"
                found[name] = utterance(path, seconds, len(found))
            (path.parent / f"{speaker}-1{speaker}.trans.txt").write_text("words")
    return root, found


def names(builder, split):
    return [name for name, _ in builder.signals()[split]]


def test_no_speaker_is_on_two_sides(librispeech):
    from vcinr.datasets.sound import LibriSpeech

    root, found = librispeech
    builder = LibriSpeech(source=root, data_dir=str(root / "prepared"))
    speakers = {split: {name.split("-")[0] for name in names(builder, split)} for split in ("train", "validation", "test")}
    assert speakers["test"] == {"9", "10"}
    assert speakers["train"] | speakers["validation"] == {str(each) for each in (*SPEAKERS, 5, 6)}
    assert not speakers["train"] & speakers["validation"]
    assert all(side(speaker) == "validation" for speaker in speakers["validation"])
    assert sum(len(names(builder, split)) for split in speakers) == len(found)


def test_librispeech_is_prepared_whole_and_in_part(librispeech, datasets_dir, monkeypatch):
    root, found = librispeech
    monkeypatch.setenv("VCINR_DATA", str(root.parent))
    assert sum(prepare("librispeech").counts.values()) == len(found)
    for split in ("train", "test"):
        assert {len(recording.samples) for recording in load_split("librispeech", split)} == {16000, 64000}
    prepare("librispeech_3s")
    first = load_split("librispeech_3s", "test")
    assert [(len(recording.samples), recording.rate) for recording in first] == [(16000, 16000), (48000, 16000)] * 2
    np.testing.assert_array_equal(first[1].samples, found["10-110-0001"][:48000])


def test_a_nested_folder_of_ones_own_takes_the_readers_options(librispeech, datasets_dir):
    root, _ = librispeech
    folder = str(root / "train-clean-100")
    counts = prepare("folder", path=folder, modality="sound").counts
    assert counts["all"] == 2 * len(SPEAKERS)
    recordings = load_split("folder", "all", path=folder, modality="sound")
    assert sorted(len(each.samples) for each in recordings) == [16000] * len(SPEAKERS) + [64000] * len(SPEAKERS)
    prepare("folder", path=folder, modality="sound", seconds="0.5")
    assert {len(each.samples) for each in load_split("folder", "all", path=folder, modality="sound", seconds="0.5")} == {8000}


def test_real_speech(vcinr_data, datasets_dir):
    assert prepare("speech").counts == {"train": 103, "validation": 17, "test": 24}
    files = sorted((vcinr_data / "speech" / "test").glob("*.flac"))
    for recording, path in zip(load_split("speech", "test"), files, strict=True):
        original = SOUND.read(path)
        assert recording.rate == original.rate == 16000
        np.testing.assert_array_equal(recording.samples, original.samples)
    assert prepare("speech_3s").counts == {"train": 103, "validation": 17, "test": 24}
    first = load_split("speech_3s", "test")
    assert {each.samples.shape for each in first} == {(48000, 1)}
    np.testing.assert_array_equal(first[-1].samples, original.samples[:48000])

"""The models that come with the package: whole, small, described, and of use."""

import json

import numpy as np
import pytest

import vcinr
from experiments.release import CARD, MAX_BYTES, MAX_TOTAL_BYTES, MODELS, folder_bytes
from tests.conftest import smooth_picture
from tests.tiny import psnr
from vcinr.bitstream.fingerprint import fingerprint
from vcinr.cli.main import main
from vcinr.modalities import MODALITIES
from vcinr.modalities.climate import ClimateField
from vcinr.modalities.sound import Recording
from vcinr.model.finding import find_by_fingerprint
from vcinr.model.places import BUNDLED, model_folders

FOLDERS = model_folders([BUNDLED])


def test_bundled_models_are_small_together():
    assert {folder.name for folder in FOLDERS} <= set(MODELS)
    assert sum(map(folder_bytes, FOLDERS)) <= MAX_TOTAL_BYTES


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_bundled_model_is_described_small_and_as_it_was_released(folder):
    model, about = vcinr.load(folder.name), json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert {path.name for path in folder.iterdir()} == {*about["files"], "model.json", CARD}
    assert folder_bytes(folder) <= MAX_BYTES
    assert model.precision == "float16"
    card = (folder / CARD).read_text(encoding="utf-8")
    for fact in (model.info["command"], f"| seed | {model.info['config']['seed']} |", model.info["starts"][-1]["git_revision"]):
        assert fact in card
    found = [fingerprint(model.codec, model.params, i).hex() for i in range(len(model.points))]
    assert found == [point["fingerprint"] for point in about["points"]]
    assert all(point["bpp"] > 0 and point["psnr_db"] > 0 for point in model.points)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_bundled_model_codes_a_picture(folder):
    """Smooth waves in little more than a patch: the coarsest point and the finest are decent, and in order.

    Models that are there to be taken apart need only see more than the mean colour.
    """
    model, picture = vcinr.load(folder.name), smooth_picture(33, 40)
    if model.modality.name != "picture":
        pytest.skip("its signals are no pictures")
    coarse, fine = (model.encode(picture, point) for point in (0, len(model.points) - 1))
    decoder = find_by_fingerprint(bytes.fromhex(model.points[-1]["fingerprint"]))
    decoded = decoder.decode(fine)
    assert decoded.dtype == np.uint8 and decoded.shape == picture.shape
    mean = np.broadcast_to(np.rint(picture.mean(axis=(0, 1))).astype(np.uint8), picture.shape)
    enough = 24 if folder.name in ("photo", "tiny") else psnr(mean, picture)
    assert enough < psnr(model.decode(coarse), picture) <= psnr(decoded, picture)
    assert len(coarse) <= len(fine) < picture.nbytes / 2


def recording():
    time = np.arange(4000) / 16000
    waves = sum(np.sin(2 * np.pi * hertz * time + hertz) for hertz in (180, 360, 900)) * np.sin(2 * np.pi * 4 * time) ** 2
    return Recording(np.round(4000 * waves).astype(np.int16)[:, None], 16000)


def region():
    latitudes, longitudes = np.linspace(47, 40, 20), np.linspace(6, 14, 25)
    values = 285 + 8 * np.sin(latitudes / 3)[:, None] + 3 * np.cos(longitudes)
    return ClimateField(values.astype(np.float32), latitudes, longitudes, name="t2m", units="K")


@pytest.mark.parametrize(("name", "signal"), [("speech", recording()), ("temperature", region())])
def test_a_bundled_model_of_another_kind_codes_a_signal_of_it(name, signal):
    model = vcinr.load(name)
    files = [model.encode(signal, point) for point in range(len(model.points))]
    quality = [model.modality.metrics(signal, model.decode(data))["psnr_db"] for data in files]
    assert list(map(len, files)) == sorted(map(len, files))
    assert quality[-1] > quality[0] + 8 and quality[-1] > 45
    assert find_by_fingerprint(bytes.fromhex(model.points[0]["fingerprint"])).modality is model.modality
    assert len(files[-1]) < 0.6 * model.modality.unpack(signal)[0].size * 2


def test_sound_is_coded_by_the_model_for_it_where_none_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sound = recording()
    MODALITIES["sound"].write("talk.flac", sound)
    assert main(["encode", "talk.flac", "talk.vcinr", "--verify"]) == 0
    assert main(["info", "talk.vcinr"]) == 0
    assert "holds          sound (model speech)" in capsys.readouterr().out
    assert main(["decode", "talk.vcinr", "back.wav"]) == 0
    back = MODALITIES["sound"].read("back.wav")
    assert back.rate == 16000 and back.samples.shape == sound.samples.shape
    assert main(["encode", "talk.flac", "other.vcinr", "--modality", "picture"]) == 1
    assert main(["encode", "talk.flac", "other.vcinr", "--model", "speech", "--modality", "picture"]) == 1
    assert "speech is a model of a sound, not of a picture" in capsys.readouterr().err

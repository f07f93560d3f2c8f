"""The models that come with the package: whole, small, described, and of use."""

import json

import numpy as np
import pytest

import vcinr
from experiments.release import CARD, MAX_BYTES, MAX_TOTAL_BYTES, MODELS, folder_bytes
from tests.conftest import smooth_picture
from tests.tiny import psnr
from vcinr.bitstream.fingerprint import fingerprint
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
    coarse, fine = (model.encode(picture, point) for point in (0, len(model.points) - 1))
    decoder = find_by_fingerprint(bytes.fromhex(model.points[-1]["fingerprint"]))
    decoded = decoder.decode(fine)
    assert decoded.dtype == np.uint8 and decoded.shape == picture.shape
    mean = np.broadcast_to(np.rint(picture.mean(axis=(0, 1))).astype(np.uint8), picture.shape)
    enough = 24 if folder.name in ("photo", "tiny") else psnr(mean, picture)
    assert enough < psnr(model.decode(coarse), picture) <= psnr(decoded, picture)
    assert len(coarse) <= len(fine) < picture.nbytes / 2

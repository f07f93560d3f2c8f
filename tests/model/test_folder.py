"""A model on disk: the same bytes every time, every bit covered, and what is wrong with a folder is said."""

import json
import shutil

import numpy as np
import pytest

import vcinr
import vcinr.model.folder
import vcinr.model.places
from tests.tiny import hand_made, psnr
from vcinr.model.finding import find_by_fingerprint, load
from vcinr.model.model import make_model
from vcinr.model.places import ModelError, canonical, model_folders, sha256


@pytest.fixture(scope="module")
def model(klt_model_dir):
    return load(klt_model_dir)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_saved_again_has_the_same_bytes(model, klt_model_dir, tmp_path):
    model.save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(klt_model_dir)
    assert model.num_bytes == sum(map(len, contents(klt_model_dir).values()))
    assert [point["name"] for point in model.points] == ["step 60", "step 25", "step 8"]
    assert model.info == {"about": "klt of synthetic waves"}


def test_another_point_orphans_no_file(model, picture, tmp_path):
    raw = dict(model.params)
    fewer = make_model(model.codec, {**raw, "points": {str(i): raw["points"][str(i)] for i in range(2)}}, {})
    fewer.save(tmp_path)
    assert [p["fingerprint"] for p in fewer.points] == [p["fingerprint"] for p in model.points[:2]]
    old = [load(tmp_path).encode(picture, point) for point in range(2)]
    for data in old:
        assert psnr(model.decode(data), fewer.decode(data)) > 60


def test_saving_over_a_larger_model_leaves_none_of_it(klt_model_dir, model, tmp_path):
    shutil.copytree(klt_model_dir, tmp_path / "model")
    (tmp_path / "model" / "point_of_view.safetensors").write_bytes(b"a user's own")
    hand_made().save(tmp_path / "model")
    names = {"model.json", "shared.safetensors", "point_0.safetensors", "point_of_view.safetensors"}
    assert set(contents(tmp_path / "model")) == names
    assert load(tmp_path / "model").info == {"about": "by hand"}


def test_a_save_that_is_cut_short_leaves_no_model_that_loads(klt_model_dir, tmp_path, monkeypatch):
    shutil.copytree(klt_model_dir, tmp_path / "model")

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vcinr.model.folder, "write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        hand_made().save(tmp_path / "model")
    with pytest.raises(ModelError, match="checksum"):
        load(tmp_path / "model")


def test_float16_parameters_are_rounded_before_they_are_fingerprinted(model, picture, tmp_path):
    half = make_model(model.codec, model.params, {}, precision="float16")
    assert half.points[0]["fingerprint"] != model.points[0]["fingerprint"]
    half.save(tmp_path / "half")
    assert half.num_bytes < 0.75 * model.num_bytes
    loaded = load(tmp_path / "half")
    data = half.encode(picture, 2)
    np.testing.assert_array_equal(loaded.decode(data), half.decode(data))
    assert psnr(loaded.decode(data), picture) > 30
    loaded.save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "half")


def test_parameters_that_a_precision_cannot_hold_are_an_error():
    with pytest.raises(ValueError, match="points/0/step is not finite in float16"):
        hand_made(step=1e6, precision="float16")
    with pytest.raises(ValueError, match="step is not finite in float32: training has diverged"):
        hand_made(step=np.nan)
    with pytest.raises(ValueError, match="unknown precision 'float8'; valid are float32, float16"):
        hand_made(precision="float8")


def test_what_is_said_of_points_must_fit_them():
    with pytest.raises(ValueError, match="describes 2 operating points, the parameters hold 1"):
        hand_made(points=[{}, {}])


def test_what_a_model_says_of_itself_must_be_json(tmp_path):
    model = hand_made()
    model.info["when"] = object()
    with pytest.raises(ValueError, match="must be JSON"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def rewrite(folder, **changes):
    """An edit of model.json by someone who knows how to mend its checksum."""
    about = json.loads((folder / "model.json").read_text())
    del about["sha256"]
    about |= changes
    about["sha256"] = sha256(canonical(about))
    (folder / "model.json").write_text(json.dumps(about))


def edit(folder, old, new):
    text = (folder / "model.json").read_text()
    assert old in text
    (folder / "model.json").write_text(text.replace(old, new))


DAMAGE = {
    "no description": (lambda f: (f / "model.json").unlink(), "it has no model.json"),
    "no shared arrays": (lambda f: (f / "shared.safetensors").unlink(), "incomplete: .*shared.safetensors is missing"),
    "no arrays of a point": (lambda f: (f / "point_1.safetensors").unlink(), "incomplete: .*point_1.safetensors is missing"),
    "a bit of shared arrays": (lambda f: flip(f / "shared.safetensors", -1), "shared.safetensors is damaged"),
    "a bit of an array's name": (lambda f: flip(f / "shared.safetensors", 20), "shared.safetensors is damaged"),
    "a bit of a point's arrays": (lambda f: flip(f / "point_2.safetensors", -1), "point_2.safetensors is damaged"),
    "arrays cut short": (
        lambda f: (f / "point_0.safetensors").write_bytes((f / "point_0.safetensors").read_bytes()[:-9]),
        "point_0.safetensors is damaged",
    ),
    "JSON cut short": (lambda f: (f / "model.json").write_text((f / "model.json").read_text()[:-9]), "model.json is damaged"),
    "JSON that is no text": (lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"), "model.json is damaged"),
    "JSON without end": (lambda f: (f / "model.json").write_text("[" * 100_000), "model.json is damaged"),
    "another JSON": (lambda f: (f / "model.json").write_text("[1, 2]"), "names no format"),
    "a setting of the encoder": (lambda f: edit(f, '"rounding": 0.42', '"rounding": 0.32'), "not as it was written"),
    "a fingerprint": (lambda f: edit(f, '"fingerprint": "', '"fingerprint": "0'), "not as it was written"),
    "a future format": (lambda f: edit(f, '"format": 1', '"format": 2'), "format 2; this vcinr reads format 1"),
    "an unknown codec": (lambda f: rewrite(f, codec="kltt"), "unknown codec 'kltt'; did you mean 'klt'"),
    "an unknown setting": (lambda f: rewrite(f, config={"patchs": [8, 8]}), "no key 'patchs'; did you mean 'patch'"),
    "an unknown precision": (lambda f: rewrite(f, precision="float8"), "unknown precision 'float8'"),
    "no points": (lambda f: rewrite(f, points=None), "cannot be read"),
    "points of numbers": (lambda f: rewrite(f, points=[1, 2, 3]), "cannot be read"),
    "no list of files": (lambda f: rewrite(f, files=[]), "cannot be read"),
    "another decoder": (lambda f: rewrite(f, config={"patch": [4, 16], "steps": [60.0, 25.0, 8.0]}), "use that version"),
    "a folder for a file": (lambda f: [(f / "point_0.safetensors").unlink(), (f / "point_0.safetensors").mkdir()], "cannot be"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_folder_is_an_error_that_names_what_is_wrong(klt_model_dir, tmp_path, what):
    damage, complaint = DAMAGE[what]
    shutil.copytree(klt_model_dir, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ModelError, match=complaint) as caught:
        load(tmp_path / "model")
    assert str(tmp_path) in str(caught.value)


def test_every_bit_of_a_model_is_covered(tmp_path):
    """Encoder settings and arrays too, which no file's fingerprint vouches for."""
    hand_made().save(tmp_path)
    rng = np.random.default_rng(0)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for position in rng.integers(len(whole), size=100):
            flip(path, position)
            try:
                assert load(tmp_path).info == {"about": "by hand"}
            except ModelError:
                pass
            else:
                assert path.name == "model.json" and json.loads(path.read_bytes()) == json.loads(whole)  # a blank
            path.write_bytes(whole)


# Models at hand.


def test_a_bundled_model_is_loaded_by_its_name(klt_model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(vcinr.model.places, "BUNDLED", tmp_path)
    with pytest.raises(ModelError, match=r"no model of that name is at hand \(there are none\)"):
        vcinr.load("waves")
    shutil.copytree(klt_model_dir, tmp_path / "waves")
    monkeypatch.setenv("VCINR_MODELS", str(klt_model_dir))
    assert vcinr.load("waves").num_bytes == vcinr.load("model").num_bytes == vcinr.load(klt_model_dir).num_bytes
    with pytest.raises(ModelError, match=r"\(valid: waves, model\)"):
        vcinr.load("kodak")


def test_files_that_are_none_of_the_models_disturb_nothing(tmp_path):
    hand_made().save(tmp_path)
    size = load(tmp_path).num_bytes
    (tmp_path / "README.md").write_text("# A card")
    assert load(tmp_path).num_bytes == size
    hand_made(step=1 / 255).save(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# A card"


def test_the_folder_of_a_run_is_told_from_its_model(klt_model_dir):
    with pytest.raises(ModelError, match=f"did you mean {klt_model_dir}"):
        load(klt_model_dir.parent)


def test_models_at_hand_are_found_by_fingerprint(klt_model_dir, model, tmp_path, monkeypatch):
    monkeypatch.setattr(vcinr.model.places, "BUNDLED", tmp_path / "bundled")
    fingerprint = bytes.fromhex(model.points[1]["fingerprint"])
    with pytest.raises(ModelError, match=f"{fingerprint.hex()} .*set VCINR_MODELS"):
        find_by_fingerprint(fingerprint)
    shutil.copytree(klt_model_dir, tmp_path / "many" / "b")
    hand_made().save(tmp_path / "many" / "c")
    (tmp_path / "many" / "a").mkdir()
    (tmp_path / "many" / "a" / "model.json").write_text("{")
    hand_made().save(tmp_path / "one")
    monkeypatch.setenv("VCINR_MODELS", f"{tmp_path / 'one'}:{tmp_path / 'none'}::{tmp_path / 'many'}")
    assert [folder.name for folder in model_folders()] == ["one", "a", "b", "c"]
    assert find_by_fingerprint(fingerprint).points == model.points
    # What may have been the one is not passed over in silence.
    with pytest.raises(ModelError, match="no model at hand has the fingerprint 00000000.*a/model.json is damaged"):
        find_by_fingerprint(bytes(4))

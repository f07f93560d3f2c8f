"""A model in hand and on disk: what it encodes it decodes, and what is wrong with arrays, files and folders is said."""

import dataclasses
import json
import shutil
import subprocess
import sys
import tracemalloc

import jax
import numpy as np
import pytest

import vcinr
import vcinr.model
from tests.conftest import smooth_picture
from vcinr import bitstream
from vcinr.bitstream import MAGIC, BitstreamError
from vcinr.codecs.codec import Code
from vcinr.codecs.klt import KLT, KLTConfig
from vcinr.model import ModelError, find_by_fingerprint, load, make_model, model_folders
from vcinr.signals.signal import Grid

SIZES = [(1, 1), (1, 1000), (1000, 1), (37, 50), (50, 37), (8, 8), (16, 9)]


@pytest.fixture(scope="module")
def model(klt_model_dir):
    return load(klt_model_dir)


def hand_made(step=2 / 255, **about):
    """A ``klt`` of two components on 2×2 patches, grey level and left-to-right, written down as integers."""
    left, right = [1, 1, 1], [-1, -1, -1]
    point = {
        "step": np.float32(step),
        "tables": {
            "first": np.array([-2, -1], np.int32),
            "sizes": np.array([5, 3], np.int32),
            "frequencies": np.array([8000, 16000, 24000, 16000, 1536, 20000, 45000, 536], np.int32),
        },
    }
    params = {
        "mean": np.full(12, 128 / 255, np.float32),
        "basis": np.array([left + left + left + left, left + right + left + right], np.float32),
        "points": {"0": point},
    }
    return make_model(KLT(KLTConfig(patch=(2, 2), num_components=2, steps=(2.0,))), params, {"about": "by hand"}, **about)


def psnr(one, other):
    return 10 * np.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9))


# Golden: whatever changes, these bytes are these two pictures. The first symbols of patches are grey levels in steps of 2,
# the second what is left of them less what is right; 7 and -300 are escapes.
GOLDEN = bytes.fromhex("d6c301209e6c7f1a02020201035c1c86c070a03bb27683")
GOLDEN_SHAPES = [(2, 2), (1, 3)]
GOLDEN_SYMBOLS = [[-1, 0], [1, -1, 7, -300]]
GOLDEN_PICTURES = [[[126, 126], [126, 126]], [[128, 132, 0]]]


def test_golden_container_decodes_forever():
    model = hand_made()
    codes = [Code({"coefficients": np.array(symbols, np.int32)}) for symbols in GOLDEN_SYMBOLS]
    assert model.write_codes(0, codes, [Grid(shape, (2, 2)) for shape in GOLDEN_SHAPES]).hex() == GOLDEN.hex()
    _, read, grids = model.read_codes(GOLDEN)
    assert [code.streams["coefficients"].tolist() for code in read] == GOLDEN_SYMBOLS
    assert [grid.shape for grid in grids] == GOLDEN_SHAPES
    pictures = model.decode_together(GOLDEN)
    assert [picture[..., 0].tolist() for picture in pictures] == GOLDEN_PICTURES
    assert all(np.ptp(picture, axis=-1).max() == 0 for picture in pictures)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size_comes_back(model, size):
    picture = smooth_picture(*size, seed=3)
    for point, quality in enumerate([18, 24, 31]):
        decoded = model.decode(model.encode(picture, point))
        assert decoded.dtype == np.uint8
        assert decoded.shape == picture.shape
        assert psnr(picture, decoded) > quality


def test_batches_and_containers_hold_the_same_pictures_in_order(model):
    pictures = [smooth_picture(*size, seed=i) for i, size in enumerate(SIZES)]
    files = model.encode_batch(pictures, 1)
    container = model.encode_together(pictures, 1)
    assert len(container) < sum(map(len, files))
    alone, together = model.decode_batch(files), model.decode_together(container)
    for picture, one, other in zip(pictures, alone, together, strict=True):
        assert one.shape == other.shape == picture.shape
        assert np.abs(one.astype(int) - other).max() <= 1
        assert psnr(picture, one) > 24
    assert model.encode_batch([]) == model.decode_batch([]) == []
    with pytest.raises(ValueError, match="1 to 65536 signals, got 0"):
        model.encode_together([])
    assert len(model.decode_together(files[0])) == 1


def test_decoded_values_are_neither_clipped_nor_rounded(model, picture):
    (values,) = model.decode_values_batch([model.encode(picture, 2)])
    assert values.dtype == np.float32
    decoded = model.decode(model.encode(picture, 2))
    np.testing.assert_array_equal(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8), decoded)
    assert np.abs(values * 255 - np.rint(values * 255)).max() > 0.4


def test_what_a_file_says_it_costs(model, picture):
    data = model.encode(picture, 1)
    # 8 bytes of magic, version, fingerprint and flags, two varints, the checksum.
    assert model.payload_bytes(data) == len(data) - 14
    assert abs(model.estimated_bits(data) - 8 * model.payload_bytes(data)) < 16


def test_pictures_of_five_sizes_compile_once(klt_model_dir):
    about = load(klt_model_dir)
    # A config of its own, so that no other test has compiled for it.
    codec = KLT(dataclasses.replace(about.codec.config, num_patches=1999))
    model = vcinr.Model(codec, about.params, about.points, {}, "float32")
    pictures = [smooth_picture(*size) for size in [(8, 8), (37, 50), (50, 37), (1, 300), (90, 70)]]
    compiled = []

    def count(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        files = [model.encode(picture, 1) for picture in pictures] + model.encode_batch(pictures, 0)
        assert len(compiled) == 1
        for data in files:
            model.decode(data)
        assert len(compiled) == 2
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


@pytest.mark.parametrize(
    ("array", "mend"),
    [
        (np.zeros((4, 4), np.uint8), "repeat the grey channel"),
        (np.zeros((4, 4, 4), np.uint8), "composite it"),
        (np.zeros((3, 4, 5), np.uint8), "channels last"),
        (np.zeros((2, 4, 4, 3), np.uint8), "one at a time"),
        (np.zeros((4, 4, 3), np.float32), "scale it to 0..255"),
        (np.zeros((4, 4, 3), np.int64), "scale it to 0..255"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros(3, np.uint8), "three axes"),
    ],
)
def test_a_wrong_array_is_an_error_with_its_mend(model, array, mend):
    with pytest.raises(ValueError, match=mend):
        model.encode(array)


@pytest.mark.parametrize("point", [-1, 3])
def test_a_point_that_does_not_exist_is_an_error(model, picture, point):
    with pytest.raises(ValueError, match="has points 0 to 2"):
        model.encode(picture, point)


def test_a_point_is_chosen_by_the_size_and_quality_of_whole_files(model, picture):
    rows = []
    for point in range(3):
        data = model.encode(picture, point)
        rows.append((8 * len(data) / (37 * 50), psnr(picture, model.decode(data))))
    (low, _), (middle, quality), (high, best) = rows
    assert low < middle < high
    assert model.choose_point(picture, bpp=middle) == 1
    assert model.choose_point(picture, bpp=middle - 1e-9) == 0
    assert model.choose_point(picture, bpp=100.0) == 2
    assert model.choose_point(picture, psnr_db=quality - 1e-9) == 1
    assert model.choose_point(picture, psnr_db=quality + 1e-6) == 2
    with pytest.raises(ValueError, match=f"fits 0.01 bpp; the cheapest takes {low:.4f}"):
        model.choose_point(picture, bpp=0.01)
    with pytest.raises(ValueError, match=f"reaches 90 dB; the best has {best:.2f}"):
        model.choose_point(picture, psnr_db=90.0)
    for wrong in ({}, {"bpp": 1.0, "psnr_db": 30.0}):
        with pytest.raises(ValueError, match="one of the two"):
            model.choose_point(picture, **wrong)


def test_a_lossless_point_has_infinite_quality():
    flat = np.full((2, 2, 3), 128, np.uint8)
    assert hand_made().choose_point(flat, psnr_db=200.0) == 0


# Files that are not this model's.


def test_a_file_of_another_model_is_refused(model):
    foreign = hand_made()
    data = foreign.encode(np.full((4, 4, 3), 100, np.uint8))
    with pytest.raises(BitstreamError, match=f"another model: its fingerprint {foreign.points[0]['fingerprint']} is none"):
        model.decode(data)


def test_a_file_of_many_signals_is_not_decoded_as_one(model, picture):
    with pytest.raises(BitstreamError, match="holds 2 signals: use Model.decode_together"):
        model.decode(model.encode_together([picture, picture]))


def test_the_broken_file_of_a_batch_is_named(model, picture):
    data = model.encode(picture)
    with pytest.raises(BitstreamError, match="^file 1 of 0 to 2: "):
        model.decode_batch([data, data[:-1], data])


def test_bytes_after_the_end_are_refused(model, picture):
    data = model.encode(picture)
    for more in (b"\0", b"\0\0\0\0", data):
        with pytest.raises(BitstreamError):
            model.decode(data + more)


def test_samples_are_limited_with_their_padding(model):
    wide = model.encode(np.zeros((1, 1000, 3), np.uint8))
    with pytest.raises(BitstreamError, match="asks for 1000 samples"):
        model.decode(wide, max_pixels=999)
    with pytest.raises(BitstreamError, match="patches of 8×8 hold 8000 samples; the limit is 7999"):
        model.decode(wide, max_pixels=7999)
    assert model.decode(wide, max_pixels=8000).shape == (1, 1000, 3)
    assert model.decode(model.encode(np.zeros((1, 1, 3), np.uint8)), max_pixels=1).shape == (1, 1, 3)


@pytest.mark.parametrize(
    "rest",
    [
        "02 8080808008 02",  # 2^31 × 2
        "02 808004 808004",  # 2^16 × 2^16
        "02 ffffffff07 ffffffff07",
        "0a 808004 808002 01",  # 2^16 signals of 2^15 × 1
        "03 8010 8010 8010",  # 2^11 × 2^11 × 2^11
    ],
)
def test_a_header_that_asks_for_billions_takes_no_memory(model, rest):
    data = MAGIC + b"\1" + bytes.fromhex(model.points[0]["fingerprint"] + rest) + bytes(60)
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError, match="the limit|larger than"):
            model.decode(data)
        with pytest.raises(BitstreamError):
            model.decode_together(data)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


def test_a_file_of_another_rank_is_refused(model):
    head = bitstream.head_bytes(bytes.fromhex(model.points[0]["fingerprint"]), [(2, 2, 2)], [{}], {})
    with pytest.raises(BitstreamError, match=r"shape \(2, 2, 2\) does not fit"):
        model.decode(bitstream.write(head, b"", 0))


def test_symbols_that_no_encoder_writes_are_refused():
    model = hand_made(step=1e37)
    data = model.write_codes(0, [Code({"coefficients": np.array([2**31 - 1, 0], np.int32)})], [Grid((2, 2), (2, 2))])
    with pytest.raises(BitstreamError, match="not finite"):
        model.decode(data)


def test_another_process_decodes_from_file_and_folder_alone(klt_model_dir, model, picture, tmp_path):
    (tmp_path / "file").write_bytes(model.encode_together([picture, picture[:9]], 2))
    program = """
import sys, numpy as np, vcinr
model, data = vcinr.load(sys.argv[1]), open(sys.argv[2], "rb").read()
_, codes, _ = model.read_codes(data)
first, second = model.decode_together(data)
np.savez(sys.argv[3], *[code.streams["coefficients"] for code in codes], first=first, second=second)
"""
    command = [sys.executable, "-c", program, str(klt_model_dir), str(tmp_path / "file"), str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, timeout=300)
    other = np.load(tmp_path / "out.npz")
    codes, _ = model.make_codes([picture, picture[:9]], 2)
    for i, code in enumerate(codes):
        np.testing.assert_array_equal(other[f"arr_{i}"], code.streams["coefficients"])
    for name, mine in zip(("first", "second"), model.decode_together((tmp_path / "file").read_bytes()), strict=True):
        assert np.abs(other[name].astype(int) - mine).max() <= 1


# On disk.


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

    monkeypatch.setattr(vcinr.model, "write_atomically", full)
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
    about["sha256"] = vcinr.model._sha256(vcinr.model._canonical(about))
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
    "a folder for a file": (lambda f: ((f / "point_0.safetensors").unlink(), (f / "point_0.safetensors").mkdir()), "cannot be read"),
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
    monkeypatch.setattr(vcinr.model, "BUNDLED", tmp_path)
    with pytest.raises(ModelError, match=r"no model of that name is at hand \(at hand: none\)"):
        vcinr.load("waves")
    shutil.copytree(klt_model_dir, tmp_path / "waves")
    monkeypatch.setenv("VCINR_MODELS", str(klt_model_dir))
    assert vcinr.load("waves").num_bytes == vcinr.load("model").num_bytes == vcinr.load(klt_model_dir).num_bytes
    with pytest.raises(ModelError, match=r"\(at hand: waves, model\)"):
        vcinr.load("kodak")


def test_the_folder_of_a_run_is_told_from_its_model(klt_model_dir):
    with pytest.raises(ModelError, match=f"did you mean {klt_model_dir}"):
        load(klt_model_dir.parent)


def test_models_at_hand_are_found_by_fingerprint(klt_model_dir, model, tmp_path, monkeypatch):
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

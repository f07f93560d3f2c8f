"""docs/extending.md runs as it stands: its blocks are taken from the page and executed in order."""

import re
import sys
import wave
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vcinr
from configs.base import codec_of
from vcinr.codecs import CODECS
from vcinr.datasets.catalogue import DatasetMissing, load_split, prepare
from vcinr.datasets.sources import PatchSource, Samples
from vcinr.evaluation.measure import measure
from vcinr.fields.field import FIELDS, FieldConfig, Siren, make_field
from vcinr.modalities import MODALITIES
from vcinr.signals.patches import from_values, to_signal

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
(
    FILM,
    FILM_MODEL,
    FILM_CONFIG,
    VIBRATION,
    VIBRATION_FILES,
    VIBRATION_KLT,
    VIBRATION_CLI,
    VIBRATION_VC_INR,
    SHIFTED,
    SHIFTED_MODEL,
) = range(10)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs blocks of the page by number, in one namespace and an empty folder; what they register is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    tables = [(table, dict(table)) for table in (FIELDS, MODALITIES, CODECS)]
    namespace = {}

    def execute(*numbers):
        for number in numbers:
            exec(compile(BLOCKS[number], f"{PAGE.name}, block {number}", "exec"), namespace)
        return namespace

    yield execute
    for table, before in tables:
        table.clear()
        table.update(before)


def psnr_db(signal, decoded, peak):
    return -10 * np.log10(np.mean(np.square(decoded.astype(np.float64) - signal)) / peak**2)


def flat_psnr_db(signal, peak):
    """PSNR of the signal's own mean, which a codec that has learnt nothing would reach at best."""
    return psnr_db(signal, signal.mean(axis=tuple(range(signal.ndim - 1)), keepdims=True), peak)


def test_the_page_has_the_blocks_that_are_run_and_each_is_short():
    assert len(BLOCKS) == 10
    assert all(len(block.splitlines()) < 40 for block in BLOCKS)


def test_film_scales_and_shifts_what_enters_each_sine(run):
    run(FILM)
    config = FieldConfig(modulation="film", num_layers=2, width=8, latent_dim=3)
    field = make_field(config)
    coords = jax.random.uniform(jax.random.key(1), (5, 2), minval=-1, maxval=1)
    variables = field.init(jax.random.key(0), coords, jnp.zeros(3))
    theta = variables["params"]
    plain = {"params": {name: value for name, value in theta.items() if name.startswith(("kernel", "bias"))}}
    np.testing.assert_array_equal(field.apply(variables, coords, jnp.zeros(3)), Siren(config).apply(plain, coords, jnp.zeros(3)))

    latent = jax.random.normal(jax.random.key(2), (3,))
    hidden = np.asarray(coords, np.float64)
    for i in range(2):
        scale, shift = np.split(np.asarray(latent, np.float64) @ np.asarray(theta[f"heads_{i}"]["kernel"]), 2)
        entering = hidden @ np.asarray(theta[f"kernel_{i}"]) + np.asarray(theta[f"bias_{i}"])
        hidden = np.sin(config.omega_0 * ((1 + scale) * entering + shift))
    expected = hidden @ np.asarray(theta["kernel_2"]) + np.asarray(theta["bias_2"])
    np.testing.assert_allclose(field.apply(variables, coords, latent), expected, atol=1e-4)


def test_film_trains_as_a_vc_inr_and_its_file_comes_back(run):
    page = run(FILM, FILM_MODEL)
    picture, decoded = page["picture"], page["decoded"]
    assert decoded.shape == picture.shape
    assert decoded.dtype == np.uint8
    assert len(page["file"]) < picture.size / 4
    assert psnr_db(picture, decoded, 255) > flat_psnr_db(picture, 255) + 2
    again = vcinr.load("runs/film/model")
    np.testing.assert_array_equal(again.decode(page["file"]), decoded)
    assert again.codec.config.field.modulation == "film"


def test_an_experiments_config_brings_film_along(run, tmp_path, monkeypatch):
    (tmp_path / "film.py").write_text(BLOCKS[FILM], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "film", raising=False)
    config = run(FILM_CONFIG)["get_config"]()
    monkeypatch.delitem(sys.modules, "film")
    assert type(make_field(codec_of(config).config.field)).__name__ == "FilmField"


def test_every_16_bit_vibration_comes_back_from_the_modality(run):
    run(VIBRATION, VIBRATION_FILES)
    row = MODALITIES["vibration"]
    raw = np.arange(-(2**15), 2**15, dtype=np.int16)[:, None]
    values = row.normalise(raw)
    assert (values.dtype, values.min(), values.max()) == (np.float32, 0, 1)
    np.testing.assert_array_equal(row.denormalise(values), raw)
    np.testing.assert_array_equal(row.denormalise(np.array([[-1.0], [2.0]])), [[-(2**15)], [2**15 - 1]])
    signal = to_signal(values[:1000], (128,))
    assert (signal.coords.shape, signal.values.shape, signal.weight.shape) == ((128, 1), (8, 128, 1), (8, 128))
    np.testing.assert_array_equal(from_values(signal.values, signal.grid), values[:1000])


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 1)), np.zeros((8, 2), np.int16), np.zeros(8, np.int16), np.zeros((0, 1), np.int16), [[0]]]
)
def test_what_is_no_vibration_is_refused(run, wrong):
    page = run(VIBRATION, VIBRATION_FILES)
    vibration = MODALITIES["vibration"]
    for refuse in (vibration.normalise, lambda samples: vibration.unpack(page["Recording"](samples, 8000))):
        with pytest.raises(ValueError, match=r"a vibration is a NumPy array of int16 \[samples, 1\], not"):
            refuse(wrong)
    with pytest.raises(ValueError, match="diverged"):
        vibration.denormalise(np.array([[np.nan]]))


def test_what_is_no_vibration_file_is_refused_by_name(run, tmp_path):
    page = run(VIBRATION, VIBRATION_FILES)
    vibration, quiet = MODALITIES["vibration"], page["Recording"](np.zeros((300, 1), np.int16), 8000)
    vibration.write("a.wav", quiet)
    assert vibration.read("a.wav", max_samples=300).rate == 8000
    for text, message in ((b"no vibration", "not a .wav file"), (b"", "not a .wav file")):
        (tmp_path / "b.wav").write_bytes(text)
        with pytest.raises(ValueError, match=f"b.wav: {message}"):
            vibration.read("b.wav")
    with pytest.raises(ValueError, match="a.wav: .* longer than 299 samples"):
        vibration.read("a.wav", max_samples=299)
    with pytest.raises(ValueError, match="a.mp3: vibrations are written as one of .wav"):
        vibration.write("a.mp3", quiet)
    assert vibration.from_bytes(vibration.to_bytes(quiet)).rate == 8000


def test_vibrations_pass_the_linear_floor(run):
    page = run(VIBRATION, VIBRATION_FILES, VIBRATION_KLT)
    check_vibration(page, gain_db=20)
    # 2 magic, 1 version, 4 fingerprint, 1 flags, 2 shape; then the rate, 8000, as the varint of its zigzag code, 16000.
    assert page["file"][10:12] == bytes([0x80, 0x7D])
    slow = page["Recording"](page["vibration"].samples, 500)
    model = page["model"]
    assert model.decode(model.encode(slow)).rate == 500
    both = model.decode_together(model.join([page["file"], model.encode(slow)]))
    assert [each.rate for each in both] == [8000, 500]
    with pytest.raises(ValueError, match="a sample rate lies in 1 to"):
        model.encode(slow._replace(rate=0))


def test_files_of_impossible_vibrations_are_refused(run, monkeypatch):
    page = run(VIBRATION, VIBRATION_FILES, VIBRATION_KLT)
    with monkeypatch.context() as patch:
        patch.setattr(page["Vibration"], "check_metadata", lambda self, metadata, shape: None)
        data = page["model"].encode(page["vibration"]._replace(rate=0))
    with pytest.raises(vcinr.BitstreamError, match="metadata are those of no vibration: a sample rate lies in 1 to"):
        page["model"].decode(data)


def test_a_folder_of_vibrations_is_a_data_set(run, tmp_path, datasets_dir):
    page = run(VIBRATION, VIBRATION_FILES)
    vibration, rng = MODALITIES["vibration"], np.random.default_rng(0)
    (tmp_path / "vibrations").mkdir()
    for rate in (4000, 8000, 16000):
        samples = rng.integers(-(2**15), 2**15, (rate // 100, 1), dtype=np.int16)
        vibration.write(f"vibrations/{rate}.wav", page["Recording"](samples, rate))
    (tmp_path / "vibrations" / "cover.png").touch()
    options = {"path": "vibrations", "modality": "vibration"}
    with pytest.raises(DatasetMissing, match="--path vibrations --modality vibration"):
        load_split("folder", "all", **options)
    assert prepare("folder", **options).counts["all"] == 3
    found = load_split("folder", "all", **options)
    assert sorted(each.rate for each in found) == [4000, 8000, 16000]
    for each in found:
        np.testing.assert_array_equal(each.samples, vibration.read(f"vibrations/{each.rate}.wav").samples)
    assert PatchSource(Samples(found, vibration), (16,), vibration.mirrored_axes).batch(rng, 3)["values"].shape == (3, 16, 1)
    with pytest.raises(ValueError, match="unknown option of 'folder': 'eight_bit'"):
        load_split("folder", "all", **options, eight_bit=True)
    with pytest.raises(ValueError, match="unknown modality 'vibrations'.*vibration"):
        load_split("folder", "all", path="vibrations", modality="vibrations")


def test_vibrations_are_measured_in_their_own_units(run):
    page = run(VIBRATION, VIBRATION_FILES, VIBRATION_KLT)
    model, vibration = page["model"], page["vibration"]
    (row,) = measure(model, [vibration], "chords", "test", points=[1])
    assert row["bpp_file"] == 8 * len(page["file"]) / 5000
    assert row["psnr_db"] == pytest.approx(psnr_db(vibration.samples, page["decoded"].samples, 65535))
    assert abs(row["psnr_float_db"] - row["psnr_db"]) < 0.01
    assert row["container_differences"] == 0


def test_vibrations_go_through_the_command_line_with_their_rate(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VCINR_CACHE", "")
    monkeypatch.setattr("vcinr.model.places.BUNDLED", tmp_path / "bundled")
    page = run(VIBRATION, VIBRATION_FILES, VIBRATION_KLT, VIBRATION_CLI)
    assert "vcinr:" not in capsys.readouterr().err
    assert (tmp_path / "chord.vcinr").read_bytes() == page["file"]
    with wave.open("out.wav") as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (8000, 1, 5000)
        np.testing.assert_array_equal(np.frombuffer(file.readframes(5000), "<i2"), page["decoded"].samples[:, 0])
    model = ["--model", "runs/vibration_klt/model"]
    assert page["main"](["decode", "chord.vcinr", "--out", "back", *model]) == 0
    assert (tmp_path / "back" / "chord.wav").read_bytes() == (tmp_path / "out.wav").read_bytes()
    assert page["main"](["encode", "in.wav", "again.vcinr", "--verify", *model]) == 0
    assert re.search(r"symbols equal, \d\d\.\d\d dB", capsys.readouterr().out)
    for words, complaint in [
        (["decode", "chord.vcinr", "out.png", *model], "out.png: vibrations are written as one of .wav"),
        (["encode", "in.wav", "a.vcinr", "--eight-bit", *model], "--eight-bit says nothing of a vibration"),
        (["encode", "chord.vcinr", "a.vcinr", *model], "chord.vcinr: not a .wav file"),
    ]:
        assert page["main"](words) == 1
        assert capsys.readouterr().err.startswith(f"vcinr: {complaint}")
    # What needs no model is fitted to the kind of signal that the file's suffix names.
    short = page["Recording"](page["vibration"].samples[:64], 8000)
    MODALITIES["vibration"].write("short.wav", short)
    assert page["main"](["encode", "short.wav", "short.vcinr", "--model", "coin", "--bpp", "80"]) == 0
    # The modality's number, then the codec's: depth, width and ω₀ of a network.
    head = (tmp_path / "short.vcinr").read_bytes()[9:]
    assert head[:2] == bytes([0x80, 0x7D])
    assert all(byte % 2 == 0 for byte in head[2:5]) and head[4] == 2 * 30
    assert page["main"](["decode", "short.vcinr", "short_out.wav"]) == 0
    assert MODALITIES["vibration"].read("short_out.wav").samples.shape == (64, 1)


@pytest.mark.slow
def test_vibrations_pass_a_vc_inr(run):
    page = run(VIBRATION, VIBRATION_FILES, VIBRATION_KLT, VIBRATION_VC_INR)
    check_vibration(page, gain_db=6)


def check_vibration(page, gain_db):
    assert page["decoded"].rate == page["vibration"].rate == 8000
    vibration, decoded = page["vibration"].samples, page["decoded"].samples
    assert decoded.shape == vibration.shape
    assert decoded.dtype == np.int16
    assert len(page["file"]) < vibration.nbytes / 4
    assert psnr_db(vibration, decoded, 65535) > flat_psnr_db(vibration, 65535) + gain_db


@pytest.mark.slow
def test_a_codec_in_ten_lines_trains_and_its_file_comes_back(run):
    page = run(SHIFTED, SHIFTED_MODEL)
    picture, decoded = page["picture"], page["decoded"]
    assert (page["codec"].name, decoded.shape, decoded.dtype) == ("shifted", picture.shape, np.uint8)
    assert len(page["file"]) < picture.size / 8
    assert psnr_db(picture, decoded, 255) > flat_psnr_db(picture, 255) + 2

"""docs/extending.md runs as it stands: its blocks are taken from the page and executed in order."""

import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vcinr
from configs.base import codec_of
from vcinr.fields.field import FIELDS, FieldConfig, Siren, make_field
from vcinr.modalities import MODALITIES
from vcinr.signals.patches import from_values, to_signal

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
FILM, FILM_MODEL, FILM_CONFIG, SOUND, SOUND_KLT, SOUND_VC_INR = range(6)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs blocks of the page by number, in one namespace and an empty folder; what they register is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    fields, modalities, namespace = dict(FIELDS), dict(MODALITIES), {}

    def execute(*numbers):
        for number in numbers:
            exec(compile(BLOCKS[number], f"{PAGE.name}, block {number}", "exec"), namespace)
        return namespace

    yield execute
    for table, before in ((FIELDS, fields), (MODALITIES, modalities)):
        table.clear()
        table.update(before)


def psnr_db(signal, decoded, peak):
    return -10 * np.log10(np.mean(np.square(decoded.astype(np.float64) - signal)) / peak**2)


def flat_psnr_db(signal, peak):
    """PSNR of the signal's own mean, which a codec that has learnt nothing would reach at best."""
    return psnr_db(signal, signal.mean(axis=tuple(range(signal.ndim - 1)), keepdims=True), peak)


def test_the_page_has_the_blocks_that_are_run_and_each_is_short():
    assert len(BLOCKS) == 6
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


def test_every_16_bit_sound_comes_back_from_the_modality(run):
    run(SOUND)
    row = MODALITIES["sound"]
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
def test_what_is_no_sound_is_refused_with_the_mend(run, wrong):
    run(SOUND)
    with pytest.raises(ValueError, match="mix it down"):
        MODALITIES["sound"].normalise(wrong)
    with pytest.raises(ValueError, match="diverged"):
        MODALITIES["sound"].denormalise(np.array([[np.nan]]))


def test_sounds_pass_the_linear_floor(run):
    page = run(SOUND, SOUND_KLT)
    check_sound(page, gain_db=20)


@pytest.mark.slow
def test_sounds_pass_a_vc_inr(run):
    page = run(SOUND, SOUND_KLT, SOUND_VC_INR)
    check_sound(page, gain_db=6)


def check_sound(page, gain_db):
    sound, decoded = page["sound"], page["decoded"]
    assert decoded.shape == sound.shape
    assert decoded.dtype == np.int16
    assert len(page["file"]) < sound.nbytes / 4
    assert psnr_db(sound, decoded, 65535) > flat_psnr_db(sound, 65535) + gain_db

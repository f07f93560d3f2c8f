"""What each part buys: parts are switched off for what they are, rates are those of files, differences those of curves."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import parts
from tests.context.test_compression import folder, model, pictures  # noqa: F401
from vcinr.context.training import latent_crops
from vcinr.datasets.sources import PatchSource


@pytest.fixture(scope="module")
def setting(model, pictures):  # noqa: F811
    """(pictures, their latents, latents of training crops)."""
    chosen = pictures[-2:]
    found = parts.latents(model, chosen)
    counted = dataclasses.replace(model.codec.config.compression, num_latents=40, offsets_per_picture=1)
    training = latent_crops(model.codec, counted, model.params, PatchSource([chosen[0]], (16, 16))).arrays["latent"]
    return chosen, found, training


@pytest.mark.slow
def test_the_whole_codec_measures_as_its_files_do(model, setting):  # noqa: F811
    chosen, found, training = setting
    bpp, quality, _ = parts.measure_arm(model, parts.Arm("all"), 1, training, found, chosen)
    files = model.encode_batch(chosen, 1)
    bits = sum(model.estimated_bits(data) for data in files)
    assert bpp == pytest.approx(bits / sum(p.shape[0] * p.shape[1] for p in chosen), rel=5e-3)
    decoded = model.decode_batch(files)
    errors = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(decoded, chosen, strict=True)]
    assert quality == pytest.approx(np.mean(10 * np.log10(255**2 / np.array(errors))), abs=0.05)


@pytest.mark.slow
def test_the_floor_is_measured_on_the_same_pictures(model, setting):  # noqa: F811
    chosen, found, training = setting
    whole = [parts.measure_arm(model, parts.Arm("all"), point, training, found, chosen)[:2] for point in range(2)]
    np.testing.assert_allclose(parts.floor_curve(model, chosen), whole, rtol=5e-3)


@pytest.mark.slow
def test_without_synthesis_symbols_are_scaled_back_alone(model):  # noqa: F811
    silent = parts.without_synthesis(model.params)
    compression = model.codec.compression
    row = np.random.default_rng(0).integers(-3, 4, model.params["synthesis"]["linear"].shape[0]).astype(np.float32)
    k = compression.config.groups[-1]
    own = silent["points"]["0"]
    latent = jax.jit(compression.synthesise)(compression.decoder_parts(silent, 0), row)
    np.testing.assert_allclose(latent, silent["latent_mean"] + own["step"] * row[:k], rtol=1e-5, atol=1e-6)
    assert np.abs(model.params["synthesis"]["out"]).max() > 0, "the model's own is not touched"


@pytest.mark.slow
def test_arms_differ_and_static_tables_need_no_context(model, setting):  # noqa: F811
    chosen, found, training = setting
    measured = {arm.name: parts.measure_arm(model, arm, 1, training, found, chosen)[:2] for arm in parts.ARMS[:5]}
    assert len(set(measured.values())) == 5
    static, later, context, rounded, _ = measured.values()
    assert static[1] == later[1] == context[1], "static tables and context code the same symbols"
    assert rounded[0] < context[0] and rounded[1] < context[1], "rounding by rate and distortion gives up quality for bits"


def test_a_row_tells_the_distance_of_curves():
    floor = [(rate, 25 + 3 * np.log2(rate)) for rate in (0.25, 0.5, 1.0, 2.0)]
    better = [(rate, quality + 0.5) for rate, quality in floor]
    name, *at, over, rate, gained, over_field, seconds = parts.row_of("x", better, floor, None, [0.5, 4.0], 0.125, floor)
    assert (name, at[1], gained, seconds) == ("x", None, None, 0.125)
    assert at[0] == pytest.approx(22.5) and over == over_field == pytest.approx(0.5)
    assert rate == pytest.approx(100 * (2 ** (-0.5 / 3) - 1), abs=0.1)

"""Strümpler et al., meta-learned: files of updates to learned weights, pictures of any shape, and what meta-learning buys."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import smooth_picture
from tests.tiny import psnr
from vcinr.adaptation.long_fit import OptimiserSpec
from vcinr.adaptation.meta_learning import AdaptationConfig
from vcinr.bitstream.container import BitstreamError
from vcinr.codec import Code, EncodeRequest, grid_of
from vcinr.codecs.strumpler_meta import StrumplerMeta, StrumplerMetaConfig, base_weights, first_updates
from vcinr.datasets.sources import PatchSource
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig, evaluate, make_field
from vcinr.model.finding import load
from vcinr.model.model import make_model
from vcinr.signals.patches import to_signal
from vcinr.stage import TrainingConfig
from vcinr.training.run import train
from vcinr.weights.adaround import AdaRoundConfig
from vcinr.weights.coding import WeightCodingConfig
from vcinr.weights.fit import FitConfig, fit_weights, make_batch, signal_error, signal_errors
from vcinr.weights.retraining import RetrainingConfig
from vcinr.weights.signal_batches import batches_of_equal_shape

SHAPES = [(24, 36), (36, 24)]
CONFIG = StrumplerMetaConfig(
    crop=(16, 16),
    field=FieldConfig(num_layers=2, width=8, modulation="weight_update", encoding="nerf", num_frequencies=4),
    meta=TrainingConfig(num_steps=150, batch_size=8, lr=3e-3),
    num_steps=100,
    optimiser=OptimiserSpec(5e-3, "cosine"),
    l1=(3e-4, 0.0),
    bits=(5, 8),
    coding=WeightCodingConfig(AdaRoundConfig(num_steps=60, lr=1e-1, batch=256), RetrainingConfig(num_steps=40)),
)


@pytest.fixture(scope="module")
def pictures():
    return [smooth_picture(*shape, seed=10 + i) for i, shape in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a model trained on other pictures."""
    folder, codec = tmp_path_factory.mktemp("strumpler_meta"), StrumplerMeta(CONFIG)
    patches = PatchSource([smooth_picture(48, 48, seed) for seed in range(4)], codec.training_patch)
    params = train(codec, patches, seed=0, workdir=folder / "run", quiet=True)
    make_model(codec, params, {}).save(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


@pytest.fixture(scope="module")
def files(model, pictures):
    return [model.encode_batch(pictures, point) for point in range(2)]


@pytest.fixture(scope="module")
def landscape(pictures):
    (batch,) = batches_of_equal_shape([to_signal(pictures[0].astype(np.float32) / np.float32(255), SHAPES[0])], 2**16)
    return batch


def test_portrait_and_landscape_come_back_from_their_files(model, pictures, files):
    for of_point, quality in zip(files, (20, 26), strict=True):
        for picture, decoded in zip(pictures, model.decode_batch(of_point), strict=True):
            assert decoded.shape == picture.shape
            assert psnr(picture, decoded) > quality
    assert [one.shape[:2] for one in model.decode_together(model.join(files[0]))] == SHAPES


def test_a_file_is_as_large_as_its_estimate(model, files):
    for of_point in files:
        for data in of_point:
            assert -2 < 8 * model.payload_bytes(data) - model.estimated_bits(data) < 16
            # Nothing but the shape stands before the payload.
            assert len(data) - model.payload_bytes(data) == 10 + 4


def test_points_differ_for_the_encoder_alone(model, pictures, files):
    assert [point["name"] for point in model.points] == ["5 bits, 0.0003", "8 bits, 0"]
    assert len({point["fingerprint"] for point in model.points}) == 1
    assert all(len(coarse) < len(fine) for coarse, fine in zip(*files, strict=True))
    # The stronger the penalty, the more weights stay where they were learned.
    zeros = [[np.mean(model.read_codes(data)[1][0].streams["weights"] == 0) for data in of_point] for of_point in files]
    assert np.mean(zeros[0]) > 2 * np.mean(zeros[1])


def test_points_of_equal_penalty_share_their_fits(model, pictures, tmp_path):
    codec = StrumplerMeta(dataclasses.replace(CONFIG, l1=(3e-4, 3e-4)))
    signals = [to_signal(picture.astype(np.float32) / np.float32(255), picture.shape[:2]) for picture in pictures[:1]]
    heard = []
    for point in range(2):
        request = EncodeRequest(workdir=str(tmp_path), progress=lambda *call, p=point: heard.append((p, *call)))
        codec.encode(model.params, signals, point, request)
    fitting = [(point, done, total) for point, what, done, total in heard if what == "fitting"]
    assert fitting == [(0, 0, 100), (0, 100, 100), (1, 100, 100)]
    assert [name.rsplit("_", 1)[0] for name in sorted(path.stem for path in tmp_path.iterdir())] == [
        "strumpler_meta_0.0003_100_24x36_5bits_retrain",
        "strumpler_meta_0.0003_100_24x36_8bits_retrain",
        "strumpler_meta_0.0003_100_24x36_fit",
    ]


def test_another_process_decodes_with_the_model(model, folder, files, tmp_path):
    path = tmp_path / "picture.vcinr"
    path.write_bytes(files[1][1])
    program = """
import sys
from pathlib import Path
import numpy as np
from vcinr.model.finding import load
model, data = load(sys.argv[1]), Path(sys.argv[2]).read_bytes()
np.savez(sys.argv[2] + ".npz", picture=model.decode(data), **model.read_codes(data)[1][0].streams)
"""
    subprocess.run([sys.executable, "-c", program, str(folder), str(path)], check=True)
    with np.load(f"{path}.npz") as found:
        for name, symbols in model.read_codes(files[1][1])[1][0].streams.items():
            np.testing.assert_array_equal(found[name], symbols)
        assert np.abs(found["picture"].astype(int) - model.decode(files[1][1])).max() <= 1


def test_updates_are_in_the_order_of_the_fields_own(model):
    base = base_weights(CONFIG, model.params["shared"])
    update = 0.01 * jax.random.normal(jax.random.key(0), base.shape)
    coords = jax.random.uniform(jax.random.key(1), (50, 2), minval=-1.0)
    shared = jax.tree.map(jnp.asarray, model.params["shared"])
    whole = make_field(CONFIG.field).apply({"params": shared}, coords, update)
    found = evaluate(CONFIG.field, siren.unflatten(base + update, CONFIG.field.sizes()), coords)
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_learned_weights_are_closer_to_any_picture_than_random_ones(model, landscape):
    """After the inner loop, and after as many steps of Adam from there as from a random start."""
    field, fit = CONFIG.field, FitConfig(CONFIG.field)
    base = base_weights(CONFIG, model.params["shared"])
    plain = siren.flatten(siren.init_layers(jax.random.key(0), field.sizes(), field.omega_0))
    learned = make_batch(field, base, landscape, "learned")
    random = make_batch(field, jnp.zeros_like(plain), landscape, "random")
    updates = first_updates(CONFIG, model.params, landscape)
    row = {"values": jnp.asarray(landscape.values[0]), "weight": None}
    start = [signal_error(fit, learned.shared, jnp.asarray(update), row) for update in (0 * updates[0], updates[0])]
    assert start[1] < 0.5 * start[0]
    steps = {"optimiser": CONFIG.optimiser, "num_steps": 30}
    found = fit_weights(fit, learned, updates, **steps)
    from_random = fit_weights(fit, random, plain[None], **steps)
    assert found.loss[0] < start[1]
    assert found.loss[0] < 0.5 * from_random.loss[0]


def test_an_inner_loop_that_diverges_is_told(model, landscape):
    sizes = {"alpha": np.full_like(model.params["step_sizes"]["alpha"], 1e30)}
    with pytest.raises(ValueError, match="the inner loop diverges on these signals"):
        first_updates(CONFIG, {**model.params, "step_sizes": sizes}, landscape)


def test_step_sizes_that_start_at_next_to_nothing_grow_until_three_steps_gain_decibels(model, landscape):
    """They start at 1e-5, as the authors' do; as logarithms they would end under 1e-3."""
    untrained = StrumplerMeta(CONFIG).init(jax.random.key(0))["step_sizes"]
    np.testing.assert_allclose(untrained["alpha"], 1e-5)
    assert np.median(model.params["step_sizes"]["alpha"]) > 1e-3
    assert gain_db(model.params, landscape) > 3
    assert abs(gain_db({**model.params, "step_sizes": untrained}, landscape)) < 0.1, "steps of the first size change nothing"


def gain_db(params, signals):
    """PSNR after the inner loop above that at θ₀, of one signal."""
    batch = make_batch(CONFIG.field, base_weights(CONFIG, params["shared"]), signals, "")
    updates = first_updates(CONFIG, params, signals)
    before, after = (signal_errors(FitConfig(CONFIG.field), batch, update)[0] for update in (0 * updates, updates))
    return 10 * np.log10(before / after)


def test_hostile_streams_are_refused(model, files, monkeypatch):
    grid = grid_of(model.codec, SHAPES[0])
    code = model.read_codes(files[0][0])[1][0]
    for bits in (0, 0x7FC0, 0x7F80, 0x8000):
        steps = code.streams["steps"].copy()
        steps[0] = bits
        with monkeypatch.context() as patch:
            patch.setattr("vcinr.weights.coding.from_bfloat16", lambda bits: bits)
            data = model.write_codes(0, [Code({**code.streams, "steps": steps})], [grid])
        with pytest.raises(BitstreamError, match="a quantiser step is not a positive finite number"):
            model.decode(data)
    weights = code.streams["weights"].copy()
    weights[-1] = 2**31 - 1
    steps = np.full_like(code.streams["steps"], 0x7F7F)
    data = model.write_codes(0, [Code({**code.streams, "steps": steps, "weights": weights})], [grid])
    with pytest.raises(BitstreamError, match="not finite"):
        model.decode(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l1": ()}, "one value per operating point"),
        ({"bits": (7, 8, 9)}, "one value per operating point"),
        ({"bits": (1, 7)}, r"bits in 2\.\.16"),
        ({"field": FieldConfig(modulation="none")}, "field.modulation is weight_update"),
        ({"field": dataclasses.replace(CONFIG.field, channels=1)}, "field.channels is 1, but a picture has 3"),
        ({"adaptation": AdaptationConfig(learn_start=True)}, "needs adaptation.learn_start=False"),
        ({"crop": (16,)}, "a patch of a picture has 2 axes"),
        ({"modality": "smell"}, "unknown modality 'smell'"),
    ],
)
def test_configs_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)

"""MetaSparseINR: rounds of pruning that end at the target, pruned weights that stay 0, files of the survivors."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.adaptation.meta_learning import AdaptationConfig
from vcinr.bitstream.payload import estimated_bits
from vcinr.codecs.meta_sparse_inr import MetaSparseINR, MetaSparseINRConfig
from vcinr.compression.uniform import UniformConfig
from vcinr.datasets.sources import PatchSource
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig
from vcinr.model.finding import load
from vcinr.model.model import make_model
from vcinr.stage import ClosedForm, TrainingConfig
from vcinr.training.run import train

STEPS = TrainingConfig(num_steps=3, batch_size=4, warmup_steps=1, lr=1e-3, collapse_db=0.0)
CONFIG = MetaSparseINRConfig(
    patch=(6, 6),
    field=FieldConfig(modulation="weight_update", num_layers=2, width=6),
    target=0.5,
    rounds=2,
    meta=STEPS,
    retrain=STEPS,
    compression=UniformConfig(bits=(4,), num_latents=64),
    encode_batch=8,
)
KERNELS = 2 * 6 + 6 * 6 + 6 * 3  # and 15 biases
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 20, 26, 3), np.uint8)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meta_sparse_inr")
    codec = MetaSparseINR(CONFIG)
    params = train(codec, PatchSource(PICTURES, codec.patch), seed=0, workdir=folder / "run", quiet=True)
    make_model(codec, params, {}).save(folder / "model")
    return folder / "model"


def weights_of(layers):
    return np.asarray(siren.flatten(layers))


def test_pruning_ends_at_the_target_in_equal_shares():
    first, last = CONFIG.survivors()
    assert last == round(KERNELS * 0.5)
    np.testing.assert_allclose(first / KERNELS, last / first, rtol=0.03)
    assert [stage.name for stage in MetaSparseINR(CONFIG).field_stages()] == [
        "meta", "prune_1", "retrain_1", "prune_2", "retrain_2"
    ]  # fmt: skip


def test_rounds_that_prune_a_fifth_take_a_fifth_of_the_kernels_that_are_left():
    """Lee et al. 2021, section 4: 20 rounds. The authors' code prunes kernels alone, of which 0.8²⁰ = 1.15 % are left."""
    field = FieldConfig(modulation="weight_update", num_layers=4, width=256)
    kernels = (2 + 3 * 256 + 3) * 256
    left = np.asarray([kernels, *MetaSparseINRConfig(field=field, target=0.8**20, rounds=20).survivors()])
    np.testing.assert_allclose(left[1:] / left[:-1], 0.8, rtol=1e-3)
    assert len(left) == 21 and left[-1] / kernels == pytest.approx(0.0115, abs=5e-5)


def test_a_round_keeps_the_largest_of_those_that_are_left():
    codec = MetaSparseINR(CONFIG)
    params = codec.init(jax.random.key(0))
    weights = weights_of([(params["shared"][f"kernel_{i}"], params["shared"][f"bias_{i}"]) for i in range(3)])
    for stage in codec.field_stages():
        if isinstance(stage, ClosedForm):
            before = params["gates"]
            params = stage.solve(jax.random.key(0), params, None, None)
            assert (params["gates"] <= before).all()
    kept = params["gates"] > 0
    assert kept.sum() == round(0.5 * KERNELS) + 15 == len(params["coded"])
    kernels = weights_of([(jnp.ones(size), jnp.zeros(size[1])) for size in CONFIG.field.sizes()]) > 0
    assert kept[~kernels].all(), "biases are never pruned"
    assert np.abs(weights[kept & kernels]).min() >= np.abs(weights[~kept]).max()


def test_pruned_weights_are_zero_in_every_signal(model_dir):
    model = load(model_dir)
    codec, pruned = model.codec, model.params["gates"] == 0
    params = jax.tree.map(jnp.asarray, {**codec.encoder_params(model.params), **codec.decoder_params(model.params)})
    numbers = codec.adapt(params, jnp.asarray(np.random.default_rng(1).random((36, 3)), jnp.float32))
    assert numbers.shape == (np.count_nonzero(~pruned),) and (np.asarray(numbers) != 0).mean() > 0.5
    weights = weights_of(codec.layers(params, numbers))
    assert (weights[pruned] == 0).all()
    base = weights_of([(params["shared"][f"kernel_{i}"], params["shared"][f"bias_{i}"]) for i in range(3)])
    np.testing.assert_allclose(weights[~pruned] - base[~pruned], numbers, atol=1e-6)


@pytest.mark.parametrize("shape", [(13, 20), (20, 13)])
def test_a_file_pays_for_the_survivors_and_decodes_elsewhere(model_dir, shape, tmp_path):
    model = load(model_dir)
    picture = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    data = model.encode(picture)
    (tmp_path / "x.vcinr").write_bytes(data)
    script = (
        "import sys, numpy as np, vcinr; m = vcinr.load(sys.argv[1]); data = open(sys.argv[2], 'rb').read();"
        "p, codes, grids = m.read_codes(data); np.savez(sys.argv[3], values=m.decode(data), **codes[0].streams)"
    )
    subprocess.run([sys.executable, "-c", script, model_dir, tmp_path / "x.vcinr", tmp_path / "y.npz"], check=True)
    other = np.load(tmp_path / "y.npz")
    (code,), (grid,) = model.make_codes([picture], 0)
    np.testing.assert_array_equal(other["latent"], code.streams["latent"])
    assert len(code.streams["latent"]) == grid.num_patches * (round(0.5 * KERNELS) + 15)
    assert np.abs(other["values"].astype(int) - model.decode(data)).max() <= 1
    assert abs(8 * model.payload_bytes(data) - estimated_bits(model.codec, model.params, 0, grid, code)) < 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adaptation": AdaptationConfig()}, "learn_start"),
        ({"field": FieldConfig(modulation="shifts")}, "field.modulation"),
        ({"target": 1e-5}, "pruning needs"),
        ({"target": 1.5}, "pruning needs"),
        ({"field": FieldConfig(modulation="weight_update", linear_head=True)}, "linear_head"),
        ({"rounds": 0}, "pruning needs"),
    ],
)
def test_configs_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MetaSparseINRConfig(**changes)

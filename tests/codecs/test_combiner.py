"""COMBINER and COMBINER+: what a file holds, what its decoder does with it, and that bits buy quality."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import smooth_picture
from vcinr.bitstream.container import BitstreamError
from vcinr.codec import Code
from vcinr.codecs import make_codec
from vcinr.datasets.sources import PatchSource
from vcinr.model.finding import load
from vcinr.model.model import make_model
from vcinr.posterior.partition import Partition, patch_permutation
from vcinr.posterior.relative_entropy_coding import decode_blocks
from vcinr.training.run import train

FIELD = {"num_layers": 2, "width": 8, "num_frequencies": 2}
TRAINING = {"num_steps": 500, "batch_size": 8, "warmup_steps": 1, "average_decay": 0.0, "collapse_db": 0.0, "lr": 1e-4}
CONFIG = {
    "patch": (8, 8),
    "field": FIELD,
    "betas": (3e-4, 1e-5),
    "prior": {"training": TRAINING, "num_patches": 16, "lr": 1e-2, "first_update": 20, "update_every": 10},
    "coding": {"num_steps": 300, "fine_tune_steps": 3, "lr": 1e-2, "budget": 8, "adjust_every": 3},
}
PLUS = {
    **CONFIG,
    "positional": {"channels": 4, "stride": 4, "widths": (4,), "outputs": 4},
    "coding": {**CONFIG["coding"], "num_samples": 1, "permute": True},
}


def trained(name, config, folder):
    codec = make_codec(name, config)
    pictures = np.stack([smooth_picture(8, 8, seed=i) for i in range(16)])
    return make_model(codec, train(codec, PatchSource(pictures, (8, 8)), seed=0, workdir=folder, quiet=True), {})


@pytest.fixture(scope="module")
def combiner(tmp_path_factory):
    return trained("combiner", CONFIG, tmp_path_factory.mktemp("combiner"))


@pytest.fixture(scope="module")
def combiner_plus(tmp_path_factory):
    return trained("combiner_plus", PLUS, tmp_path_factory.mktemp("combiner_plus"))


@pytest.fixture(params=["combiner", "combiner_plus"])
def model(request):
    return request.getfixturevalue(request.param)


def blocks(model, point):
    return Partition.from_arrays(model.params["points"][str(point)]["blocks"])


@pytest.mark.slow
def test_a_file_is_its_head_and_so_many_bits_a_block(model):
    """Blocks of 8 bits: one byte each, but for zeros at the end, which no file holds, and the range coder's last byte."""
    for point in (0, 1):
        codes, grids = model.make_codes([smooth_picture(8, 8, seed=99)], point)
        data = model.write_codes(point, codes, grids)
        indices = codes[0].streams["indices"]
        assert indices.shape == (blocks(model, point).num_blocks,)
        assert indices.min() >= 0 and indices.max() < 2**8
        kept = len(indices.astype(np.uint8).tobytes().rstrip(b"\0"))
        assert kept <= model.payload_bytes(data) <= len(indices) + 1
    assert blocks(model, 1).num_blocks > blocks(model, 0).num_blocks, "a smaller β takes more blocks"


@pytest.mark.slow
def test_bits_buy_quality(model):
    pictures = [smooth_picture(8, 8, seed=i) for i in range(90, 98)]
    decoded = [model.decode_batch(model.encode_batch(pictures, point)) for point in (0, 1)]
    errors = [np.mean(np.square(np.stack(each).astype(float) - np.stack(pictures))) for each in decoded]
    assert errors[1] < 0.85 * errors[0]


@pytest.mark.slow
def test_a_sample_is_what_the_blocks_of_the_file_name(combiner_plus):
    """Row r of a block holds, for each dimension, the entry of the patch that the permutation puts there."""
    model = combiner_plus
    codes, grids = model.make_codes([smooth_picture(16, 24, seed=5)], 0)
    found = model.codec.sample(model.params, 0, codes[0], grids[0])
    own, partition = model.params["points"]["0"], blocks(model, 0)
    indices = codes[0].streams["indices"].reshape(6, partition.num_blocks)
    patches = patch_permutation(0, 6, model.codec.network.size)
    for block in range(partition.num_blocks):
        members = partition.members(block)
        values = decode_blocks(0, block, indices[:, block], own["prior"]["mean"][members], own["prior"]["scale"][members])
        for row in range(6):
            np.testing.assert_array_equal(found[patches[row, members], members], values[row])


@pytest.mark.slow
def test_another_process_decodes_the_same_sample(model, tmp_path):
    model.save(tmp_path / "model")
    data = model.encode(smooth_picture(13, 9, seed=3), 1)
    (tmp_path / "file").write_bytes(data)
    _, codes, grids = model.read_codes(data)
    expected = model.codec.sample(model.params, 1, codes[0], grids[0])
    program = (
        "import sys, numpy as np; from vcinr.model.finding import load; m = load(sys.argv[1]);"
        "_, c, g = m.read_codes(open(sys.argv[2], 'rb').read());"
        "np.save(sys.argv[3], m.codec.sample(m.params, 1, c[0], g[0]))"
    )
    paths = [str(tmp_path / name) for name in ("model", "file", "sample.npy")]
    subprocess.run([sys.executable, "-c", program, *paths], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "sample.npy"), expected)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (8, 9), (17, 3)])
def test_any_shape_comes_back(model, shape):
    picture = smooth_picture(*shape, seed=1)
    assert model.decode(model.encode(picture, 0)).shape == picture.shape


@pytest.mark.slow
def test_padding_has_no_say(combiner):
    """The last row and column of an 8 × 8 patch hang over the edge of a 7 × 7 picture, and no loss sees them."""
    picture = smooth_picture(8, 8, seed=2)
    signal = combiner.signal(picture[:7, :7])
    other = dataclasses.replace(signal, values=np.where(signal.weight[..., None] > 0, signal.values, 9.0).astype(np.float32))
    # The linear start alone reads the padding; from the prior on, it has none.
    params = {"points": {k: {n: a for n, a in p.items() if n != "start"} for k, p in combiner.params["points"].items()}}
    first, second = (combiner.codec.encode(params, [s], 0)[0].streams["indices"] for s in (signal, other))
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_damaged_and_foreign_files_are_refused(combiner, combiner_plus):
    data = combiner.encode(smooth_picture(8, 8, seed=4), 1)
    with pytest.raises(BitstreamError, match="another model"):
        combiner_plus.decode(data)
    for broken in (data[:-5] + data[-4:], data[:-4] + b"\1" + data[-4:], data[:12] + bytes([data[12] ^ 1]) + data[13:]):
        with pytest.raises(BitstreamError):
            combiner.decode(broken)


@pytest.mark.slow
def test_no_index_beyond_the_candidates_is_written(combiner):
    _, grids = combiner.make_codes([smooth_picture(8, 8, seed=4)], 0)
    indices = np.zeros(blocks(combiner, 0).num_blocks, np.int32)
    indices[0] = 2**8
    with pytest.raises(ValueError, match="0..255"):
        combiner.write_codes(0, [Code({"indices": indices})], grids)


@pytest.mark.slow
def test_a_model_comes_back_from_its_folder(model, tmp_path):
    model.save(tmp_path)
    data = model.encode(smooth_picture(8, 8, seed=6), 0)
    np.testing.assert_array_equal(load(tmp_path).decode(data), model.decode(data))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"betas": (1e-6, 1e-5)}, "betas fall"),
        ({"betas": ()}, "betas fall"),
        ({"field": {"linear_head": True}}, "all weights are random"),
        ({"coding": {"budget": 30, "extra_bits": 2}}, "at most 30 bits"),
        ({"coding": {"method": "zip"}}, "unknown coding.method 'zip'; valid are a_star, minimal_random"),
        ({"coding": {"adjust_factor": 1.0}}, "adjust_factor lies above 1"),
    ],
)
def test_configs_that_mean_nothing_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        make_codec("combiner", config)


def test_a_patch_divides_by_the_stride_of_its_latent():
    with pytest.raises(ValueError, match="does not divide by positional.stride = 16"):
        make_codec("combiner_plus", {"patch": (24, 24)}).network.size  # noqa: B018


def test_limits_of_memory_know_the_encoding_of_a_whole_signal():
    codec = make_codec("combiner_plus", PLUS)
    shared, start = codec.network.init(jax.random.key(0))
    features = codec.network.features(shared, jnp.tile(start, (6, 1)), (2, 3))
    assert features.size * features.dtype.itemsize <= codec.decoding_bytes_per_sample * 6 * 64
    assert make_codec("combiner", CONFIG).decoding_bytes_per_sample == 0

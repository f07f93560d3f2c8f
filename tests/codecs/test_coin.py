"""COIN: files that need no model, of pictures of any shape, and what a file may not ask for."""

import contextlib
import math
import os
import shutil
import subprocess
import sys
import tracemalloc

import jax
import numpy as np
import pytest

import vcinr
from tests.conftest import smooth_picture
from tests.tiny import psnr
from vcinr.adaptation.long_fit import OptimiserSpec
from vcinr.bitstream import container
from vcinr.bitstream import payload as payload_coding
from vcinr.bitstream.container import BitstreamError
from vcinr.codec import QUICKEST, Code, EncodeRequest, grid_of
from vcinr.codecs.coin import (
    MAX_DEPTH,
    MAX_OMEGA_0,
    MAX_WEIGHTS,
    MAX_WIDTH,
    Coin,
    CoinConfig,
    field_of,
    file_bits,
    from_symbols,
    num_weights,
    to_symbols,
)
from vcinr.entropy.range_coder import RawBits
from vcinr.model.finding import find_by_fingerprint, load
from vcinr.model.model import make_model
from vcinr.model.places import ModelError
from vcinr.signals.grids import pixel_grid
from vcinr.signals.patches import to_signal
from vcinr.weights import evaluation
from vcinr.weights.signal_batches import batches_of_equal_shape

SHAPES = [(24, 36), (36, 24), (24, 36), (1, 50)]
CONFIG = CoinConfig(architectures=((2, 10), (2, 6)), num_steps=200, optimiser=OptimiserSpec(1e-2, "cosine"), trial_steps=40)


@pytest.fixture(scope="module")
def pictures():
    return [smooth_picture(*shape, seed=i) for i, shape in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def model():
    return make_model(Coin(CONFIG), Coin(CONFIG).init(), {})


@pytest.fixture(scope="module")
def files(model, pictures):
    return model.encode_batch(pictures, 1)


def test_points_are_architectures_in_order_of_size(model):
    assert Coin(CONFIG).config.points == ((2, 6), (2, 10))
    assert [point["name"] for point in model.points] == ["2x6", "2x10"]
    # The file says its architecture itself, so all points have one fingerprint.
    assert len({point["fingerprint"] for point in model.points}) == 1
    grid = CoinConfig(depths=(3, 2), widths=(8, 4)).points
    assert grid == ((2, 4), (3, 4), (2, 8), (3, 8))
    sizes = [num_weights(field_of("picture", *point, 30)) for point in CoinConfig().points]
    assert sizes == sorted(sizes)
    # (2 + 1)·6 + (6 + 1)·6 + (6 + 1)·3
    assert num_weights(field_of("picture", 2, 6, 30)) == 81


def test_the_papers_architectures_have_the_papers_rates():
    """Dupont et al. 2021, section 4: on 512 × 768 pixels."""
    for architecture, bpp in {(5, 20): 0.07, (5, 30): 0.15, (10, 28): 0.3, (10, 40): 0.6, (13, 49): 1.2}.items():
        assert file_bits(field_of("picture", *architecture, 30), (512, 768)) / (512 * 768) == pytest.approx(bpp, rel=0.07)


def test_portrait_and_landscape_come_back_from_their_files(model, pictures, files):
    decoded = model.decode_batch(files)
    for picture, other, quality in zip(pictures, decoded, [30, 30, 22, 30], strict=True):
        assert other.shape == picture.shape
        assert psnr(picture, other) > quality
    together = model.decode_together(model.join(files))
    assert all(np.abs(one.astype(int) - other).max() <= 1 for one, other in zip(decoded, together, strict=True))


def test_a_file_is_as_large_as_its_weights(model, files):
    for data, shape in zip(files, SHAPES, strict=True):
        assert model.estimated_bits(data) == 16 * num_weights(field_of("picture", 2, 10, 30))
        assert 0 <= 8 * model.payload_bytes(data) - model.estimated_bits(data) < 16
        assert 0 <= file_bits(field_of("picture", 2, 10, 30), shape) - 8 * len(data) < 8 * 10


def test_a_larger_network_is_better(model, pictures, files):
    small = model.encode(pictures[0], 0)
    assert len(small) < len(files[0])
    assert psnr(pictures[0], model.decode(small)) < psnr(pictures[0], model.decode(files[0]))


def test_a_signal_does_not_depend_on_its_neighbours(model, pictures, files):
    alone = model.encode(pictures[2], 1)
    # Batches of other sizes differ in the last bits of floats, and 200 steps add to that.
    assert abs(psnr(pictures[2], model.decode(alone)) - psnr(pictures[2], model.decode(files[2]))) < 0.2
    swapped = model.encode_batch([pictures[2], pictures[0]], 1)
    other = model.encode_batch([pictures[2], pictures[0][::-1].copy()], 1)
    assert swapped[0] == other[0]
    assert swapped[1] != other[1]


def test_the_start_is_the_seeds(model, pictures):
    signal = [to_signal(pictures[0].astype(np.float32) / np.float32(255), SHAPES[0])]
    codec = model.codec
    (first,), (again,), (other,) = (
        codec.encode(model.params, signal, 0, EncodeRequest(key=key)) for key in (None, jax.random.key(0), jax.random.key(1))
    )
    np.testing.assert_array_equal(first.streams["weights"], again.streams["weights"])
    assert (first.streams["weights"] != other.streams["weights"]).mean() > 0.9


def test_half_precision_costs_little(model, pictures):
    """Weights are rounded to 11 bits: the error of the field grows by under 0.1 dB."""
    values = (pictures[0].astype(np.float32) / np.float32(255)).reshape(-1, 3)
    (batch,) = batches_of_equal_shape([to_signal(values.reshape(*SHAPES[0], 3), SHAPES[0])], 2**16)
    field = field_of("picture", 2, 10, 30)
    weights, loss = model.codec._fit(field, batch, 200, QUICKEST, "", None)
    half = from_symbols(to_symbols(weights[0]))
    grids = [grid_of(model.codec, SHAPES[0])]
    (rounded,) = evaluation.network_pieces([field], [half], grids, pixel_grid)
    assert abs(10 * math.log10(np.mean((rounded.values - values) ** 2) / loss[0])) < 0.1


def test_effort_doubles_the_steps(model, pictures):
    heard = []
    for effort in (0, 1):
        model.encode(pictures[0], 0, effort, progress=lambda *call: heard.append(call))
    assert {total for _, _, total in heard} == {200, 400}
    with pytest.raises(ValueError, match="effort lies in 0 to 16"):
        model.encode(pictures[0], 0, -1)


def test_progress_is_of_all_batches_as_one(model, pictures):
    heard = []
    model.encode_batch(pictures, 0, progress=lambda *call: heard.append(call))
    # Three shapes, three batches.
    assert heard == [("fitting", done, 600) for done in (0, 200, 200, 400, 400, 600)]


class Killed(BaseException):
    """What no `except Exception` holds up."""


def test_an_interrupted_encoding_goes_on_to_the_same_file(model, pictures, files, tmp_path):
    def kill(what, done, total):
        if done == 400:
            raise Killed

    with pytest.raises(Killed):
        model.encode_batch(pictures, 1, workdir=tmp_path, progress=kill)
    assert len(list(tmp_path.iterdir())) == 2
    heard = []
    assert model.encode_batch(pictures, 1, workdir=tmp_path, progress=lambda *call: heard.append(call)) == files
    assert heard == [("fitting", done, 600) for done in (200, 400, 400, 600)]
    # Other pictures, points and efforts have fits of their own.
    model.encode(pictures[0], 0, workdir=tmp_path)
    model.encode(pictures[0], 0, 1, workdir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


# Trial fits.


def test_trial_fits_keep_the_budget_and_the_best_is_taken(pictures, tmp_path, monkeypatch):
    codec = Coin(CoinConfig(depths=(1, 2), widths=(4, 8, 12), num_steps=40, trial_steps=40, optimiser=OptimiserSpec(1e-2)))
    model = make_model(codec, codec.init(), {})
    picture = pictures[0]
    sizes = [len(model.write_codes(i, [code_of(codec, i)], [grid_of(codec, SHAPES[0])])) for i in range(6)]
    bpp = 8 * (sizes[4] + 10) / (24 * 36)
    heard = []
    point = model.choose_point(picture, bpp=bpp, workdir=tmp_path, progress=lambda *call: heard.append(call))
    # The widest that fit, of one layer and of two; the smallest of all have too few weights to be looked at.
    candidates = [codec.config.points.index(architecture) for architecture in ((1, 12), (2, 8))]
    assert heard[-1] == ("trial fits", 80, 80)
    # What has been tried is read, not fitted again.
    assert sorted(path.name.rpartition("_")[0] for path in tmp_path.iterdir()) == ["trial_1x12_24x36", "trial_2x8_24x36"]
    with monkeypatch.context() as patch:
        patch.setattr("vcinr.adaptation.long_fit._compiled", None)
        assert model.choose_point(picture, bpp=bpp, workdir=tmp_path) == point
    files = {i: model.encode(picture, i) for i in candidates}
    assert all(8 * len(data) <= bpp * 24 * 36 for data in files.values())
    assert point == max(candidates, key=lambda i: psnr(picture, model.decode(files[i])))
    with pytest.raises(ValueError, match=r"no operating point fits 0\.1 bpp; the cheapest takes 0\.7\d+"):
        model.choose_point(picture, bpp=0.1)
    # Where one architecture alone is large enough, there is nothing to try.
    assert codec.config.points[model.choose_point(picture, bpp=100.0)] == (2, 12)


def test_a_quality_is_looked_for_from_the_smallest_on(model, pictures):
    heard = []
    assert model.choose_point(pictures[0], psnr_db=20.0, progress=lambda *call: heard.append(call)) == 0
    assert heard[-1] == ("fitting", 200, 200)
    with pytest.raises(ValueError, match="no operating point reaches 90 dB"):
        model.choose_point(pictures[0], psnr_db=90.0)


def code_of(codec, point, seed=0):
    """A code of arbitrary finite weights, without a fit."""
    depth, width = codec.config.points[point]
    count = num_weights(field_of("picture", depth, width, 30))
    weights = np.random.default_rng(seed).normal(size=count).astype(np.float16)
    return Code({"weights": to_symbols(weights)}, {"depth": depth, "width": width, "omega_0": 30})


# No model.

OTHER_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from vcinr.bitstream import container
from vcinr.model.finding import find_by_fingerprint
for name in sys.argv[1:]:
    data = Path(name).read_bytes()
    model = find_by_fingerprint(container.peek(data).fingerprint)
    _, (code,), _ = model.read_codes(data)
    np.savez(name + ".npz", symbols=code.streams["weights"], picture=model.decode(data))
"""


def test_another_process_decodes_without_any_model(model, files, tmp_path):
    paths = [tmp_path / f"{i}.vcinr" for i in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    environment = {name: value for name, value in os.environ.items() if name != "VCINR_MODELS"}
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, *map(str, paths)], env=environment, cwd=tmp_path, check=True)
    for path, data, decoded in zip(paths, files, model.decode_batch(files), strict=True):
        with np.load(f"{path}.npz") as found:
            np.testing.assert_array_equal(found["symbols"], model.read_codes(data)[1][0].streams["weights"])
            assert np.abs(found["picture"].astype(int) - decoded).max() <= 1


def test_it_is_loaded_by_its_name(model, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = vcinr.load("coin")
    assert found.codec == Coin()
    assert (found.num_bytes, len(found.points)) == (0, len(CoinConfig().points))
    np.testing.assert_array_equal(found.decode(files[0]), model.decode(files[0]))
    assert find_by_fingerprint(container.peek(files[0]).fingerprint).codec == Coin()
    # A folder with a model in it is not passed over in silence.
    model.save(tmp_path / "coin" / "model")
    with pytest.raises(ModelError, match="no model in coin: .*; did you mean coin/model"):
        load("coin")
    shutil.rmtree(tmp_path / "coin")
    # A folder of that name comes first.
    model.save(tmp_path / "coin")
    monkeypatch.setenv("VCINR_MODELS", str(tmp_path))
    assert load("coin").codec.config == CONFIG
    assert load("coin").encode_batch([], 1) == []
    assert [path.name for path in sorted((tmp_path / "coin").iterdir())] == [
        *["model.json", "point_0.safetensors", "point_1.safetensors"],
        "shared.safetensors",
    ]


# Hostile files.


def forged(model, meta, payload, shape=(4, 4)):
    """A file with a checksum that fits whatever it decodes to."""
    codec, grid = model.codec, grid_of(model.codec, shape)
    head = container.head_bytes(bytes.fromhex(model.points[0]["fingerprint"]), [shape], [meta], codec.meta_types)
    try:
        codes = payload_coding.decode_payload(codec, model.params, 0, [grid], [meta], payload)
    except BitstreamError:
        codes = []
    return container.write(head, payload, container.checksum(head, payload_coding.ordered_streams(codec, codes)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"depth": 0}, "depth of a COIN lies in 1..64, not 0"),
        ({"depth": -3}, "depth of a COIN lies in 1..64, not -3"),
        ({"depth": MAX_DEPTH + 1}, "depth"),
        ({"depth": 2**31 - 1, "width": 2**31 - 1}, "depth"),
        ({"width": 0}, "width of a COIN lies in 1..1024, not 0"),
        ({"width": MAX_WIDTH + 1}, "width"),
        ({"width": MAX_WIDTH}, f"at most {MAX_WEIGHTS} are coded"),
        ({"omega_0": 0}, "omega_0 of a COIN lies in 1..1000, not 0"),
        ({"omega_0": MAX_OMEGA_0 + 1}, "omega_0"),
    ],
)
def test_a_file_that_asks_for_too_much_is_refused_before_it_gets_it(model, changed, message):
    meta = {"depth": 2, "width": 6, "omega_0": 30} | changed
    with pytest.raises(ValueError, match=message):
        model.codec.symbol_model(model.params, 0, grid_of(model.codec, (4, 4)), meta, {}, "weights")
    data = forged(model, meta, b"\x12\x34")
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError, match=message):
            model.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pattern", [0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFFFF])
def test_patterns_that_are_no_numbers_are_refused(model, pattern):
    code = code_of(model.codec, 0)
    code.streams["weights"][17] = pattern
    data = model.write_codes(0, [code], [grid_of(model.codec, (4, 4))])
    with pytest.raises(BitstreamError, match="weights that are not finite"):
        model.decode(data)
    code.streams["weights"][17] = 0x7BFF
    assert model.decode(model.write_codes(0, [code], [grid_of(model.codec, (4, 4))])).shape == (4, 4, 3)


def test_any_payload_is_a_picture_or_refused(model):
    rng = np.random.default_rng(0)
    meta, pictures = {"depth": 2, "width": 6, "omega_0": 30}, 0
    for size in (0, 1, 40, 81, 161, 162, 163, 200):
        for _ in range(6):
            with contextlib.suppress(BitstreamError):
                assert model.decode(forged(model, meta, rng.bytes(size))).shape == (4, 4, 3)
                pictures += 1
    assert pictures > 0


def test_every_flipped_bit_is_refused(model, files):
    data = model.write_codes(0, [code_of(model.codec, 0)], [grid_of(model.codec, (4, 4))])
    for position in range(len(data)):
        for bit in range(8):
            with pytest.raises(BitstreamError):
                model.read_codes(data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :])


def test_sizes_and_ranks_are_limited(model, files):
    with pytest.raises(BitstreamError, match="asks for 864 samples"):
        model.decode(files[0], max_pixels=863)
    with pytest.raises(BitstreamError, match="it holds 864 samples; the limit is 863"):
        model.check_size([(24, 36)], 863)
    with pytest.raises(BitstreamError, match=r"shape \(4, 4, 4\) does not fit"):
        model.decode(forged(model, {"depth": 2, "width": 6, "omega_0": 30}, b"", (4, 4, 4)))


def test_weights_are_float16_patterns():
    weights = np.array([0.0, -0.0, 1.0, -2.5, 65504.0, 6e-8, 1.0009765625], np.float32)
    symbols = to_symbols(weights)
    assert symbols.dtype == np.int32
    assert symbols.tolist() == [0, 0x8000, 0x3C00, 0xC100, 0x7BFF, 1, 0x3C01]
    np.testing.assert_allclose(from_symbols(symbols), weights, rtol=1e-3, atol=1e-8)
    with pytest.raises(ValueError, match="left the range of float16"):
        to_symbols(np.array([1e5]))
    meta = {"depth": 1, "width": 1, "omega_0": 1}
    assert Coin().symbol_model({}, 0, grid_of(Coin(), (4, 4)), meta, {}, "weights") == RawBits(16, 9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modality": "smell"}, "unknown modality 'smell'"),
        ({"architectures": ((2, 3, 4),)}, r"an architecture is \(depth, width\), not \(2, 3, 4\)"),
        ({"architectures": ((0, 3),)}, "depth of a COIN"),
        ({"omega_0": 0}, "omega_0 of a COIN"),
        ({"widths": ()}, "at least one architecture"),
        ({"num_steps": 0}, "num_steps and trial_steps must be at least 1"),
    ],
)
def test_a_wrong_config_is_told(values, message):
    with pytest.raises(ValueError, match=message):
        CoinConfig(**values)

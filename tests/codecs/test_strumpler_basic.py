"""Strümpler et al., basic: files that need no model, of pictures of any shape, and what a file may not ask for."""

import dataclasses
import os
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
from vcinr.codec import Code, grid_of
from vcinr.codecs import make_codec
from vcinr.codecs.strumpler_basic import MAX_META, StrumplerBasic, StrumplerBasicConfig, field_of
from vcinr.fields import siren
from vcinr.modalities import MODALITIES
from vcinr.model.finding import find_by_fingerprint
from vcinr.model.model import make_model
from vcinr.weights.adaround import AdaRoundConfig
from vcinr.weights.coding import WeightCodingConfig, make_code
from vcinr.weights.retraining import RetrainingConfig

SHAPES = [(24, 36), (36, 24), (24, 36)]
CONFIG = StrumplerBasicConfig(
    widths=(4, 8),
    num_layers=2,
    num_frequencies=4,
    num_steps=200,
    optimiser=OptimiserSpec(1e-2, "cosine"),
    coding=WeightCodingConfig(AdaRoundConfig(num_steps=60, lr=1e-1, batch=256), RetrainingConfig(num_steps=40)),
)


@pytest.fixture(scope="module")
def pictures():
    return [smooth_picture(*shape, seed=i) for i, shape in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def model():
    codec = StrumplerBasic(CONFIG)
    return make_model(codec, codec.init(jax.random.key(0)), {})


@pytest.fixture(scope="module")
def files(model, pictures):
    return model.encode_batch(pictures, 1)


def test_points_are_widths_whose_files_decode_alike(model):
    assert [point["name"] for point in model.points] == ["4", "8"]
    assert len({point["fingerprint"] for point in model.points}) == 1


def test_portrait_and_landscape_come_back_from_their_files(model, pictures, files):
    for picture, decoded in zip(pictures, model.decode_batch(files), strict=True):
        assert decoded.shape == picture.shape
        assert psnr(picture, decoded) > 26
    together = model.decode_together(model.join(files))
    assert [one.shape[:2] for one in together] == SHAPES


def test_a_file_is_as_large_as_its_estimate(model, files):
    for data in files:
        assert -2 < 8 * model.payload_bytes(data) - model.estimated_bits(data) < 16
        # Header of a picture, seven small numbers of which two take two bytes, checksum.
        assert len(data) - model.payload_bytes(data) == 10 + 7 + 1 + 4


def test_a_wider_network_is_better_and_larger(model, pictures, files):
    small = model.encode(pictures[0], 0)
    assert len(small) < len(files[0])
    assert psnr(pictures[0], model.decode(small)) < psnr(pictures[0], model.decode(files[0]))


def test_effort_doubles_the_steps_and_progress_is_of_all_batches_as_one(model, pictures):
    heard = []
    model.encode_batch(pictures[:2], 0, 1, progress=lambda *call: heard.append(call))
    ends = [("fitting", 800, 800), ("rounding", 2, 2), ("retraining", 80, 80)]
    assert [call for call in heard if call[1] == call[2]] == ends
    with pytest.raises(ValueError, match="effort lies in 0 to 16 for strumpler_basic, not -1"):
        model.encode(pictures[0], 0, -1)


def test_an_encoding_goes_on_from_its_folder(model, pictures, files, tmp_path):
    class Killed(BaseException):
        pass

    def kill(what, done, total):
        if (what, done) == ("retraining", 0):
            raise Killed

    with pytest.raises(Killed):
        model.encode_batch(pictures, 1, workdir=tmp_path, progress=kill)
    assert len(list(tmp_path.iterdir())) == 1
    heard = []
    again = model.encode_batch(pictures, 1, workdir=tmp_path, progress=lambda *call: heard.append(call))
    assert again == files
    assert heard[0] == ("fitting", 200, 400)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_file_says_its_encoding_and_its_activation(pictures, model):
    """Those of the paper's ablation."""
    changes = {"encoding": "gaussian", "encoding_scale": 0.5, "activation": "relu"}
    codec = StrumplerBasic(dataclasses.replace(CONFIG, num_steps=100, **changes))
    data = make_model(codec, codec.init(jax.random.key(0)), {}).encode(pictures[0], 1)
    (code,) = model.read_codes(data)[1]
    field = field_of("picture", code.meta)
    assert (field.encoding, field.encoding_scale, field.activation) == tuple(changes.values())
    # Another config decodes it: all is in the file.
    assert psnr(pictures[0], model.decode(data)) > 17


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
    np.savez(name + ".npz", picture=model.decode(data), **code.streams)
"""


def test_another_process_decodes_without_any_model(model, files, tmp_path):
    paths = [tmp_path / f"{i}.vcinr" for i in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    environment = {name: value for name, value in os.environ.items() if name != "VCINR_MODELS"}
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, *map(str, paths)], env=environment, cwd=tmp_path, check=True)
    for path, data, decoded in zip(paths, files, model.decode_batch(files), strict=True):
        with np.load(f"{path}.npz") as found:
            for name, symbols in model.read_codes(data)[1][0].streams.items():
                np.testing.assert_array_equal(found[name], symbols)
            assert np.abs(found["picture"].astype(int) - decoded).max() <= 1


def test_it_is_loaded_by_its_name(model, files):
    found = vcinr.load("strumpler_basic")
    assert found.codec == StrumplerBasic()
    np.testing.assert_array_equal(found.decode(files[0]), model.decode(files[0]))
    assert find_by_fingerprint(container.peek(files[0]).fingerprint).codec == StrumplerBasic()


def test_other_modalities_take_its_defaults(monkeypatch):
    sound = dataclasses.replace(MODALITIES["picture"], name="sound", coord_dim=1, channels=1)
    monkeypatch.setitem(MODALITIES, "sound", sound)
    codec = make_codec("strumpler_basic", {"modality": "sound"})
    field = field_of("sound", codec.config.meta(0))
    assert (field.sizes()[0][0], field.sizes()[-1][1]) == (33, 1)


# Hostile files.


def meta_with(**changes):
    return {**CONFIG.meta(1), **changes}


def a_code(meta, steps=1.0):
    field = field_of("picture", meta)
    levels = np.zeros(siren.num_weights(field.sizes()), np.float32)
    return make_code(field, levels, np.full(2 * len(field.sizes()), steps, np.float32), meta)


def forged(model, code, shape=(4, 4), meta=None):
    """A whole file of a code that no encoder makes, its head saying ``meta``."""
    grid = grid_of(model.codec, shape)
    fingerprint = bytes.fromhex(model.points[0]["fingerprint"])
    head = container.head_bytes(fingerprint, [shape], [meta or code.meta], model.codec.meta_types)
    payload = payload_coding.encode_payload(model.codec, model.params, 0, [grid], [code])
    return container.write(head, payload, container.checksum(head, payload_coding.ordered_streams(model.codec, [code])))


@pytest.mark.parametrize("name", MAX_META)
@pytest.mark.parametrize("value", [-1, "most", 2**31 - 1])
def test_a_network_that_no_encoder_describes_is_refused(model, name, value):
    value = MAX_META[name] + 1 if value == "most" else value
    with pytest.raises(BitstreamError, match=f"the head's {name} is {value}; it lies in [01]"):
        model.decode(forged(model, a_code(meta_with()), meta=meta_with(**{name: value})))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "field.width must be at least 1"),
        ({"num_layers": 0}, "field.num_layers must be at least 1"),
        ({"width": 1024, "num_layers": 64}, "the limit is 1048576"),
        ({"milliscale": 0}, "encoding_scale must be positive"),
        ({"omega_0": 0}, r"the head's omega_0 is 0; it lies in 1\.\.1000"),
        ({"num_frequencies": 200}, "lower field.num_frequencies"),
    ],
)
def test_a_network_that_cannot_be_is_refused_without_memory(model, changes, message):
    data = forged(model, a_code(meta_with()), meta=meta_with(**changes))
    tracemalloc.start()
    with pytest.raises(BitstreamError, match=message):
        model.decode(data)
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


@pytest.mark.parametrize("bits", [0, 0x7FC0, 0x7F80, 0xFF80, 0x8000, 0xBF80, 0x0001])
def test_steps_that_are_no_positive_numbers_are_refused(model, bits, monkeypatch):
    code = a_code(meta_with())
    steps = code.streams["steps"].copy()
    steps[3] = bits
    hostile = Code({**code.streams, "steps": steps}, code.meta)
    with monkeypatch.context() as patch:
        patch.setattr("vcinr.weights.coding.from_bfloat16", lambda bits: bits)
        data = forged(model, hostile)
    with pytest.raises(BitstreamError, match="a quantiser step is not a positive finite number"):
        model.decode(data)


def test_weights_beyond_any_float_are_refused(model):
    code = a_code(meta_with(), steps=3e38)
    weights = code.streams["weights"].copy()
    weights[-1] = 2**31 - 1
    data = forged(model, Code({**code.streams, "weights": weights}, code.meta))
    with pytest.raises(BitstreamError, match="decode to values that are not finite"):
        model.decode(data)


def test_arbitrary_tables_decode_or_are_refused(model, files):
    """The range decoder reads whatever follows as table parameters: all of them are valid, and the checksum has the last word."""
    data = bytearray(files[0])
    rng = np.random.default_rng(0)
    for position in rng.integers(18, len(data) - 4, 60):
        damaged = data.copy()
        damaged[position] ^= 1 << int(rng.integers(8))
        with pytest.raises(BitstreamError):
            model.decode(bytes(damaged))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": ()}, "widths must name"),
        ({"widths": (8, 2000)}, "the head's width is 2000"),
        ({"encoding": "fourier"}, "unknown encoding 'fourier'; valid are none, nerf, gaussian"),
        ({"activation": "tanh"}, "unknown activation 'tanh'; valid are sine, relu"),
        ({"encoding_scale": 1.40005}, "whole thousandths, which 1.40005 is not"),
        ({"bits": 1}, r"bits in 2\.\.16"),
        ({"l1": -1.0}, "l1 >= 0"),
        ({"num_steps": 0}, "num_steps >= 1"),
        ({"modality": "smell"}, "unknown modality 'smell': valid are picture"),
        ({"omega_0": 5000}, "the head's omega_0 is 5000"),
        ({"omega_0": 0}, "the head's omega_0 is 0"),
    ],
)
def test_configs_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        StrumplerBasicConfig(**changes)

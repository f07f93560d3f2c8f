"""Peak memory of decoding what a hostile file may ask for within the default limits, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import hand_made
from vcinr.bitstream import container
from vcinr.bitstream.limits import DEFAULT_MAX_PIXELS, DEFAULT_MAX_WORK
from vcinr.bitstream.payload import encode_payload
from vcinr.codec import Code, grid_of
from vcinr.codecs.strumpler_basic import StrumplerBasicConfig
from vcinr.fields import siren
from vcinr.model.finding import load

LARGE, SMALL = 8e8, 4e8
"""Bounds in bytes, under the promised 1e9; the second is that of a picture of 64 million pixels and little more."""
HEAD = StrumplerBasicConfig().meta(0) | {"num_layers": 1, "width": 1, "encoding": 0}
WIDEST = HEAD | {"width": 950, "encoding": 2, "num_frequencies": 256, "milliscale": 100}
CHILD = """
import json, resource, sys
from pathlib import Path
import jax.numpy as jnp
from vcinr.bitstream import container
from vcinr.model.finding import load

model, data = load(sys.argv[1]), Path(sys.argv[2]).read_bytes()
# What the payload decodes to is not known beforehand, so the checksum is made and not compared.
container.check = lambda frame, streams: container.checksum(frame.head, streams)
jnp.sin(jnp.zeros(9)).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
shapes = [signal.shape for signal in model.decode_together(data)]
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([len(shapes), shapes[0], 1024 * (after - before)]))
"""


def peak_bytes(folder, name, metas, shape, payload=b""):
    """What decoding takes over the interpreter with JAX in it."""
    model = load(name)
    fingerprint = bytes.fromhex(model.points[0]["fingerprint"])
    head = container.head_bytes(fingerprint, [shape] * len(metas), metas, model.meta_types)
    (folder / "file").write_bytes(container.write(head, payload, 0))
    command = [sys.executable, "-c", CHILD, str(name), str(folder / "file")]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, capture_output=True, text=True, env=env, cwd=Path(__file__).parents[2], timeout=900)
    assert run.returncode == 0, run.stderr
    count, decoded, peak = json.loads(run.stdout)
    assert (count, tuple(decoded)) == (len(metas), (*shape, 3))
    return peak


@pytest.mark.parametrize(
    ("depth", "width", "shape"),
    [(1, 1, (1, DEFAULT_MAX_PIXELS)), (2, 1000, (256, 256)), pytest.param(2, 1000, (700, 700), marks=pytest.mark.slow)],
    ids=["most samples", "widest", "most work"],
)
def test_of_one_coin(tmp_path, depth, width, shape):
    work = load("coin").codec.decoding_work(grid_of(load("coin").codec, shape), {"depth": depth, "width": width, "omega_0": 30})
    assert (work > 0.9 * DEFAULT_MAX_WORK) == (shape == (700, 700))
    assert peak_bytes(tmp_path, "coin", [{"depth": depth, "width": width, "omega_0": 30}], shape) < SMALL


@pytest.mark.slow
def test_of_many_coins(tmp_path):
    """As many symbols as are decoded in any case."""
    assert peak_bytes(tmp_path, "coin", [{"depth": 64, "width": 127, "omega_0": 30}] * 31, (1, 1)) < LARGE


@pytest.mark.parametrize(
    ("meta", "shape"),
    [(HEAD, (8192, 8192)), (WIDEST, (256, 256)), pytest.param(WIDEST, (1000, 1000), marks=pytest.mark.slow)],
    ids=["most samples", "widest", "most work"],
)
def test_of_one_strumpler_file(tmp_path, meta, shape):
    model = load("strumpler_basic")
    grid, sizes = grid_of(model.codec, shape), model.codec.network(meta).sizes()
    assert (model.codec.decoding_work(grid, meta) > 0.9 * DEFAULT_MAX_WORK) == (shape == (1000, 1000))
    steps, tables, weights = (np.full(n, 1, np.int32) for n in (2 * len(sizes), 2 * len(sizes), siren.num_weights(sizes)))
    code = Code({"steps": 0x3C00 * steps, "tables": 15 * tables, "weights": 0 * weights}, meta)
    payload = encode_payload(model.codec, model.params, 0, [grid], [code])
    assert peak_bytes(tmp_path, "strumpler_basic", [meta], shape, payload) < SMALL


@pytest.mark.slow
def test_of_patches(tmp_path):
    """Half a symbol a sample, in patches of four samples: many small pieces."""
    hand_made().save(tmp_path / "model")
    assert peak_bytes(tmp_path, tmp_path / "model", [{}], (8192, 8192)) < LARGE

"""What files that bring their own network may ask for and mean."""

import math
import time
import tracemalloc

import jax
import numpy as np
import pytest

from tests.conftest import smooth_picture
from vcinr.bitstream import container
from vcinr.bitstream.container import BitstreamError
from vcinr.bitstream.limits import DEFAULT_MAX_WORK
from vcinr.codec import Code, grid_of
from vcinr.codecs.coin import Coin, to_symbols
from vcinr.codecs.strumpler_basic import StrumplerBasic, field_of
from vcinr.fields import siren
from vcinr.model.model import make_model
from vcinr.weights import evaluation
from vcinr.weights.coding import make_code
from vcinr.weights.grid import bfloat16_above, from_bfloat16

HEAD = {"num_layers": 2, "width": 6, "encoding": 1, "num_frequencies": 3, "milliscale": 1400, "omega_0": 17, "activation": 0}


@pytest.fixture(scope="module")
def coin():
    return make_model(Coin(), Coin().init(), {})


@pytest.fixture(scope="module")
def strumpler():
    return make_model(StrumplerBasic(), StrumplerBasic().init(jax.random.key(0)), {})


# What a file means, by docs/bitstream.md, section "Files that need no model", with nothing but NumPy.


def documented_tensors(weights, fan_in, layers, width):
    sizes = [(fan_in, width)] + [(width, width)] * (layers - 1) + [(width, 3)]
    tensors = []
    for rows, columns in sizes:
        kernel, bias, weights = np.split(weights, [rows * columns, (rows + 1) * columns])
        tensors.append((kernel.reshape(rows, columns), bias))
    assert weights.size == 0
    return tensors


def documented_values(tensors, inputs, activation):
    hidden = inputs
    for kernel, bias in tensors[:-1]:
        hidden = activation(hidden @ kernel + bias)
    kernel, bias = tensors[-1]
    return hidden @ kernel + bias


def documented_coordinates(height, width):
    return np.array([[(2 * y + 1) / height - 1, (2 * x + 1) / width - 1] for y in range(height) for x in range(width)])


def documented_inputs(meta, x):
    count, sigma = meta["num_frequencies"], meta["milliscale"] / 1000
    if meta["encoding"] == 0:
        return x
    if meta["encoding"] == 1:
        parts = [x]
        for i in range(count):
            frequency = np.float64(np.float32(np.pi * sigma**i))
            parts += [np.sin(frequency * x), np.cos(frequency * x)]
        return np.concatenate(parts, axis=1)
    matrix = (sigma * np.random.RandomState(0).standard_normal((count, 2))).astype(np.float32).astype(np.float64)
    return np.concatenate([np.sin(2 * np.pi * x @ matrix.T), np.cos(2 * np.pi * x @ matrix.T)], axis=1)


def documented_bytes(values):
    return np.rint(np.clip(values, 0, 1) * np.float32(255)).astype(np.uint8)


def check_documented(model, data, expected, shape):
    (values,) = model.decode_values_batch([data])
    expected = expected.reshape(*shape, 3)
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(values, expected, atol=1e-3)
    np.testing.assert_array_equal(model.decode(data), documented_bytes(values))


def test_a_coin_means_what_the_page_says(coin):
    rng, meta, shape = np.random.default_rng(0), {"depth": 3, "width": 7, "omega_0": 17}, (5, 8)
    weights = rng.normal(0, 0.2, (2 + 1) * 7 + 2 * (7 + 1) * 7 + (7 + 1) * 3).astype(np.float16)
    code = Code({"weights": to_symbols(weights)}, meta)
    data = coin.write_codes(0, [code], [grid_of(coin.codec, shape)])
    symbols = coin.read_codes(data)[1][0].streams["weights"]
    tensors = documented_tensors(symbols.astype(np.uint16).view(np.float16).astype(np.float64), 2, 3, 7)
    expected = documented_values(tensors, documented_coordinates(*shape), lambda h: np.sin(17 * h))
    check_documented(coin, data, expected, shape)


@pytest.mark.parametrize(
    "changes",
    [{}, {"encoding": 2, "milliscale": 700, "num_frequencies": 4, "activation": 1}, {"encoding": 0, "omega_0": 30}],
    ids=["nerf, sine", "gaussian, relu", "none, sine"],
)
def test_a_strumpler_file_means_what_the_page_says(strumpler, changes):
    rng, meta, shape = np.random.default_rng(1), HEAD | changes, (5, 8)
    field = field_of("picture", meta)
    levels = rng.integers(-100, 101, siren.num_weights(field.sizes())).astype(np.float32)
    steps = from_bfloat16(bfloat16_above(rng.uniform(1e-3, 6e-3, 6).astype(np.float32)))
    data = strumpler.write_codes(0, [make_code(field, levels, steps, meta)], [grid_of(strumpler.codec, shape)])
    streams = strumpler.read_codes(data)[1][0].streams
    inputs = documented_inputs(meta, documented_coordinates(*shape))
    deltas = (streams["steps"].astype(np.uint32) << 16).view(np.float32)
    tensors = documented_tensors(streams["weights"].astype(np.float64), inputs.shape[1], 2, 6)
    tensors = [(deltas[2 * i] * kernel, deltas[2 * i + 1] * bias) for i, (kernel, bias) in enumerate(tensors)]
    relu, omega_0 = meta["activation"], meta["omega_0"]
    expected = documented_values(tensors, inputs, lambda h: np.maximum(h, 0) if relu else np.sin(omega_0 * h))
    check_documented(strumpler, data, expected, shape)


# What a file may ask for.


def zeros(depth, width, omega_0=30):
    """A COIN whose weights, all of them 0, need no payload."""
    count = 3 * width + (depth - 1) * (width + 1) * width + 3 * (width + 1)
    return Code({"weights": np.zeros(count, np.int32)}, {"depth": depth, "width": width, "omega_0": omega_0})


def container_file(model, codes, shape=(1, 1), payload=None):
    grids = [grid_of(model.codec, shape)] * len(codes)
    if payload is None:
        return model.write_codes(0, codes, grids)
    fingerprint = bytes.fromhex(model.points[0]["fingerprint"])
    head = container.head_bytes(fingerprint, [shape] * len(codes), [code.meta for code in codes], model.codec.meta_types)
    return container.write(head, payload, 0)


def test_networks_without_payload_take_no_memory_beyond_the_limit(coin):
    code = zeros(64, 127)
    data = container_file(coin, [code] * 40, payload=b"")
    assert len(data) < 300
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError, match="asks for more than 33554432 symbols"):
            coin.decode_together(data)
        # One signal was asked for: what the others hold is not looked at.
        for few in (data, container_file(coin, [code] * 2, payload=b"")):
            with pytest.raises(BitstreamError, match=r"the file holds \d+ signals: use Model\.decode_together"):
                coin.decode(few)
        assert tracemalloc.get_traced_memory()[1] < 2**19
    finally:
        tracemalloc.stop()


BOMBS = {
    "coin, deep": ("coin", {"depth": 64, "width": 127}, (1024, 1024)),
    "coin, wide": ("coin", {"depth": 2, "width": 1000}, (1024, 1024)),
    "strumpler, deep": ("strumpler", {"num_layers": 64, "width": 120, "encoding": 0}, (1024, 1024)),
    "strumpler, a large encoding": ("strumpler", {"encoding": 2, "num_frequencies": 256, "milliscale": 100}, (8192, 8192)),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_few_bytes_that_ask_for_much_work_are_refused_at_once(coin, strumpler, bomb):
    kind, changes, shape = bomb
    model, meta = (coin, zeros(1, 1).meta | changes) if kind == "coin" else (strumpler, HEAD | changes)
    data = container_file(model, [Code({}, meta)], shape, b"")
    assert len(data) < 40
    for decode in (model.decode, model.decode_together, model.read_codes):
        started = time.process_time()
        with pytest.raises(BitstreamError, match=rf"takes \d+ multiplications; the limit is {DEFAULT_MAX_WORK}: .*--max-work"):
            decode(data)
        assert time.process_time() - started < 0.5


def test_the_limit_is_of_all_signals_together_and_can_be_lifted(coin):
    code, shape = zeros(1, 1), (3, 5)
    work = coin.codec.decoding_work(grid_of(coin.codec, shape), code.meta)
    together, alone = container_file(coin, [code] * 4, shape), container_file(coin, [code], shape)
    assert len(coin.decode_together(together, max_work=4 * work)) == 4
    for data, most in ((together, 4 * work - 1), (alone, work - 1)):
        for decode in (coin.decode_together, coin.read_codes, lambda data, **limits: coin.join([data], **limits)):
            with pytest.raises(BitstreamError, match=f"the limit is {most}:"):
                decode(data, max_work=most)
    assert coin.decode(alone, max_work=work).shape == (*shape, 3)
    with pytest.raises(BitstreamError, match=f"the limit is {work - 1}:"):
        coin.decode(alone, max_work=work - 1)
    with pytest.raises(BitstreamError, match=f"file 1 of 0 to 1: .* the limit is {work - 1}:"):
        coin.decode_values_batch([container_file(coin, [code], (3, 4)), alone], max_work=work - 1)


def test_signals_that_cost_no_samples_cost_work(coin):
    """65,536 signals of one pixel each, in a few hundred kilobytes."""
    data = container_file(coin, [Code({}, zeros(1, 1).meta)] * 2**16, (1, 1), b"")
    with pytest.raises(BitstreamError, match="--max-work"):
        coin.decode_together(data)


def test_ordinary_networks_are_far_from_the_limit(coin, strumpler):
    """The largest that encoders have by default, at several million pixels."""
    for model, meta, megapixels in (
        (coin, {"depth": 13, "width": 128, "omega_0": 30}, 2),
        (coin, {"depth": 13, "width": 49, "omega_0": 30}, 9),
        (strumpler, strumpler.codec.config.meta(len(strumpler.points) - 1), 10),
    ):
        assert model.codec.decoding_work(grid_of(model.codec, (1000, 1000 * megapixels)), meta) < DEFAULT_MAX_WORK


def test_encoders_make_no_file_that_takes_hours_to_read(coin, strumpler, monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_WORK", 1000)
    for model in (coin, strumpler):
        with pytest.raises(ValueError, match=r"at 24×36 samples takes \d+ multiplications to decode; the limit is 1000"):
            model.encode(smooth_picture(24, 36), 0)


def test_one_program_serves_every_frequency_and_few_networks_go_into_a_file(coin):
    rng = np.random.default_rng(2)
    codes = [zeros(1, 5, omega_0) for omega_0 in range(1, 17)]
    for code in codes:
        code.streams["weights"][:] = to_symbols(rng.normal(0, 0.3, code.streams["weights"].size))
    compiled = []

    def count(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        together = coin.decode_together(container_file(coin, codes, (3, 4)))
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert len(compiled) == 1
    for code, picture in zip(codes, together, strict=True):
        alone = coin.decode(container_file(coin, [code], (3, 4)))
        assert np.abs(picture.astype(int) - alone).max() <= 1
    assert math.dist(together[0].ravel(), together[-1].ravel()) > 10
    files = [container_file(coin, [zeros(1, width)]) for width in range(1, 18)]
    assert len(coin.decode_together(coin.join(files[:16]))) == 16
    with pytest.raises(ValueError, match="17 different networks; a file holds at most 16"):
        coin.join(files)
    many = [zeros(1, width) for width in range(1, 18)]
    with pytest.raises(BitstreamError, match="17 different networks"):
        coin.decode_together(container_file(coin, many, payload=b""))


@pytest.mark.parametrize("codec", [Coin(), StrumplerBasic()], ids=lambda codec: codec.name)
def test_effort_doubles_the_steps_within_limits(codec):
    assert codec.num_steps(3) == 8 * codec.config.num_steps
    for effort in (-1, 17):
        with pytest.raises(ValueError, match="effort lies in 0 to 16"):
            codec.num_steps(effort)

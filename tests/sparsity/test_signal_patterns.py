"""Patterns of a signal's own: open where a number is, tables by how often gates are open, symbols of open entries alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.codecs.mscn import MSCNPerSignal
from vcinr.compression.uniform import UniformConfig
from vcinr.datasets.sources import ArraySource
from vcinr.entropy.range_coder import symbol_bits
from vcinr.entropy.tables import Tables
from vcinr.signals.signal import Grid
from vcinr.sparsity.signal_patterns import BUCKETS, PatternUniform, open_gates

INDEX = np.array([0, 0, 1, 2, 2], np.int32)
GRID = Grid((4, 2), (2, 2))
CODEC = MSCNPerSignal()


def latents(count, seed=0):
    """Gate 0 is open on a tenth of the rows, gate 1 on half, gate 2 on nine tenths; numbers of entry i lie about i + 1."""
    rng = np.random.default_rng(seed)
    gates = rng.random((count, 3)) < [0.1, 0.5, 0.9]
    numbers = rng.normal(np.arange(1, 6), 0.1, (count, 5))
    return np.where(gates[:, INDEX], numbers, 0).astype(np.float32)


@pytest.fixture(scope="module")
def compression():
    return PatternUniform(UniformConfig(bits=(2, 6)), INDEX)


@pytest.fixture(scope="module")
def params(compression):
    points = compression.points(ArraySource({"latent": latents(2000)}))
    return {"points": {name: {**point, "tables": Tables(**point["tables"])} for name, point in points.items()}}


def test_groups_open_where_any_of_their_numbers_is_there():
    numbers = np.array([[0.0, 0.5, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 2.0, 0.0]], np.float32)
    np.testing.assert_array_equal(open_gates(INDEX, numbers), [[1, 0, 0], [0, 1, 1]])


def test_ranges_are_those_of_the_open_rows(compression, params):
    point = params["points"]["1"]
    np.testing.assert_allclose(point["lower"], np.arange(1, 6) - 0.3, atol=0.05)
    np.testing.assert_allclose(point["step"], 0.6 / 63, rtol=0.2)


@pytest.mark.parametrize("at_once", [1, 2])
def test_streams_come_back_to_the_numbers_up_to_half_a_step(compression, params, at_once):
    rows = latents(4, seed=3).reshape(2, 2, 5)
    assert (rows == 0).any() and (rows != 0).any()
    coded = [code.streams for code in compression.code(params, 1, list(rows), [GRID, GRID])]
    point = params["points"]["1"]
    for numbers, streams in zip(rows, coded, strict=True):
        assert len(streams["gates"]) == 6 and len(streams["latent"]) == np.count_nonzero(numbers)
        symbols = np.concatenate(list(compression.row_blocks(CODEC, params, streams, GRID, at_once)))
        decoded = np.stack([compression.synthesise(point, jnp.asarray(row, jnp.float32)) for row in symbols])
        np.testing.assert_array_equal(decoded == 0, numbers == 0)
        upper = point["lower"] + 63 * point["step"]
        inside = (numbers != 0) & (numbers > point["lower"]) & (numbers < upper)
        error = np.abs(decoded - numbers) / point["step"]
        assert inside.any() and error[inside].max() < 0.501


def test_gates_cost_about_their_entropy(compression, params):
    """A tenth, a half and nine tenths open: 0.47 + 1 + 0.47 bits per patch."""
    many = Grid((2000, 2), (2, 2))
    (code,) = compression.code(params, 0, [latents(1000, seed=5)], [many])
    streams = code.streams
    model = compression.symbol_model(CODEC, params, 0, many, {}, "gates")
    assert model.index.max() <= BUCKETS
    assert abs(symbol_bits(model, streams["gates"]).sum() / 1000 - 1.938) < 0.06
    model = compression.symbol_model(CODEC, params, 0, many, streams, "latent")
    assert model.index.size == len(streams["latent"])


def test_a_latent_that_is_not_finite_is_refused(compression, params):
    rows = latents(2)
    rows[1, 0] = np.inf
    with pytest.raises(ValueError, match="encoding has diverged"):
        compression.code(params, 0, [rows], [GRID])


def test_training_latents_that_are_all_closed_are_refused(compression):
    with pytest.raises(ValueError, match="no gate is open on any training patch"):
        compression.points(ArraySource({"latent": np.zeros((10, 5), np.float32)}))

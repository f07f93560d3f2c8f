"""Uniform compression: the range that all numbers share, and whose histogram codes which number."""

import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.compression.uniform import UniformCompression, UniformConfig
from vcinr.datasets.sources import ArraySource
from vcinr.entropy.tables import Tables, code_length_bits
from vcinr.signals.signal import Grid

DEVIATIONS = np.array([0.2, 1.0, 5.0])
LATENTS = (np.random.default_rng(0).normal(size=(3000, 3)) * DEVIATIONS + [1.0, -2.0, 0.0]).astype(np.float32)


def compression(**config):
    made = UniformCompression(UniformConfig(bits=(5,), **config))
    return made, {"points": made.points(ArraySource({"latent": LATENTS}))}


class Numbers:
    """As much of a codec as tables depend on: three numbers per patch."""

    name, patch, modality, num_values = "numbers", (4, 4), "picture", 48
    decoder_params = values = distortion = adapt_all = latents = lambda self, *_: NotImplemented

    def num_coded(self, params):
        return 3


def symbols_of(made, params):
    return np.asarray(made.analyse(made.encoder_parts(params, 0), jnp.asarray(LATENTS))).astype(np.int64)


def test_one_range_for_all_is_that_of_the_latents_together():
    made, params = compression(one_range=True, num_std=3.0)
    together = np.sqrt(np.mean((LATENTS - LATENTS.mean(axis=0)) ** 2))
    parts = made.decoder_parts(params, 0)
    np.testing.assert_allclose(parts["step"], np.full(3, 6 * together / 31), rtol=1e-4)
    np.testing.assert_allclose(parts["lower"], LATENTS.mean(axis=0) - 3 * together, rtol=1e-4)


@pytest.mark.parametrize("one_table", [False, True])
def test_symbols_cost_the_entropy_of_their_histograms(one_table):
    """Histograms of each number, or of all together; the first can only cost less."""
    made, params = compression(one_range=True, one_table=one_table)
    symbols = symbols_of(made, params)
    groups = [symbols.ravel()] if one_table else list(symbols.T)
    entropy_bits = 0.0
    for group in groups:
        counts = np.unique(group, return_counts=True)[1]
        entropy_bits -= np.sum(counts * np.log2(counts / group.size))
    params["points"]["0"]["tables"] = tables = Tables.from_arrays(params["points"]["0"]["tables"])
    model = made.symbol_model(Numbers(), params, 0, Grid((12000, 4), (4, 4)), {}, "latent")
    bits = code_length_bits(tables, symbols.ravel(), model.index).sum()
    assert entropy_bits <= bits < 1.01 * entropy_bits + 100

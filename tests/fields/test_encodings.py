"""Encodings against their formulas; the Gaussian matrix is the same one for ever."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.fields.encodings import (
    ENCODINGS,
    encode,
    encoded_dim,
    gaussian,
    gaussian_matrix,
    geometric,
    geometric_frequencies,
    nerf,
)
from vcinr.fields.field import FieldConfig

COORDS = np.random.default_rng(0).uniform(-1, 1, (4, 5, 2)).astype(np.float32)


def test_nerf_by_hand():
    x = np.array([[0.3, -0.7]])
    found = nerf(jnp.asarray(x, jnp.float32), 3, 1.4)
    expected = [x]
    for i in range(3):
        expected += [np.sin(1.4**i * np.pi * x), np.cos(1.4**i * np.pi * x)]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=2e-6)


def test_geometric_by_hand():
    """Equation 3.11 of He 2023: all cosines, then all sines, of π, 4 π and 16 π."""
    x = np.array([[0.3, -0.7]])
    angles = np.concatenate([np.pi * x, 4 * np.pi * x, 16 * np.pi * x], axis=1)
    found = geometric(jnp.asarray(x, jnp.float32), 3, 16.0)
    np.testing.assert_allclose(found, np.concatenate([np.cos(angles), np.sin(angles)], axis=1), atol=5e-6)


def test_geometric_frequencies_run_from_pi_to_base_pi_in_equal_ratios():
    found = geometric_frequencies(7, 1024.0)
    np.testing.assert_allclose(found[[0, -1]], [np.pi, 1024 * np.pi], rtol=1e-6)
    np.testing.assert_allclose(found[1:] / found[:-1], 1024 ** (1 / 6), rtol=1e-6)
    np.testing.assert_allclose(geometric_frequencies(1, 1024.0), [np.pi], rtol=1e-6)


def test_gaussian_by_hand():
    matrix = np.array([[1.0, 0.0], [0.5, -2.0], [0.0, 0.25]], np.float32)
    found = gaussian(jnp.asarray(COORDS), jnp.asarray(matrix))
    angles = 2 * np.pi * COORDS.astype(np.float64) @ matrix.T
    np.testing.assert_allclose(found, np.concatenate([np.sin(angles), np.cos(angles)], axis=-1), atol=3e-6)


def test_the_gaussian_matrix_has_its_spread_and_never_changes():
    matrix = gaussian_matrix(2, 2000, 3.0)
    assert matrix.dtype == np.float32
    assert 2.9 < matrix.std() < 3.1
    assert abs(matrix.mean()) < 0.15
    # Files hold no B: these are the numbers that they were encoded with.
    np.testing.assert_array_equal(gaussian_matrix(2, 2, 1.0), np.float32([[1.7640524, 0.4001572], [0.978738, 2.2408931]]))
    rounded = np.rint(gaussian_matrix(3, 16, 1.4).astype(np.float64) * 1e4).astype("<i4")
    assert hashlib.sha256(rounded.tobytes()).hexdigest()[:16] == "36ce27f8f5fe1fb2"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("coord_dim", [1, 3])
def test_the_width_is_the_declared_one(encoding, coord_dim):
    config = FieldConfig(encoding=encoding, coord_dim=coord_dim, num_frequencies=6, encoding_scale=1.3)
    coords = jnp.zeros((7, coord_dim))
    assert encode(config, coords).shape == (7, encoded_dim(config))
    assert config.sizes()[0][0] == encoded_dim(config)


def test_without_an_encoding_coordinates_are_handed_on():
    coords = jnp.asarray(COORDS)
    assert encode(FieldConfig(), coords) is coords


@pytest.mark.parametrize("encoding", ["nerf", "geometric", "gaussian"])
def test_angles_stay_within_the_stated_bound(encoding):
    row, corner = ENCODINGS[encoding], jnp.ones((1, 2))
    bound = row.highest(2, 5, 2.0)
    largest = {"nerf": np.pi * 2.0**4, "geometric": np.pi * 2.0}
    largest["gaussian"] = 2 * np.pi * np.abs(gaussian_matrix(2, 5, 2.0)).sum(1).max()
    np.testing.assert_allclose(bound, largest[encoding], rtol=1e-6)
    # The derivative of a sine is its frequency at most.
    jacobian = jax.jacobian(lambda x: row.apply(x, 5, 2.0))(corner)
    assert float(jnp.abs(jacobian).max()) <= bound


def test_double_precision_stays_double():
    with jax.enable_x64(True):
        for encoding in ENCODINGS:
            assert encode(FieldConfig(encoding=encoding), jnp.asarray(COORDS, jnp.float64)).dtype == jnp.float64

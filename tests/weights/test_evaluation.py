"""Networks of files at every sample of a signal: the same values as layer by layer, one program per width, bounded work."""

import dataclasses
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.bitstream.limits import DEFAULT_MAX_WORK
from vcinr.fields import siren
from vcinr.fields.field import FieldConfig, evaluate
from vcinr.signals.grids import pixel_grid
from vcinr.signals.signal import Grid
from vcinr.weights import evaluation

PLAIN = FieldConfig(num_layers=3, width=9, omega_0=20.0, latent_dim=1, modulation="none")


def weights_of(field, seed=0):
    """Weights [p] of a start that is not nearly constant."""
    return np.asarray(siren.flatten(siren.init_layers(jax.random.key(seed), field.sizes(), field.omega_0, 0.5, field.activation)))


def layer_by_layer(field, weights, shape):
    return np.asarray(evaluate(field, siren.unflatten(jnp.asarray(weights), field.sizes()), jnp.asarray(pixel_grid(shape))))


def whole(shape):
    return Grid(shape, shape)


def pieces(fields, weights, shapes, **options):
    return list(evaluation.network_pieces(fields, weights, [whole(shape) for shape in shapes], pixel_grid, **options))


@pytest.mark.parametrize("unit_frequency", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_layers": 1},
        {"num_layers": 6, "width": 40},
        {"encoding": "nerf", "num_frequencies": 5},
        {"encoding": "gaussian", "num_frequencies": 7, "encoding_scale": 2.0, "activation": "relu", "width": 33},
    ],
    ids=str,
)
def test_values_are_those_of_the_layers_one_after_the_other(changes, unit_frequency):
    field = dataclasses.replace(PLAIN, **changes)
    weights, shape = weights_of(field), (13, 17)
    (piece,) = pieces([field], [weights], [shape], unit_frequency=unit_frequency)
    expected = layer_by_layer(field, weights, shape)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(piece.values, expected, atol=3e-5)


def test_every_sample_is_given_once_and_in_order(monkeypatch):
    """In chunks that fit no shape, each signal with its own network."""
    monkeypatch.setattr(evaluation, "SMALLEST_CHUNK", 8)
    monkeypatch.setattr(evaluation, "LARGEST_CHUNK", 32)
    shapes = [(3, 2), (5, 41), (1, 1), (9, 10), (8, 8)]
    fields = [dataclasses.replace(PLAIN, num_layers=1 + i % 3) for i in range(len(shapes))]
    weights = [weights_of(field, i) for i, field in enumerate(fields)]
    found = pieces(fields, iter(weights), shapes)
    assert max(len(piece.values) for piece in found) <= 32
    for i, shape in enumerate(shapes):
        own = [piece for piece in found if piece.signal == i]
        assert [piece.start for piece in own] == np.cumsum([0] + [len(piece.values) for piece in own])[:-1].tolist()
        expected = layer_by_layer(fields[i], weights[i], shape)
        np.testing.assert_allclose(np.concatenate([piece.values for piece in own]), expected, atol=3e-5)


def test_networks_of_one_width_share_a_program_whatever_their_depth_and_frequency():
    compiled = []

    def count(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    evaluation.program.cache_clear()
    fields = [dataclasses.replace(PLAIN, num_layers=depth, width=21, omega_0=float(depth)) for depth in range(2, 21)]
    wider = dataclasses.replace(PLAIN, width=22)
    rows = [weights_of(field) for field in (*fields, wider)]
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        found = pieces(fields, rows[:-1], [(4, 5)] * len(fields))
        assert len(compiled) == 1
        pieces([wider], rows[-1:], [(4, 5)])
        assert len(compiled) == 2
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert len({piece.values.tobytes() for piece in found}) == len(fields)


def test_work_is_weights_and_sines_at_every_sample():
    # Three layers of 9 from 2 coordinates, then 3 channels.
    weights = 3 * 9 + 2 * 10 * 9 + 10 * 3
    assert evaluation.work(PLAIN, (5, 7)) == 35 * (weights + 16 * 27)
    encoded = dataclasses.replace(PLAIN, encoding="gaussian", num_frequencies=50)
    assert evaluation.work(encoded, (5, 7)) == 35 * (weights + 98 * 9 + 16 * (27 + 100))


def test_chunks_shrink_as_layers_widen(monkeypatch):
    """Memory is that of a layer's outputs, so the product of width and chunk is what is bounded."""
    wide = dataclasses.replace(PLAIN, width=1000)
    seen = []
    monkeypatch.setattr(evaluation, "program", lambda field, observe: lambda network, coords: seen.append(len(coords)) or coords)
    for field in (wide, dataclasses.replace(PLAIN, width=4, encoding="gaussian", num_frequencies=256), PLAIN):
        pieces([field], [weights_of(field)], [(300, 300)])
        assert set(seen[:-1]) == {max(seen)}
        assert max(seen) * max(field.sizes()[0][0], field.width) <= evaluation.NUMBERS_AT_ONCE
        seen.clear()


def test_what_readers_refuse_by_default_is_not_encoded_unheard(caplog):
    small, large = dataclasses.replace(PLAIN, num_layers=2), dataclasses.replace(PLAIN, num_layers=5, width=400)
    with caplog.at_level(logging.WARNING):
        evaluation.check_work(small, (1000, 1000))
        assert not caplog.records
        shape = (1, math.ceil(DEFAULT_MAX_WORK / evaluation.work(large, (1,))))
        evaluation.check_work(large, shape)
    assert "readers need --max-work" in caplog.text
    with pytest.raises(ValueError, match=r"5 × 400 at 8192×8192 samples takes \d+ multiplications to decode; the limit is \d+"):
        evaluation.check_work(large, (8192, 8192))

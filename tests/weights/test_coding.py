"""From fitted weights to a file: the grid, AdaRound and retraining on a real picture, the code and what it decodes to."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.data import astronaut

from vcinr.adaptation.long_fit import OptimiserSpec
from vcinr.entropy.parametric_tables import PARAMETER_BITS
from vcinr.entropy.range_coder import RawBits, Table, symbol_bits
from vcinr.fields import siren
from vcinr.fields.encodings import encode
from vcinr.fields.field import FieldConfig, evaluate
from vcinr.signals.patches import to_signal
from vcinr.weights import coding
from vcinr.weights.adaround import AdaRoundConfig
from vcinr.weights.coding import WeightCodingConfig
from vcinr.weights.fit import Batch, FitConfig, fit_loss, fit_weights, make_batch, signal_error, signal_errors
from vcinr.weights.grid import grid_steps, on_grid, per_weight
from vcinr.weights.retraining import RetrainingConfig, flips_in_words, num_flipped, retrain_weights
from vcinr.weights.rounding import Rounding, network, round_weights
from vcinr.weights.signal_batches import batches_of_equal_shape

FIELD = FieldConfig(num_layers=3, width=12, modulation="none", encoding="nerf", num_frequencies=5)
FIT = FitConfig(FIELD, l1=1e-6)
BITS = 6
CONFIG = WeightCodingConfig(AdaRoundConfig(num_steps=200, lr=5e-2, batch=256), RetrainingConfig(num_steps=150))


@dataclasses.dataclass
class Fitted:
    """Three networks of one picture, from three starts: weights, and what each way of rounding makes of them."""

    batch: Batch
    weights: np.ndarray
    steps: np.ndarray
    nearest: np.ndarray
    rounding: Rounding
    retrained: np.ndarray

    def errors(self, levels):
        """Signal error of each row of levels."""
        return signal_errors(FIT, self.batch, levels * per_weight(FIELD, self.steps))


def row_of(batch, i):
    return {"values": jnp.asarray(batch.data["values"][i]), "weight": None}


@pytest.fixture(scope="module")
def fitted():
    picture = astronaut()[100:132, 200:240].astype(np.float32) / np.float32(255)
    (signals,) = batches_of_equal_shape([to_signal(picture, picture.shape[:2])] * 3, 2**16)
    starts = [siren.flatten(siren.init_layers(jax.random.key(seed), FIELD.sizes(), FIELD.omega_0)) for seed in range(3)]
    batch = make_batch(FIELD, jnp.zeros_like(starts[0]), signals, "test")
    weights = fit_weights(FIT, batch, jnp.stack(starts), OptimiserSpec(5e-3, "cosine"), 300).params
    steps = grid_steps(weights, FIELD, BITS)
    nearest = np.asarray(on_grid(weights / per_weight(FIELD, steps), BITS))
    rounding = round_weights(CONFIG.adaround, FIT, batch, weights, steps, BITS, CONFIG.num_coordinates)
    retrained = retrain_weights(CONFIG.retraining, FIT, batch, rounding.soft, steps, BITS)
    return Fitted(batch, weights, steps, nearest, rounding, retrained)


def test_adaround_lowers_the_error_of_every_layers_output(fitted):
    error, nearest_error = fitted.rounding.error, fitted.rounding.nearest_error
    assert error.shape == (3, len(FIELD.sizes()))
    assert (error <= nearest_error).all()
    assert np.mean(error / nearest_error) < 0.95


def test_adaround_lowers_the_signals_error_and_retraining_lowers_it_again(fitted, caplog):
    nearest, rounded = fitted.errors(fitted.nearest), fitted.errors(fitted.rounding.hard)
    retrained = fitted.errors(fitted.retrained)
    assert np.mean(np.log(rounded / nearest)) < -0.05
    assert (retrained < rounded).all()
    flipped = num_flipped(fitted.rounding.hard, fitted.retrained)
    assert ((flipped > 0) & (flipped < fitted.weights.shape[1])).all()
    with caplog.at_level("INFO", logger=coding.__name__):
        whole = coding.quantise_weights(CONFIG, FIT, fitted.batch, fitted.weights, BITS)
    np.testing.assert_array_equal(whole.levels, fitted.retrained)
    np.testing.assert_array_equal(whole.flipped, flipped)
    np.testing.assert_array_equal(whole.nearest, fitted.nearest)
    np.testing.assert_array_equal(whole.rounding.hard, fitted.rounding.hard)
    (line,) = caplog.messages
    assert line == f"{fitted.batch.name}, {BITS} bits: {flips_in_words(flipped, fitted.weights.shape[1])}"


def test_what_nearest_rounding_serves_better_is_retrained_from_there(fitted, monkeypatch):
    """AdaRound's levels are replaced by bad ones for the second signal, so that the nearest are better there."""
    bad = fitted.rounding.hard.copy()
    bad[1] = np.clip(bad[1] + 3, -31, 31)
    monkeypatch.setattr(coding, "round_weights", lambda *_: fitted.rounding._replace(hard=bad, soft=bad))
    still = dataclasses.replace(CONFIG, retraining=RetrainingConfig(num_steps=0))
    found = coding.quantise_weights(still, FIT, fitted.batch, fitted.weights, BITS)
    np.testing.assert_array_equal(found.levels[[0, 2]], fitted.rounding.hard[[0, 2]])
    np.testing.assert_array_equal(found.levels[1], fitted.nearest[1])


def test_a_rate_that_is_not_of_the_grids_size_flips_nothing(fitted):
    """1e-6 in units of the weights, from the grid's own points, as the public code retrains."""
    slow = RetrainingConfig(num_steps=100, lr=1e-6 / float(fitted.steps.min()))
    same = retrain_weights(slow, FIT, fitted.batch, fitted.rounding.hard, fitted.steps, BITS)
    np.testing.assert_array_equal(same, fitted.rounding.hard)


def test_levels_are_whole_and_use_the_grid(fitted):
    limit = 2 ** (BITS - 1) - 1
    for levels in (fitted.nearest, fitted.rounding.hard, fitted.retrained):
        np.testing.assert_array_equal(levels, np.round(levels))
        assert np.abs(levels).max() <= limit
    for part in siren.tensor_slices(FIELD.sizes()):
        assert (np.abs(fitted.nearest[:, part]).max(1) == limit).all()


def test_the_loss_adds_the_sum_of_absolute_updates(fitted):
    update = jnp.asarray(fitted.weights[0])
    row = row_of(fitted.batch, 0)
    error = signal_error(FIT, fitted.batch.shared, update, row)
    loss = fit_loss(dataclasses.replace(FIT, l1=1e-3), fitted.batch.shared, update, row, 0)
    np.testing.assert_allclose(loss - error, 1e-3 * np.abs(fitted.weights[0]).sum(), rtol=1e-3)


def test_samples_without_weight_do_not_count(fitted):
    row = row_of(fitted.batch, 0)
    weight = jnp.arange(len(row["values"])) % 2.0
    other = row["values"] + (1.0 - weight)[:, None]
    errors = [
        signal_error(FIT, fitted.batch.shared, jnp.asarray(fitted.weights[0]), {"values": v, "weight": weight})
        for v in (row["values"], other)
    ]
    assert errors[0] == errors[1]


def test_adaround_looks_where_there_is_weight(fitted):
    """What stands where a signal weighs nothing, were it no number at all, changes nothing; nor do a signal's neighbours."""
    quick = AdaRoundConfig(num_steps=20, lr=5e-2, batch=256)
    inside = np.arange(len(fitted.batch.shared["inputs"])) % 3 == 0
    weight = np.stack([inside, 5.0 * inside, inside * np.arange(len(inside))]).astype(np.float32)
    found = []
    for elsewhere in (0.0, np.nan):
        inputs = jnp.where(inside[:, None], fitted.batch.shared["inputs"], elsewhere)
        batch = fitted.batch._replace(
            shared={**fitted.batch.shared, "inputs": inputs}, data={**fitted.batch.data, "weight": weight}
        )
        found.append(round_weights(quick, FIT, batch, fitted.weights, fitted.steps, BITS, 512))
    assert np.isfinite(found[0].error).all()
    for clean, dirty in zip(*found, strict=True):
        np.testing.assert_array_equal(clean, dirty)
    same = fitted.weights[[0, 0, 0]], fitted.steps[[0, 0, 0]]
    of_one = round_weights(quick, FIT, batch, *same, BITS, 512)
    np.testing.assert_array_equal(of_one.hard[0], of_one.hard[1])
    assert (of_one.nearest_error[0] != of_one.nearest_error[2]).all()


# The network as fixed and updated layers.


def test_fixed_and_updated_layers_add_up_to_one_network(fitted):
    base, update = jnp.asarray(fitted.weights[0]), 0.01 * jnp.asarray(fitted.weights[1])
    coords = fitted.batch.shared["inputs"][:, :2]
    whole = evaluate(FIELD, siren.unflatten(base + update, FIELD.sizes()), coords)
    x = encode(FIELD, coords)
    for layer, change in zip(network(FIELD, base), siren.unflatten(update, FIELD.sizes()), strict=True):
        x = layer(change, x)
    np.testing.assert_allclose(x, whole, atol=1e-5)


def test_only_the_update_is_rounded(fitted):
    """A coarse grid for a small update: what is fixed stays as it is, however far it lies from the grid."""
    base, update = fitted.weights[:1], 0.003 * fitted.weights[1:2]
    batch = fitted.batch._replace(shared={**fitted.batch.shared, "base": jnp.asarray(base[0])})
    steps = grid_steps(update, FIELD, 4)
    found = round_weights(CONFIG.adaround, FIT, batch, update, steps, 4, CONFIG.num_coordinates)
    assert (np.abs(found.hard) <= 7).all()
    assert (found.error <= found.nearest_error).all()
    assert np.abs(found.hard * per_weight(FIELD, steps) - update).max() <= steps.max()


def test_a_tensor_of_zeros_has_a_step_and_stays_zero(fitted):
    weights = fitted.weights.copy()
    bias = siren.tensor_slices(FIELD.sizes())[1]
    weights[:, bias] = 0.0
    steps = grid_steps(weights, FIELD, BITS)
    assert (steps[:, 1] > 0).all()
    found = coding.quantise_weights(CONFIG, FIT, fitted.batch, weights, BITS)
    code = coding.make_code(FIELD, found.levels[0], found.steps[0], {})
    np.testing.assert_allclose(coding.decoded_weights(FIELD, code)[bias], 0.0, atol=1e-20)


# The code.


def test_a_code_decodes_to_the_levels_times_their_steps(fitted):
    code = coding.make_code(FIELD, fitted.retrained[0], fitted.steps[0], {"width": 12})
    assert list(code.streams) == list(coding.STREAMS)
    assert code.meta == {"width": 12}
    np.testing.assert_array_equal(coding.decoded_weights(FIELD, code), fitted.retrained[0] * per_weight(FIELD, fitted.steps[0]))
    decoded = {}
    kinds = [RawBits(16, 8), RawBits(PARAMETER_BITS, 8), Table]
    bits = 0.0
    for name, kind in zip(coding.STREAMS, kinds, strict=True):
        model = coding.symbol_model(FIELD, decoded, name)
        assert model == kind if isinstance(kind, RawBits) else isinstance(model, kind)
        bits += symbol_bits(model, code.streams[name]).sum()
        decoded[name] = code.streams[name]
    # Less than the grid's own width, even with steps and tables.
    assert bits < BITS * fitted.weights.shape[1]


def test_steps_that_no_encoder_writes_are_refused():
    for step in (0, 0x7FC0, 0x7F80, 0x8000, 0xBF80, 0x0001):
        decoded = {"steps": np.array([0x3F80] * 7 + [step], np.int32), "tables": np.zeros(8, np.int32)}
        with pytest.raises(ValueError, match="a quantiser step is not a positive finite number"):
            coding.symbol_model(FIELD, decoded, "weights")


def test_networks_beyond_the_limit_are_refused():
    coding.check_size(dataclasses.replace(FIELD, width=512))
    with pytest.raises(ValueError, match="the network has 2125827 weights; the limit is 1048576"):
        coding.check_size(dataclasses.replace(FIELD, width=1024))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="num_coordinates must be at least 0"):
        WeightCodingConfig(num_coordinates=-1)

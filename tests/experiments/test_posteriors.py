"""A look into posteriors: dependence that is there is found, and none where there is none."""

import dataclasses

import jax
import numpy as np
import pytest

from benchmarks.small_models import small_model
from experiments.posteriors import coded, correlations, dependence, draw_pair, draw_shares, samples_of
from vcinr.codec import EncodeRequest
from vcinr.model.model import Model
from vcinr.posterior.partition import Partition

PARTITION = Partition(np.arange(6, dtype=np.int32), np.array([2, 4, 6], np.int32))


def samples(strength):
    """Draws of 6 entries; the last is the first, so strongly."""
    found = np.random.default_rng(0).normal(size=(2000, 6))
    found[:, 5] = strength * found[:, 0] + (1 - strength**2) ** 0.5 * found[:, 5]
    return found


def test_correlations_are_between_all_columns_of_both():
    rows = samples(0.8)
    found = correlations(rows[:, [0, 1]], rows[:, [4, 5, 2]])
    np.testing.assert_allclose(found, [[0, 0.8, 0], [0, 0, 0]], atol=0.07)
    assert not correlations(np.ones((9, 1)), rows[:9, :1]).any(), "what does not vary goes with nothing"


@pytest.mark.parametrize("strength", [0.0, 0.8])
def test_dependence_is_that_of_the_first_and_the_last_block_beyond_chance(strength):
    assert dependence(samples(strength), PARTITION) == pytest.approx(strength / 4, abs=0.03)


def test_a_pair_is_chosen_on_other_draws_than_it_is_shown_on(tmp_path):
    """Of 20 draws of nothing, the best of four pairs is strong in its own half alone."""
    related, unrelated = samples(0.8), samples(0.0)
    found = draw_pair(tmp_path / "pair.png", {"one": related, "other": unrelated}, PARTITION)
    assert found["one"] == pytest.approx(np.corrcoef(related[1000:, 0], related[1000:, 5])[0, 1])
    assert abs(found["other"]) < 0.1
    few = np.random.default_rng(1).normal(size=(20, 6))
    shown = draw_pair(tmp_path / "few.png", {"one": few}, PARTITION)["one"]
    first = np.abs(correlations(few[:10, :2], few[:10, 4:]))
    i, j = np.unravel_index(np.argmax(first), first.shape)
    assert shown == pytest.approx(np.corrcoef(few[10:, i], few[10:, 4 + j])[0, 1])
    assert (tmp_path / "pair.png").exists()


def test_shares_are_drawn_of_every_point(tmp_path):
    draw_shares(tmp_path / "shares.png", (1e-4, 1e-5), [{"h": 10.0, "z": 30.0}, {"h": 50.0, "z": 50.0}])
    assert (tmp_path / "shares.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_signals_of_more_than_a_batch_are_coded_together_each_with_its_own_noise():
    model = small_model("combiner")
    codec = type(model.codec)(dataclasses.replace(model.codec.config, batch_samples=1))
    model = Model(codec, model.params, model.points, model.info, model.precision)
    signal = model.signal(np.full((4, 4, 3), 128, np.uint8))
    found = coded(model, [signal] * 4, 0, EncodeRequest(key=jax.random.key(0)))
    assert len(found.indices) == 4
    assert len({row.tobytes() for row in samples_of(model, signal, 0, 4)}) > 1

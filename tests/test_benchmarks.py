"""The benchmarks measure what they say they do. Nothing here is timed."""

import dataclasses

import numpy as np
import pytest

from benchmarks import coder, meta_step, samples, throughput
from benchmarks.subjects import untrained_model, vc_inr_config
from benchmarks.timing import paired_times, ratio
from vcinr.adaptation.meta_learning import AdaptationConfig
from vcinr.entropy.range_coder import Decoder, Table

TINY = vc_inr_config(num_layers=2, width=8, batch_size=4, patch=4)


def test_contenders_take_turns_and_each_round_starts_with_another():
    calls = []
    times = paired_times({name: lambda n=name: calls.append(n) for name in "abc"}, repeats=3)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert {name: seconds.shape for name, seconds in times.items()} == {"a": (3,), "b": (3,), "c": (3,)}


def test_a_ratio_is_the_median_of_paired_quotients():
    assert ratio(np.array([2.0, 30.0, 4.0]), np.array([1.0, 10.0, 4.0])) == "2.00× (1.00 to 3.00)"


def test_the_coder_is_measured_on_symbols_that_fit_its_tables():
    scales, tables = coder.logistic_tables()
    symbols, index = coder.draw(scales, 20_000)
    spent = coder.overhead(tables, symbols, index)
    assert 0 < spent.extra_bits < 0.005 * spent.table_bits
    model = Table(tables, index)
    np.testing.assert_array_equal(Decoder(coder.encoded(symbols, model)).decode(model), symbols)


def test_the_naive_step_is_the_same_step():
    names = (meta_step.OURS, meta_step.NAIVE)
    # Sizes and a modulation that compile quickly; how the step is written has nothing to do with them.
    field = dataclasses.replace(TINY.field, modulation="latent_shifts", latent_dim=3)
    config = dataclasses.replace(TINY, field=field, adaptation=AdaptationConfig(num_steps=2))
    steps = meta_step.steppers(config, {name: meta_step.VARIANTS[name] for name in names})
    ours, naive = (steps[name]() for name in names)
    for metric in ("loss", "grad_norm"):
        np.testing.assert_allclose(ours[metric], naive[metric], rtol=1e-3)
    assert all(step.temp_bytes > 0 for step in steps.values())
    assert float(steps[meta_step.OURS]()["loss"]) != float(ours["loss"])


@pytest.mark.slow
def test_throughput_is_measured_on_files_that_decode():
    model = untrained_model(TINY)
    encoders, decoders, counts = throughput.contenders(model, (1, 2))
    assert counts == {"1": 8, "2": 8}
    assert encoders.keys() == decoders.keys() == counts.keys()
    for name, count in counts.items():
        groups = decoders[name]()
        assert sum(len(group) for group in groups) == count == sum(len(group) for group in encoders[name]())
        assert all(picture.shape == (4, 4, 3) for group in groups for picture in group)


@pytest.mark.parametrize("name", ["combiner", "combiner_plus"])
def test_samples_are_decoded_from_files_of_all_their_blocks(name):
    small = {"patch": (4, 4), "field": {"num_layers": 1, "width": 4, "num_frequencies": 1}}
    if name == "combiner_plus":
        small["positional"] = {"channels": 2, "stride": 2, "outputs": 2}
    model = samples.random_model(name, 5, small)
    files = samples.random_files(model, 5, 3)
    for data in files:
        _, (code,), _ = model.read_codes(data)
        assert code.streams["indices"].shape == (5,)
    decoded = model.decode_batch(files)
    assert {picture.shape for picture in decoded} == {(4, 4, 3)}
    assert len(set(files)) == 3


def test_the_blocks_that_are_timed_give_the_published_rates():
    for _, blocks, _ in samples.SUBJECTS.values():
        assert round(16 * blocks / 32**2, 3) in (0.906, 4.453, 0.297, 4.391)

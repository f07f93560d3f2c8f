"""Coding block by block: what is sent is what is fitted around, within the budget, and stopping changes nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.codec import EncodeRequest
from vcinr.fields.field import FieldConfig
from vcinr.posterior import progressive_coding
from vcinr.posterior.gaussians import NATS_PER_BIT, Gaussian, unconstrained
from vcinr.posterior.networks import WeightNetwork
from vcinr.posterior.partition import Partition, next_fit, patch_permutation
from vcinr.posterior.progressive_coding import (
    CodingConfig,
    Problem,
    Shared,
    State,
    adjusted,
    block_bits,
    code_signals,
    decode_signal,
    loss,
    mixture,
    of_patches,
)
from vcinr.posterior.relative_entropy_coding import decode_blocks
from vcinr.trees import load_tree

NETWORK = WeightNetwork(FieldConfig(num_layers=1, width=4, modulation="none", latent_dim=1, omega_0=3.0), (4, 4))
COORDS = np.stack(np.meshgrid(*[(np.arange(4) + 0.5) / 2 - 1] * 2, indexing="ij"), -1).reshape(16, 2).astype(np.float32)
CODING = CodingConfig(num_steps=600, fine_tune_steps=20, lr=1e-2, budget=6, adjust_every=5, adjust_factor=1.05, seed=5)
PROBLEM = Problem(NETWORK, CODING, (2, 1))
PARTITION = next_fit(np.full(NETWORK.size, 1.0), 6, 0)
PRIOR = {"mean": np.asarray(NETWORK.init(jax.random.key(0))[1]), "scale": NETWORK.typical_scale()}
PARAMS = {"prior": PRIOR, "shared": {}, "blocks": PARTITION.to_arrays()}
ROWS = patch_permutation(5, 2, NETWORK.size)


def signals(number=2):
    """Patches of one colour each, [number, 2, 16, 3]."""
    levels = np.random.default_rng(3).uniform(0.05, 0.95, (number, 2, 1, 3))
    return np.broadcast_to(levels, (number, 2, 16, 3)).astype(np.float32)


def code(values, rows=None, problem=PROBLEM, **request):
    shape = (*values.shape[:2], NETWORK.size)
    start = {"mean": np.broadcast_to(PRIOR["mean"], shape), "raw_scale": np.broadcast_to(unconstrained(PRIOR["scale"]), shape)}
    labels = [f"number {i}" for i in range(len(values))]
    return code_signals(problem, PARAMS, 1e-4, values, None, COORDS, start, rows, EncodeRequest(**request), labels)


def decoded(coded, i):
    return decode_signal(PARTITION, Gaussian(**PRIOR), CODING.seed, coded.indices[i])


def error(values, vectors):
    """Mean squared error of patches [p, 16, 3] that are decoded from vectors [p, size]."""
    found = jnp.stack([NETWORK.values({}, jnp.asarray(v), None, jnp.asarray(COORDS)) for v in vectors])
    return float(jnp.mean(jnp.square(found - values)))


def unmixed(sample, rows):
    """As a decoder does it: row r of a column is the entry of the patch that the permutation names there."""
    whole = np.empty_like(sample)
    for (row, column), patch in np.ndenumerate(rows):
        whole[patch, column] = sample[row, column]
    return whole


@pytest.fixture(scope="module")
def one_go(tmp_path_factory):
    """(what was coded in one go, the folder with its last state)."""
    workdir = tmp_path_factory.mktemp("one_go")
    return code(signals(), workdir=str(workdir)), workdir


def test_beta_follows_the_divergence_outside_the_buffer():
    coding = CodingConfig(budget=16, buffer=0.5, adjust_factor=1.05)
    bits = np.array([16.001, 16.0, 15.8, 15.5, 15.499, 0.0, 100.0])
    found = adjusted(coding, jnp.full(7, 2.0), bits)
    np.testing.assert_allclose(found, [2.1, 2.0, 2.0, 2.0, 2 / 1.05, 2 / 1.05, 2.1], rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "best"},
        {"budget": 0},
        {"budget": 30, "extra_bits": 2},
        {"num_steps": 0},
        {"fine_tune_steps": -1},
        {"adjust_factor": 1.0},
        {"buffer": 16.0},
    ],
)
def test_a_config_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=r"coding\."):
        CodingConfig(**wrong)


def test_a_signal_decodes_to_its_blocks_one_by_one():
    """To the bit, with blocks of one dimension, of whole groups of eight, and of more."""
    rng = np.random.default_rng(0)
    partition = Partition(rng.permutation(47).astype(np.int32), np.array([1, 9, 25, 28, 47], np.int32))
    prior = Gaussian(rng.normal(size=47).astype(np.float32), np.exp(rng.normal(size=47)).astype(np.float32))
    indices = rng.integers(0, 2**31, (6, 5))
    found = decode_signal(partition, prior, 77, indices)
    assert (found.shape, found.dtype) == ((6, 47), np.float32)
    for block in range(5):
        own = partition.members(block)
        expected = decode_blocks(77, block, indices[:, block], prior.mean[own], prior.scale[own])
        assert found[:, own].tobytes() == expected.tobytes()


@pytest.fixture(scope="module")
def middle():
    """(shared, state) of a signal of two patches in the middle of coding."""
    rng = np.random.default_rng(1)
    shape = (2, NETWORK.size)
    inverse = np.argsort(ROWS, axis=0).astype(np.int32)
    shared = Shared(Gaussian(**PRIOR), {}, jnp.asarray(COORDS), jnp.asarray(PARTITION.block_of), inverse)
    posterior = {"mean": PRIOR["mean"] + 0.1 * rng.normal(size=shape), "raw_scale": rng.normal(-3, 0.3, shape)}
    posterior = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), posterior)
    beta = jnp.asarray(rng.uniform(1e-4, 1e-3, (2, PARTITION.num_blocks)), jnp.float32)
    return shared, State(posterior, None, beta, jnp.asarray(rng.normal(size=shape), jnp.float32))


def test_open_blocks_alone_are_paid_for_each_at_its_own_beta(middle):
    """∂ loss / ∂ β_k is the divergence of block k in nats where it is open, and 0 where it is coded."""
    shared, state = middle
    data = jnp.asarray(signals()[0]), None
    gradient = jax.grad(lambda beta: loss(PROBLEM, shared, state._replace(beta=beta), data, 2, jax.random.key(0))[0])(state.beta)
    assert not gradient[:, :2].any()
    nats = block_bits(shared, state) * NATS_PER_BIT
    np.testing.assert_allclose(gradient[:, 2:], nats[:, 2:], rtol=1e-5)


def test_coded_entries_are_certain_and_open_ones_the_posteriors(middle):
    shared, state = middle
    q = mixture(shared, state, 2)
    done = PARTITION.block_of < 2
    np.testing.assert_array_equal(q.mean[:, done], state.given[:, done])
    assert not np.asarray(q.scale)[:, done].any()
    np.testing.assert_array_equal(q.mean[:, ~done], state.posterior["mean"][:, ~done])
    assert (np.asarray(q.scale)[:, ~done] > 0).all()


def test_patches_get_their_own_entries_back_from_mixed_rows(middle):
    shared, state = middle
    own = np.arange(2 * NETWORK.size, dtype=np.float32).reshape(2, -1)
    mixed = np.take_along_axis(own, ROWS, axis=0)
    assert (mixed != own).any()
    found = of_patches(shared, Gaussian(jnp.asarray(mixed), jnp.asarray(-mixed)))
    np.testing.assert_array_equal(found.mean, own)
    np.testing.assert_array_equal(found.scale, -own)
    # What is fitted once all is coded is the distortion of what a decoder makes of it.
    values = signals()[0]
    coded = PARTITION.num_blocks
    fitted = float(loss(PROBLEM, shared, state, (jnp.asarray(values), None), coded, jax.random.key(0))[1])
    assert fitted == pytest.approx(2 * error(values, unmixed(np.asarray(state.given), ROWS)), rel=1e-3)


class Begun(Exception):
    """Carries what the first step of a fit is given."""


def test_a_fit_begins_with_every_patchs_own_start_whatever_rows_it_stands_in(monkeypatch):
    """Three patches: a permutation of two is its own inverse, and taking it for that would go unnoticed."""

    def stop(shared, state, *_):
        raise Begun(shared, state)

    monkeypatch.setattr(progressive_coding, "_compiled", lambda problem, mesh: (stop, None))
    rows = patch_permutation(5, 3, NETWORK.size)
    assert (np.take_along_axis(rows, rows, axis=0) != np.arange(3)[:, None]).any()
    mean = np.arange(3 * NETWORK.size, dtype=np.float32).reshape(1, 3, -1)
    problem = dataclasses.replace(PROBLEM, counts=(3, 1))
    start = {"mean": mean, "raw_scale": np.zeros_like(mean)}
    with pytest.raises(Begun) as stopped:
        code_signals(problem, PARAMS, 1e-4, np.zeros((1, 3, 16, 3)), None, COORDS, start, rows, EncodeRequest(), ["one"])
    shared, state = stopped.value.args
    np.testing.assert_array_equal(state.posterior["mean"][0], np.take_along_axis(mean[0], rows, axis=0))
    found = of_patches(shared, Gaussian(state.posterior["mean"][0], state.posterior["raw_scale"][0]))
    np.testing.assert_array_equal(found.mean, mean[0])


@pytest.mark.parametrize("rows", [None, pytest.param(ROWS, marks=pytest.mark.slow)], ids=["own rows", "mixed rows"])
def test_the_encoder_fits_around_the_very_sample_that_is_decoded(rows, one_go, tmp_path):
    coded, workdir = one_go if rows is None else (code(signals(), rows, workdir=str(tmp_path)), tmp_path)
    (path,) = workdir.iterdir()
    given = load_tree(path)["state"][-1]
    values = signals()
    for i in range(2):
        sample = decoded(coded, i)
        assert given[i].tobytes() == sample.tobytes()
        right = sample if rows is None else unmixed(sample, rows)
        assert error(values[i], right) < 0.5 * error(values[i], PRIOR["mean"][None].repeat(2, axis=0))
        assert error(values[i], right) < 0.5 * error(values[i], right[::-1])


def test_what_is_coded_has_an_index_per_block_of_each_patch(one_go):
    coded, _ = one_go
    assert coded.indices.shape == coded.divergences.shape == (2, 2, PARTITION.num_blocks)
    assert 0 <= coded.indices.min() <= coded.indices.max() < 2**6
    assert np.isfinite(coded.trace).all()


class Told:
    """Notes reports of progress, and stops the encoder at one of them."""

    def __init__(self, stop_at=None):
        self.steps, self.totals, self.stop_at = [], [], stop_at

    def __call__(self, what, step, total):
        self.steps.append(step)
        self.totals.append(total)
        if step == self.stop_at:
            raise InterruptedError


def test_interrupted_and_resumed_is_never_interrupted(one_go, tmp_path, monkeypatch):
    monkeypatch.setattr(progressive_coding, "SAVE_EVERY", 1)
    monkeypatch.setattr(progressive_coding, "REPORT_EVERY", 1)
    first, tune = CODING.num_steps, CODING.fine_tune_steps
    total = first + tune * (PARTITION.num_blocks - 1)
    with pytest.raises(InterruptedError):
        code(signals(), workdir=str(tmp_path), progress=Told(first + 2 * tune + 5))
    resumed, again = Told(), Told()
    coded = code(signals(), workdir=str(tmp_path), progress=resumed)
    assert resumed.steps == list(range(first + 2 * tune + 1, total + 1))
    assert set(resumed.totals) == {total}
    for name in ("indices", "divergences", "trace"):
        assert getattr(coded, name).tobytes() == getattr(one_go[0], name).tobytes()
    np.testing.assert_array_equal(code(signals(), workdir=str(tmp_path), progress=again).indices, coded.indices)
    assert again.steps == []


def test_what_is_kept_is_not_taken_for_another_signals(one_go, monkeypatch):
    """Other values, another effort, another key and another order of dimensions begin anew."""
    monkeypatch.setattr(progressive_coding, "REPORT_EVERY", 1)
    _, workdir = one_go
    for change in ({"values": signals() + 0.01}, {"effort": 1}, {"key": jax.random.key(9)}):
        told = Told(1)
        with pytest.raises(InterruptedError):
            code(change.pop("values", signals()), workdir=str(workdir), progress=told, **change)
        assert told.totals == [(600 + 20 * (PARTITION.num_blocks - 1)) << change.get("effort", 0)]
    swapped = PARTITION.order.copy()
    swapped[:2] = swapped[1::-1]
    monkeypatch.setitem(PARAMS, "blocks", {**PARTITION.to_arrays(), "order": swapped})
    with pytest.raises(InterruptedError):
        code(signals(), workdir=str(workdir), progress=Told(1))


@pytest.fixture
def compiled_once(monkeypatch):
    """Numbers of steps are not compiled in: one program serves problems that differ in these alone."""
    compiled = progressive_coding._compiled
    monkeypatch.setattr(progressive_coding, "_compiled", lambda problem, mesh: compiled(PROBLEM, mesh))


def test_a_long_fit_fills_every_blocks_budget_and_keeps_it(compiled_once):
    """Within the buffer, κ − 0.4 … κ, but for the noise of single steps; every β began at a hundredth of what that takes."""
    coding = dataclasses.replace(CODING, num_steps=6000, fine_tune_steps=0)
    bits = code(signals(), problem=dataclasses.replace(PROBLEM, coding=coding)).divergences
    assert bits.max() < 6 + 0.8
    assert bits.min() > 6 - 0.4 - 0.8
    assert 6 - 0.4 - 0.1 < bits.mean() < 6


def test_open_blocks_make_up_for_the_coded_ones(compiled_once):
    """The same signals with and without fine-tuning."""
    values, errors = signals(12), []
    for steps in (20, 0):
        problem = dataclasses.replace(PROBLEM, coding=dataclasses.replace(CODING, fine_tune_steps=steps))
        for a in range(0, 12, 2):
            coded = code(values[a : a + 2], problem=problem)
            errors.append(np.mean([error(values[a + i], decoded(coded, i)) for i in range(2)]))
    assert np.mean(errors[:6]) < 0.8 * np.mean(errors[6:])


def test_a_fit_that_diverges_names_its_signal():
    values = signals()
    values[1, 0, 3, 2] = np.nan
    with pytest.raises(ValueError, match="posterior of signal number 1 has diverged"):
        code(values)

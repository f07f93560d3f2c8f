"""Tables rebuilt from a parameter: the same for ever, valid for all parameters, and close to the symbols' own entropy."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcinr.entropy.parametric_tables import PARAMETER_BITS, fit_parameters, tables_from_parameters
from vcinr.entropy.range_coder import Decoder, Encoder, Table
from vcinr.entropy.tables import TOTAL, code_length_bits

HALF, LAPLACE, GAUSS, FLAT = range(4)


def parameter(shape, scale, zero=0):
    return (shape << 6 | scale) << 4 | zero


def frequencies_of(chosen):
    """(frequency of symbol −r..r, of the escape) of one parameter."""
    found = tables_from_parameters(np.array([chosen])).frequencies
    return found[:-1], found[-1]


def fitted_bits(symbols):
    index = np.zeros(symbols.size, np.int32)
    return code_length_bits(tables_from_parameters(fit_parameters(symbols, index, 1)), symbols, index).sum()


def entropy_bits(symbols):
    counts = np.unique(symbols, return_counts=True)[1]
    return -np.sum(counts * np.log2(counts / symbols.size))


@pytest.fixture(scope="module")
def every():
    return tables_from_parameters(np.arange(1 << PARAMETER_BITS))


def test_every_parameter_makes_a_table_about_zero_and_symmetric(every):
    # That they are valid is checked by `Tables` itself.
    assert every.num_tables == 1 << PARAMETER_BITS
    for first, size, offset in zip(every.first.tolist(), every.sizes.tolist(), every.offsets.tolist(), strict=True):
        own = every.frequencies[offset : offset + size - 1]
        assert size == 2 * -first + 2
        centre = -first
        assert own.max() - own[centre] <= 1
        left, right = own[:centre][::-1], own[centre + 1 :]
        assert np.abs(left - right).max(initial=0) <= 1
        assert (np.diff(right) <= 1).all()


def test_frequencies_never_change(every):
    """Files hold parameters only: other frequencies would decode them to something else."""
    assert hashlib.sha256(every.frequencies.astype("<i4").tobytes()).hexdigest()[:32] == "170bb35b082ca3b16ee9a6c42c627ab8"
    for chosen, golden, escape in GOLDEN:
        found, rest = frequencies_of(chosen)
        assert (found.tolist(), int(rest)) == (golden, escape)


GOLDEN = (
    (15, [1, 1, 1, 2, 2, 3, 5, 8, 13, 25, 55, 65300, 55, 25, 13, 8, 5, 3, 2, 2, 1, 1, 1], 4),
    (1168, [1, 2, 10, 38, 154, 614, 2458, 9830, 39321, 9830, 2458, 614, 154, 38, 10, 2, 1], 1),
    (2261, [18, 1019, 11520, 40422, 11520, 1018, 18], 1),
    (3404, [398, 1699, 1801, 57740, 1801, 1698, 398], 1),
)  # fmt: skip


def test_weights_are_the_stated_formula():
    k = np.arange(-(2**14) + 1, 2**14)
    for shape, p in ((HALF, 0.5), (LAPLACE, 1.0), (GAUSS, 2.0), (FLAT, 8.0)):
        for j in (0, 17, 30, 41):
            for i in (0, 5, 10):
                scale, zero = 2.0 ** (14 * j / 63 - 3), np.sin(np.pi * i / 32) ** 2
                with np.errstate(over="ignore"):
                    weights = 2.0 ** -(np.abs(k / scale) ** p)
                masses = (1 - zero) * weights / weights.sum() + zero * (k == 0)
                found, _ = frequencies_of(parameter(shape, j, i))
                reach = found.size // 2
                expected = masses[2**14 - 1 - reach : 2**14 + reach] * TOTAL
                # Entries of less than a count get one, which the others pay for.
                assert (np.abs(found - expected) <= 1 + 1e-2 * expected).all(), (shape, j, i)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("laplace", 0.01),
        ("gauss", 0.01),
        ("narrow", 0.01),
        ("sparse", 0.01),
        ("pruned", 0.05),
        ("uniform", 0.02),
        ("heavy", 0.04),
    ],
)
def test_the_rate_is_close_to_the_entropy(name, loss):
    rng = np.random.default_rng(0)
    n = 40000
    symbols = {
        "laplace": lambda: rng.laplace(0, 9, n),
        "gauss": lambda: rng.normal(0, 21, n),
        "narrow": lambda: rng.normal(0, 0.3, n),
        "sparse": lambda: rng.laplace(0, 10, n) * (rng.random(n) < 0.12),
        "pruned": lambda: rng.normal(0, 40, n) * (rng.random(n) < 0.01),
        "uniform": lambda: rng.uniform(-127.5, 127.5, n),
        "heavy": lambda: rng.standard_t(2, n) * 3,
    }[name]()
    symbols = np.rint(symbols).astype(np.int32)
    assert fitted_bits(symbols) < (1 + loss) * entropy_bits(symbols)


def test_zeros_are_next_to_nothing():
    assert fitted_bits(np.zeros(10000, np.int32)) < 1


@pytest.mark.parametrize("seed", range(3))
def test_no_other_parameter_is_better(every, seed):
    rng = np.random.default_rng(seed)
    spread, kept = np.exp(rng.uniform(-1, 5)), rng.uniform(0.05, 1)
    symbols = np.rint(rng.standard_t(4, 400) * spread * (rng.random(400) < kept)).astype(np.int32)
    values, counts = np.unique(symbols, return_counts=True)
    index = np.repeat(np.arange(every.num_tables), values.size)
    bits = code_length_bits(every, np.tile(values, every.num_tables), index).reshape(-1, values.size) @ counts
    np.testing.assert_allclose(fitted_bits(symbols), bits.min(), rtol=1e-6)


def test_each_tensor_gets_its_own_and_an_empty_one_nothing():
    rng = np.random.default_rng(1)
    parts = [rng.laplace(0, 2, 300), [], rng.normal(0, 30, 200), np.zeros(50)]
    tensor = np.repeat(np.arange(4), [len(part) for part in parts]).astype(np.int32)
    symbols = np.rint(np.concatenate(parts)).astype(np.int32)
    shuffled = rng.permutation(symbols.size)
    found = fit_parameters(symbols[shuffled], tensor[shuffled], 4)
    assert (found.dtype, found.shape, found[1]) == (np.int32, (4,), 0)
    for i in (0, 2, 3):
        own = symbols[tensor == i]
        assert found[i] == fit_parameters(own, np.zeros(own.size, np.int32), 1)[0]
    np.testing.assert_array_equal(fit_parameters(np.zeros(0, np.int32), np.zeros(0, np.int32), 2), [0, 0])


@given(
    st.lists(st.integers(0, 2**PARAMETER_BITS - 1), min_size=1, max_size=4),
    st.lists(st.one_of(st.integers(-300, 300), st.integers(-(2**31), 2**31 - 1)), max_size=30),
    st.randoms(use_true_random=False),
)
def test_any_parameters_code_any_symbols(parameters, symbols, random):
    tables = tables_from_parameters(np.array(parameters, np.int32))
    index = np.array([random.randrange(len(parameters)) for _ in symbols], np.int32)
    symbols = np.array(symbols, np.int32)
    encoder = Encoder()
    encoder.encode(symbols, Table(tables, index))
    decoder = Decoder(encoder.finish())
    np.testing.assert_array_equal(decoder.decode(Table(tables_from_parameters(np.array(parameters)), index)), symbols)
    decoder.finish()


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20))
def test_any_symbols_are_fitted(symbols):
    symbols = np.array(symbols, np.int32)
    assert np.isfinite(fitted_bits(symbols))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (np.array([1 << PARAMETER_BITS]), "must lie in 0..4095"),
        (np.array([3, -1]), "must lie in 0..4095"),
        (np.array([], np.int32), "vector of integers"),
        (np.array([1.0]), "vector of integers"),
        (np.array([[1]]), "vector of integers"),
    ],
)
def test_parameters_that_are_none_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        tables_from_parameters(parameters)


@pytest.mark.parametrize(
    ("symbols", "tensor", "message"),
    [
        (np.zeros(2, np.int32), np.zeros(3, np.int32), "of one length"),
        (np.zeros(2), np.zeros(2, np.int32), "integer vectors"),
        (np.array([2**31]), np.array([0]), "fit int32"),
        (np.zeros(2, np.int32), np.array([0, 2]), "tensor must lie in 0..1"),
        (np.zeros(2, np.int32), np.array([-1, 0]), "tensor must lie in 0..1"),
    ],
)
def test_symbols_that_do_not_fit_are_refused(symbols, tensor, message):
    with pytest.raises(ValueError, match=message):
        fit_parameters(symbols, tensor, 2)

"""The coder: exact round trips, the tables' entropy, an independent decoder written from the specification, hostile bytes."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcinr.entropy import range_coder
from vcinr.entropy.range_coder import CodingError, Decoder, Encoder, RawBits, Table, model_count, symbol_bits
from vcinr.entropy.tables import ESCAPE_LENGTHS, TOTAL, Tables, frequencies_from_masses

INT32 = st.integers(-(2**31), 2**31 - 1)


def random_tables(rng, num_tables, max_size=40):
    sizes = rng.integers(2, max_size + 1, num_tables)
    parts = [frequencies_from_masses(rng.dirichlet(np.full(size, 0.3)) + 1e-12) for size in sizes]
    return Tables(rng.integers(-20, 5, num_tables), sizes, np.concatenate(parts))


def draw(rng, tables, index):
    """Symbols drawn from their tables, the escaped ones from the escape's own distribution."""
    symbols = np.empty(index.size, np.int64)
    lengths = rng.choice(ESCAPE_LENGTHS.size, index.size, p=ESCAPE_LENGTHS / TOTAL)
    distances = 2**lengths + rng.integers(0, 2**lengths)
    above = rng.integers(0, 2, index.size) == 1
    for i in range(tables.num_tables):
        chosen = np.flatnonzero(index == i)
        frequencies = tables.frequencies[tables.offsets[i] : tables.offsets[i] + tables.sizes[i]]
        last = tables.sizes[i] - 1
        entry = rng.choice(tables.sizes[i], chosen.size, p=frequencies / TOTAL)
        outside = np.where(above[chosen], last - 1 + distances[chosen], -distances[chosen])
        symbols[chosen] = tables.first[i] + np.where(entry == last, outside, entry)
    return np.clip(symbols, -(2**31), 2**31 - 1)


def encoded(pairs):
    encoder = Encoder()
    for symbols, model in pairs:
        encoder.encode(np.asarray(symbols), model)
    return encoder.finish()


class SpecifiedDecoder:
    """The decoder of docs/bitstream.md, one symbol at a time in Python integers, sharing no code with the library."""

    def __init__(self, data):
        self.data, self.position = data, 8
        self.point, self.lower, self.range = int.from_bytes(data[:8].ljust(8, b"\0"), "big"), 0, 2**64 - 1

    def entry(self, edges):
        scale = self.range >> 24
        place = ((self.point - self.lower) % 2**64) // scale
        j = max(k for k, edge in enumerate(edges[:-1]) if edge <= place)
        self.lower = (self.lower + scale * edges[j]) % 2**64
        self.range = scale * (edges[j + 1] - edges[j])
        if self.range < 2**32:
            word = int.from_bytes(self.data[self.position : self.position + 4].ljust(4, b"\0"), "big")
            self.position += 4
            self.lower, self.range = (self.lower << 32) % 2**64, self.range << 32
            self.point = (self.point << 32 | word) % 2**64
        return j

    def from_frequencies(self, frequencies):
        n, below = len(frequencies), [0, *np.cumsum(frequencies).tolist()]
        return self.entry([c * (2**24 - n) // 2**16 + j for j, c in enumerate(below[:-1])] + [2**24])

    def from_bits(self, bits):
        return self.entry(range(0, 2**24 + 1, 2 ** (24 - bits)))

    def uniform(self, bits, count):
        low = [self.from_bits(min(bits, 16)) if bits else 0 for _ in range(count)]
        return [d + 2**16 * self.from_bits(bits - 16) for d in low] if bits > 16 else low

    def table(self, first, sizes, frequencies, index):
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        symbols, escaped = [None] * len(index), []
        for i in range(len(sizes)):
            for position in (p for p, chosen in enumerate(index) if chosen == i):
                j = self.from_frequencies(frequencies[starts[i] : starts[i] + sizes[i]])
                symbols[position] = first[i] + j if j < sizes[i] - 1 else None
        escaped = [p for p, symbol in enumerate(symbols) if symbol is None]
        sides = [self.from_bits(1) for _ in escaped]
        halving = [2**15 - 15, *(2**k for k in range(14, -1, -1)), *[1] * 16]
        lengths = [self.from_frequencies(halving) for _ in escaped]
        low = [self.from_bits(min(length, 16)) if length else 0 for length in lengths]
        high = [self.from_bits(length - 16) if length > 16 else 0 for length in lengths]
        distances = [2**length + x + 2**16 * y for length, x, y in zip(lengths, low, high, strict=True)]
        for p, side, distance in zip(escaped, sides, distances, strict=True):
            i = index[p]
            symbols[p] = first[i] + sizes[i] - 2 + distance if side else first[i] - distance
        return symbols


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.lists(INT32, max_size=60), st.integers(1, 8))
def test_any_int32_round_trips_through_any_tables(seed, symbols, num_tables):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, num_tables)
    index = rng.integers(0, num_tables, len(symbols))
    near = draw(rng, tables, index)
    pairs = [(np.array(symbols, np.int32), Table(tables, index)), (near, Table(tables, index))]
    data = encoded(pairs)
    decoder = Decoder(data)
    for expected, model in pairs:
        decoded = decoder.decode(model)
        assert decoded.dtype == np.int32
        np.testing.assert_array_equal(decoded, expected)
    decoder.finish()
    assert not data.endswith(b"\0")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 31), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_fixed_width_symbols_round_trip(bits, seed, count):
    symbols = np.random.default_rng(seed).integers(0, 2**bits, count)
    model = RawBits(bits, count)
    data = encoded([(symbols, model)])
    assert len(data) <= -(-bits * count // 8) + 1
    decoder = Decoder(data)
    np.testing.assert_array_equal(decoder.decode(model), symbols)
    decoder.finish()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(INT32, max_size=12), st.integers(0, 31))
def test_a_decoder_written_from_the_specification_agrees(seed, wild, bits):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, 3, max_size=9)
    index = rng.integers(0, 3, 30 + len(wild))
    symbols = np.concatenate([draw(rng, tables, index[:30]), np.array(wild, np.int32)])
    fixed = rng.integers(0, 2**bits, 7)
    data = encoded([(symbols, Table(tables, index)), (fixed, RawBits(bits, 7))])
    reader = SpecifiedDecoder(data)
    parts = (array.tolist() for array in (tables.first, tables.sizes, tables.frequencies, index))
    assert reader.table(*parts) == symbols.tolist()
    assert reader.uniform(bits, 7) == fixed.tolist()


def test_golden_bytes():
    tables = Tables(np.array([-1, 0]), np.array([4, 2]), np.array([16384, 32768, 16000, 384, 65535, 1]))
    symbols, index = np.array([0, -1, 0, 5, 0, 1, 0, -70000]), np.array([0, 0, 1, 0, 1, 0, 0, 1])
    assert encoded([(symbols, Table(tables, index))]).hex() == "5ffcc9b037947d7c"
    assert encoded([([9, 3], RawBits(4, 2)), ([0x12345678], RawBits(31, 1))]).hex() == "9356782467"
    assert encoded([([0, 0], RawBits(16, 2))]) == b""


def test_extremes_are_exact_from_the_smallest_table():
    symbols = np.array([-(2**31), 2**31 - 1, 0, -1, 1, 2, 65536, -65537], np.int32)
    for first in (-(2**31), -1, 0, 2**31 - 1):
        model = Table(Tables(np.array([first]), np.array([2]), np.array([65535, 1])), np.zeros(8, int))
        decoder = Decoder(encoded([(symbols, model)]))
        np.testing.assert_array_equal(decoder.decode(model), symbols)
        decoder.finish()


def test_coded_bytes_are_within_half_a_percent_of_the_entropy():
    rng = np.random.default_rng(0)
    tables = random_tables(rng, 256)
    index = np.arange(100_000) % 256
    symbols = draw(rng, tables, index)
    model = Table(tables, index)
    bits = 8 * len(encoded([(symbols, model)]))
    assert 0.9999 < bits / symbol_bits(model, symbols).sum() < 1.0005


def test_near_certain_symbols_cost_next_to_nothing():
    model = Table(Tables(np.array([0]), np.array([2]), np.array([65535, 1])), np.zeros(1_000_000, int))
    symbols = np.ones(1_000_000, int) * 0
    assert symbol_bits(model, symbols).sum() == pytest.approx(22.01, abs=0.01)
    assert len(encoded([(symbols, model)])) <= 4


def test_a_stream_costs_three_bits_more_than_its_entropy_on_average():
    rng = np.random.default_rng(2)
    tables = random_tables(rng, 16)
    index = np.arange(64) % 16
    model = Table(tables, index)
    extra = []
    for _ in range(300):
        symbols = draw(rng, tables, index)
        extra.append(8 * len(encoded([(symbols, model)])) - symbol_bits(model, symbols).sum())
    assert 0 < np.mean(extra) < 4


def test_escape_code_lengths_are_those_of_the_coder():
    rng = np.random.default_rng(3)
    symbols = (rng.choice([-1, 1], 20_000) * 2.0 ** rng.uniform(0, 31, 20_000)).astype(np.int32)
    model = Table(Tables(np.array([0]), np.array([2]), np.array([1, 65535])), np.zeros(20_000, int))
    assert 8 * len(encoded([(symbols, model)])) / symbol_bits(model, symbols).sum() == pytest.approx(1, abs=1e-3)
    assert ESCAPE_LENGTHS.sum() == TOTAL


def test_another_process_decodes_from_bytes_and_saved_tables(tmp_path):
    rng = np.random.default_rng(4)
    tables = random_tables(rng, 20)
    index = rng.integers(0, 20, 3000)
    symbols = draw(rng, tables, index)
    (tmp_path / "payload").write_bytes(encoded([(symbols, Table(tables, index))]))
    np.savez(tmp_path / "tables.npz", index=index, **tables.to_arrays())
    script = """
import sys, pathlib, numpy as np
from vcinr.entropy.range_coder import Decoder, Table
from vcinr.entropy.tables import Tables
folder = pathlib.Path(sys.argv[1])
arrays = dict(np.load(folder / "tables.npz"))
decoder = Decoder((folder / "payload").read_bytes())
np.save(folder / "symbols.npy", decoder.decode(Table(Tables.from_arrays(arrays), arrays["index"])))
decoder.finish()
"""
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "symbols.npy"), symbols)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=40), st.integers(0, 2**32 - 1))
def test_any_bytes_decode_to_symbols_or_one_error(data, seed):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, 3, max_size=4)
    table, uniform = Table(tables, rng.integers(0, 3, 40)), RawBits(20, 10)
    decoder = Decoder(data)
    try:
        decoded = [(decoder.decode(model), model) for model in (table, uniform)]
        decoder.finish()
    except CodingError:
        return
    # What is accepted is exactly what an encoder writes.
    assert encoded(decoded) == data


def test_leftover_bytes_are_told_and_missing_ones_change_symbols():
    rng = np.random.default_rng(5)
    tables = random_tables(rng, 4)
    model = Table(tables, rng.integers(0, 4, 200))
    symbols = draw(rng, tables, model.index)
    data = encoded([(symbols, model)])
    for longer in (data + b"\0", data + b"\0\0\0\0\0", data + b"\1", data + data):
        decoder = Decoder(longer)
        decoder.decode(model)
        with pytest.raises(CodingError, match="do not end where"):
            decoder.finish()
    for shorter in (data[:-1], data[: len(data) // 2], b""):
        try:
            assert not np.array_equal(Decoder(shorter).decode(model), symbols)
        except CodingError:
            continue
    with pytest.raises(CodingError, match="do not end where"):
        Decoder(data).finish()  # nothing has been read


def test_an_escape_beyond_int32_is_an_error():
    near = Table(Tables(np.array([0]), np.array([2]), np.array([1, 65535])), np.zeros(1, int))
    far = Table(Tables(np.array([2**31 - 1]), np.array([2]), np.array([1, 65535])), np.zeros(1, int))
    data = encoded([([5], near)])
    with pytest.raises(CodingError, match="does not fit int32"):
        Decoder(data).decode(far)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(-(2**30), 2**30), max_size=40))
def test_symbols_counted_from_offsets_round_trip_and_cost_what_is_left_of_them(seed, offsets):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, 3)
    index, offset = rng.integers(0, 3, len(offsets)), np.array(offsets, np.int64)
    left = np.clip(draw(rng, tables, index), -(2**30), 2**30 - 1)
    model, plain = Table(tables, index, offset), Table(tables, index)
    data = encoded([(left + offset, model)])
    assert data == encoded([(left, plain)])
    decoder = Decoder(data)
    decoded = decoder.decode(model)
    decoder.finish()
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, left + offset)
    np.testing.assert_array_equal(symbol_bits(model, left + offset), symbol_bits(plain, left))


def test_symbols_too_far_from_their_offsets_are_refused_at_both_ends():
    tables = Tables(np.array([0]), np.array([2]), np.array([1, 65535]))
    for symbol, offset in ((2**31 - 1, -1), (-(2**31), 1), (2**31 - 2**30, -(2**30))):
        model = Table(tables, np.zeros(1, int), np.array([offset]))
        for refusing in (lambda m, s: Encoder().encode(s, m), symbol_bits):
            with pytest.raises(CodingError, match="too far"):
                refusing(model, np.array([symbol]))
    # Five above the last symbol of a table that ends at 2^31 − 1: with this offset the symbol would fit, what is left would not.
    far = Tables(np.array([2**31 - 1]), np.array([2]), np.array([1, 65535]))
    data = encoded([([5], Table(tables, np.zeros(1, int)))])
    with pytest.raises(CodingError, match="does not fit int32"):
        Decoder(data).decode(Table(far, np.zeros(1, int), np.array([-10])))
    # And the other way about.
    data = encoded([([2**31 - 3], Table(tables, np.zeros(1, int)))])
    with pytest.raises(CodingError, match="does not fit int32"):
        Decoder(data).decode(Table(tables, np.zeros(1, int), np.array([10])))


@pytest.mark.parametrize(
    ("offset", "match"),
    [([1], "integers like index"), ([1.0, 2.0], "integers like index"), ([0, 2**30 + 1], "within"), ([-(2**31), 0], "within")],
)
def test_offsets_that_are_none_are_refused(offset, match):
    tables = Tables(np.array([0]), np.array([2]), np.array([65535, 1]))
    with pytest.raises(ValueError, match=match):
        Table(tables, np.zeros(2, int), np.array(offset))


@pytest.mark.parametrize(
    ("symbols", "match"),
    [
        ([1, 2], "for 3 symbols"),
        ([[1, 2, 3]], "for 3 symbols"),
        ([1.0, 2.0, 3.0], "integers"),
        ([1, 2, 16], "0..15"),
        ([-1, 0, 0], "0..15"),
    ],
)
def test_symbols_that_do_not_fit_their_model_are_refused(symbols, match):
    with pytest.raises(CodingError, match=match):
        Encoder().encode(np.array(symbols), RawBits(4, 3))


def test_symbols_beyond_int32_are_refused():
    tables = Tables(np.array([0]), np.array([2]), np.array([65535, 1]))
    with pytest.raises(CodingError, match="must lie in"):
        Encoder().encode(np.array([2**31]), Table(tables, np.zeros(1, int)))


def test_models_that_are_none_are_refused():
    tables = Tables(np.array([0]), np.array([2]), np.array([65535, 1]))
    for index, match in (([1], r"0\.\.0"), ([-1], r"0\.\.0"), ([0.5], "integers"), ([[0]], "vector")):
        with pytest.raises(ValueError, match=match):
            Table(tables, np.array(index))
    for bits, count in ((-1, 1), (32, 1), (4, -1)):
        with pytest.raises(ValueError, match="RawBits needs"):
            RawBits(bits, count)


def test_no_symbols_are_no_bytes():
    tables = Tables(np.array([0]), np.array([2]), np.array([65535, 1]))
    for model in (RawBits(16, 0), RawBits(0, 0), Table(tables, np.zeros(0, int))):
        assert model_count(model) == 0
        assert symbol_bits(model, np.zeros(0, np.int32)).shape == (0,)
        assert encoded([(np.zeros(0, np.int32), model)]) == b""
        assert Decoder(b"").decode(model).shape == (0,)
    assert encoded([(np.zeros(5, int), RawBits(0, 5))]) == b""
    np.testing.assert_array_equal(Decoder(b"").decode(RawBits(0, 5)), np.zeros(5))


@pytest.mark.parametrize("block", [1, 7, 64])
def test_what_is_coded_does_not_depend_on_the_blocks_that_it_is_sorted_in(block, monkeypatch):
    rng = np.random.default_rng(3)
    tables = random_tables(rng, 6)
    symbols, index = rng.integers(-9, 10, 100), rng.integers(1, 6, 100)
    model = Table(tables, index, rng.integers(-50, 51, 100))
    symbols[::9] = rng.choice([2**31 - 1, -(2**31), 5000], symbols[::9].size)
    model.offset[::9] = 0
    encoder = Encoder()
    encoder.encode(symbols, model)
    data = encoder.finish()
    monkeypatch.setattr(range_coder, "BLOCK", block)
    again = Encoder()
    again.encode(symbols, model)
    assert again.finish() == data
    decoder = Decoder(data)
    np.testing.assert_array_equal(decoder.decode(model), symbols)
    decoder.finish()

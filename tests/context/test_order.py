"""The order of coding: streams and symbols are inverse, every symbol is coded once, in the order that is drawn."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.context.test_lattice import GRIDS, OCTAVES, ORDER, random_symbols
from vcinr.context import order as coding_order
from vcinr.context.lattice import restored
from vcinr.context.order import Order, streams_of, symbols_of


@given(
    st.integers(1, 3).flatmap(lambda rank: st.tuples(*[st.integers(1, 5)] * rank)),
    st.lists(st.integers(1, 9), min_size=2, max_size=5, unique=True),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 4, 2**20, 2**29]),
    st.integers(0, 3),
)
def test_streams_and_symbols_are_inverse(counts, ends, seed, size, octaves):
    order = Order(tuple(sorted(ends)), 4, octaves)
    symbols = random_symbols(counts, order.ends[-1], seed, size)
    streams = streams_of(order, symbols)
    assert tuple(streams) == order.streams
    assert all(stream.dtype == np.int32 and stream.ndim == 1 for stream in streams.values())
    assert sum(stream.size for stream in streams.values()) == symbols.size
    back = symbols_of(order, counts, streams)
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, symbols)


@pytest.mark.parametrize("order", [ORDER, OCTAVES])
@pytest.mark.parametrize("counts", GRIDS)
def test_every_symbol_is_in_one_stream_and_the_rest_stays_unknown(counts, order):
    symbols = random_symbols(counts, 7)
    streams = streams_of(order, symbols)
    unknown = symbols_of(order, counts, {})
    assert not unknown.any()
    times = np.zeros(symbols.shape, int)
    for name in order.streams:
        known = symbols_of(order, counts, {name: streams[name]})
        times += known != 0
        assert np.all((known == 0) | (known == symbols))
    # No symbol drawn above is 0, so each is seen exactly where its stream is.
    assert (symbols != 0).all()
    assert (times == 1).all()


def test_streams_come_group_by_group_the_even_patches_first():
    symbols = np.arange(2 * 2 * 4).reshape(2, 2, 4)
    streams = streams_of(Order((1, 3, 4), 0), symbols)
    assert list(streams) == ["first", "even_1", "odd_1", "even_2", "odd_2"]
    expected = {"first": [0, 4, 8, 6], "even_1": [1, 2, 13, 14], "odd_1": [5, 6, 9, 10], "even_2": [3, 15], "odd_2": [7, 11]}
    assert {name: stream.tolist() for name, stream in streams.items()} == expected


def test_the_first_group_goes_from_a_coarse_lattice_to_all_patches():
    symbols = np.arange(5 * 6).reshape(5, 6, 1) + np.zeros((1, 1, 2), int)
    streams = streams_of(Order((1, 2), 0, 2), symbols)
    assert list(streams) == ["first", "even_0_2", "odd_0_2", "even_0_1", "odd_0_1", "even_1", "odd_1"]
    # 0, 4, 24 and 28, less their predecessors; then their diagonal middle; then what lies between these; and so once more.
    assert streams["first"].tolist() == [0, 4, 24, 28 - (24 + 4) // 2]
    assert streams["even_0_2"].tolist() == [14]
    assert streams["odd_0_2"].tolist() == [2, 12, 16, 26]
    assert streams["even_0_1"].tolist() == [7, 9, 11, 19, 21, 23]
    assert sorted(streams["odd_0_1"]) == [i for i in range(30) if (i // 6 + i % 6) % 2]


@pytest.mark.parametrize("counts", GRIDS)
def test_what_is_predicted_is_what_streams_after_the_first_hold(counts):
    for order in (ORDER, OCTAVES):
        symbols = random_symbols(counts, 7)
        first = symbols_of(order, counts, {"first": streams_of(order, symbols)["first"]})
        np.testing.assert_array_equal(order.predicted(counts), first == 0)


def test_first_groups_beyond_32_bits_are_refused():
    far = np.zeros((2, 1, 3), int)
    far[0, 0, 0], far[1, 0, 0] = 2**31 - 1, -5
    with pytest.raises(ValueError, match="do not fit 32 bits"):
        streams_of(Order((1, 3), 0), far)
    for place in ((0, 0, 0), (1, 0, 0), (1, 0, 2)):
        beyond = np.zeros((2, 1, 3), int)
        beyond[place] = -(2**31)
        with pytest.raises(ValueError, match="do not fit 32 bits"):
            streams_of(Order((1, 3), 0, 1), beyond)
    steps = np.full((3, 1), 2**30)
    for residual in (
        steps,
        -steps,
        steps.reshape(1, 3, 1),
        np.full((2, 2, 1), 2**30),
        np.full((1, 1), -(2**31)),
        -(2**31) * np.eye(4, 1).reshape(2, 2, 1).astype(int),
    ):
        with pytest.raises(ValueError, match="do not fit 32 bits"):
            restored(residual)
    with pytest.raises(ValueError, match="do not fit 32 bits"):
        symbols_of(Order((1, 2), 0), (3,), {"first": steps.ravel().astype(np.int32)})


@pytest.mark.parametrize("ends", [(), (5,), (3, 3), (5, 3), (0, 4), (-1, 2)])
def test_groups_that_are_none_are_refused(ends):
    with pytest.raises(ValueError, match="groups must be two or more"):
        Order(ends, 3)


@pytest.mark.parametrize("octaves", [-1, 9])
def test_octaves_have_bounds(octaves):
    with pytest.raises(ValueError, match="octaves lies in 0..8"):
        Order((1, 2), 0, octaves)


def test_neighbour_dims_are_not_negative():
    with pytest.raises(ValueError, match="neighbour_dims"):
        Order((1, 2), -1)


def drawn(frames: dict[str, np.ndarray], gap: int) -> list[str]:
    """Lines of frames [rows, columns] of characters, side by side under their names, without leading or trailing blanks."""
    pictures = [[" ".join(row) for row in frame] for frame in frames.values()]
    widths = [len(picture[0]) + gap for picture in pictures]
    names = "".join(name.ljust(width) for name, width in zip(frames, widths, strict=True))
    rows = ["".join(part.ljust(width) for part, width in zip(row, widths, strict=True)) for row in zip(*pictures, strict=True)]
    return [names.strip(), "", *(row.strip() for row in rows)]


def frames_of(order, group, counts):
    """Stream → characters [*counts] of the state of a group's symbols while that stream is coded."""
    frames, known = {}, np.zeros(counts, bool)
    dims = slice(*order.span(group))
    for name in order.streams:
        streams = {name: np.ones(streams_of(order, np.zeros((*counts, order.ends[-1]), int))[name].shape, np.int32)}
        now = symbols_of(order, counts, streams)[..., dims].any(axis=-1)
        if now.any():
            frames[name] = np.select([now, known], ["#", "o"], ".")
        known |= now
    return frames


@pytest.mark.parametrize("group", [0, 1])
def test_the_drawing_in_the_docstring_is_the_order(group):
    frames = frames_of(Order((2, 3), 3, 2), group, (5, 5))
    assert len(frames) == (5 if group == 0 else 2)
    lines = "\n".join(line.strip() for line in coding_order.__doc__.splitlines())
    assert "\n".join(drawn(frames, 4)) in lines
    # The page of the format draws both groups side by side.
    page = (Path(__file__).parents[2] / "docs" / "bitstream.md").read_text(encoding="utf-8").splitlines()
    for row in drawn(frames, 4)[2:]:
        assert any(row in line for line in page)
    for step in Order((2, 3), 3, 2).steps:
        if step.group == group:
            np.testing.assert_array_equal(step.known((5, 5)), frames[step.stream] == "o")

"""The prior in whole numbers: causal, equal to floats up to rounding, exact however it is summed, and as cheap as it says."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.context.test_prior import OCTAVES, ORDER, POINTS, K, draw, logistic_bits, random_prior
from vcinr.context import integer_prior
from vcinr.context.integer_prior import count_tables, float_network, integer_network, predict_table
from vcinr.context.lattice import differences
from vcinr.context.order import Order, streams_of
from vcinr.context.prior import predict
from vcinr.context.tables import LOG_SCALE_MIN, LOG_SCALE_STEP, NUM_FRACTIONS, NUM_SCALES
from vcinr.entropy.tables import code_length_bits


def all_steps(order, network, symbols, point=1):
    """{stream: (table, whole)} of every coding step, each given all symbols [n, *counts, k]."""
    return {step.stream: predict_table(order, network, point, symbols, step) for step in order.steps}


@pytest.mark.parametrize("order", [ORDER, OCTAVES])
def test_a_step_sees_what_was_decoded_before_it_and_nothing_else(order):
    network = integer_network(order, random_prior(order=order, size=1.0))
    symbols = draw((1, 7, 6, K))
    counts = symbols.shape[1:-1]
    before = all_steps(order, network, symbols)
    spans = [("first", ~order.predicted(counts))]
    for step in order.steps:
        start, stop = order.span(step.group)
        spans.append((step.stream, step.patches(counts)[..., None] & (np.arange(K) >= start) & (np.arange(K) < stop)))
    assert [name for name, _ in spans] == list(order.streams)
    for changed, (_, where) in enumerate(spans):
        after = all_steps(order, network, np.where(where, symbols + 9, symbols))
        for number, step in enumerate(order.steps, start=1):
            same = all(np.array_equal(x, y) for x, y in zip(before[step.stream], after[step.stream], strict=True))
            # An even patch's own group is unknown next door, and so is its odd half to the odd ones.
            if step.group:
                assert same == (changed >= number), f"{step.stream} after a change of {spans[changed][0]}"
            else:
                assert same or changed < number, f"{step.stream} after a change of {spans[changed][0]}"
                if step.stride == 1 and 0 < changed < number and not (step.odd and changed < number - 2):
                    assert not same


def test_one_patch_and_one_row_have_all_their_steps():
    for order in (ORDER, OCTAVES):
        network = integer_network(order, random_prior(order=order))
        for counts in ((1, 1), (1, 5), (5, 1)):
            found = all_steps(order, network, draw((1, *counts, K)))
            sizes = {name: stream.size for name, stream in streams_of(order, draw((*counts, K))).items()}
            assert {name: table.size for name, (table, _) in found.items()} == {name: sizes[name] for name in found}


def test_the_first_group_follows_a_ramp():
    """A network that says nothing predicts the mean of what is known around, whatever its size."""
    order = Order((1, 2), 0, 1)
    network = integer_network(order, jax.tree.map(np.zeros_like, random_prior(order=order)))
    symbols = np.zeros((1, 5, 5, 2), np.int32)
    symbols[0, ..., 0] = 100_000 * np.arange(5)[:, None] + 1000 * np.arange(5)
    for step in order.lattice_steps:
        _, whole = predict_table(order, network, 0, symbols, step)
        inner = np.array([0 < y < 4 and 0 < x < 4 for y, x in np.argwhere(step.patches((5, 5)))])
        np.testing.assert_array_equal(whole[0, inner, 0], symbols[0, step.patches((5, 5)), 0][inner])


@pytest.mark.parametrize("order", [ORDER, OCTAVES])
@pytest.mark.parametrize(("rank", "counts"), [(1, (7,)), (2, (3, 4)), (3, (2, 3, 2))])
def test_whole_numbers_say_what_floats_say_within_their_rounding(rank, counts, order):
    params, symbols = random_prior(rank, order, seed=rank), draw((*counts, K))
    symbols[..., :2] *= 30
    network = integer_network(order, params)
    location, log_scale = (np.asarray(x) for x in predict(order, params, 1, jnp.asarray(symbols, jnp.float32)))
    checks = 0
    for step in order.steps:
        start, stop = order.span(step.group)
        chosen = step.patches(counts)
        (table,), (whole,) = predict_table(order, network, 1, symbols[None], step)
        exact = location[chosen][:, start:stop]
        # Of what is meant as a location's own, the first group's in whole numbers, a share is lost to rounded weights.
        tolerance = {"atol": 0.5 / NUM_FRACTIONS + 0.02} if step.group else {"atol": 0.5 / NUM_FRACTIONS + 0.2}
        np.testing.assert_allclose(whole + table % NUM_FRACTIONS / NUM_FRACTIONS, exact, **tolerance)
        number = (log_scale[chosen][:, start:stop] - LOG_SCALE_MIN) / LOG_SCALE_STEP
        np.testing.assert_allclose(table // NUM_FRACTIONS, np.clip(number, 0, NUM_SCALES - 1), atol=0.5 + 0.1)
        checks += exact.size
    assert checks == order.predicted(counts).sum()


def by_integers(order, network, point, symbols, step):
    """`predict_table` of one signal's patches of a step, in Python's integers, as docs/bitstream.md says it."""
    *counts, _ = symbols.shape
    start, stop = order.span(step.group)
    near = min(start, order.neighbour_dims)
    part = {name: array.astype(object) for name, array in network[f"group_{step.group}"].items()}
    offsets = [tuple(np.array(s) - 1) for s in np.ndindex(*(3,) * len(counts)) if any(np.array(s) != 1)]
    lattice_steps = [(s, odd) for s in (2**i for i in reversed(range(order.octaves))) for odd in (False, True)]

    def on(spot, stride, odd=None):
        """Whether a patch is on a lattice, and among its even or odd ones."""
        return all(i % stride == 0 for i in spot) and odd in (None, sum(i // stride for i in spot) % 2 == 1)

    def now(spot):
        return on(spot, step.stride, step.odd) and not (step.group == 0 and on(spot, 2 * step.stride))

    def known(spot):
        return on(spot, 2 * step.stride) or (step.odd and on(spot, step.stride, False))

    tables, wholes = {}, {}

    def clip(some, most=255):
        return [max(-most, min(most, int(q))) for q in some]

    def size(some):
        return [int(network["companding"][abs(q)]) for q in some]

    def signed(some):
        return [s if q > 0 else -s for q, s in zip(some, size(some), strict=True)]

    def inside(spot):
        return all(0 <= i < n for i, n in zip(spot, counts, strict=True))

    for place in filter(now, np.ndindex(*counts)):

        def at(offset, first, last, place=place):
            spot = tuple(np.add(place, offset))
            return clip(symbols[spot][first:last]) if inside(spot) else [0] * (last - first)

        def between_known(place=place):
            spots = [tuple(np.add(place, np.multiply(step.stride, offset))) for offset in offsets]
            sure = [inside(spot) and known(spot) for spot in spots]
            values = [[int(q) for q in symbols[spot][:stop]] for spot, there in zip(spots, sure, strict=True) if there]
            base = clip([sum(column) // len(column) for column in zip(*values, strict=True)], 2**29)
            rest, left = [], iter(values)
            for there in sure:
                rest += clip([q - b for q, b in zip(next(left), base, strict=True)]) if there else [0] * stop
            flags = [256 * there for there in sure] + [256 * (own == (step.stride, step.odd)) for own in lattice_steps]
            held = clip(base)
            return base, signed(rest) + size(rest) + signed(held) + size(held) + flags, rest

        if step.group:
            odd = int(step.odd)
            own = at((0,) * len(counts), 0, start)
            around = [q for offset in offsets for q in at(offset, 0, near)]
            faces = [q for offset in offsets if sum(map(abs, offset)) == 1 for q in at(offset, start, stop)]
            faces = faces if odd else [0] * len(faces)
            hidden = signed(own) + size(own) + signed(around) + size(around) + size(faces) + [256 * odd]
            base, linear = [0] * (stop - start), own + around
            if start < order.neighbour_dims:
                hidden, linear = hidden + signed(faces), linear + faces
        else:
            base, hidden, linear = between_known()
        units = [sum(x * w for x, w in zip(hidden, column, strict=True)) for column in part["kernel"].T]
        units = [min(max(u + b, 0) >> 12, 2**15) for u, b in zip(units, part["bias"][point], strict=True)]
        out = [sum(u * w for u, w in zip(units, column, strict=True)) for column in part["out"].T]
        moved = [sum(x * w for x, w in zip(linear, column, strict=True)) for column in part["linear"].T]
        n = stop - start
        location = [max(-(2**20), min(2**20, (a + 64 * b + 2**16) >> 17)) for a, b in zip(out[:n], moved, strict=True)]
        own_scale = [int(v) for v in network["log_scale"][point, start:stop]]
        scale = [max(0, min(47, (a + b + 2**19) >> 20)) for a, b in zip(out[n:], own_scale, strict=True)]
        tables[place] = [8 * j + m % 8 for j, m in zip(scale, location, strict=True)]
        wholes[place] = [b + (m >> 3) for b, m in zip(base, location, strict=True)]
    return tables, wholes


@pytest.mark.parametrize("order", [ORDER, OCTAVES])
@pytest.mark.parametrize("size", ["ordinary", "extreme"])
def test_float64_is_exact(size, order):
    rng = np.random.default_rng(0)
    params = random_prior(order=order, width=20, size=0.3 if size == "ordinary" else 1e9)
    network = integer_network(order, params)
    counts = (5, 4)
    symbols = draw((*counts, K)) if size == "ordinary" else rng.choice([-(2**31), 2**31 - 1, -255, 255, 300, 0], (*counts, K))
    if size == "extreme":
        assert np.abs(network["group_1"]["kernel"].astype(int)).min() >= 2**15 - 1
    for step in order.steps:
        (table,), (whole,) = predict_table(order, network, 0, symbols[None].astype(np.int32), step)
        tables, wholes = by_integers(order, network, 0, symbols, step)
        assert table.tolist() == list(tables.values())
        assert whole.tolist() == list(wholes.values())


@pytest.mark.parametrize("counts", [(9, 4), (4, 9), (1, 30), (6, 6)])
def test_blocks_and_batches_change_nothing(monkeypatch, counts):
    network = integer_network(OCTAVES, random_prior(order=OCTAVES))
    symbols = draw((5, *counts, K), size=300)
    together = all_steps(OCTAVES, network, symbols)
    for block in (1, 7, 50, 10**6):
        monkeypatch.setattr(integer_prior, "PATCHES_PER_BLOCK", block)
        for name, pair in all_steps(OCTAVES, network, symbols).items():
            np.testing.assert_array_equal(pair, together[name])
        for name, pair in all_steps(OCTAVES, network, symbols[3:4]).items():
            np.testing.assert_array_equal(pair, [x[3:4] for x in together[name]])


def test_memory_beside_the_result_does_not_grow_with_the_signal(monkeypatch):
    monkeypatch.setattr(integer_prior, "PATCHES_PER_BLOCK", 256)
    order = Order((4, 16, 64), 32)
    network = integer_network(order, random_prior(order=order, width=4))

    def peak(counts):
        symbols = draw((1, *counts, 64)).astype(np.int32)
        tracemalloc.start()
        predict_table(order, network, 0, symbols, order.steps[2])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most - 4 * 4 * np.prod(counts) * (64 - 16)

    small = peak((32, 32))
    for counts in ((128, 32), (32, 128), (1, 2**12)):
        assert peak(counts) < 1.3 * small


def test_floats_of_whole_numbers_are_whole_numbers_again():
    params = random_prior()
    network = integer_network(ORDER, params)
    back = float_network(ORDER, network)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2.0**-12 * 0.51), back, params)
    jax.tree.map(np.testing.assert_array_equal, integer_network(ORDER, back), network)


def test_weights_too_large_for_their_integers_stay_the_largest_there_are():
    network = integer_network(ORDER, random_prior(size=1e6))
    for name, kind in (("kernel", np.int16), ("out", np.int16), ("linear", np.int16), ("bias", np.int32)):
        array = network["group_1"][name]
        assert array.dtype == kind
        assert {int(array.min()), int(array.max())} == {np.iinfo(kind).min, np.iinfo(kind).max}


def test_counted_tables_cost_the_entropy_of_what_they_describe():
    """Symbols drawn, step by step, from the logistics that the network names."""
    rng, order = np.random.default_rng(0), Order((1, 3, 6), 2, 1)
    log_scale = np.tile(np.log([2.0, 0.15, 0.4, 1.0, 3.0, 8.0]), (POINTS, 1))
    network = integer_network(order, {**random_prior(order=order, size=0.1), "log_scale": log_scale})
    train, test = np.zeros((600, 8, 8, 6), np.int32), np.zeros((100, 8, 8, 6), np.int32)
    entropy, spent = 0.0, 0.0
    for symbols in (train, test):
        symbols[..., 0] = np.rint(rng.logistic(0, 2.0, symbols.shape[:-1]))
        for step in order.steps:
            start, stop = order.span(step.group)
            chosen = step.patches((8, 8))
            table, whole = predict_table(order, network, 0, symbols, step)
            scale = np.exp(LOG_SCALE_MIN + LOG_SCALE_STEP * (table // NUM_FRACTIONS))
            location = whole + table % NUM_FRACTIONS / NUM_FRACTIONS
            part = np.rint(rng.logistic(location, scale)).astype(np.int32)
            symbols[:, chosen, start:stop] = part
            if symbols is test:
                entropy += logistic_bits(location, scale, part).sum()
    tables = count_tables(order, network, 0, train, train[:, ::2, ::2, :1])
    assert tables.num_tables == NUM_SCALES * NUM_FRACTIONS + 1
    for step in order.steps:
        start, stop = order.span(step.group)
        table, whole = predict_table(order, network, 0, test, step)
        left = test[:, step.patches((8, 8)), start:stop] - whole
        spent += code_length_bits(tables, left.ravel(), table.ravel()).sum()
    assert abs(spent / entropy - 1) < 0.01
    first = differences(test[0, ::2, ::2, :1]).ravel()
    assert code_length_bits(tables, first, np.full(first.size, NUM_SCALES * NUM_FRACTIONS)).mean() < 6

"""Batches of whole signals: equal shapes within bounds, codes in the order of the signals, progress of all batches as of one."""

import numpy as np

from tests.conftest import smooth_picture
from vcinr.codec import Code
from vcinr.signals.patches import to_signal
from vcinr.weights.signal_batches import batches_of_equal_shape, encode_in_batches

SHAPES = [(24, 36), (36, 24), (24, 36), (1, 50)]


def test_batches_hold_equal_shapes_within_bounds():
    pictures = [smooth_picture(*shape, seed=i) for i, shape in enumerate(SHAPES)]
    signals = [to_signal(picture.astype(np.float32), picture.shape[:2]) for picture in (*pictures, pictures[0], pictures[0])]
    batches = batches_of_equal_shape(signals, 2 * 24 * 36)
    assert [batch.indices for batch in batches] == [[0, 2], [4, 5], [1], [3]]
    assert all(batch.values.shape == (len(batch.indices), len(batch.coords), 3) for batch in batches)
    np.testing.assert_array_equal(batches[0].values[1].reshape(24, 36, 3), pictures[2])
    assert [batch.name for batch in batches] == ["24x36", "24x36", "36x24", "1x50"]
    assert [batch.indices for batch in batches_of_equal_shape(signals[:3], 1)] == [[0], [2], [1]]
    weighted = [signals[0], signals[0].replace(weight=np.full((1, 24 * 36), 0.5, np.float32))]
    one, other = batches_of_equal_shape(weighted, 10**6)
    assert one.weight is None
    assert other.weight.shape == (1, 24 * 36)


def test_codes_are_in_the_order_of_the_signals_and_progress_is_of_all_batches():
    signals = [to_signal(np.full((*shape, 3), i, np.float32), shape) for i, shape in enumerate(SHAPES)]
    heard = []

    def encode(batch, report):
        report("fitting")("a batch", 5, 10)
        return [Code({"first": values[0].astype(np.int32)}) for values in batch.values]

    codes = encode_in_batches(encode, signals, 10**6, lambda *call: heard.append(call))
    assert [code.streams["first"][0] for code in codes] == [0, 1, 2, 3]
    assert heard == [("fitting", 5, 30), ("fitting", 15, 30), ("fitting", 25, 30)]


def test_where_nobody_is_told_parts_report_to_nothing():
    reports = []

    def encode(batch, report):
        reports.append(report("fitting"))
        return [Code({})]

    encode_in_batches(encode, [to_signal(np.zeros((2, 3, 3), np.float32), (2, 3))], 1)
    assert reports == [None]

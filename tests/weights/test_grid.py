"""Step sizes that a file holds as bfloat16: from above, positive and finite."""

import numpy as np
import pytest

from vcinr.weights.grid import bfloat16_above, from_bfloat16


def test_bfloat16_from_above():
    rng = np.random.default_rng(0)
    values = np.exp(rng.uniform(-60, 60, 1000)).astype(np.float32)
    bits = bfloat16_above(values)
    assert bits.dtype == np.uint16
    above, below = from_bfloat16(bits), from_bfloat16(bits - 1)
    assert ((below < values) & (values <= above)).all()
    np.testing.assert_array_equal(bfloat16_above(above), bits)
    np.testing.assert_array_equal(bfloat16_above(np.array([1.0, 1.5], np.float32)), [0x3F80, 0x3FC0])


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, -np.inf, 1e-40, 3.4e38])
def test_what_can_be_no_step_is_refused(value):
    with pytest.raises(ValueError, match="a quantiser step is not a positive finite number"):
        bfloat16_above(np.array([1.0, value], np.float32))

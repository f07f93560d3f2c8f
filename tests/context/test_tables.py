"""Tables of the context prior before anything is counted."""

import numpy as np

from tests.context.test_prior import logistic_bits
from vcinr.context.tables import LOG_SCALE_MIN, LOG_SCALE_STEP, NUM_FRACTIONS, NUM_SCALES, logistic_tables
from vcinr.entropy.tables import TOTAL, code_length_bits


def test_tables_before_any_count_are_the_logistics_they_stand_for():
    tables = logistic_tables(2)
    assert tables.num_tables == NUM_SCALES * NUM_FRACTIONS + 2
    for table in (0, 3, 24 * NUM_FRACTIONS + 5, NUM_SCALES * NUM_FRACTIONS - 1):
        scale, shift = np.exp(LOG_SCALE_MIN + LOG_SCALE_STEP * (table // NUM_FRACTIONS)), table % NUM_FRACTIONS / NUM_FRACTIONS
        symbols = np.arange(-3, 4)
        expected = TOTAL * 2.0 ** -logistic_bits(shift, scale, symbols)
        found = TOTAL * 2.0 ** -code_length_bits(tables, symbols, np.full(7, table))
        likely = expected > 20
        assert likely.any()
        np.testing.assert_allclose(found[likely], expected[likely], atol=2)

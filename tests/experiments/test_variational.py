"""The study of COMBINER's parts: arms that differ in what they say, and the cost that they are compared by."""

import numpy as np
import pytest

from experiments import variational
from experiments.variational import ARMS, FAMILIES, config_of, cost_db, middle
from vcinr.codecs import make_codec


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_builds_its_codec_and_differs_from_the_first_of_its_family(arm):
    family, training, coding = ARMS[arm]
    own, first = (make_codec(family, config) for config in (config_of(arm), FAMILIES[family]))
    plain = not training and set(coding) <= {"whole", "start"}
    assert (own.config == first.config) == plain
    trained = make_codec(family, config_of(arm, encoding=False))
    assert trained.config.coding == first.config.coding, "training knows nothing of how an arm encodes"
    assert (trained.config == first.config) == (not training)


def test_the_cost_is_distortion_and_rate_at_the_training_beta():
    bits = 1000.0
    rate = variational.BETA * np.log(2) * bits
    one = {"error": [0.01, 0.02], "bits": [bits, 4 * bits], "patches": 1}
    np.testing.assert_allclose(cost_db([one]), -10 * np.log10([0.01 + rate, 0.02 + 4 * rate]))
    np.testing.assert_allclose(cost_db([one, one]), cost_db([one]))
    np.testing.assert_allclose(cost_db([{**one, "patches": 4}])[1], -10 * np.log10(0.02 + rate))


def test_a_crop_is_taken_from_the_middle():
    rows, columns = np.mgrid[:100, :140]
    crop = middle(np.stack([rows, columns], axis=-1))
    assert crop.shape == (96, 128, 2)
    np.testing.assert_array_equal(crop[0, 0], [2, 6])

"""What coding costs: counted against the arrays of a model, and against what a field that is known takes."""

import numpy as np
import pytest

from experiments import cost
from tests.context.test_compression import folder, model, pictures  # noqa: F401
from vcinr.codecs.vc_inr import VCINR


@pytest.mark.slow
def test_multiplications_are_those_of_the_arrays(model):  # noqa: F811
    got = cost.decoder_macs(model.codec, model.params)
    prior = sum(
        part[name].size
        for key, part in model.params["network"].items()
        if key.startswith("group")
        for name in ("kernel", "out", "linear")
    )
    synthesis = sum(model.params["synthesis"][name].size for name in ("kernel_0", "kernel_1", "out", "linear"))
    head = model.params["shared"]["head_kernel"].size + model.params["shared"]["head_bias"].size
    assert got["prior"] == prior / 16 and got["synthesis"] == synthesis / 16
    assert got["field"] == head / 16 + (24 + 1) * 3


def test_other_codecs_are_refused():
    with pytest.raises(ValueError, match="linear head"):
        cost.decoder_macs(VCINR(), {})


@pytest.mark.slow
def test_seconds_leave_compilation_out(model, pictures):  # noqa: F811
    encode, decode = cost.seconds(model, [pictures[0]] * 3, 0, 0)
    assert 0 < encode < 10 and 0 < decode < 10 and np.isfinite(encode + decode)

"""The control of the table of parts: an exact KLT, and all else as in the codec that it is the control of."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.klt_matrix import KLTInContext, deviation_from_matrix
from tests.context.test_compression import CONFIG
from vcinr.adaptation.warm_start import components
from vcinr.codecs.contextual_inr import ContextualINR
from vcinr.stage import ClosedForm

PATCHES = np.random.default_rng(0).random((200, 16, 3), np.float32)


def params(num_components):
    return {"components": components(PATCHES, num_components), "points": {}}


def test_as_many_components_as_values_give_the_patch_back():
    codec, whole = KLTInContext(CONFIG), params(48)
    latent = codec.adapt(whole, jnp.asarray(PATCHES[7]))
    np.testing.assert_allclose(codec.values(whole, latent), PATCHES[7], atol=1e-5)
    assert float(codec.distortion(whole, latent, PATCHES[7])) < 1e-10


def test_the_error_is_the_energy_of_the_components_that_are_missing():
    codec, whole, some = KLTInContext(CONFIG), params(48), params(12)
    all_numbers = np.asarray(codec.adapt(whole, jnp.asarray(PATCHES[3])))
    error = codec.distortion(some, codec.adapt(some, jnp.asarray(PATCHES[3])), PATCHES[3])
    assert float(error) == pytest.approx(np.sum(all_numbers[12:] ** 2) / 48, rel=1e-3)


def test_stages_stand_where_those_of_the_field_do_and_learn_no_field():
    ours, its = KLTInContext(CONFIG).stages(), ContextualINR(CONFIG).stages()
    assert [stage.name for stage in ours] == [stage.name for stage in its], "their places are in the seeds"
    assert all(isinstance(stage, ClosedForm) for stage in ours[:3])
    nothing = {"untouched": 1}
    assert all(stage.solve(None, nothing, None, None) is nothing for stage in ours[1:3])
    assert ours[4].training == its[4].training


def test_the_distance_of_a_field_from_the_matrix_is_that_of_its_components():
    config = dataclasses.replace(CONFIG.field, latent_dim=2)
    stretched = jnp.zeros((16, 3, 2)).at[0, 0, 0].set(1.0).at[0, 1, 1].set(1.1)
    codec = types.SimpleNamespace(
        config=types.SimpleNamespace(field=config), values=lambda params, latent: 0.5 + stretched @ latent
    )
    basis = np.zeros((2, 16, 3), np.float32)
    basis[0, 0, 0], basis[1, 0, 1] = -1.0, 1.0
    field = types.SimpleNamespace(codec=codec, params={})
    control = types.SimpleNamespace(params={"components": {"basis": basis}})
    assert deviation_from_matrix(field, control) == pytest.approx((0.21, 0.1), rel=1e-4), "a sign is no distance"

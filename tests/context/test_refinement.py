"""Encoder effort: what to round instead is what makes the whole cost least, and no effort costs more than none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.context.test_compression import folder, model, pictures  # noqa: F401
from tests.context.test_prior import OCTAVES as ORDER
from tests.context.test_prior import draw, random_prior
from vcinr.context import prior as context_prior
from vcinr.context import refinement
from vcinr.context import synthesis as neighbour_synthesis
from vcinr.context.integer_prior import float_network

COUNTS = (3, 4)


def parts_of(prior_size, synthesis_size, seed=0):
    """A point's prior and synthesis whose context says nothing where the sizes are 0."""
    prior = random_prior(order=ORDER, size=prior_size, seed=seed)
    row_length = ORDER.ends[-1] + 8 * ORDER.neighbour_dims
    synthesis = neighbour_synthesis.init(jax.random.key(seed), ORDER.ends[-1], row_length, 5, 2)
    rng = np.random.default_rng(seed)
    for name in ("out", "linear", "offset"):
        synthesis[name] = jnp.asarray(rng.normal(0, synthesis_size, synthesis[name].shape), jnp.float32)
    return {
        "prior": jax.tree.map(jnp.asarray, prior),
        "synthesis": neighbour_synthesis.of_point(synthesis, 1),
        "weight": jnp.asarray(rng.uniform(2, 9, ORDER.ends[-1]), jnp.float32),
        "point": jnp.int32(1),
    }


def example(seed=1):
    symbols = draw((*COUNTS, ORDER.ends[-1]), seed, 3).astype(np.float32)
    return jnp.asarray(symbols), jnp.asarray(symbols + np.random.default_rng(seed).uniform(-0.5, 0.5, symbols.shape), jnp.float32)


def test_without_context_and_synthesis_there_is_nothing_to_know():
    symbols, z = example()
    target, _ = jax.jit(refinement.targets, static_argnums=0)(ORDER, parts_of(0.0, 0.0), symbols, z)
    later = slice(ORDER.ends[0], None)
    np.testing.assert_allclose(target[..., later], z[..., later], atol=1e-5)
    # The first group is counted from the mean of its neighbours, whatever the network says.
    assert np.abs(target - z)[..., : ORDER.ends[0]].max() > 1e-3


def test_cost_is_bits_and_what_the_error_is_worth():
    symbols, z = example()
    parts = parts_of(0.2, 0.1)
    got = jax.jit(refinement.cost, static_argnums=0)(ORDER, parts, symbols, symbols, z)
    predicted = context_prior.predict(ORDER, parts["prior"], 1, symbols)
    bits = np.sum(context_prior.bin_bits(*predicted, symbols)[ORDER.predicted(COUNTS)])
    decoded = neighbour_synthesis.apply(parts["synthesis"], neighbour_synthesis.rows(np.asarray(symbols), ORDER.neighbour_dims))
    assert float(got) == pytest.approx(float(bits + np.sum(parts["weight"] * (decoded - z) ** 2)), rel=1e-5)


def test_targets_carry_the_derivative_of_the_cost():
    """About the symbols, weight · (t − q)² has the derivative of everything in the cost but the symbols' own bits."""
    symbols, z = example()
    parts = parts_of(0.01, 0.01)
    parts["weight"] = 10 * parts["weight"]
    target, _ = jax.jit(refinement.targets, static_argnums=0)(ORDER, parts, symbols, z)
    free = np.abs(target - z) < 0.99 * refinement.MAX_SHIFT
    assert free.mean() > 0.9, "where targets are held, they are no derivative"

    @jax.jit
    def whole(parts, moved):
        predicted = context_prior.predict(ORDER, parts["prior"], 1, symbols)
        own_bits = jnp.sum(jnp.where(ORDER.predicted(COUNTS), context_prior.bin_bits(*predicted, moved), 0.0))
        return refinement.cost(ORDER, parts, moved, moved, z) - own_bits

    expected = jax.grad(whole, argnums=1)(parts, symbols)
    got = -2 * parts["weight"] * (target - symbols)
    np.testing.assert_allclose(np.asarray(got)[free], np.asarray(expected)[free], rtol=1e-3, atol=2e-2)


@pytest.mark.slow
def test_effort_changes_the_encoder_alone_and_never_for_the_worse(model, pictures):  # noqa: F811
    codec, point = model.codec, 1
    order = codec.compression.config.order
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (3, 4, 5, order.ends[-1])).astype(np.float32)
    costs = []
    for passes in (0, 1, 3):
        symbols = codec.compression.round(model.params, point, z)
        if passes:
            symbols = codec.compression._refine(model.params, point, symbols, z, passes)
        parts = {
            "prior": float_network(order, model.params["network"]),
            "synthesis": neighbour_synthesis.of_point(model.params["synthesis"], point),
            "weight": model.params["points"]["1"]["weight"],
            "point": jnp.int32(point),
        }
        own = jax.jit(refinement.cost, static_argnums=0)
        costs.append([float(own(order, parts, q, q, each)) for q, each in zip(jnp.asarray(symbols, jnp.float32), z, strict=True)])
    assert np.all(np.array(costs[1]) <= np.array(costs[0]) + 1e-2) and np.all(np.array(costs[2]) <= np.array(costs[1]) + 1e-2)
    assert np.sum(costs[2]) < np.sum(costs[0])
    data = model.encode(pictures[-1], point, effort=2)
    assert model.decode(data).shape == pictures[-1].shape


@pytest.mark.slow
@pytest.mark.parametrize("effort", [-1, 9])
def test_an_effort_out_of_range_is_refused(model, pictures, effort):  # noqa: F811
    with pytest.raises(ValueError, match=r"effort lies in 0 to 8"):
        model.encode(pictures[0], 0, effort=effort)

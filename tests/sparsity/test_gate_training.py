"""λ brings the fraction of open entries to the target, and the gates that pay most are those that stay open."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vcinr.sparsity import hard_concrete
from vcinr.sparsity.gate_training import neutral_penalty
from vcinr.sparsity.gates import GateConfig, expected_open, pattern


@pytest.mark.parametrize("target", [0.05, 0.4])
def test_lambda_drives_the_open_fraction_to_the_target(target):
    """A separable problem: the error of entry i falls by c_i where its gate is open, c of very different sizes."""
    gates = GateConfig(target=target, start_open=0.5, start_lambda=1e-2, gate_lr=0.05, lambda_lr=0.02)
    index = np.arange(400)[None]
    gain = jnp.asarray(np.random.default_rng(0).lognormal(0, 2, 400), jnp.float32)
    gain = gain / gain.sum()

    def loss(state, key):
        fraction = expected_open(index, state["log_alpha"])
        error = jnp.sum(gain * jnp.square(1 - hard_concrete.sample(key, state["log_alpha"])))
        return error + neutral_penalty(gates, fraction, state["log_lambda"]), error

    rates = {"log_alpha": gates.gate_lr, "log_lambda": gates.lambda_lr}
    optimiser = optax.chain(optax.scale_by_adam(), optax.stateless(lambda u, _: jax.tree.map(lambda r, a: -r * a, rates, u)))
    state = {"log_alpha": jnp.full(400, hard_concrete.log_alpha_of(jnp.asarray(0.5))), "log_lambda": jnp.log(1e-2)}

    @jax.jit
    def train(state):
        def step(carry, key):
            state, moments = carry
            (value, error), gradient = jax.value_and_grad(loss, has_aux=True)(state, key)
            updates, moments = optimiser.update(gradient, moments)
            return (optax.apply_updates(state, updates), moments), value - error

        return jax.lax.scan(step, (state, optimiser.init(state)), jax.random.split(jax.random.key(0), 600))

    (state, _), difference = train(state)
    assert (np.asarray(difference) == 0).all(), "the reported loss is no longer the error"
    assert abs(float(expected_open(index, state["log_alpha"])) / target - 1) < 0.2
    _, entries = pattern(index, np.asarray(state["log_alpha"]), target)
    best = np.argsort(-np.asarray(gain))[: len(entries)]
    assert len(np.intersect1d(entries, best)) > 0.8 * len(best), "the gates that pay most are not those that stay open"

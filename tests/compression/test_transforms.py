"""Analysis and synthesis: their formulas, and that one undoes the other where their networks say nothing."""

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.compression.transforms import Analysis, Synthesis

U = jnp.asarray([-2.0, 0.3, 1.0, 5.0])


def random_params(module, seed):
    rng, start = np.random.default_rng(seed), module.init(jax.random.key(0), U)["params"]
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(0, 0.6, a.shape), jnp.float32), start)


def residual(params, u):
    """u + MLP(u) with SELU (Klambauer et al. 2017), in float64."""
    hidden = u
    for i in range(2):
        hidden = hidden @ np.asarray(params[f"hidden_{i}"]["kernel"]) + np.asarray(params[f"hidden_{i}"]["bias"])
        hidden = 1.0507009873554805 * np.where(hidden > 0, hidden, 1.6732632423543772 * np.expm1(np.minimum(hidden, 0)))
    return u + hidden @ np.asarray(params["out"]["kernel"]) + np.asarray(params["out"]["bias"])


def test_analysis_by_hand():
    params = random_params(Analysis(6, 2), 1)
    expected = np.exp(params["log_gain"]) * residual(params["mlp"], np.asarray(U, np.float64)) + params["offset"]
    np.testing.assert_allclose(Analysis(6, 2).apply({"params": params}, U), expected, rtol=1e-4, atol=1e-5)


def test_synthesis_by_hand():
    params = random_params(Synthesis(6, 2), 2)
    expected = residual(params["mlp"], np.asarray(np.exp(params["log_gain"]) * (U - params["offset"]), np.float64))
    np.testing.assert_allclose(Synthesis(6, 2).apply({"params": params}, U), expected, rtol=1e-4, atol=1e-5)


def test_without_their_networks_they_undo_each_other():
    start, gain, offset = Analysis(6, 2).init(jax.random.key(0), U)["params"], jnp.log(U**2), jnp.asarray([0.5, -0.2, 3.0, 0.1])
    z = Analysis(6, 2).apply({"params": {**start, "log_gain": gain, "offset": offset}}, U)
    back = Synthesis(6, 2).apply({"params": {**start, "log_gain": -gain, "offset": offset}}, z)
    np.testing.assert_allclose(back, U, rtol=1e-5)

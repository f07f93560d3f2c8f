"""The residual network that makes gates from φ: its formula, its start, and a head of its own for every layer."""

import jax
import jax.numpy as jnp
import numpy as np

from vcinr.fields.field import FieldConfig, ResidualNetwork, make_field

CONFIG = FieldConfig(num_layers=4, width=8, latent_dim=5, rank=2, hyper_width=24, hyper_depth=2, gate_gain=1.7)


def random_tree(tree, seed=0, size=0.5):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(0, size, a.shape), jnp.float32), tree)


def dense(part, x):
    return x @ np.asarray(part["kernel"], np.float64) + np.asarray(part.get("bias", 0.0), np.float64)


def normed(part, x):
    standard = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
    return standard * np.asarray(part["scale"], np.float64) + np.asarray(part["bias"], np.float64)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def by_hand(params, latent, depth):
    """h ← h + A gelu(B LayerNorm(h)), in float64."""
    hidden = dense(params["embed"], np.asarray(latent, np.float64))
    for i in range(depth):
        update = gelu(dense(params[f"expand_{i}"], normed(params[f"norm_{i}"], hidden)))
        hidden = hidden + dense(params[f"contract_{i}"], update)
    return normed(params["norm_out"], hidden)


def logits(layers, base):
    """U Vᵀ of each gated layer, from what its kernel became."""
    gates = [np.asarray(kernel / plain, np.float64) for (kernel, _), plain in zip(layers, base, strict=True)]
    return [np.log(gate / (CONFIG.gate_gain - gate)) for gate in gates[1:-1]]


def started(seed):
    field = make_field(CONFIG)
    params = field.init(jax.random.key(seed), jnp.zeros((1, 2)), jnp.zeros(5))["params"]
    return field, params, [params[f"kernel_{i}"] for i in range(5)]


def test_blocks_are_normalised_before_and_added_to_what_enters():
    network, latent = ResidualNetwork(7, 2), jnp.linspace(-2.0, 3.0, 5)
    params = random_tree(network.init(jax.random.key(0), latent)["params"])
    np.testing.assert_allclose(network.apply({"params": params}, latent), by_hand(params, latent, 2), rtol=1e-4, atol=1e-5)


def test_every_block_starts_as_the_identity():
    network, latent = ResidualNetwork(24, 3), jnp.linspace(-1.0, 1.0, 5)
    params = network.init(jax.random.key(1), latent)["params"]
    np.testing.assert_allclose(network.apply({"params": params}, latent), by_hand(params, latent, 0), rtol=1e-4, atol=1e-5)


def test_a_unit_of_latent_moves_features_by_about_a_unit_at_zero():
    network = ResidualNetwork(400, 2)
    variables = network.init(jax.random.key(2), jnp.zeros(6))
    jacobian = jax.jacobian(lambda phi: network.apply(variables, phi))(jnp.zeros(6))
    # φ of unit length along one axis moves each of the embedding's units by 1/√k, and LayerNorm divides by a size of about 1.
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(jnp.square(jacobian))), 6**-0.5, rtol=0.2)


def test_every_layer_has_gates_by_heads_of_its_own():
    field, params, _ = started(0)
    params, latent = random_tree(params), jnp.linspace(-1.0, 2.0, 5)
    layers = field.apply({"params": params}, latent, method="layers")
    features = by_hand(params["network"], latent, 2)
    for i in range(3):
        left, right = (dense(params[f"{side}_heads_{i}"], features).reshape(8, 2) for side in ("left", "right"))
        gate = CONFIG.gate_gain / (1 + np.exp(-left @ right.T))
        np.testing.assert_allclose(layers[i + 1][0], gate * np.asarray(params[f"kernel_{i + 1}"]), rtol=2e-3, atol=1e-5)


def test_gates_start_near_neutral_and_apart():
    # U's entries start with a deviation of 0.1 and V's with about 1, so U Vᵀ has about 0.1 √r.
    found = []
    for seed in range(8):
        field, params, base = started(seed)
        found.append(logits(field.apply({"params": params}, jnp.ones(5), method="layers"), base))
    found = np.array(found)
    np.testing.assert_allclose(np.sqrt(np.mean(found**2)), 0.1 * np.sqrt(CONFIG.rank), rtol=0.3)
    one, other = found[:, 0].ravel(), found[:, 1].ravel()
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.3, "two layers of one shape have the same gates"

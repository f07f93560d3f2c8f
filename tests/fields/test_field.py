"""SIREN, its modulations, and the fields that declare them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.fields import modulations, siren
from vcinr.fields.encodings import encode
from vcinr.fields.field import FIELDS, FieldConfig, evaluate, make_field
from vcinr.signals.grids import pixel_grid

SMALL = {"num_layers": 4, "width": 128, "latent_dim": 16, "hyper_width": 64, "hyper_depth": 2}


def started(config, seed=0):
    field = make_field(config)
    return field, field.init(jax.random.key(seed), jnp.zeros((1, 2)), jnp.zeros(config.latent_size()))


def layers_of(field, variables, latent):
    return field.apply(variables, latent, method="layers")


def test_siren_by_hand():
    layers = [(jnp.array([[1.0, 0.5]]), jnp.array([0.1, -0.2])), (jnp.array([[2.0], [-1.0]]), jnp.array([0.25]))]
    x = 0.3
    expected = 2 * np.sin(5 * (x + 0.1)) - np.sin(5 * (0.5 * x - 0.2)) + 0.25
    np.testing.assert_allclose(siren.apply(layers, jnp.array([[x]]), 5.0), [[expected]], rtol=1e-6)


def test_hidden_pre_activations_of_a_siren_are_standard_normal_but_for_the_bias():
    config = FieldConfig(modulation="none", **SMALL)
    field, variables = started(config)
    layers = [(kernel, 0.0 * bias if i else bias) for i, (kernel, bias) in enumerate(layers_of(field, variables, jnp.zeros(16)))]
    for z in siren.pre_activations(layers, jnp.asarray(pixel_grid((32, 32))), config.omega_0)[1:]:
        assert 0.75 < float(jnp.std(z)) < 1.25


def test_gates_start_with_the_statistics_of_the_plain_siren_layer_by_layer():
    gated_config, plain_config = FieldConfig(**SMALL), FieldConfig(modulation="none", **SMALL)
    coords = jnp.asarray(pixel_grid((32, 32)))
    for seed in range(3):
        gated, variables = started(gated_config, seed)
        plain = make_field(plain_config)
        own = {"params": {k: v for k, v in variables["params"].items() if k.startswith(("kernel", "bias"))}}
        zs = siren.pre_activations(layers_of(gated, variables, jnp.zeros(16)), coords, 30.0)
        references = siren.pre_activations(layers_of(plain, own, jnp.zeros(16)), coords, 30.0)
        for z, reference in zip(zs, references, strict=True):
            np.testing.assert_allclose(jnp.var(z), jnp.var(reference), rtol=0.15)


def test_neutral_gates_leave_the_layers_as_they_are():
    field, variables = started(FieldConfig(**SMALL))
    layers = layers_of(field, variables, jnp.zeros(16))
    shapes = [kernel.shape for kernel, _ in layers[1:-1]]
    zero = [jnp.zeros((rows, 4)) for rows, _ in shapes], [jnp.ones((columns, 4)) for _, columns in shapes]
    for (kernel, bias), (after, same) in zip(layers, modulations.low_rank_gates(layers, *zero, gain=2.0), strict=True):
        np.testing.assert_array_equal(kernel, after)
        np.testing.assert_array_equal(bias, same)


def test_gates_are_the_low_rank_sigmoid_and_leave_first_and_last_layer_alone():
    layers = [(jnp.ones((2, 3)), jnp.zeros(3)), (jnp.full((3, 3), 2.0), jnp.zeros(3)), (jnp.ones((3, 1)), jnp.zeros(1))]
    u, v = jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, -1.0]]), jnp.array([[0.5, 1.0], [0.0, -1.0], [2.0, 0.0]])
    gated = modulations.low_rank_gates(layers, [u], [v], gain=1.5)
    expected = 1.5 / (1 + np.exp(-np.asarray(u) @ np.asarray(v).T)) * 2.0
    np.testing.assert_allclose(gated[1][0], expected, rtol=1e-6)
    np.testing.assert_array_equal(gated[0][0], layers[0][0])
    np.testing.assert_array_equal(gated[2][0], layers[2][0])


def test_shifts_and_a_linear_map_of_the_latent_agree():
    config = FieldConfig(modulation="latent_shifts", num_layers=3, width=8, latent_dim=5)
    field, variables = started(config)
    latent = jax.random.normal(jax.random.key(1), (5,))
    base = layers_of(field, variables, jnp.zeros(5))
    flat = np.asarray(latent) @ np.asarray(variables["params"]["projection"])
    for i, (_, bias) in enumerate(layers_of(field, variables, latent)[:-1]):
        np.testing.assert_allclose(bias, base[i][1] + flat[8 * i : 8 * i + 8], rtol=1e-5)


@pytest.mark.parametrize("gain", [0.5, 4.0])
def test_latents_of_unit_variance_shift_phases_by_the_projection_gain(gain):
    config = FieldConfig(modulation="latent_shifts", num_layers=3, width=64, latent_dim=32, omega_0=20.0, projection_gain=gain)
    field, variables = started(config)
    base = layers_of(field, variables, jnp.zeros(32))
    latents = jax.random.normal(jax.random.key(3), (50, 32))
    shifted = jax.vmap(lambda phi: layers_of(field, variables, phi))(latents)
    phases = [20.0 * (after - bias) for (_, after), (_, bias) in zip(shifted[:-1], base[:-1], strict=True)]
    np.testing.assert_allclose(jnp.std(jnp.concatenate(phases, axis=1)), gain, rtol=0.1)


def test_a_field_whose_output_kernel_is_zero_is_its_output_bias():
    field, variables = started(FieldConfig(num_layers=2, width=6, latent_dim=3, output_bias=0.3))
    params = {**variables["params"], "kernel_2": jnp.zeros((6, 3))}
    values = field.apply({"params": params}, jnp.asarray(pixel_grid((3, 4))), jnp.ones(3))
    np.testing.assert_allclose(values, np.full((12, 3), 0.3), rtol=1e-6)


@pytest.mark.parametrize("modulation", FIELDS)
def test_layers_then_evaluate_is_the_field(modulation):
    config = FieldConfig(modulation=modulation, num_layers=3, width=16, latent_dim=4, hyper_width=8)
    field, variables = started(config)
    coords, latent = jnp.asarray(pixel_grid((5, 7))), jax.random.normal(jax.random.key(2), (config.latent_size(),))
    by_layers = evaluate(config, layers_of(field, variables, latent), coords)
    np.testing.assert_array_equal(field.apply(variables, coords, latent), by_layers)


@pytest.mark.parametrize("modulation", ["latent_shifts", "low_rank_gates", "shifts", "weight_update"])
def test_the_latent_has_a_gradient_of_ordinary_size_at_zero(modulation):
    config = FieldConfig(modulation=modulation, **SMALL)
    field, variables = started(config)
    coords = jnp.asarray(pixel_grid((16, 16)))
    gradient = jax.grad(lambda phi: jnp.mean(jnp.square(field.apply(variables, coords, phi))))(jnp.zeros(config.latent_size()))
    assert np.isfinite(gradient).all()
    assert 1e-6 < float(jnp.linalg.norm(gradient)) < 10.0


def test_unknown_modulation_and_sine_name_the_valid_ones():
    with pytest.raises(ValueError, match="low_rank_gates"):
        FieldConfig(modulation="lowrank")
    with pytest.raises(ValueError, match="exact, fast"):
        FieldConfig(sine="slow")
    with pytest.raises(ValueError, match="gaussian, geometric, nerf, none"):
        FieldConfig(encoding="fourier")
    with pytest.raises(ValueError, match="relu, sine"):
        FieldConfig(activation="gelu")
    with pytest.raises(ValueError, match="rank"):
        FieldConfig(rank=0)


def test_a_latent_of_shifts_is_added_to_the_biases_before_the_last():
    field, variables = started(FieldConfig(modulation="shifts", num_layers=3, width=8, last_width=5, linear_head=True))
    assert field.config.latent_size() == 8 + 8 + 5
    latent = jax.random.normal(jax.random.key(1), (21,))
    base = field.apply(variables, jnp.zeros(21), method="modulate")
    shifted = field.apply(variables, latent, method="modulate")
    np.testing.assert_allclose(
        np.concatenate([b - a for (_, a), (_, b) in zip(base, shifted, strict=True)])[:21], latent, atol=1e-6
    )
    np.testing.assert_array_equal(shifted[-1][1], base[-1][1])
    for (kernel, _), (same, _) in zip(base, shifted, strict=True):
        np.testing.assert_array_equal(kernel, same)
    assert variables["params"]["head_kernel"].shape == (21, 5, 3)


def test_a_latent_of_weights_reaches_any_other_network():
    config = FieldConfig(modulation="weight_update", num_layers=2, width=7, encoding="nerf", num_frequencies=3)
    (field, variables), (_, other) = started(config, 0), started(config, 1)
    zero = jnp.zeros(config.latent_size())
    here, there = (siren.flatten(layers_of(field, v, zero)) for v in (variables, other))
    assert here.shape == (7 * 15 + 7 * 8 + 3 * 8,)
    np.testing.assert_allclose(siren.flatten(layers_of(field, variables, there - here)), there, atol=1e-7)


@pytest.mark.parametrize("encoding", ["none", "nerf", "gaussian"])
@pytest.mark.parametrize("activation", ["sine", "relu"])
def test_encoding_and_activation_by_hand(encoding, activation):
    config = FieldConfig(modulation="none", num_layers=2, width=9, encoding=encoding, num_frequencies=4, activation=activation)
    field, variables = started(config)
    coords = jnp.asarray(pixel_grid((6, 5)))
    hidden = np.asarray(encode(config, coords), np.float64)
    for i in range(2):
        entering = hidden @ np.asarray(variables["params"][f"kernel_{i}"]) + np.asarray(variables["params"][f"bias_{i}"])
        hidden = np.sin(config.omega_0 * entering) if activation == "sine" else np.maximum(entering, 0)
    expected = hidden @ np.asarray(variables["params"]["kernel_2"]) + np.asarray(variables["params"]["bias_2"])
    np.testing.assert_allclose(field.apply(variables, coords, jnp.zeros(64)), expected, atol=2e-5)


def test_a_switch_gates_the_first_layer_too():
    coords, latent = jnp.zeros((1, 2)), jnp.ones(8)
    kernels = {}
    for first in (False, True):
        field = make_field(FieldConfig(num_layers=3, width=5, latent_dim=8, rank=2, gate_first=first))
        variables = field.init(jax.random.key(0), coords, latent)
        gates = field.apply(variables, latent, method="layers")
        kernels[first] = [kernel / variables["params"][f"kernel_{i}"] for i, (kernel, _) in enumerate(gates)]
    np.testing.assert_array_equal(kernels[False][0], 1.0)
    assert np.std(kernels[True][0]) > 1e-3 and np.linalg.matrix_rank(np.log(kernels[True][0] / (2 - kernels[True][0])), 1e-3) <= 2
    for gated in kernels.values():
        np.testing.assert_array_equal(gated[-1], 1.0)
        assert np.std(gated[1]) > 1e-3 and np.std(gated[2]) > 1e-3


def test_defaults_never_change():
    """A stored description leaves them out: another default would decode old files to something else."""
    assert dataclasses.asdict(FieldConfig()) == {
        "coord_dim": 2, "channels": 3, "num_layers": 5, "width": 64, "omega_0": 30.0, "latent_dim": 64,
        "modulation": "low_rank_gates", "sine": "fast", "rank": 4, "gate_gain": 2.0, "hyper_width": 128, "hyper_depth": 2,
        "output_bias": 0.5, "linear_head": False, "last_width": 0, "encoding": "none", "num_frequencies": 16,
        "encoding_scale": 1.4, "activation": "sine", "projection_gain": 1.0,
        "gate_first": False,
    }  # fmt: skip


def test_a_description_holds_what_differs_and_makes_the_same_field():
    assert FieldConfig().described() == {}
    config = FieldConfig(modulation="shifts", width=32, omega_0=30.0, encoding="nerf", linear_head=True)
    assert config.described() == {"modulation": "shifts", "width": 32, "encoding": "nerf", "linear_head": True}
    assert FieldConfig(**config.described()) == config


def test_an_encoding_too_fine_for_float32_is_refused_with_the_mend():
    for encoding, changes in (("nerf", {"num_frequencies": 40}), ("gaussian", {"encoding_scale": 1e4})):
        FieldConfig(**changes)
        with pytest.raises(ValueError, match=f"{encoding} encoding reaches .* lower field.num_frequencies"):
            FieldConfig(encoding=encoding, **changes)
    with pytest.raises(ValueError, match="lower field.num_frequencies"):
        FieldConfig(encoding="nerf", encoding_scale=1e300)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="encoding_scale must be positive"):
        FieldConfig(encoding_scale=value)

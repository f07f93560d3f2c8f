"""The inner loop and the loss after it: closed forms of fields that are linear in φ, curvature, drawn coordinates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.adaptation import meta_learning
from vcinr.adaptation.inner_loop import step_size
from vcinr.adaptation.meta_learning import AdaptationConfig, adapt_latent, draw, meta_loss, meta_stage, signal_loss, subset
from vcinr.fields.field import FieldConfig, make_field
from vcinr.signals.grids import pixel_grid
from vcinr.stage import TrainingConfig

N, K, C = 24, 3, 3
COORDS = jnp.asarray(pixel_grid((4, 6)))
VALUES = jnp.asarray(np.random.default_rng(0).random((N, C)), jnp.float32)


@dataclasses.dataclass(frozen=True)
class Config:
    """What meta-learning reads of a codec's config."""

    field: FieldConfig
    adaptation: AdaptationConfig = AdaptationConfig()
    patch: tuple[int, ...] = (4, 6)
    modality: str = "picture"
    meta: TrainingConfig = TrainingConfig()


def linear_config(**adaptation):
    field = FieldConfig(num_layers=2, width=8, modulation="none", linear_head=True, latent_dim=K)
    return Config(field, AdaptationConfig(**{"num_steps": 2, **adaptation}))


def linear_case(config):
    """(θ, φ₀ and step sizes as after training, ψ₀ [N, C], Ψ [N, C, K])."""
    trained = meta_learning.init(config, jax.random.key(0))
    rng = np.random.default_rng(1)
    for name in ("head_kernel", "head_bias"):
        trained["shared"][name] = jnp.asarray(rng.normal(0, 0.5, trained["shared"][name].shape), jnp.float32)
    trained["latent_init"] = jnp.asarray(rng.normal(0, 1, K), jnp.float32)
    log_scale = jnp.asarray(rng.uniform(-2, 0, (2, K)), jnp.float32)
    trained["step_sizes"] = {"log_scale": log_scale, "reference": jnp.float32(0.4)}
    field = make_field(config.field)
    offset = field.apply({"params": trained["shared"]}, COORDS, jnp.zeros(K))
    basis = [field.apply({"params": trained["shared"]}, COORDS, one) - offset for one in jnp.eye(K)]
    return trained, np.asarray(offset, np.float64), np.stack(basis, axis=-1).astype(np.float64)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_latent_of_a_linear_field_has_its_closed_form(weighted, masked):
    """φ ← φ − m ⊙ α_t ⊙ 2/(N C) Ψᵀ W (ψ₀ + Ψ φ − y): the sum over the samples inside, divided by all samples of a patch."""
    config = linear_config()
    trained, offset, basis = linear_case(config)
    weight = (np.arange(N) % 3 > 0).astype(np.float32) if weighted else None
    mask = np.float32([1, 0, 0.5]) if masked else None
    latent = np.asarray(trained["latent_init"], np.float64)
    for row in np.asarray(trained["step_sizes"]["log_scale"], np.float64):
        residual = (offset + basis @ latent - VALUES) * (1 if weight is None else weight[:, None])
        gradient = 2 / (N * C) * np.tensordot(residual, basis, 2)
        latent = latent - (1 if mask is None else mask) * 0.4 * np.exp(row) * gradient
    options = {"weight": None if weight is None else jnp.asarray(weight), "mask": None if mask is None else jnp.asarray(mask)}
    np.testing.assert_allclose(adapt_latent(config, trained, VALUES, **options), latent, rtol=1e-4, atol=1e-5)


class Source:
    """Patches of growing contrast."""

    def batch(self, rng, size):
        return {"values": (np.arange(1, size + 1)[:, None, None] * rng.normal(0, 0.3, (size, N, C))).astype(np.float32)}


def test_step_sizes_start_at_their_share_of_the_inverse_of_the_largest_curvature():
    field = FieldConfig(num_layers=2, width=8, modulation="latent_shifts", latent_dim=K)
    config = Config(field, AdaptationConfig(initial_step=0.25))
    trained = meta_learning.start(config, jax.random.key(1), meta_learning.init(config, jax.random.key(0)), Source())

    def hessian(values):
        return jax.hessian(lambda phi: signal_loss(config, trained["shared"], phi, values))(trained["latent_init"])

    patches = jnp.asarray(Source().batch(np.random.default_rng(0), 8)["values"])
    curvatures = np.abs(np.linalg.eigvalsh(jax.vmap(hessian)(patches))).max(axis=1)
    assert curvatures.min() < 0.7 * curvatures.max()
    alpha = step_size(meta_learning.StepSizes(**trained["step_sizes"]))
    assert alpha.shape == (3, K)
    np.testing.assert_allclose(alpha, np.full((3, K), 0.25 / curvatures.max()), rtol=0.05)


@pytest.mark.parametrize("learn_start", [False, True])
def test_what_is_measured_or_fixed_has_no_gradient(learn_start):
    config = linear_config(learn_start=learn_start)
    trained, _, _ = linear_case(config)
    gradient = jax.grad(lambda t: meta_stage(config).loss(t, {}, {"values": VALUES}, jax.random.key(0))[0])(trained)
    assert float(gradient["step_sizes"]["reference"]) == 0
    assert (np.asarray(gradient["step_sizes"]["log_scale"]) != 0).all()
    assert (np.asarray(gradient["latent_init"]) != 0).all() == learn_start


def test_drawn_coordinates_are_different_ones_with_their_own_values():
    config = linear_config(subset=20)
    for seed in range(20):
        values, coords = subset(config, jnp.concatenate([COORDS, COORDS[:, :1]], axis=1), jax.random.key(seed))
        np.testing.assert_array_equal(values[:, :2], coords)
        assert len({tuple(row) for row in np.asarray(coords).tolist()}) == 20


def test_a_field_adapts_to_one_draw_and_is_measured_on_another():
    config, key = linear_config(subset=9), jax.random.key(5)
    trained, offset, basis = linear_case(config)
    (inner, inner_coords), (outer, outer_coords) = draw(config, VALUES, key)
    assert {tuple(row) for row in np.asarray(inner_coords).tolist()} != {tuple(row) for row in np.asarray(outer_coords).tolist()}
    latent = np.asarray(adapt_latent(config, trained, inner, coords=inner_coords), np.float64)
    place = [int(np.argmin(np.abs(np.asarray(COORDS) - row).sum(axis=1))) for row in np.asarray(outer_coords)]
    expected = np.mean((offset[place] + basis[place] @ latent - np.asarray(outer)) ** 2)
    found, metrics = meta_loss(config, trained, {"values": VALUES}, key)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["psnr_db"], -10 * np.log10(expected), rtol=1e-4)


def test_validation_looks_at_all_coordinates():
    config = linear_config(subset=9)
    trained, offset, basis = linear_case(config)
    latent = np.asarray(adapt_latent(config, trained, VALUES), np.float64)
    found, _ = meta_stage(config).evaluate(trained, {}, {"values": VALUES}, jax.random.key(0))
    np.testing.assert_allclose(found, np.mean((offset + basis @ latent - VALUES) ** 2), rtol=1e-4)

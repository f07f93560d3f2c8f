"""KLT: principal components, dead zone, optimal truncation, agreement with a plain computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.codecs.klt import KLT, KLTConfig, quantise, reconstruct
from vcinr.codecs.principal_components import principal_components
from vcinr.model import load, make_model
from vcinr.signals.sources import PatchSource
from vcinr.training.run import train


def test_components_are_orthonormal_and_keep_the_most_variance():
    rng = np.random.default_rng(0)
    patches = (rng.normal(size=(400, 12)) @ rng.normal(size=(12, 12)) + 3).astype(np.float32)
    mean, basis = principal_components(patches, 5)
    np.testing.assert_allclose(mean, patches.mean(0), rtol=1e-5)
    np.testing.assert_allclose(basis @ basis.T, np.eye(5), atol=1e-5)
    kept = np.square((patches - mean) @ basis.T).sum() / len(patches)
    spectrum = np.linalg.eigvalsh(np.cov(patches.T, bias=True))
    np.testing.assert_allclose(kept, spectrum[-5:].sum(), rtol=1e-4)


def test_dead_zone():
    config, shared = KLTConfig(rounding=0.42), (np.zeros(1, np.float32), np.ones((1, 1), np.float32), np.float32(2.0))
    for value, symbol in ((0.0, 0), (1.15, 0), (1.17, 1), (-1.17, -1), (3.15, 1), (3.17, 2), (-3.17, -2)):
        assert int(quantise(config, shared, jnp.array([value], jnp.float32))[0]) == symbol
    np.testing.assert_allclose(reconstruct(config, shared, jnp.array([3])), [6.0])


def test_a_fine_step_with_all_components_is_near_lossless(picture):
    codec = KLT(KLTConfig(patch=(4, 4), num_components=48, steps=(40.0, 1.0), num_patches=500))
    params = codec.stages()[0].finish({}, codec._fit(jax.random.key(0), {}, codec._examples({}, PatchSource([picture], (4, 4)))))
    model = make_model(codec, params, {})
    fine, coarse = model.encode(picture, 1), model.encode(picture, 0)
    assert len(fine) > len(coarse)
    assert np.abs(model.decode(fine).astype(int) - picture).max() <= 2
    errors = [np.mean((model.decode(data).astype(float) - picture) ** 2) for data in (fine, coarse)]
    assert errors[0] < errors[1]


def test_points_rise_in_rate_and_quality(klt_model_dir, picture):
    model = load(klt_model_dir)
    files = [model.encode(picture, point) for point in range(len(model.points))]
    sizes = [len(data) for data in files]
    errors = [np.mean((model.decode(data).astype(float) - picture) ** 2) for data in files]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


@pytest.mark.slow
def test_the_floor_agrees_with_its_known_figures_on_cifar10(vcinr_data, tmp_path):
    # Known: 1.19 bpp at 28.2 dB, 2.18 at 32.1 (entropy of static tables; mean PSNR of the 517 test pictures).
    from vcinr.evaluation.bd_rate import psnr_at
    from vcinr.evaluation.measure import measure

    archive = np.load(vcinr_data / "cifar10_small.npz")
    codec = KLT(KLTConfig(offsets_per_picture=1))
    params = train(codec, PatchSource(list(archive["x_train"]), (32, 32)), seed=0, workdir=tmp_path, quiet=True)
    rows = measure(make_model(codec, params, {}), list(archive["x_test"]), "cifar10_small", "test")
    curve = [(row["bpp_estimated"], row["psnr_db"]) for row in rows]
    for bpp, known in ((0.87, 26.6), (1.19, 28.2), (1.59, 29.9), (2.18, 32.1), (2.76, 34.0)):
        assert abs(psnr_at(curve, bpp) - known) < 0.2, bpp

"""KLT: principal components, dead zone, optimal truncation, agreement with a plain computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.codec import EncodeRequest
from vcinr.codecs.klt import KLT, KLTConfig, quantise, reconstruct
from vcinr.datasets.sources import PatchSource
from vcinr.evaluation.measure import measure
from vcinr.model.finding import load
from vcinr.model.model import make_model
from vcinr.signals.patches import to_signal
from vcinr.signals.principal_components import principal_components
from vcinr.stage import Workplace
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
    (stage,) = codec.stages()
    source = stage.examples({}, PatchSource([picture], (4, 4)))
    params = stage.solve(jax.random.key(0), {}, source, Workplace("", lambda what, done, total: None))
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


@pytest.mark.parametrize("effort", [1, -1])
def test_an_effort_that_it_does_not_have_is_refused(klt_model_dir, effort):
    model = load(klt_model_dir)
    signal = to_signal(np.zeros((8, 8, 3), np.float32), (8, 8))
    with pytest.raises(ValueError, match=rf"effort lies in 0 alone for klt, not {effort}"):
        model.codec.encode(model.params, [signal], 0, EncodeRequest(effort=effort))


@pytest.mark.slow
def test_the_floor_on_cifar10_is_a_plain_computation_and_no_worse_than_its_known_figures(vcinr_data, tmp_path):
    archive = np.load(vcinr_data / "cifar10_small.npz")
    train_pictures, test_pictures = archive["x_train"][:4500], archive["x_test"]
    codec = KLT(KLTConfig(offsets_per_picture=1, num_components=1024, steps=(120.0, 56.0, 27.0)))
    params = train(codec, PatchSource(list(train_pictures), (32, 32)), seed=0, workdir=tmp_path, quiet=True)
    rows = measure(make_model(codec, params, {}), list(test_pictures), "cifar10_small", "test")

    flat = np.concatenate([train_pictures, train_pictures[:, :, ::-1]]).reshape(9000, -1).astype(np.float32)
    mean = flat.mean(0)
    _, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean))
    basis = vectors[:, :-1025:-1].T
    for row, step in zip(rows, codec.config.steps, strict=True):
        z = (test_pictures.reshape(517, -1) - mean) @ basis.T / step
        symbols = np.sign(z) * np.floor(np.abs(z) + 0.42)
        decoded = np.rint(np.clip(mean + step * symbols @ basis, 0, 255))
        psnr = -10 * np.log10(np.mean((decoded - test_pictures.reshape(517, -1)) ** 2, axis=1) / 255**2)
        assert abs(row["psnr_db"] - psnr.mean()) < 0.02
        entropy = 0.0
        for column in symbols.T:
            share = np.unique(column, return_counts=True)[1] / 517
            entropy -= np.sum(share * np.log2(share))
        # No static table costs less than the test symbols' own entropy; those of the training symbols cost little more.
        assert entropy / 1024 < row["bpp_estimated"] < 1.15 * entropy / 1024
    # Known from a prototype whose tables were smoothed more crudely: entropy of static tables, mean PSNR of the same pictures.
    for row, known in zip(rows, [(0.53, 24.5), (1.19, 28.2), (2.18, 32.1)], strict=True):
        slope = 20 * np.log10(2) / 3  # decibels for one bit per value at high rate, three values per pixel
        assert row["psnr_db"] - slope * (row["bpp_estimated"] - known[0]) > known[1] - 0.2

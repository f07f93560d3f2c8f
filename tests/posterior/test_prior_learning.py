"""Priors learned by the real training loop: closed forms, resuming, going on; where posteriors of new signals start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.codecs import make_codec
from vcinr.datasets.sources import ArraySource, PatchSource
from vcinr.posterior import prior_learning
from vcinr.posterior.gaussians import NATS_PER_BIT, Gaussian, best_prior, from_tree, kl_nats, positive, to_tree
from vcinr.posterior.partition import Partition
from vcinr.posterior.prior_learning import first_posterior, linear_start, one_per_layer
from vcinr.training.run import train
from vcinr.trees import load_tree

TRAINING = {
    "num_steps": 160,
    "batch_size": 8,
    "warmup_steps": 2,
    "average_decay": 0.0,
    "clip_norm": 0.0,
    "collapse_db": 0.0,
    "checkpoint_every": 50,
}
CONFIG = {
    "patch": (4, 4),
    "field": {"num_layers": 1, "width": 4, "num_frequencies": 1},
    "betas": (3e-2, 1e-4),
    "prior": {
        "training": TRAINING,
        "num_patches": 16,
        "go_on_steps": 80,
        "lr": 2e-2,
        "first_update": 20,
        "update_every": 20,
        "start_components": 2,
    },
    "coding": {"budget": 6},
}


def codec(**prior):
    return make_codec("combiner", {**CONFIG, "prior": {**CONFIG["prior"], **prior}})


def patches():
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (16, 1, 1, 3))
    return PatchSource([np.broadcast_to(level, (4, 4, 3)).astype(np.uint8) for level in levels], (4, 4))


def run(workdir):
    return train(codec(), patches(), seed=3, workdir=workdir, quiet=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(parameters, what each stage left)."""
    workdir = tmp_path_factory.mktemp("combiner")
    params = run(workdir)
    return params, {stage.name: load_tree(workdir / stage.name / "finished.safetensors") for stage in codec().stages()}


def posteriors(stage):
    found = from_tree(stage["fitted"]["posteriors"])
    return Gaussian(found.mean, np.asarray(found.scale))


def bits(stage):
    q, prior = posteriors(stage), Gaussian(**stage["fitted"]["prior"])
    return np.asarray(kl_nats(q, prior)).sum(1).mean() / NATS_PER_BIT


@pytest.mark.parametrize("point", ["1", "0"])
def test_the_prior_is_the_best_one_of_the_last_posteriors(trained, point):
    params, stages = trained
    stage = stages[f"prior_{point}"]
    expected = best_prior(posteriors(stage))
    for name in ("mean", "scale"):
        np.testing.assert_allclose(params["points"][point]["prior"][name], getattr(expected, name), rtol=1e-6)
        np.testing.assert_array_equal(stage["fitted"]["prior"][name], params["points"][point]["prior"][name])
    assert "fitted" not in params


def test_a_larger_beta_buys_fewer_bits(trained):
    _, stages = trained
    assert bits(stages["prior_0"]) < 0.7 * bits(stages["prior_1"])


def test_blocks_hold_the_budget_on_average(trained):
    params, stages = trained
    kl = np.asarray(kl_nats(posteriors(stages["prior_1"]), Gaussian(**stages["prior_1"]["fitted"]["prior"]))) / NATS_PER_BIT
    partition = Partition.from_arrays(params["points"]["1"]["blocks"])
    assert partition.num_blocks > 1
    for block in range(partition.num_blocks):
        members = partition.members(block)
        assert len(members) == 1 or kl[:, members].mean(0).sum() < 6 + 1e-4


@pytest.mark.slow
def test_interrupted_and_resumed_is_never_interrupted(trained, tmp_path, monkeypatch):
    """Stopped at an update of the prior, between two checkpoints, of the first stage and of the second."""
    for survives in (5, 5):
        calls = []

        def dying(q, calls=calls, survives=survives):
            calls.append(None)
            if len(calls) > survives:
                raise InterruptedError
            return best_prior(q)

        with monkeypatch.context() as patch:
            patch.setattr(prior_learning, "best_prior", dying)
            with pytest.raises(InterruptedError):
                run(tmp_path)
    whole, parts = (jax.tree_util.tree_leaves_with_path(tree) for tree in (trained[0], run(tmp_path)))
    for (path, one), (again, two) in zip(whole, parts, strict=True):
        assert path == again
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes(), path


def test_a_second_beta_starts_where_the_first_one_ended(trained):
    _, stages = trained
    (_, blocks, second, _), key = codec().stages(), jax.random.key(0)
    before, source = stages[blocks.name], ArraySource({"values": np.zeros((16, 16, 3), np.float32)})
    jax.tree.map(np.testing.assert_array_equal, second.per_signal.init(key, before, source), before["fitted"]["posteriors"])
    (learned,) = before["points"].values()
    jax.tree.map(np.testing.assert_array_equal, second.init(key, before, source)["prior"], learned["prior"])
    assert second.training.num_steps == 80
    anew = make_codec("combiner", {**CONFIG, "go_on": False}).stages()[2]
    start = anew.per_signal.init(key, before, source)
    assert anew.training.num_steps == 160
    assert np.abs(np.asarray(start["mean"]) - before["fitted"]["posteriors"]["mean"]).max() > 0.01
    # All signals begin at one network, or their weights would not be comparable.
    assert (np.ptp(np.asarray(start["mean"]), axis=0) == 0).all()


def test_a_stages_loss_is_distortion_and_divergence_and_leaves_the_prior_alone():
    network, stage, beta = codec().network, codec().stages()[0], CONFIG["betas"][0]
    assert stage.name == "prior_0"
    shared, mean = network.init(jax.random.key(0))
    prior = {"mean": mean + 0.1, "scale": jnp.asarray(network.typical_scale())}
    own = to_tree(Gaussian(mean, 0.1 * network.typical_scale()))
    example = {"values": jnp.full((16, 3), 0.4)}

    def value(trainable):
        return stage.loss(trainable, jnp.asarray(stage.frozen({})), example, jax.random.key(1), own)

    (total, metrics), gradient = jax.value_and_grad(value, has_aux=True)({"prior": prior, "shared": shared})
    nats = float(kl_nats(from_tree(own), Gaussian(**prior)).sum())
    assert float(metrics["kl_bits"]) == pytest.approx(nats / np.log(2), rel=1e-5)
    assert float(total) == pytest.approx(float(metrics["distortion"]) + beta * nats, rel=1e-5)
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(gradient))


def test_no_prior_is_learned_before_its_first_update():
    stage = codec(first_update=20).stages()[0]
    rng = np.random.default_rng(0)
    size = codec().network.size
    signals = to_tree(Gaussian(rng.normal(size=(9, size)), np.exp(rng.normal(size=(9, size)))))
    trainable = {"prior": {"mean": np.zeros(size), "scale": np.ones(size)}, "shared": {}}
    early, _ = stage.host_update(trainable, signals, 19)
    assert early["prior"] is trainable["prior"]
    late, untouched = stage.host_update(trainable, signals, 20)
    assert untouched is signals
    np.testing.assert_allclose(late["prior"]["mean"], signals["mean"].mean(0), rtol=1e-5, atol=1e-6)
    short = codec(first_update=10**6).stages()[0]
    last, _ = short.host_update(trainable, signals, short.training.num_steps)
    np.testing.assert_array_equal(last["prior"]["mean"], late["prior"]["mean"])
    grouped, _ = codec(per_layer=True).stages()[0].host_update(trainable, signals, 20)
    assert len(np.unique(grouped["prior"]["scale"])) == 2


def test_one_deviation_per_layer_is_the_best_one():
    network = make_codec(
        "combiner_plus",
        {
            "field": {"num_layers": 1, "width": 4, "num_frequencies": 1},
            "patch": (4, 4),
            "positional": {"channels": 2, "stride": 2},
        },
    ).network
    rng = np.random.default_rng(0)
    prior = Gaussian(rng.normal(size=network.size), np.exp(rng.normal(size=network.size)))
    found = one_per_layer(network, prior)
    assert not found.mean.any()
    counts = [*((a + 1) * b for a, b in network.sizes()), 8]
    for scale, own in zip(np.split(found.scale, np.cumsum(counts)[:-1]), split(prior, counts), strict=True):
        assert np.ptp(scale) == 0
        costs = [float(kl_nats(own, Gaussian(0.0, float(scale[0]) * factor)).mean()) for factor in (0.97, 1.0, 1.03)]
        assert costs[1] < min(costs[0], costs[2])


def split(gaussian, counts):
    return [Gaussian(*pair) for pair in zip(*(np.split(part, np.cumsum(counts)[:-1]) for part in gaussian), strict=True)]


def test_a_linear_start_finds_a_linear_relation():
    """Posterior means that are linear in two components of the values are predicted for new values, up to the ridge."""
    rng = np.random.default_rng(0)
    basis, weights, centre = rng.normal(size=(2, 12)), rng.normal(size=(2, 7)), rng.normal(size=12)
    coefficients = rng.normal(size=(1500, 2))
    values = (coefficients @ basis + centre).astype(np.float32)
    scale = np.exp(rng.normal(size=(1500, 7)))
    start = linear_start(values, Gaussian((coefficients @ weights + 3.0).astype(np.float32), scale), 2)
    assert start["weights"].shape == (2, 7)
    new = rng.normal(size=(5, 2))
    found = first_posterior({"start": start}, (new @ basis + centre).astype(np.float32).reshape(5, 4, 3))
    np.testing.assert_allclose(found["mean"], new @ weights + 3.0, atol=0.03)
    np.testing.assert_allclose(positive(found["raw_scale"]), np.broadcast_to(np.exp(np.log(scale).mean(0)), (5, 7)), rtol=1e-4)


def test_a_linear_start_takes_no_more_components_than_patches_can_tell():
    rng = np.random.default_rng(0)
    q = Gaussian(rng.normal(size=(12, 5)).astype(np.float32), np.ones((12, 5)))
    assert linear_start(rng.normal(size=(12, 30)).astype(np.float32), q, 128)["weights"].shape == (3, 5)
    # Unrelated posteriors are predicted with less than their spread: the ridge holds back.
    values, noise = rng.normal(size=(200, 30)).astype(np.float32), rng.normal(size=(200, 5)).astype(np.float32)
    start = linear_start(values, Gaussian(noise, np.ones((200, 5))), 50)
    predicted = first_posterior({"start": start}, rng.normal(size=(200, 10, 3)).astype(np.float32))["mean"]
    assert predicted.std() < 0.6 * noise.std()


def test_without_a_linear_start_new_posteriors_are_the_prior():
    prior = {"mean": np.array([0.5, -1.0], np.float32), "scale": np.array([0.1, 3.0], np.float32)}
    found = first_posterior({"prior": prior}, np.zeros((3, 16, 3), np.float32))
    np.testing.assert_array_equal(found["mean"], np.tile(prior["mean"], (3, 1)))
    np.testing.assert_allclose(positive(found["raw_scale"]), np.tile(prior["scale"], (3, 1)), rtol=1e-5)

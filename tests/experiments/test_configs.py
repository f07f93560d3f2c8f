"""Configs: every variant builds its codec and survives JSON; every gradient stage has a step at every size."""

import dataclasses
import importlib
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import base, coinpp, klt, strumpler, vc_inr
from configs.kinds import KINDS
from tests.conftest import smooth_picture
from vcinr.codec import grid_of
from vcinr.codecs import CODECS, coin
from vcinr.datasets.sources import ArraySource, PatchSource
from vcinr.fields import siren
from vcinr.modalities import MODALITIES
from vcinr.stage import ClosedForm, Workplace
from vcinr.training.optimisers import make_optimiser
from vcinr.training.run import train
from vcinr.weights.fit import FitConfig, fit_loss

NAMES = sorted(path.stem for path in Path(base.__file__).parent.glob("*.py") if path.stem not in ("__init__", "base", "kinds"))
FILES = {name: importlib.import_module(f"configs.{name}") for name in NAMES}
NOWHERE = Workplace("", lambda what, done, total: None)
VARIANTS = [(file, name) for file in FILES for name in FILES[file].VARIANTS]


def test_every_codec_has_its_configs():
    assert {FILES[file].get_config(name).codec for file, name in VARIANTS} == set(CODECS)
    for file in FILES.values():
        assert file.get_config().to_json() == file.get_config(next(iter(file.VARIANTS))).to_json()
    assert {"demo", "cifar10_small", "kodak"} <= set(klt.VARIANTS)
    assert {"demo", "cifar10", "cifar10_small", "kodak"} <= set(vc_inr.VARIANTS)


@pytest.mark.parametrize(("file", "name"), VARIANTS)
def test_a_variant_is_locked_builds_its_codec_and_survives_json(file, name):
    config = FILES[file].get_config(name)
    assert config.is_locked
    built = base.codec_of(config)
    assert (built.name, built.patch) == (config.codec, tuple(config.get("patch", ())))
    assert built.name.startswith(file)
    again = ConfigDict(json.loads(config.to_json()))
    assert base.codec_of(again).config == built.config
    assert json.loads(again.to_json()) == json.loads(config.to_json())
    assert json.loads(json.dumps(dataclasses.asdict(built.config))) == {
        key: value for key, value in json.loads(config.to_json()).items() if key not in base.COMMON or hasattr(built.config, key)
    }


@pytest.mark.parametrize(("file", "name"), VARIANTS)
def test_nothing_but_its_own_keys_and_types_goes_into_a_variant(file, name):
    config = FILES[file].get_config(name)
    with pytest.raises((AttributeError, KeyError), match='Did you mean "modality"|locked'):
        config.modalty = 3
    for key, wrong in (("seed", "1"), ("modality", 8), ("data", 3)):
        with pytest.raises(TypeError):
            config[key] = wrong


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_an_unknown_variant_names_the_nearest_and_all_others(file):
    first = next(iter(file.VARIANTS))
    with pytest.raises(ValueError, match=rf"no config variant '{first[:-1]}0'; did you mean '{first}'\? \(valid: {first}, "):
        file.get_config(f"{first[:-1]}0")
    with pytest.raises(ValueError, match=rf"no config variant '' \(valid: {first}, "):
        file.get_config("")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"meta": {"num_stepz": 3}}, r"meta has no key 'num_stepz'; did you mean 'num_steps'\?"),
        ({"meta": {"num_steps": 2.5}}, r"vc_inr\.meta\.num_steps must be int, not 2\.5"),
        ({"meta": {"num_steps": True}}, r"vc_inr\.meta\.num_steps must be int, not True"),
        ({"meta": {"lr": "fast"}}, r"vc_inr\.meta\.lr must be float, not 'fast'"),
        ({"meta": 3}, r"vc_inr\.meta must be TrainingConfig, not 3"),
        ({"compression": {"lambdas": (0.1, "a")}}, r"vc_inr\.compression\.lambdas must be float, not 'a'"),
        ({"compression": {"bits": (3, 4)}}, r"vc_inr\.compression has no key 'bits'"),
        ({"compression": {"kind": "zip"}}, r"vc_inr\.compression has no kind 'zip'"),
    ],
)
def test_a_config_refuses_what_its_codec_does_not_have(values, message):
    with pytest.raises(ValueError, match=message):
        base.make_config("vc_inr", {}, values)


def test_a_part_of_a_nested_config_overrides_a_part_of_the_codecs_own_defaults():
    config = base.make_config("coinpp", {}, {"adaptation": {"num_steps": 2}})
    own = CODECS["coinpp"][1]().adaptation
    assert own != type(own)(), "a codec whose defaults are the type's shows nothing"
    assert base.codec_of(config).config.adaptation == dataclasses.replace(own, num_steps=2)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("meta.num_stepz", r"^config\.meta has no key 'num_stepz'; did you mean 'num_steps'\? \(valid: average_decay, "),
        ("mta.num_steps", r"^config has no key 'mta'; did you mean 'meta'\?"),
        ("field.zzz", r"^config\.field has no key 'zzz' \(valid: "),
        ("seed.x", r"^config\.seed is a value and has no key 'x'$"),
    ],
)
def test_a_path_into_a_config_leads_somewhere_or_names_the_nearest(path, message):
    config = vc_inr.get_config("demo")
    base.check_key(config, "meta.num_steps")
    with pytest.raises(ValueError, match=message):
        base.check_key(config, path)


@pytest.mark.parametrize("name", ["meta_kodak", "meta_celeba"])
def test_strumplers_weights_are_learned_by_plain_adam(name):
    training = base.codec_of(strumpler.get_config(name)).config.meta
    ours, plain = make_optimiser(training), optax.adam(training.lr)
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
    states = [ours.init(params), plain.init(params)]
    for size in (1e-6, 1e3, -2.0, 1.0):
        gradient = {"kernel": size * jnp.arange(6.0).reshape(3, 2), "bias": jnp.full(2, size)}
        (found, states[0]), (expected, states[1]) = ours.update(gradient, states[0], params), plain.update(gradient, states[1])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def test_the_demo_takes_one_step_in_each_stage(tmp_path):
    """A whole training of one step per stage, on patches a quarter as large, of pictures from no data set."""
    config = vc_inr.get_config("demo")
    config.patch = (16, 16)
    for training in (config.warm_start.training, config.meta, config.compression.training):
        training.update({"num_steps": 1, "warmup_steps": 0, "checkpoint_every": 0, "eval_every": 0})
    config.compression.update({"num_latents": 64, "prior_steps": 20, "lambdas": config.compression.lambdas[:1]})
    codec = base.codec_of(config)
    params = train(codec, PatchSource([smooth_picture(80, 96)], codec.patch), seed=0, workdir=tmp_path, quiet=True)
    trained = [stage.name for stage in codec.stages() if not isinstance(stage, ClosedForm)]
    assert trained == ["warm_start", "meta", "quantise_0"]
    for name in trained:
        (line,) = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert line["step"] == 1
        assert all(value is not None and math.isfinite(value) for value in line.values()), (name, line)
        assert min(line["grad_norm"], line["lr"]) > 0
    assert codec.num_points(params) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def quick_if_one_of_many(rows):
    """Rows of variants as parameters; demos of one codec differ in sizes alone, so one of them is enough for the quick tests."""
    alike = [row for row in rows if "demo_" in row[1] and row[1].split("demo_")[1] in KINDS and not row[1].endswith("demo_sound")]
    return [pytest.param(*row, marks=pytest.mark.slow) if row in alike else row for row in rows]


@pytest.mark.parametrize(
    ("file", "name"), quick_if_one_of_many([row for row in VARIANTS if row[0] in ("vc_inr", "contextual_inr")])
)
def test_every_stage_of_every_size_has_a_gradient_and_a_step(file, name):
    """Shapes alone, so that the paper's size costs no more than the demo's."""
    codec = base.codec_of(FILES[file].get_config(name))
    c = codec.config
    n, k, key = math.prod(c.patch), c.field.latent_dim, jax.eval_shape(lambda: jax.random.key(0))
    channels = MODALITIES[codec.modality].channels
    counts = grid_of(codec, codec.training_patch).counts if file == "contextual_inr" else ()
    rows = {"values": array(16, n, channels), "latent": array(16, *counts, k)}
    params = jax.eval_shape(codec.init, key)
    steps = 0
    for stage in codec.stages():
        if stage.name == "components":
            found = {"mean": array(n, channels), "basis": array(k, n, channels), "std": array(k), "width_loss_db": array()}
            params = {**params, "components": found}
            continue
        if stage.name == "latents":
            solve = lambda key, params, rows, s=stage: s.solve(key, params, Rows(rows), NOWHERE)
            params = jax.eval_shape(solve, key, params, rows)
            continue
        if stage.name == "tables":
            break  # in whole numbers, on the host
        trained = jax.eval_shape(lambda key, params, rows, s=stage: s.init(key, params, Rows(rows)), key, params, rows)
        frozen = jax.eval_shape(stage.frozen, params)
        example = {name: array(*rows[name].shape[1:]) for name in rows} | {"sketch": array(n, c.warm_start.sketches)}
        for loss in (stage.loss, stage.evaluate or stage.loss):
            value, metrics = jax.eval_shape(loss, trained, frozen, example, key)
            assert value.shape == ()
            assert all(metric.shape == () for metric in metrics.values())
        gradient, _ = jax.eval_shape(jax.grad(stage.loss, has_aux=True), trained, frozen, example, key)
        assert shapes(gradient) == shapes(trained)
        optimiser = make_optimiser(stage.training, jax.tree.map(lambda _: 1.0, trained) if stage.lr_multipliers else None)

        def step(trained, gradient, optimiser=optimiser):
            updates, _ = optimiser.update(gradient, optimiser.init(trained), trained)
            return optax.apply_updates(trained, updates)

        assert shapes(jax.eval_shape(step, trained, gradient)) == shapes(trained)
        steps += 1
        if stage.name.startswith("quantise_"):
            params = {**params, "points": {**params["points"], stage.name.removeprefix("quantise_"): trained}}
        elif stage.name != "warm_start":
            params = jax.eval_shape(stage.finish, params, trained)
    assert steps == c.warm_start.enabled + 1 + (1 if file == "contextual_inr" else len(c.compression.lambdas))


@pytest.mark.parametrize(
    ("file", "name"), quick_if_one_of_many([row for row in VARIANTS if row[0] not in ("klt", "vc_inr", "contextual_inr")])
)
def test_every_stage_of_every_peers_field_has_a_gradient(file, name):
    """Shapes alone, and memory of the paper's sizes that would not fit here is never taken."""
    built = base.codec_of(FILES[file].get_config(name))
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, seen = jax.eval_shape(built.init, key), set()
    for stage in built.stages():
        kind = stage.name.rstrip("0123456789")
        if kind in ("pattern", "prune_"):
            gates = params["gates"]["log_alpha"] if kind == "pattern" else params["gates"]
            params = {**params, "gates": jax.ShapeDtypeStruct(gates.shape, jnp.int32)}
            continue
        if isinstance(stage, ClosedForm):
            break
        rows = {"values": array(8, math.prod(built.training_patch), MODALITIES[built.modality].channels)}
        trained = jax.eval_shape(lambda key, params, rows, s=stage: s.init(key, params, Rows(rows)), key, params, rows)
        own = []
        if stage.per_signal is not None:
            first = lambda key, params, rows, s=stage: s.per_signal.init(key, params, Rows(rows))
            own = [jax.eval_shape(first, key, params, rows)]
        if kind not in seen:
            example, frozen = {"values": array(*rows["values"].shape[1:])}, jax.eval_shape(stage.frozen, params)
            states = [jax.tree.map(lambda leaf: array(*leaf.shape[1:]), tree) for tree in own]
            gradient, _ = jax.eval_shape(jax.grad(stage.loss, has_aux=True), trained, frozen, example, key, *states)
            assert shapes(gradient) == shapes(trained)
            make_optimiser(stage.training, stage.lr_multipliers(trained) if stage.lr_multipliers else None)
        seen.add(kind)
        params = jax.eval_shape(stage.finish, params, trained, *own)
    two = ("meta_sparse_inr", "mscn_structured", "mscn_unstructured")
    assert len(seen) == {"coin": 0, "strumpler_basic": 0, **dict.fromkeys(two, 2)}.get(built.name, 1)


@pytest.mark.parametrize("field", [(vc_inr, "cifar10"), (vc_inr, "kodak_paper"), (coinpp, "cifar10"), (coinpp, "kodak")])
def test_ten_layers_of_the_papers_count_the_output(field):
    """The weights of `Siren(num_layers=10, dim_hidden=512)` in COIN++'s code, whose last layer is the output."""
    file, name = field
    params = jax.eval_shape(base.codec_of(file.get_config(name)).init, jax.eval_shape(lambda: jax.random.key(0)))
    kernels = [params["shared"][key].shape for key in params["shared"] if key.startswith("kernel_")]
    assert sorted(kernels) == sorted([(2, 512), *[(512, 512)] * 8, (512, 3)])


FITTED_WHOLE = [row for row in VARIANTS if FILES[row[0]].get_config(row[1]).codec in ("coin", "strumpler_basic")]
WHOLE = [row for row in FITTED_WHOLE if FILES[row[0]].get_config(row[1]).modality == "picture"]


@pytest.mark.parametrize(("file", "name"), WHOLE)
def test_every_network_of_a_picture_of_kodaks_size_has_a_gradient(file, name):
    """Of the loss that a fit takes its thousands of steps on, in shapes alone."""
    built = base.codec_of(FILES[file].get_config(name))
    c, samples = built.config, 512 * 768
    values = array(samples, 3)
    for point in range(len(built.networks)):
        if built.name == "coin":
            field = built.network(dict(zip(coin.META_TYPES, (*c.points[point], c.omega_0), strict=True)))
            weights, inputs = [(array(*size), array(size[1])) for size in field.sizes()], array(samples, 2)
            loss = lambda w, x, y, of=(field, c.chunk, c.modality): coin.reconstruction_loss(of, x, w, (y, None), 0)
        else:
            fit = FitConfig(built.network(c.meta(point)), c.l1, c.chunk)
            sizes = fit.field.sizes()
            weights, inputs = array(siren.num_weights(sizes)), array(samples, sizes[0][0])
            loss = lambda w, x, y, of=fit: fit_loss(of, {"base": w, "inputs": x}, w, {"values": y, "weight": None}, 0)
        value, gradient = jax.eval_shape(jax.value_and_grad(loss), weights, inputs, values)
        assert value.shape == () and shapes(gradient) == shapes(weights)


class Rows(ArraySource):
    """The first rows of traced arrays, which no index of NumPy's can be drawn from."""

    def __init__(self, arrays):
        self.arrays = arrays

    def batch(self, rng, size):
        return {name: value[:size] for name, value in self.arrays.items()}


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

"""MSCN: files that pay for open entries alone, with the model's pattern or one of each signal's own."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.adaptation.meta_learning import AdaptationConfig
from vcinr.bitstream.fingerprint import fingerprint
from vcinr.bitstream.payload import estimated_bits
from vcinr.codec import Code
from vcinr.codecs.mscn import MSCNConfig, MSCNPerSignal, MSCNUnstructured, PerSignalConfig
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.compression.uniform import UniformConfig
from vcinr.datasets.sources import PatchSource
from vcinr.fields.field import FieldConfig
from vcinr.model.finding import load
from vcinr.model.model import make_model
from vcinr.model.places import ModelError
from vcinr.signals.patches import to_signal
from vcinr.sparsity import hard_concrete
from vcinr.sparsity.gates import GateConfig, spread
from vcinr.sparsity.gating import adapt_gated
from vcinr.stage import TrainingConfig, Workplace
from vcinr.training.run import train

STEPS = TrainingConfig(num_steps=3, batch_size=4, warmup_steps=1, lr=1e-3, collapse_db=0.0)
COMMON = {
    "patch": (6, 6),
    "sparsify": STEPS,
    "meta": STEPS,
    "compression": UniformConfig(bits=(3, 5), num_latents=64),
    "encode_batch": 8,
}
INNER = AdaptationConfig(num_steps=2, learn_start=False)
UNSTRUCTURED = MSCNConfig(
    field=FieldConfig(modulation="weight_update", num_layers=2, width=6), adaptation=INNER, gates=GateConfig(target=0.2), **COMMON
)
PER_SIGNAL = PerSignalConfig(
    field=FieldConfig(modulation="shifts", num_layers=3, width=8),
    adaptation=INNER,
    gates=GateConfig(apply="modulation", target=0.5),
    **COMMON,
)
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 20, 26, 3), np.uint8)
DECODE = (
    "import sys, numpy as np, vcinr; m = vcinr.load(sys.argv[1]); data = open(sys.argv[2], 'rb').read();"
    "p, codes, grids = m.read_codes(data); np.savez(sys.argv[3], values=m.decode(data), **codes[0].streams)"
)


def trained(codec, folder):
    return train(codec, PatchSource(PICTURES, codec.patch), seed=0, workdir=folder / "run", quiet=True)


def solved(stage, params):
    """What a stage in closed form makes of the parameters."""
    source = stage.examples and stage.examples(params, PatchSource(PICTURES, (6, 6)))
    return stage.solve(jax.random.key(0), params, source, Workplace("", lambda what, done, total: None))


@pytest.fixture(scope="module")
def shared_pattern(tmp_path_factory):
    """The folder of a model whose pattern is its own."""
    folder = tmp_path_factory.mktemp("unstructured")
    codec = MSCNUnstructured(UNSTRUCTURED)
    make_model(codec, trained(codec, folder), {}).save(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def own_patterns(tmp_path_factory):
    """The folder of a model whose files hold their patterns; log α spread over both sides, so that signals differ."""
    folder = tmp_path_factory.mktemp("per_signal")
    codec = MSCNPerSignal(PER_SIGNAL)
    params = trained(codec, folder)
    # Three training steps teach gates nothing: log α near the edge, and steps that carry some over it.
    gates = {
        **params["gates"],
        "log_alpha": np.linspace(-2.6, -1.5, 24).astype(np.float32),
        "log_step": np.float32(np.log(300.0)),
        "log_lambda": np.float32(np.log(1e-3)),
    }
    params = {**params, "gates": gates}
    params = solved(codec.stages()[-1], params)
    make_model(codec, params, {}).save(folder / "model")
    return folder / "model"


def on_device(model):
    """What the model encodes and decodes with, but for its tables."""
    codec = model.codec
    return jax.tree.map(jnp.asarray, {**codec.encoder_params(model.params), **codec.decoder_params(model.params)})


def decoded_elsewhere(model_dir, data, folder):
    (folder / "x.vcinr").write_bytes(data)
    subprocess.run([sys.executable, "-c", DECODE, model_dir, folder / "x.vcinr", folder / "y.npz"], check=True)
    return np.load(folder / "y.npz")


@pytest.mark.parametrize("shape", [(20, 13), (13, 20)])
def test_a_file_pays_for_the_open_entries_alone(shared_pattern, shape, tmp_path):
    model = load(shared_pattern)
    k = UNSTRUCTURED.field.latent_size()
    assert len(model.params["coded"]) == round(0.2 * k)
    picture = np.random.default_rng(4).integers(0, 256, (*shape, 3), np.uint8)
    data = model.encode(picture, 1)
    other = decoded_elsewhere(shared_pattern, data, tmp_path)
    (code,), (grid,) = model.make_codes([picture], 1)
    np.testing.assert_array_equal(other["latent"], code.streams["latent"])
    assert len(code.streams["latent"]) == grid.num_patches * round(0.2 * k)
    assert np.abs(other["values"].astype(int) - model.decode(data)).max() <= 1
    assert abs(8 * model.payload_bytes(data) - estimated_bits(model.codec, model.params, 1, grid, code)) < 16


def test_what_is_coded_is_the_gated_update(shared_pattern):
    """Encoding finds what the inner loop under the fixed pattern finds, and decoding makes of it the layers of θ₀ + δ."""
    model = load(shared_pattern)
    c, params = UNSTRUCTURED, on_device(model)
    values = jnp.asarray(np.random.default_rng(1).random((36, 3)), jnp.float32)
    z = jnp.asarray(params["gates"], jnp.float32)
    delta = np.asarray(adapt_gated(c, c.gates, params, z, values))
    numbers = np.asarray(model.codec.adapt(params, values))
    np.testing.assert_allclose(numbers, delta[params["coded"]], atol=1e-6)
    assert (np.delete(delta, params["coded"]) == 0).all()
    kernel, _ = model.codec.layers(params, jnp.asarray(numbers))[0]
    np.testing.assert_allclose(kernel - params["shared"]["kernel_0"], delta[: kernel.size].reshape(kernel.shape), atol=1e-6)


def test_random_gates_are_drawn_once_and_training_reports_the_error():
    codec = MSCNUnstructured(UNSTRUCTURED)
    source = PatchSource(PICTURES, (6, 6))
    stage = codec.stages()[0]
    params = codec.init(jax.random.key(0))
    started = stage.init(jax.random.key(1), params, stage.examples(params, source))
    example = {"values": jnp.asarray(stage.examples(params, source).batch(np.random.default_rng(0), 1)["values"][0])}
    key = jax.random.key(2)
    loss, metrics = jax.jit(lambda t: stage.loss(t, {}, example, key))(started)
    z = hard_concrete.sample(jax.random.split(key)[0], started["gates"]["log_alpha"])
    latent = adapt_gated(UNSTRUCTURED, UNSTRUCTURED.gates, started, z, example["values"])
    error = codec.distortion({**params, **started}, latent, example["values"])
    np.testing.assert_allclose(loss, error, rtol=1e-4)
    np.testing.assert_allclose(metrics["open"], 0.95, atol=1e-3)


def test_every_signal_has_a_pattern_of_its_own_that_its_file_holds(own_patterns, tmp_path):
    model = load(own_patterns)
    (code,), (grid,) = model.make_codes([PICTURES[0]], 1)
    gates = code.streams["gates"].reshape(grid.num_patches, 24)
    assert 0 < gates.mean() < 1 and len(np.unique(gates, axis=0)) > 1
    assert len(code.streams["latent"]) == gates.sum()
    data = model.encode(PICTURES[0], 1)
    other = decoded_elsewhere(own_patterns, data, tmp_path)
    for name in ("gates", "latent"):
        np.testing.assert_array_equal(other[name], code.streams[name])
    assert np.abs(other["values"].astype(int) - model.decode(data)).max() <= 1
    assert abs(8 * model.payload_bytes(data) - estimated_bits(model.codec, model.params, 1, grid, code)) < 16


def test_decoded_shifts_are_those_of_the_encoder_up_to_rounding(own_patterns):
    model = load(own_patterns)
    signal = to_signal(PICTURES[0][:6, :6].astype(np.float32) / 255, (6, 6))
    numbers = np.asarray(model.codec.adapt(on_device(model), jnp.asarray(signal.values[0])))
    code = model.codec.encode(model.params, [signal], 1)[0]
    opened = (numbers != 0).astype(np.int32)  # one gate per shift
    np.testing.assert_array_equal(code.streams["gates"], opened)
    point = model.params["points"]["1"]
    lower, step, numbers = (a[opened > 0] for a in (point["lower"], point["step"], numbers))
    inside = (numbers > lower) & (numbers < lower + 31 * step)
    assert inside.any()
    error = np.abs(lower + code.streams["latent"] * step - numbers)
    np.testing.assert_array_less(error[inside], 0.501 * step[inside] + 1e-7)


def test_the_fingerprint_covers_the_gates_and_their_tables(own_patterns, shared_pattern):
    model = load(own_patterns)
    own = fingerprint(model.codec, model.params, 0)
    point = model.params["points"]["0"]
    swapped = {**point, "gate_table": point["gate_table"][::-1]}
    assert (swapped["gate_table"] != point["gate_table"]).any()
    assert fingerprint(model.codec, {**model.params, "points": {"0": swapped}}, 0) != own
    shared = load(shared_pattern)
    other = MSCNUnstructured(dataclasses.replace(UNSTRUCTURED, gates=GateConfig(apply="modulation", target=0.2)))
    assert fingerprint(other, shared.params, 0) != fingerprint(shared.codec, shared.params, 0)


def test_own_patterns_are_driven_by_what_deterministic_gates_open():
    """Gates that are open with probability 0.25 leave nothing in a file: λ must not take them for a quarter."""
    codec = MSCNPerSignal(PER_SIGNAL)
    source = PatchSource(PICTURES, (6, 6))
    stage = codec.stages()[0]
    params = codec.init(jax.random.key(0))
    started = stage.init(jax.random.key(1), params, stage.examples(params, source))
    log_alpha = jnp.full(24, hard_concrete.log_alpha_of(jnp.asarray(0.25)))
    started["gates"] = {**started["gates"], "log_alpha": log_alpha, "log_step": jnp.asarray(-30.0)}
    example = {"values": jnp.asarray(stage.examples(params, source).batch(np.random.default_rng(0), 1)["values"][0])}
    (_, metrics), gradient = jax.jit(jax.value_and_grad(lambda t: stage.loss(t, {}, example, jax.random.key(2)), has_aux=True))(
        started
    )
    assert metrics["open"] == 0
    assert gradient["gates"]["log_lambda"] > 0, "descent lowers λ, so that gates open"


def test_a_stream_of_gates_that_holds_something_else_is_refused(own_patterns):
    model = load(own_patterns)
    signal = to_signal(PICTURES[0][:6, :6].astype(np.float32) / 255, (6, 6))
    code = model.codec.encode(model.params, [signal], 0)[0]
    gates = code.streams["gates"].copy()
    gates[3] = 7
    with pytest.raises(ValueError, match="either open or closed"):
        model.write_codes(0, [Code({**code.streams, "gates": gates})], [signal.grid])


def test_a_damaged_pattern_is_refused(own_patterns):
    model = load(own_patterns)
    data = model.encode(PICTURES[0], 0)
    for place in range(10, len(data), 7):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        with pytest.raises((ModelError, ValueError)):
            model.decode(bytes(damaged))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: dataclasses.replace(PER_SIGNAL, compression=BottleneckConfig()), "compression.kind to be uniform"),
        (
            lambda: PerSignalConfig(
                field=FieldConfig(modulation="weight_update"), adaptation=INNER, gates=GateConfig(apply="weights")
            ),
            "gates.apply to be update or modulation",
        ),
        (lambda: dataclasses.replace(PER_SIGNAL, gate_step=0.0), "gate_step"),
        (lambda: dataclasses.replace(UNSTRUCTURED, adaptation=AdaptationConfig()), "learn_start"),
        (
            lambda: dataclasses.replace(UNSTRUCTURED, field=PER_SIGNAL.field, gates=GateConfig(apply="weights")),
            "field.modulation",
        ),
    ],
)
def test_configs_that_make_no_sense_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        config()


@pytest.mark.parametrize("apply", ["weights", "activations"])
def test_a_pattern_on_weights_or_units_decodes_to_the_encoders_field(apply):
    """What is closed is closed for the decoder too: the same values from the coded numbers as from the whole update."""
    codec = MSCNUnstructured(dataclasses.replace(UNSTRUCTURED, gates=GateConfig(apply=apply, group="unit", target=0.6)))
    params = codec.init(jax.random.key(0))
    params["gates"] = {"log_alpha": np.random.default_rng(0).normal(size=15 if apply == "weights" else 12).astype(np.float32)}
    stage = next(stage for stage in codec.stages() if stage.name == "pattern")
    params = solved(stage, params)
    assert 0 < len(params["coded"]) <= round(0.6 * codec.config.field.latent_size())
    values = jnp.asarray(np.random.default_rng(1).random((36, 3)), jnp.float32)
    z = jnp.asarray(params["gates"], jnp.float32)
    delta = adapt_gated(codec.config, codec.config.gates, params, z, values)
    whole = jnp.where(spread(codec.index, z) > 0, delta, 99.0)[params["coded"]]
    np.testing.assert_allclose(codec.adapt(params, values), whole, atol=1e-6)
    from_file = codec.distortion(params, whole, values)
    np.testing.assert_allclose(codec.distortion({**params, "coded": np.arange(delta.size)}, delta, values), from_file, rtol=1e-5)

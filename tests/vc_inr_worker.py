"""Run as a process of its own: `python vc_inr_worker.py OUT MODEL`, VC-INR's stages on as many devices as there are.

Five updates of each stage in float64. MODEL is written where it is not yet there, and encodes some pictures.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from vcinr import devices
from vcinr.adaptation.meta_learning import adapt_latent
from vcinr.codecs.vc_inr import VCINR, VCINRConfig
from vcinr.compression.bottleneck import BottleneckConfig
from vcinr.datasets.sources import PatchSource
from vcinr.fields.field import FieldConfig
from vcinr.model.finding import load
from vcinr.model.model import make_model
from vcinr.stage import ClosedForm, TrainingConfig, Workplace
from vcinr.training.optimisers import make_optimiser
from vcinr.training.stages import make_step, mean_gradient
from vcinr.training.state import init_state

TRAINING = TrainingConfig(num_steps=5, batch_size=16, microbatch=2, warmup_steps=1)
CONFIG = VCINRConfig(
    patch=(8, 8),
    field=FieldConfig(num_layers=3, width=12, latent_dim=5, rank=2, hyper_width=16, hyper_depth=1),
    meta=TRAINING,
    compression=BottleneckConfig(lambdas=(30.0,), width=8, num_latents=100, prior_steps=40, training=TRAINING),
    encode_batch=3,
)


def main(out, folder):
    codec, patches, found = VCINR(CONFIG), PatchSource([noise(48, 64)], (8, 8)), {}
    params, source = in_float64(codec.init(jax.random.key(0))), None
    for stage in codec.stages():
        source = source if stage.examples is None else stage.examples(params, patches)
        if isinstance(stage, ClosedForm):
            found["latents/cached"] = source.arrays["latent"]
            params = stage.solve(jax.random.key(1), params, source, Workplace(folder, lambda *step: None))
        else:
            trained = in_float64(stage.init(jax.random.key(1), params, source))
            params = stage.finish(params, five_steps(stage, trained, stage.frozen(params), source, found))
    if not Path(folder).exists():
        make_model(codec, params, {}).save(folder)
    model = load(folder)
    codes, _ = model.make_codes([noise(41, 50), noise(8, 9)], point=0)
    found["symbols"] = np.concatenate([code.streams["latent"] for code in codes])
    found["files"] = np.frombuffer(b"".join(model.encode_batch([noise(41, 50), noise(8, 9)])), np.uint8)
    np.savez(out, num_devices=jax.device_count(), **found)


def five_steps(stage, trained, frozen, source, found):
    mesh, optimiser = devices.all_devices_mesh(), make_optimiser(stage.training)
    state = devices.replicate(init_state(stage.training, optimiser, trained, jax.random.key(2)), mesh)
    frozen, key = devices.replicate(in_float64(frozen), mesh), jax.random.key_data(jax.random.key(3))

    def batch(step):
        return devices.shard_batch(in_float64(source.batch(np.random.default_rng(step), TRAINING.batch_size)), mesh)

    def latents(trained, batch):
        own = jax.vmap(lambda values: adapt_latent(CONFIG, trained, values))(batch["values"])
        return jax.lax.all_gather(own, devices.AXIS, tiled=True)

    def gradient(trained, frozen, batch):
        return mean_gradient(stage, trained, frozen, batch, jax.random.wrap_key_data(key))[0]

    if stage.name == "meta":
        found["latents/batch"] = devices.pmapped(latents, (None, 0), None, mesh=mesh)(state.params, batch(0))
    trees = {"gradient": devices.pmapped(gradient, (None, None, 0), None, mesh=mesh)(state.params, frozen, batch(0))}
    step = make_step(stage, optimiser, mesh)
    for index in range(5):
        state, metrics = step(state, frozen, batch(index))
    trees |= {"params": state.params, "average": state.aux["average"], "metrics": metrics}
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(trees)):
        found[f"{stage.name}/{jax.tree_util.keystr(path, simple=True, separator='/')}"] = leaf
    return jax.device_get(state.evaluated_params)


def noise(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def in_float64(tree):
    return jax.tree.map(lambda a: np.asarray(a, np.float64) if np.issubdtype(np.asarray(a).dtype, np.floating) else a, tree)


if __name__ == "__main__":
    main(*sys.argv[1:])

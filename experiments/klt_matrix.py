"""The control of `experiments.parts`: the contextual codec with the KLT's own matrix where `contextual_inr` has a field.

    python -m experiments.klt_matrix --like=tiny --workdir=DIR [--seed=0]

Trains with the config of the model ``--like``: the same patches, crops, steps, networks and seed. DIR/model is for
``experiments.parts --control=DIR``.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.command_line import run_study
from experiments.train import batch_sizes, train
from vcinr.codecs import CODECS
from vcinr.codecs.contextual_inr import ContextualINR, ContextualINRConfig
from vcinr.codecs.latent_codec import LatentCodec
from vcinr.devices import use_cpu_cores
from vcinr.model.finding import load
from vcinr.model.model import Model
from vcinr.stage import AnyStage, ClosedForm, Params

NAME = "klt_in_context"


@dataclasses.dataclass(frozen=True)
class KLTInContext(LatentCodec):
    """Principal components of the training patches as an exact matrix, with the compression of `contextual_inr`.

    The components are those that the field of `contextual_inr` is fitted to, and latents are inner products with them.
    """

    config: ContextualINRConfig = ContextualINRConfig()
    name = NAME
    fitted = ("components",)
    decoded = ("components",)

    def init(self, key: jax.Array) -> Params:
        """No parameters: the first stage makes the matrix."""
        del key
        return {"points": {}}

    def field_stages(self) -> tuple[AnyStage, ...]:
        """``components``, and a stage that does nothing for each that trains the field."""
        # A stage's seed depends on its place among the stages: so those of the compression draw what the field's draw.
        components, *learned = ContextualINR(self.config).field_stages()
        return components, *(ClosedForm(stage.name, None, lambda key, params, *_: params) for stage in learned)

    def adapt(self, params: Params, values: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        """Values [n, c] of one patch → coefficients [k]; padding counts as the rest, as in `contextual_inr`."""
        del weight
        found = params["components"]
        return jnp.tensordot(found["basis"], values - found["mean"], 2)

    def values(self, params: Params, latent: jax.Array) -> jax.Array:
        """Coefficients [k] → values [n, c]."""
        found = params["components"]
        return found["mean"] + jnp.tensordot(latent, found["basis"], 1)

    def distortion(self, params: Params, latent: jax.Array, values: jax.Array) -> jax.Array:
        """MSE between the patch of the coefficients [k] and values [n, c]."""
        return jnp.mean(jnp.square(self.values(params, latent) - values))


def register() -> None:
    """Makes the control known to this process, so that its models can be trained and loaded."""
    CODECS[NAME] = (KLTInContext, ContextualINRConfig)


def control_config(info: dict[str, Any], seed: int) -> ConfigDict:
    """The config of the control of a model of `contextual_inr` with this ``info``."""
    config = ConfigDict(info["config"])
    config.codec, config.seed = NAME, seed
    return config


def deviation_from_matrix(field: Model, control: Model) -> tuple[float, float]:
    """How far a linear field is from the KLT: (largest entry of |ΨᵀΨ − 1|, largest distance of a ψ_k from ± the component k).

    field, control: models of `contextual_inr` and of `KLTInContext` with as many latents; the ψ_k are taken on one patch.
    """
    k = field.codec.config.field.latent_size()
    slopes = jax.jit(jax.jacfwd(lambda latent: field.codec.values(field.params, latent)))(jnp.zeros(k))
    basis = np.asarray(slopes).reshape(-1, k)
    own = np.moveaxis(control.params["components"]["basis"], 0, -1).reshape(-1, k)
    distances = np.linalg.norm([basis - own, basis + own], axis=1).min(axis=0)
    return float(np.abs(basis.T @ basis - np.eye(k)).max()), float(distances.max())


def study(options: argparse.Namespace) -> str:
    """Trains the control; returns where its model is."""
    register()
    config = control_config(load(options.like).info, options.seed)
    use_cpu_cores(batch_sizes(config.to_dict()))
    train(config, options.workdir)
    return f"model: {options.workdir}/model"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains; the exit status is 1 where the data or the model are missing."""
    parser = argparse.ArgumentParser(prog="python -m experiments.klt_matrix", description="Trains the control of parts.")
    parser.add_argument("--like", default="tiny", help="a model of contextual_inr, whose config it takes (%(default)s)")
    parser.add_argument("--workdir", required=True, help="where checkpoints, logs and the model go")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness (%(default)s)")
    return run_study(study, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

"""What training moved in a field: its start, its step sizes, its gates, and a Jacobian that depends on the latent."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.dissect.models import Part, held_out, label, of_each_model
from vcinr.adaptation.inner_loop import HIGH, LOW
from vcinr.batching import map_batches
from vcinr.codecs.latent_codec import LatentCodec
from vcinr.evaluation.metrics import psnr_db
from vcinr.fields import modulations
from vcinr.fields.field import evaluate, make_field
from vcinr.fields.siren import Layer
from vcinr.modalities import MODALITIES
from vcinr.model.finding import load
from vcinr.model.model import Model
from vcinr.stage import Params


def neutral_layers(codec: LatentCodec, params: Params, latent: jax.Array) -> Sequence[Layer]:
    """The layers where U = 0: every gate is gain · ½. A linear head stays as the latent has it."""
    field = codec.config.field
    plain = make_field(dataclasses.replace(field, modulation="none", latent_dim=field.latent_size()))
    layers = plain.apply({"params": params["shared"]}, latent, method="layers")
    if field.modulation != "low_rank_gates":
        return layers
    gated = layers[not field.gate_first : -1]
    zeros = [[jnp.zeros((size, field.rank)) for size in kernel.shape] for kernel, _ in gated]
    return modulations.low_rank_gates(layers, *zip(*zeros, strict=True), field.gate_gain, field.gate_first)


def gates(codec: LatentCodec, params: Params, latent: jax.Array) -> list[jax.Array]:
    """G of every gated layer, W' = G ⊙ W: kernels of the signal over those of the shared layers."""
    field = codec.config.field
    own = codec.layers(params, latent)[not field.gate_first : -1]
    plain = make_field(dataclasses.replace(field, modulation="none"))
    shared = plain.apply({"params": params["shared"]}, latent, method="layers")[not field.gate_first : -1]
    return [modulated / kernel for (modulated, _), (kernel, _) in zip(own, shared, strict=True)]


def start_of(params: Params, size: int) -> jax.Array:
    """φ₀; 0, the mean patch's latent, where an analysis takes the place of the inner loop."""
    return jnp.asarray(params.get("latent_init", np.zeros(size, np.float32)))


def taken_apart(codec: LatentCodec, params: Params, values: jax.Array) -> dict[str, jax.Array]:
    """One patch's latent, its gates, and the MSE of its field: with that latent, with U = 0, and of the tangent at φ₀."""
    latent, coords = codec.adapt(params, values), jnp.asarray(MODALITIES[codec.modality].coordinates(codec.patch))
    start = start_of(params, len(latent))

    def field(phi: jax.Array) -> jax.Array:
        return codec.values(params, phi)

    at_start, change = jax.jvp(field, (start,), (latent - start,))
    neutral = evaluate(codec.config.field, neutral_layers(codec, params, latent), coords)
    shown = {"own": field(latent), "neutral": neutral, "start": at_start, "tangent": at_start + change}
    found = {name: jnp.mean(jnp.square(shown[name] - values)) for name in shown}
    gated = codec.config.field.modulation == "low_rank_gates"
    mean = jnp.concatenate([g.ravel() for g in gates(codec, params, latent)]) if gated else jnp.ones(1)
    return {**found, "latent": latent, "gates": mean}


def jacobian_change(codec: LatentCodec, params: Params, one: jax.Array, other: jax.Array) -> jax.Array:
    """‖J(φ) − J(φ′)‖ / √(½‖J(φ)‖² + ½‖J(φ′)‖²), J = ∂f/∂φ: 0 for an affine field, √2 for Jacobians without relation."""
    a, b = (jax.jacfwd(lambda phi: codec.values(params, phi))(phi) for phi in (one, other))
    return jnp.linalg.norm(a - b) / jnp.sqrt(0.5 * (jnp.sum(jnp.square(a)) + jnp.sum(jnp.square(b))))


def fitted(model: Model) -> Params:
    """The parameters of a model's field and of its adaptation."""
    return {**model.codec.encoder_params(model.params), **model.codec.decoder_params(model.params)}


def moved_steps(model: Model) -> str | None:
    """Range of the learned step sizes over where they started; None where there are none."""
    sizes = model.params.get("step_sizes", {})
    if "log_scale" not in sizes:
        return None
    learned = np.exp(np.clip(sizes["log_scale"], np.log(LOW), np.log(HIGH))) / model.codec.config.adaptation.initial_step
    return f"{learned.min():.3g} … {learned.max():.3g}"


def gates_rows(name: str, options: argparse.Namespace) -> list[list[Any]]:
    """What training moved in one model, as a row."""
    model = load(name)
    codec, params = model.codec, fitted(model)
    found = map_batches(taken_apart, codec, params, (held_out(model, options.patches),), 8)
    latents = found["latent"]
    start = np.asarray(start_of(params, latents.shape[1]))
    pairs = latents[: options.pairs], np.roll(latents, 1, axis=0)[: options.pairs]
    change = map_batches(jacobian_change, codec, params, pairs, 2)
    own, neutral, at_start, tangent = (psnr_db(found[key].mean()) for key in ("own", "neutral", "start", "tangent"))
    gated = codec.config.field.modulation == "low_rank_gates"
    return [
        [
            label(name),
            latents.shape[1],
            f"{np.linalg.norm(start):.3g}" if "latent_init" in params else None,
            f"{np.sqrt(np.mean(np.sum(np.square(latents - start), axis=1))):.3g}",
            moved_steps(model),
            "{:.2f} … {:.2f}".format(*np.quantile(found["gates"], [0.05, 0.95])) if gated else None,
            f"{found['gates'].std(axis=0).mean():.3f}" if gated else None,
            f"{change.mean():.2g} ± {change.std():.1g}",
            float(own),
            float(at_start),
            float(own - neutral) if gated else None,
            round(float(own - tangent), 3) + 0.0,
        ]
    ]


PART = Part(
    title="What training moved: gates taken apart",
    about="""At most {patches} validation patches a model, before quantisation; PSNR of the mean squared error. φ₀: the start of
    the inner loop; an analysis has none, its 0 is the mean patch's. Step sizes: of Meta-SGD, all steps and
    dimensions. Gates: gain · sigmoid(U Vᵀ), 1 where nothing is learned; σ over patches: of each gate, mean over
    gates. Change of ∂f/∂φ: ‖J(φ) − J(φ′)‖ over the root mean square of both norms, {pairs} pairs of patches, mean ±
    standard deviation; 0 for a field that is affine in φ, √2 for Jacobians without relation. Lost at U = 0: PSNR with
    the adapted latent, less that with all gates neutral. Lost by the tangent: the same, less that of f(φ₀) + J(φ₀)(φ
    − φ₀).""",
    columns=(
        "model",
        "latents",
        "|φ₀|",
        "|φ − φ₀|, RMS",
        "step sizes, × initial",
        "gates, 5 to 95 %",
        "gates, σ over patches",
        "change of ∂f/∂φ",
        "PSNR dB",
        "at φ₀, dB",
        "lost at U = 0, dB",
        "lost by the tangent at φ₀, dB",
    ),
    options=("patches", "pairs"),
    rows=of_each_model(gates_rows),
)

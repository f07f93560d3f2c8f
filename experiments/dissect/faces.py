"""What faces with similar gates have in common: attributes that pixels tell, against faces in random order.

A small gated field is trained on whole faces behind an affine analysis; each test face then has one latent and one set of gates.
The figure draws every face as three flat colours, for the pictures themselves are not ours to publish.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

from experiments.dissect import gates
from experiments.dissect.models import Part
from experiments.sparsity import FieldOnly
from vcinr.batching import map_batches
from vcinr.codecs.vc_inr import VCINR, VCINRConfig
from vcinr.config import build_config
from vcinr.datasets.catalogue import load_split
from vcinr.datasets.sources import PatchSource
from vcinr.evaluation.metrics import psnr_db
from vcinr.stage import Params
from vcinr.training.run import train

SIDE = 64
REGIONS = {
    "background": np.s_[:24, [*range(6), *range(SIDE - 6, SIDE)]],
    "hair": np.s_[7:14, 22:42],
    "skin": np.s_[30:48, 22:42],
}
"""Rows and columns of an aligned 64×64 face, chosen on the mean of the training faces."""

SHUFFLES = 200
LUMA = np.array([0.299, 0.587, 0.114])


def codec_of(steps: int) -> VCINR:
    """A gated field of whole faces behind an affine analysis."""
    overrides = {
        "patch": (SIDE, SIDE),
        "field": {"num_layers": 5, "width": 64, "rank": 4, "latent_dim": 64, "hyper_width": 128, "hyper_depth": 2},
        "adaptation": {"subset": 512},
        "amortised": {"enabled": True, "num_patches": 1800, "offsets_per_picture": 1},
        "meta": {
            "num_steps": steps,
            "batch_size": 16,
            "lr": 1e-3,
            "warmup_steps": min(300, steps // 10),
            "final_lr_fraction": 0.01,
            "checkpoint_every": 1000,
        },
        "encode_batch": 8,
    }
    return VCINR(build_config(VCINRConfig, overrides, "vc_inr"))


def attributes(faces: np.ndarray) -> dict[str, np.ndarray]:
    """What the pixels of faces [m, 64, 64, 3] in [0, 1] tell: name → [m, 1] or [m, 3]."""
    brightness = faces @ LUMA
    halves = brightness[..., SIDE // 2 :].mean((1, 2)) - brightness[..., : SIDE // 2].mean((1, 2))
    colours = {f"colour, {name}": faces[:, *where].mean((1, 2)) for name, where in REGIONS.items()}
    return {"mean brightness": brightness.mean((1, 2))[:, None], **colours, "light from the side": halves[:, None]}


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two condensed distances."""
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def shuffled(one: np.ndarray, other: np.ndarray, count: int, seed: int) -> np.ndarray:
    """[count] rank correlations with the objects of the second distance in random order (Mantel 1967)."""
    rng, ranks = np.random.default_rng(seed), squareform(rankdata(other))
    upper, fixed = np.triu_indices(len(ranks), 1), rankdata(one)
    orders = (rng.permutation(len(ranks)) for _ in range(count))
    return np.array([np.corrcoef(fixed, ranks[np.ix_(order, order)][upper])[0, 1] for order in orders])


def neighbours_share(one: np.ndarray, other: np.ndarray) -> float:
    """Mean of the second distance between each object and its nearest by the first, over the mean of all pairs."""
    near = squareform(one)
    np.fill_diagonal(near, np.inf)
    return float(squareform(other)[np.arange(len(near)), near.argmin(1)].mean() / other.mean())


def gates_and_error(codec: VCINR, params: Params, values: jax.Array) -> dict[str, Any]:
    """One face's latent, gates of each layer and MSE."""
    latent = codec.adapt(params, values)
    found = [layer.ravel() for layer in gates.gates(codec, params, latent)]
    return {"latent": latent, "gates": found, "mse": codec.distortion(params, latent, values)}


def plane(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [m, d] in their first two principal components, [m, 2], and the shares of variance of these."""
    left, scale, _ = np.linalg.svd(points - points.mean(0), full_matrices=False)
    return left[:, :2] * scale[:2], np.square(scale[:2]) / np.sum(np.square(scale))


def blocks(faces: np.ndarray) -> np.ndarray:
    """Faces as three flat colours, background, hair and skin: [m, 16, 16, 3] in [0, 1]."""
    colours = {name: faces[:, *where].mean((1, 2))[:, None, None] for name, where in REGIONS.items()}
    drawn = np.broadcast_to(colours["background"], (len(faces), 16, 16, 3)).copy()
    drawn[:, 2:6, 4:12], drawn[:, 6:14, 5:11] = colours["hair"], colours["skin"]
    return drawn


def draw(path: Path, at: np.ndarray, shares: np.ndarray, pictures: np.ndarray) -> None:
    """Pictures [m, h, w, 3] at points of a plane [m, 2], as a PNG file."""
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axes = figure.subplots()
    half = 0.02 * np.ptp(at, axis=0).max()
    for (x, y), picture in zip(at, pictures, strict=True):
        axes.imshow(picture, extent=(x - half, x + half, y - half, y + half), interpolation="nearest", zorder=2)
    low, high = at.min(0) - 2 * half, at.max(0) + 2 * half
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.set(xlabel=f"first component of the gates, {shares[0]:.0%}", ylabel=f"second component, {shares[1]:.0%}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def rows(options: argparse.Namespace, record: str) -> tuple[list[list[Any]], list[str]]:
    """Trains the field unless that is done, and compares the test faces by their gates."""
    codec = codec_of(options.training)
    params = train(
        FieldOnly(codec), PatchSource(load_split("faces", "train"), (SIDE, SIDE)), seed=options.seed, workdir=options.workdir
    )
    pictures = np.stack(load_split("faces", "test")[: options.patches]).astype(np.float32) / 255.0
    values = pictures.reshape(len(pictures), -1, 3)
    trained = jax.tree.map(jnp.asarray, {**codec.encoder_params(params), **codec.decoder_params(params)})
    found = map_batches(gates_and_error, codec, trained, (values,), codec.config.encode_batch)
    layers = {f"of layer {i}": layer for i, layer in enumerate(found["gates"], start=2)}
    spaces = {
        "all": np.concatenate(found["gates"], axis=1),
        **layers,
        "φ": found["latent"],
        "pixels": values.reshape(len(values), -1),
    }
    distances = {name: pdist(points) for name, points in spaces.items()}
    print(f"{psnr_db(found['mse'].mean()):.2f} dB on {len(values)} test faces", flush=True)
    table = []
    for name, attribute in attributes(pictures).items():
        apart = pdist(attribute)
        control = shuffled(distances["all"], apart, SHUFFLES, options.seed)
        near = neighbours_share(distances["all"], apart)
        by_space = {space: f"{correlation(distance, apart):.2f}" for space, distance in distances.items()}
        chance = f"{control.mean():.2f} ± {control.std():.2f}, at most {control.max():.2f}"
        table.append([name, by_space.pop("all"), chance, f"{near:.2f}", *by_space.values()])
    at, shares = plane(spaces["all"])
    figure = Path(record).with_suffix(".png")
    draw(figure, at, shares, blocks(pictures))
    return table, [figure.name]


PART = Part(
    title="Faces with similar gates",
    about="""At most {patches} test faces of 64×64, one latent of 64 numbers and 4 × 64 × 64 gates each; 5 sine layers of
    64 units, gates of rank 4, behind an affine analysis, {training} training steps of 16 faces and 512 random
    coordinates, seed {seed}. Rank correlation (Spearman's) of two distances, over all pairs of faces: between
    gates, and between what the pixels of a region tell. Shuffled: the same with faces in random order, 200
    times. Nearest by gates: the attribute's distance between a face and the one with the nearest gates, over
    that of any two. Then the correlations for the gates of single layers, for φ and for the pixels
    themselves. The figure: each face as the colours of its background, hair and skin, at the first two
    principal components of its gates.""",
    columns=(
        "distance of",
        "gates",
        "gates, shuffled",
        "nearest by gates",
        "layer 2",
        "layer 3",
        "layer 4",
        "layer 5",
        "φ",
        "pixels",
    ),
    options=("patches", "training", "seed"),
    rows=rows,
)

"""A signal's posterior, fitted block by block within a budget and sent block by block (He 2023, algorithms 3, 4 and 5).

All signals of a batch, and all patches of a signal, are coded in step: block k of every patch, then the fits of the blocks that
are left, then block k + 1. One compiled program serves all blocks, because what is coded is a mask and not a shape.

Row r of a block holds, for each dimension, the entry of one patch: of patch r itself, or of a patch that a permutation names
(section 4.1.4). Posteriors are kept in this order of rows; the network sees patches.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from vcinr.codec import EncodeRequest
from vcinr.devices import local_mesh, pad_rows, pmapped, replicate, shard_batch
from vcinr.posterior.gaussians import NATS_PER_BIT, Gaussian, from_tree, kl_nats
from vcinr.posterior.networks import WeightNetwork, distortion
from vcinr.posterior.partition import Partition
from vcinr.posterior.relative_entropy_coding import MAX_BITS, METHODS, decode_blocks, encode_block
from vcinr.posterior.shared_randomness import normals_of_words, philox
from vcinr.trees import digest, load_tree, save_tree


@dataclasses.dataclass(frozen=True)
class CodingConfig:
    """How a signal is coded.

    num_steps: steps of the first fit; each level of effort doubles these and ``fine_tune_steps``. The thesis takes 25,000.
    fine_tune_steps: steps after each coded block; 0: no fine-tuning.
    lr: step size of Adam.
    num_samples: draws per step that the distortion is estimated from.
    budget: κ in bits, a whole number.
    extra_bits: t; 2^(κ + t) candidates are drawn.
    buffer: ε_κ in bits; no β changes where a block's divergence lies in κ − ε_κ … κ.
    adjust_every: I, steps between two adjustments of every block's β.
    adjust_factor: 1 + τ.
    method: key of `METHODS`.
    seed: of the candidates, part of the model.
    permute: whether a block mixes the patches of a signal.
    """

    num_steps: int = 25_000
    fine_tune_steps: int = 100
    lr: float = 2e-4
    num_samples: int = 1
    budget: int = 16
    extra_bits: int = 0
    buffer: float = 0.4
    adjust_every: int = 15
    adjust_factor: float = 1.05
    method: str = "a_star"
    seed: int = 0
    permute: bool = False

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"unknown coding.method {self.method!r}; valid are {', '.join(METHODS)}")
        if self.budget < 1 or self.extra_bits < 0 or self.index_bits > MAX_BITS:
            raise ValueError(f"coding.budget is at least 1, extra_bits at least 0, and both together at most {MAX_BITS} bits")
        if min(self.num_steps, self.num_samples, self.adjust_every) < 1 or self.fine_tune_steps < 0:
            raise ValueError("coding.num_steps, num_samples and adjust_every are at least 1, fine_tune_steps at least 0")
        if not self.adjust_factor > 1 or not 0 <= self.buffer < self.budget:
            raise ValueError("coding.adjust_factor lies above 1, and coding.buffer in 0 … budget")

    @property
    def index_bits(self) -> int:
        """κ + t, the bits of a block in the file."""
        return self.budget + self.extra_bits


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is the same for all signals that are coded together.

    network, coding: see there.   counts: patches of a signal along each axis.
    """

    network: WeightNetwork
    coding: CodingConfig
    counts: tuple[int, ...]


class Shared(NamedTuple):
    """Arrays that all signals share: the model's, of one operating point.

    prior: over the entries of a patch, [size].   network: what the network shares.   inputs: encoded coordinates [n, e].
    block_of: block of each dimension [size].   rows: in which row each patch's entry stands, [p, size], or None where that is its
    own.
    """

    prior: Gaussian
    network: Any
    inputs: Any
    block_of: Any
    rows: Any


class State(NamedTuple):
    """One signal between two steps.

    posterior: {"mean", "raw_scale"}, [p, size].   optimiser: Adam's state.   beta: [p, k].   given: coded entries [p, size].
    """

    posterior: Any
    optimiser: Any
    beta: Any
    given: Any


class Coded(NamedTuple):
    """Result of `code_signals`.

    indices: [b, p, k].   divergences: of each block when it was coded, in bits [b, p, k].
    trace: mean distortion of a patch when each block was coded, [b, k]; of one draw of what was open then.
    """

    indices: np.ndarray
    divergences: np.ndarray
    trace: np.ndarray


def mixture(shared: Shared, state: State, coded: Any) -> Gaussian:
    """The posterior in order of rows, [p, size], with deviation 0 where a block is coded: those before number ``coded``."""
    done = shared.block_of < coded
    q = from_tree(state.posterior)
    return Gaussian(jnp.where(done, state.given, q.mean), jnp.where(done, 0.0, q.scale))


def of_patches(shared: Shared, q: Gaussian) -> Gaussian:
    """Rows of blocks → patches."""
    return q if shared.rows is None else Gaussian(*(jnp.take_along_axis(part, shared.rows, axis=0) for part in q))


def divergences(shared: Shared, posterior: Mapping[str, Any]) -> Float[Array, "p size"]:
    """KL divergence of each entry in nats."""
    return kl_nats(from_tree(posterior), shared.prior)


def block_bits(shared: Shared, state: State) -> Float[Array, "p k"]:
    """KL divergence of each block in bits."""
    nats = divergences(shared, state.posterior)
    return jax.ops.segment_sum(nats.T, shared.block_of, state.beta.shape[-1]).T / NATS_PER_BIT


def adjusted(coding: CodingConfig, beta: Any, divergence_bits: Any) -> Any:
    """Each block's β: raised where its divergence exceeds the budget, lowered where it falls short of it (algorithm 4)."""
    factor = coding.adjust_factor
    over, under = divergence_bits > coding.budget, divergence_bits < coding.budget - coding.buffer
    return jnp.where(over, beta * factor, jnp.where(under, beta / factor, beta))


def loss(problem: Problem, shared: Shared, state: State, data: Any, coded: Any, key: Any) -> tuple[jax.Array, jax.Array]:
    """(distortion + Σ β_k δ_k over what is not coded, distortion) of one signal (equations 3.9 and 3.10)."""
    values, weight = data
    q = of_patches(shared, mixture(shared, state, coded))
    c = problem.coding
    error = distortion(problem.network, shared.network, q, shared.inputs, values, weight, problem.counts, key, c.num_samples)
    price = jnp.where(shared.block_of < coded, 0.0, state.beta[:, shared.block_of])
    return error + jnp.sum(price * divergences(shared, state.posterior)), error


@functools.lru_cache(maxsize=16)
def _compiled(problem: Problem, mesh: Mesh) -> tuple[Any, Any]:
    """(one step, the look at where it has led) with the first ``coded`` blocks fixed; one program each for all blocks.

    The host calls step after step: inside a loop of XLA's own, convolutions take several times as long on a CPU.
    """
    adam = optax.scale_by_adam()

    def one_step(shared, state, data, key, coded, i):
        key = jax.random.fold_in(jax.random.wrap_key_data(key), i)

        def value(posterior):
            return loss(problem, shared, state._replace(posterior=posterior), data, coded, key)[0]

        direction, optimiser = adam.update(jax.grad(value)(state.posterior), state.optimiser)
        posterior = jax.tree.map(lambda p, d: p - problem.coding.lr * d, state.posterior, direction)
        moved = state._replace(posterior=posterior, optimiser=optimiser)
        beta = jax.lax.cond(
            (i + 1) % problem.coding.adjust_every == 0,
            lambda: adjusted(problem.coding, state.beta, block_bits(shared, moved)),
            lambda: state.beta,
        )
        return moved._replace(beta=beta)

    def one_look(shared, state, data, key, coded, i):
        key = jax.random.fold_in(jax.random.wrap_key_data(key), i)
        error = loss(problem, shared, state, data, coded, key)[1]
        return error, mixture(shared, state, coded), block_bits(shared, state)

    def over_signals(function):
        return jax.vmap(function, in_axes=(None, 0, 0, 0, None, None))

    axes = (None, 0, 0, 0, None, None)
    return pmapped(over_signals(one_step), axes, mesh=mesh, donate_argnums=(1,)), pmapped(over_signals(one_look), axes, mesh=mesh)


def code_signals(
    problem: Problem,
    params: Mapping[str, Any],
    beta: float,
    values: Float[np.ndarray, "b p n c"],
    weight: Float[np.ndarray, "b p n"] | None,
    inputs: Any,
    start: Mapping[str, np.ndarray],
    rows: np.ndarray | None,
    request: EncodeRequest,
    labels: Sequence[Any],
) -> Coded:
    """Fits and codes a batch of signals of equal grid.

    Args:
      problem: what is compiled for.
      params: of the operating point: ``prior``, ``shared``, ``blocks``.
      beta: β of every block at the start.
      values, weight: the signals.
      inputs: encoded coordinates of a patch.
      start: first posteriors in order of patches, {"mean", "raw_scale"} [b, p, size].
      rows: the patch in each row of blocks, [p, size]; None where every row is a patch.
      request: its workdir keeps what is reached, bit for bit; its effort doubles all steps.
      labels: what errors call the signals.

    Raises:
      ValueError: a fit has diverged (names the signals).
    """
    c = problem.coding
    partition = Partition.from_arrays(params["blocks"])
    num_blocks = partition.num_blocks
    prior = Gaussian(np.asarray(params["prior"]["mean"]), np.asarray(params["prior"]["scale"]))
    inverse = None if rows is None else np.argsort(rows, axis=0, kind="stable").astype(np.int32)
    if rows is not None:
        start = {name: np.take_along_axis(part, np.broadcast_to(rows, part.shape), axis=1) for name, part in start.items()}
    shared = Shared(prior, params["shared"], inputs, partition.block_of, inverse)
    count, patches = values.shape[:2]
    key = jax.random.key(c.seed) if request.key is None else request.key
    keys = jax.vmap(lambda i: jax.random.key_data(jax.random.fold_in(key, i)))(jnp.arange(count))
    posterior = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), dict(start))
    adam = jax.vmap(optax.scale_by_adam().init)(posterior)
    first_beta = jnp.full((count, patches, num_blocks), beta, jnp.float32)
    state = State(posterior, adam, first_beta, jnp.zeros_like(posterior["mean"]))
    found = {
        "indices": np.zeros((count, patches, num_blocks), np.int32),
        "divergences": np.zeros((count, patches, num_blocks), np.float32),
        "trace": np.zeros((count, num_blocks), np.float32),
    }
    first, tune = c.num_steps << request.effort, c.fine_tune_steps << request.effort
    total = first + tune * (num_blocks - 1)
    arrays = (shared, partition.order, posterior, values, weight, keys)
    path, done = _checkpoint(request, (problem, beta, jax.__version__), arrays), 0
    if path is not None and path.exists():
        saved = load_tree(path)
        state = jax.tree.unflatten(jax.tree.structure(state), saved["state"])
        found, done = saved["found"], int(saved["round"])

    mesh = local_mesh(count)
    step, look = _compiled(problem, mesh)
    data = (jnp.asarray(values), None if weight is None else jnp.asarray(weight))
    state, data, keys = (shard_batch(tree, mesh) for tree in pad_rows((state, data, keys), mesh))
    shared_there = replicate(shared, mesh)
    for block in range(done, num_blocks):
        begin, stop = (0, first) if block == 0 else (first + tune * (block - 1), first + tune * block)
        # sin(30 x) amplifies the error of faster formats: whatever the process is set to, fits run in float32.
        with jax.default_matmul_precision("float32"):
            for i in range(begin, stop):
                state = step(shared_there, state, data, keys, jnp.int32(block), jnp.int32(i))
                if request.progress is not None and (i + 1) % REPORT_EVERY == 0:
                    jax.block_until_ready(state)
                    request.progress("posteriors" if block == 0 else "blocks", i + 1, total)
            error, q, bits = look(shared_there, state, data, keys, jnp.int32(block), jnp.int32(stop))
        q, bits, error = jax.tree.map(lambda a: np.asarray(a)[:count], (q, bits, error))
        _check(q, labels)
        own = partition.members(block)
        # Padded to whole groups of the shared random numbers, so that a few compiled programs serve all blocks.
        keep = np.arange(-(-len(own) // 8) * 8) < len(own)
        chosen = np.resize(own, len(keep))
        draw_key = jax.random.fold_in(jax.random.fold_in(key, 2**31 - 1), block)
        posteriors = (part[..., chosen].reshape(count * patches, -1) for part in q)
        priors = (part[chosen] for part in prior)
        indices = encode_block(draw_key, c.seed, block, *posteriors, *priors, c.index_bits, keep, method=c.method)
        given = decode_blocks(c.seed, block, indices, prior.mean[own], prior.scale[own])
        host = np.array(state.given)
        host[:count, :, own] = given.reshape(count, patches, -1)
        state = state._replace(given=shard_batch(host, mesh))
        found["indices"][:, :, block] = np.asarray(indices).reshape(count, patches)
        found["divergences"][:, :, block] = bits[:, :, block]
        found["trace"][:, block] = error / patches
        if path is not None and ((block + 1) % SAVE_EVERY == 0 or block + 1 == num_blocks):
            leaves = jax.tree.map(lambda a: np.asarray(a)[:count], jax.tree.leaves(state))
            save_tree(path, {"state": leaves, "found": found, "round": np.int64(block + 1)})
    return Coded(**found)


def decode_signal(partition: Partition, prior: Gaussian, seed: int, indices: Any) -> np.ndarray:
    """The sample that indices [p, k] of all blocks name, in order of rows, float32 [p, size]; equal to the bit everywhere.

    `vcinr.posterior.relative_entropy_coding.decode_blocks` for all blocks at once.
    """
    sizes = np.diff(partition.ends, prepend=0)
    block = np.repeat(np.arange(partition.num_blocks), sizes)
    place = np.arange(len(partition.order)) - np.repeat(partition.ends - sizes, sizes)
    # Each number of 128 random bits serves 8 dimensions of one block.
    draws, of_dimension = np.unique(np.stack([block, place // 8]), axis=1, return_inverse=True)
    blocks, groups = draws.astype(np.uint32)
    counter = np.asarray(indices)[:, blocks].astype(np.uint32), groups[None], np.uint32(0), np.uint32(0)
    words = np.stack(philox(counter, (np.uint32(seed), blocks[None])), axis=-1)
    normals = normals_of_words(words).reshape(len(words), len(groups), 8)[:, of_dimension.ravel(), place % 8]
    mean, scale = (np.asarray(part, np.float32)[partition.order] for part in prior)
    sample = np.empty_like(normals)
    # Two operations, each rounded to float32: a fused one rounds once and gives other bits.
    sample[:, partition.order] = np.add(mean, np.multiply(scale, normals))
    return sample


REPORT_EVERY = 50
"""Steps between two reports of progress."""

SAVE_EVERY = 4
"""Blocks between two checkpoints."""


def _check(q: Gaussian, labels: Sequence[Any]) -> None:
    bad = ~np.isfinite(q.mean).reshape(len(q.mean), -1).all(axis=1)
    bad |= ~np.isfinite(q.scale).reshape(len(q.mean), -1).all(axis=1)
    if bad.any():
        raise ValueError(
            f"the posterior of signal {labels[int(np.argmax(bad))]} has diverged: lower coding.lr, or train the prior for longer"
        )


def _checkpoint(request: EncodeRequest, about: Any, arrays: Any) -> Path | None:
    """The file that keeps a batch's progress; its name covers all that the result depends on."""
    if request.workdir is None:
        return None
    name = digest(f"{about!r} {request.effort}", arrays).hex()[:12]
    return Path(request.workdir) / f"posterior_{name}.safetensors"

"""State per training signal: which signals a step trains, their rows of the state, and Adam for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vcinr.stage import ArrayExamples, Params, Stage

INDEX = "index"


@flax.struct.dataclass
class SignalStates:
    """What a stage keeps per signal; every leaf has a leading axis, n for all signals or b for those of one batch.

    values: the state itself, a tree of [n, …].
    opt_state: Adam's moments and step counts.
    updates: int32 [n], updates made so far.
    """

    values: Any
    opt_state: Any
    updates: Any


def check_source(stage: Stage, source: Any) -> None:
    """Raises ValueError where the examples do not suit a stage with state per signal."""
    if not isinstance(source, ArrayExamples):
        raise ValueError(
            f"stage {stage.name!r} has state per signal, which needs examples in a fixed order such as an ArraySource; "
            f"its examples are a {type(source).__name__}"
        )
    if INDEX in source.arrays:
        raise ValueError(f"stage {stage.name!r}: {INDEX!r} names the signal's row in each example; rename that array")
    if stage.training.batch_size > len(source):
        raise ValueError(
            f"stage {stage.name!r} has {len(source)} signals for a batch of {stage.training.batch_size} different ones; "
            "lower its batch_size"
        )


def initial_values(stage: Stage, key: jax.Array, params: Params, source: ArrayExamples) -> Any:
    """The state of all signals at the start, a tree of [n, …]; ValueError where `PerSignal.init` makes another shape."""
    values = stage.per_signal.init(key, params, source)
    wrong = [np.shape(leaf) for leaf in jax.tree.leaves(values) if np.shape(leaf)[:1] != (len(source),)]
    if wrong or not jax.tree.leaves(values):
        shapes = f"of shape {wrong[0]}" if wrong else "without arrays"
        raise ValueError(f"stage {stage.name!r} has state per signal {shapes}; it needs a leading axis of {len(source)} signals")
    return values


def init_signals(stage: Stage, values: Any) -> SignalStates:
    """States before the first update. values: what `initial_values` returns."""
    values = jax.tree.map(jnp.array, values)
    num_signals = len(jax.tree.leaves(values)[0])
    return SignalStates(values, jax.vmap(_optimiser(stage).init)(values), jnp.zeros(num_signals, jnp.int32))


def epoch_batch(source: ArrayExamples, seed: Sequence[int], step: int, size: int) -> dict[str, np.ndarray]:
    """The batch of a step (from 0): arrays [size, …] of different signals, and their rows as ``"index"``, int32 [size].

    An epoch is ⌊n / size⌋ batches out of one permutation, drawn by ``np.random.default_rng([*seed, epoch])``; the rows left
    over sit that epoch out.
    """
    epoch, place = divmod(step, len(source) // size)
    index = np.random.default_rng([*seed, epoch]).permutation(len(source))[place * size : (place + 1) * size]
    rows = {name: np.asarray(array)[index] for name, array in source.arrays.items()}
    return rows | {INDEX: index.astype(np.int32)}


def take_rows(signals: SignalStates, index: jax.Array) -> SignalStates:
    """States of the signals of one batch."""
    return jax.tree.map(lambda all_rows: all_rows[index], signals)


def put_rows(signals: SignalStates, index: jax.Array, rows: SignalStates) -> SignalStates:
    """All states, with those of one batch replaced. index: without repetitions."""
    return jax.tree.map(lambda all_rows, new: all_rows.at[index].set(new, unique_indices=True), signals, rows)


def move_rows(stage: Stage, rows: SignalStates, gradient: Any, lr_scale: jax.Array) -> SignalStates:
    """One update of Adam per row. lr_scale: multiplies the step size of all."""
    updates, opt_state = jax.vmap(_optimiser(stage).update)(gradient, rows.opt_state)
    values = jax.tree.map(lambda v, u: (v + u * lr_scale).astype(v.dtype), rows.values, updates)
    return SignalStates(values, opt_state, rows.updates + 1)


def signal_keys(key: jax.Array, index: jax.Array, updates: jax.Array) -> jax.Array:
    """Keys [b] of a batch: fold_in(fold_in(key, signal), updates it has had)."""
    return jax.vmap(lambda i, n: jax.random.fold_in(jax.random.fold_in(key, i), n))(index, updates)


def _optimiser(stage: Stage) -> optax.GradientTransformation:
    return optax.adam(stage.per_signal.lr)

"""Checkpoints of a training state, on Orbax."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from vcinr.provenance import differences, environment
from vcinr.training.state import TrainState

_log = logging.getLogger(__name__)


class Checkpoints:
    """The last few states of one stage, each with the environment that it was made in.

    folder: created when needed; several processes must share it.
    keep: how many checkpoints to keep; older ones are deleted.

    Saving is synchronous and atomic: a process killed at any moment leaves the last complete checkpoint loadable.
    """

    def __init__(self, folder: str | os.PathLike, keep: int = 3):
        self.folder = Path(folder).resolve()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exc: object) -> None:
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Writes the state under its step, unless there is a checkpoint of that step."""
        about = {"environment": environment(), "layout": _layout(state)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about))
        if int(state.step) != self.latest_step:
            self._manager.save(int(state.step), args=args, force=True)

    def restore(self, template: TrainState) -> TrainState | None:
        """The newest state, bit for bit, laid out on devices as `template` is; None without a checkpoint.

        Warns in another environment, where training goes on but not to the same bits.
        Raises ValueError where the stored tree, a shape or a dtype differs from the template's.
        """
        step = self.latest_step
        if step is None:
            return None
        about = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about
        # Orbax would cast another dtype without a word.
        wrong = differences(about["layout"], _layout(template))
        if wrong:
            name, (stored, wanted) = next(iter(wrong.items()))
            raise ValueError(
                f"the checkpoint of step {step} in {self.folder} is of another configuration ({len(wrong)} arrays differ: "
                f"{name} is {stored} there, {wanted} here); start in an empty workdir, or with the config that it was made with"
            )
        changed = differences(about["environment"], environment())
        if changed:
            details = ", ".join(f"{key}: {before!r} → {now!r}" for key, (before, now) in changed.items())
            _log.warning("resuming step %d in another environment (%s): results will differ in their last bits", step, details)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), template)
        return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))).state


def _layout(state: TrainState) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}

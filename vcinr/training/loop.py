"""The training loop of one stage: resume, log, update on the host, checkpoint, roll back."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from vcinr.devices import all_devices_mesh, local_rows, replicate, shard_batch
from vcinr.stage import AnyStage, ClosedForm, ExampleSource, Params, Stage, Workplace
from vcinr.training.checkpoints import Checkpoints
from vcinr.training.host_update import with_host_update
from vcinr.training.metrics_log import MetricsLog
from vcinr.training.optimisers import make_optimiser, make_schedule
from vcinr.training.progress import ProgressBar
from vcinr.training.signals import check_source, epoch_batch, init_signals, initial_values
from vcinr.training.stages import make_step, make_validation
from vcinr.training.state import COLLAPSED, NON_FINITE, TrainState, init_state, with_attempt
from vcinr.trees import load_tree, save_tree

_log = logging.getLogger(__name__)

# A multiple of steps, not of seconds: all processes of a run must find a fault at the same step.
_CHECK_EVERY = 20
_VALIDATION_BATCHES = 4


def run_stage(
    stage: AnyStage,
    params: Params,
    patches: ExampleSource,
    *,
    seed: int,
    workdir: str | os.PathLike,
    index: int,
    validation: ExampleSource | None = None,
    progress: ProgressBar | None = None,
    make_examples: Callable[[Params, ExampleSource], ExampleSource] | None = None,
) -> Params:
    """Runs one stage to its end and returns the new parameters, as NumPy arrays.

    A finished result in ``workdir/<stage name>`` is returned as it is; else training goes on from the last checkpoint
    there; else it starts. On an equal environment the result has the bits of a run that was never interrupted.

    Args:
        stage: its `examples` and `init` run again on a resume, so they must depend on their arguments alone.
        params: what the stages before have made.
        patches: training signals.
        seed, index: the run's seed, and the stage's place in its codec. The batch of update n (from 1) of attempt a is drawn
            by ``np.random.default_rng([seed, index, a, n - 1])``, or by `epoch_batch` in a stage with state per signal.
        workdir: gets a folder for this stage.
        validation: held-out patches, measured with the parameter average every ``eval_every`` steps.
        progress: shows the steps; None: silent.
        make_examples: replaces the stage's own `examples`, such as with those of the stage before.
    Raises:
        RuntimeError: for a fault, with its step, when all rollbacks have been used.
        ValueError: for a config that does not fit the devices or the examples, or another run's checkpoint.
    """
    folder = Path(workdir) / stage.name
    finished = folder / "finished.safetensors"
    if not finished.is_file():
        key = jax.random.fold_in(jax.random.key(seed), index + 1)
        init_key, train_key = jax.random.split(key)
        make_examples = make_examples or stage.examples
        progress = progress or ProgressBar(quiet=True)
        if isinstance(stage, ClosedForm):
            progress.start(stage.name, 0, 1)
            result = stage.solve(init_key, params, make_examples(params, patches), _workplace(folder, progress))
            progress.finish()
        else:
            source = make_examples(params, patches)
            signals = None
            if stage.per_signal is not None:
                check_source(stage, source)
                signals = initial_values(stage, jax.random.fold_in(init_key, 1), params, source)
            trainable = stage.init(init_key, params, source)
            held_out = make_examples(params, validation) if validation is not None and stage.training.eval_every else None
            run = _Run(stage, stage.frozen(params), source, held_out, folder, seed, index, progress)
            result = stage.finish(params, *run.optimise(trainable, signals, train_key))
        result = jax.device_get(result)
        if jax.process_index() == 0:
            save_tree(finished, result)
        multihost_utils.sync_global_devices(f"finished {stage.name}")
    return load_tree(finished)


def _workplace(folder: Path, progress: ProgressBar) -> Workplace:
    def report(what: str, done: int, total: int) -> None:
        del what
        progress.resize(total)
        progress.update(done)

    folder.mkdir(parents=True, exist_ok=True)
    return Workplace(str(folder), report)


@dataclasses.dataclass(frozen=True)
class _Run:
    stage: Stage
    frozen: Any
    source: ExampleSource
    held_out: ExampleSource | None
    folder: Path
    seed: int
    index: int
    progress: ProgressBar

    def optimise(self, trainable: Any, signals: Any, key: jax.Array) -> list[Any]:
        """Trains from the last checkpoint, or from the start; returns the arguments of `Stage.finish` after the first."""
        config = self.stage.training
        mesh = all_devices_mesh()
        rows = local_rows(config.batch_size, mesh)
        multipliers = None if self.stage.lr_multipliers is None else self.stage.lr_multipliers(trainable)
        optimiser, schedule = make_optimiser(config, multipliers), make_schedule(config)
        take_step = make_step(self.stage, optimiser, mesh)
        frozen = replicate(self.frozen, mesh)
        validate = None
        if self.held_out is not None:
            num_examples = _VALIDATION_BATCHES * config.batch_size
            validate = make_validation(self.stage, self.frozen, self.held_out, num_examples, mesh)
        initial, initial_signals = jax.device_get((trainable, signals))

        def fresh() -> TrainState:
            states = None if self.stage.per_signal is None else init_signals(self.stage, initial_signals)
            return replicate(init_state(config, optimiser, initial, key, signals=states), mesh)

        with (
            Checkpoints(self.folder / "checkpoints") as checkpoints,
            MetricsLog(self.folder, active=jax.process_index() == 0) as log,
        ):
            state = checkpoints.restore(fresh())
            state = fresh() if state is None else state
            step, attempt = int(state.step), int(state.aux["attempt"])
            log.rewind(step, attempt)
            self.progress.start(self.stage.name, step, config.num_steps)
            shown, logged, logged_step = time.monotonic(), time.monotonic(), step
            while step < config.num_steps:
                examples = self._examples(attempt, step)
                batch = shard_batch({name: array[rows] for name, array in examples.items()}, mesh)
                state, metrics = take_step(state, frozen, batch)
                step += 1
                last = step == config.num_steps
                log_due, eval_due, save_due, host_due = (
                    every > 0 and (last or step % every == 0)
                    for every in (config.log_every, config.eval_every, config.checkpoint_every, self.stage.host_update_every)
                )
                if host_due:
                    state = with_host_update(self.stage, state, step, mesh)
                if log_due or eval_due or save_due or host_due or last or step % _CHECK_EVERY == 0:
                    fault = self._fault(state)
                    if fault:
                        attempt = self._next_attempt(fault, attempt, log)
                        state = checkpoints.restore(fresh())
                        state = replicate(with_attempt(config, fresh() if state is None else state, attempt), mesh)
                        step = int(state.step)
                        log.rewind(step, attempt - 1)
                        scale = float(state.aux["lr_scale"])
                        log.event(step, attempt, "rollback", lr_scale=scale, **fault)
                        logged, logged_step = time.monotonic(), step
                        continue
                record = {}
                if log_due:
                    now = time.monotonic()
                    record = {name: float(value) for name, value in metrics.items()}
                    record["lr"] = float(schedule(step - 1)) * float(state.aux["lr_scale"])
                    record["examples_per_s"] = (step - logged_step) * config.batch_size / max(now - logged, 1e-9)
                    logged, logged_step = now, step
                if eval_due and validate is not None:
                    measured = validate(state.evaluated_params)
                    record |= {f"validation_{name}": value for name, value in measured.items()}
                if record:
                    log.write(step, attempt, record)
                if save_due:
                    log.flush()
                    checkpoints.save(state)
                if last or time.monotonic() - shown > 0.5:
                    self.progress.update(step, float(metrics["smoothed_loss"]))
                    shown = time.monotonic()
            kept = [state.evaluated_params] + ([] if self.stage.per_signal is None else [state.aux["signals"].values])
            return jax.tree.map(jnp.asarray, jax.device_get(kept))

    def _examples(self, attempt: int, step: int) -> Mapping[str, np.ndarray]:
        size = self.stage.training.batch_size
        if self.stage.per_signal is not None:
            return epoch_batch(self.source, [self.seed, self.index, attempt], step, size)
        return self.source.batch(np.random.default_rng([self.seed, self.index, attempt, step]), size)

    def _fault(self, state: TrainState) -> dict[str, Any] | None:
        config = self.stage.training
        kind = int(state.aux["fault"])
        if kind == NON_FINITE:
            reason = "a loss, gradient or parameter that is not finite"
        elif kind == COLLAPSED:
            reason = f"a smoothed loss more than {config.collapse_db:g} dB above its best"
        else:
            if config.collapse_db > 0 and float(state.aux["best_loss"]) <= 0:
                raise ValueError(
                    f"stage {self.stage.name!r} has a loss of {float(state.aux['best_loss']):.4g}, which has no decibels; "
                    "set its collapse_db to 0"
                )
            return None
        return {"reason": reason, "fault_step": int(state.aux["fault_step"])}

    def _next_attempt(self, fault: dict[str, Any], attempt: int, log: MetricsLog) -> int:
        config = self.stage.training
        what = f"stage {self.stage.name!r}: {fault['reason']} at step {fault['fault_step']}"
        rate = config.lr * config.rollback_lr_factor**attempt
        if attempt >= config.max_rollbacks:
            log.event(fault["fault_step"], attempt, "stopped", **fault)
            raise RuntimeError(f"{what}, with {attempt} of {config.max_rollbacks} rollbacks used and lr at {rate:.3g}; lower lr")
        rate *= config.rollback_lr_factor
        _log.warning("%s; going back to the last good checkpoint, with lr %.3g and other batches", what, rate)
        return attempt + 1

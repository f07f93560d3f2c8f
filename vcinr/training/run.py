"""Training a codec: all its stages, in one workdir."""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax

from vcinr.provenance import differences, environment, git_revision
from vcinr.stage import AnyStage, ExampleSource, Params
from vcinr.training.loop import run_stage
from vcinr.training.progress import ProgressBar
from vcinr.trees import write_atomically

_log = logging.getLogger(__name__)


@runtime_checkable
class Trainable(Protocol):
    """What training asks of a codec."""

    name: str
    config: Any
    modality: str
    patch: tuple[int, ...]

    def init(self, key: jax.Array) -> Params:
        """Parameters before any training."""

    def stages(self) -> tuple[AnyStage, ...]:
        """Training stages, in order."""


def train(
    codec: Trainable,
    patches: ExampleSource,
    *,
    seed: int,
    workdir: str | os.PathLike,
    validation: ExampleSource | None = None,
    config_json: str | None = None,
    quiet: bool = False,
) -> Params:
    """Trains all stages of a codec and returns its parameters, as NumPy arrays.

    Called again with the same arguments, training goes on where it stopped.

    Args:
        codec: what to train.
        patches: training signals.
        seed: of all randomness, 0 to 2³² − 1.
        workdir: gets ``started.json`` (config, codec and seed; time, versions, device and git revision of each start) and one
            folder per stage.
        validation: held-out patches.
        config_json: the caller's resolved config, a JSON object, for ``started.json``.
        quiet: shows no progress.
    Raises:
        ValueError: where the workdir belongs to a run with another config, and as `run_stage`.
        RuntimeError: as `run_stage`.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie in 0 … 2^32 - 1, not {seed}")
    names = [stage.name for stage in codec.stages()]
    if len(set(names)) != len(names):
        raise ValueError(f"stages of a codec need different names, they name folders: {names}")
    if jax.process_index() == 0:
        record_start(Path(workdir), describe(codec, seed, config_json))
    params = jax.device_get(codec.init(jax.random.fold_in(jax.random.key(seed), 0)))
    with ProgressBar(quiet=quiet or jax.process_index() != 0) as progress:
        make_examples = None
        for index, stage in enumerate(codec.stages()):
            make_examples = _SharedExamples(stage.examples) if stage.examples is not None else make_examples
            params = run_stage(
                stage,
                params,
                patches,
                seed=seed,
                workdir=workdir,
                index=index,
                validation=validation,
                progress=progress,
                make_examples=make_examples,
            )
    return params


class _SharedExamples:
    """Examples made at the first call and kept for the later stages that share them."""

    def __init__(self, make: Callable[[Params, ExampleSource], ExampleSource]):
        self._make = make
        self._made: dict[int, ExampleSource] = {}

    def __call__(self, params: Params, patches: ExampleSource) -> ExampleSource:
        if id(patches) not in self._made:
            self._made[id(patches)] = self._make(params, patches)
        return self._made[id(patches)]


def describe(codec: Trainable, seed: int, config_json: str | None) -> dict[str, Any]:
    """What identifies a run, as JSON values: two starts with equal descriptions are one run."""
    config = dataclasses.asdict(codec.config) if dataclasses.is_dataclass(codec.config) else codec.config
    return {
        "codec": codec.name,
        "codec_config": json.loads(json.dumps(config)),
        "modality": codec.modality,
        "patch": list(codec.patch),
        "seed": seed,
        "config": json.loads(config_json) if config_json else None,
    }


def record_start(workdir: Path, run: Mapping[str, Any]) -> None:
    """Adds this start to ``started.json``, and warns where the last start was in another environment.

    Raises ValueError, with the differences, where the workdir holds another run.
    """
    path = workdir / "started.json"
    starts = []
    if path.exists():
        before = json.loads(path.read_text())
        other = differences(_flat(before["run"]), _flat(run))
        if other:
            details = ", ".join(f"{key}: {old!r} → {new!r}" for key, (old, new) in list(other.items())[:5])
            raise ValueError(f"{workdir} holds a run with another config ({details}); give this one a workdir of its own")
        starts = before["starts"]
        changed = differences(starts[-1]["environment"], environment())
        if changed:
            details = ", ".join(f"{key}: {old!r} → {new!r}" for key, (old, new) in changed.items())
            _log.warning("going on in another environment (%s): results will differ in their last bits", details)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    starts.append({"time": now, "argv": sys.argv, "git_revision": git_revision(), "environment": environment()})
    write_atomically(path, (json.dumps({"run": run, "starts": starts}, indent=2) + "\n").encode())


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat

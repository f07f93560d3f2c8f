"""Training metrics, as JSON lines and as TensorBoard event files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from vcinr.trees import write_atomically


class MetricsLog:
    """Metrics of one stage: ``metrics.jsonl`` and ``tensorboard/`` in `workdir`.

    active: False writes nothing (all processes of a run but the first).

    Each line is a JSON object with "step" (updates made), "attempt" and the metrics, or with "event" and its details. Each
    logged step has one line, however often the run was rolled back or resumed. Values that are not finite are null.
    """

    def __init__(self, workdir: str | os.PathLike, active: bool = True):
        self.path = Path(workdir) / "metrics.jsonl"
        self._tensorboard_dir = Path(workdir) / "tensorboard"
        self._active = active
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None
        if active:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def write(self, step: int, attempt: int, metrics: Mapping[str, float]) -> None:
        """Appends the metrics of one step; they reach the operating system before this returns."""
        if not self._active:
            return
        self._append({"step": step, "attempt": attempt, **{name: float(value) for name, value in metrics.items()}})
        if self._writer is None:
            self._writer = SummaryWriter(str(self._tensorboard_dir), purge_step=self._purge_step)
        for name, value in metrics.items():
            self._writer.add_scalar(name, float(value), step)

    def event(self, step: int, attempt: int, event: str, **details: Any) -> None:
        """Appends an event, such as a rollback."""
        if self._active:
            self._append({"step": step, "attempt": attempt, "event": event, **details})

    def rewind(self, step: int, attempt: int) -> None:
        """Drops, atomically, lines of later steps or attempts and a last line that a crash cut short.

        TensorBoard is told to drop the later steps, too.
        """
        if not self._active or not self.path.exists():
            return
        kept = [line for line in self.path.read_text().splitlines() if _belongs(line, step, attempt)]
        write_atomically(self.path, "".join(f"{line}\n" for line in kept).encode())
        self._close_writer()
        self._purge_step = step + 1

    def flush(self) -> None:
        """Writes what is still in TensorBoard's queue."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Closes the event file; JSON lines are never held open."""
        self._close_writer()

    def _append(self, record: Mapping[str, Any]) -> None:
        clean = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in record.items()}
        with open(self.path, "a") as file:
            file.write(json.dumps(clean, allow_nan=False) + "\n")

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _belongs(line: str, step: int, attempt: int) -> bool:
    try:
        record = json.loads(line)
        return record["step"] <= step and record["attempt"] <= attempt
    except (ValueError, KeyError, TypeError):
        return False

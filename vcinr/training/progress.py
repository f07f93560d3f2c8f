"""Progress of a stage: a bar with the time left on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import math
import time

import rich.console
import rich.progress

_LINE_EVERY_S = 30.0


class ProgressBar:
    """Shows one stage after the other on standard error.

    quiet: True shows nothing at all.
    """

    def __init__(self, quiet: bool = False):
        self._console = rich.console.Console(stderr=True, quiet=quiet)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[status]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            speed_estimate_period=120.0,
        )
        self._task: rich.progress.TaskID | None = None

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def start(self, name: str, step: int, num_steps: int) -> None:
        """Begins a stage of `num_steps` steps, `step` of which are done."""
        self._task = self._bar.add_task(name, total=num_steps, completed=step, status="")
        self._name, self._first, self._total = name, step, num_steps
        self._began = self._last_line = time.monotonic()

    def update(self, step: int, loss: float | None = None) -> None:
        """Shows that `step` steps are done; loss: the smoothed one, shown in decibels too."""
        status = "" if loss is None else f"loss {loss:.4g}" + (f" ({10 * math.log10(loss):.2f} dB)" if loss > 0 else "")
        fields = {} if loss is None else {"status": status}
        self._bar.update(self._task, completed=step, **fields)
        now = time.monotonic()
        if not self._console.is_terminal and (now - self._last_line > _LINE_EVERY_S or step == self._total):
            self._last_line = now
            done = max(1, step - self._first)
            left = (now - self._began) / done * (self._total - step)
            self.print(f"{self._name} {step}/{self._total}  {status}  {left:.0f} s left")

    def resize(self, num_steps: int) -> None:
        """Sets the steps of the stage that is shown, where they were not known when it began."""
        if num_steps != self._total:
            self._total = num_steps
            self._bar.update(self._task, total=num_steps)

    def finish(self) -> None:
        """Shows all steps of the stage as done."""
        self.update(self._total)

    def report(self, what: str, done: int, total: int) -> None:
        """Shows `done` of `total` steps of anything, such as a measurement; a `vcinr.stage.Progress`."""
        if self._task is None:
            self.start(what, 0, total)
        self._bar.update(self._task, description=what)
        self._name = what
        self.update(done)

    def print(self, line: str) -> None:
        """A line of its own, above the bar."""
        self._console.print(line, markup=False, highlight=False)

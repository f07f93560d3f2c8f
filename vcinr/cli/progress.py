"""How far a command is, shown where someone looks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(description: str, total: int) -> Iterator[tuple[Callable[[int], None], Callable[[str, int, int], None]]]:
    """Two functions, shown with the time left where someone is looking: one counts so many more files done, one is told of the
    steps of what takes long inside (what, done, in all)."""
    if not sys.stderr.isatty():
        yield lambda count: None, lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task, inner = bar.add_task(description, total=total), bar.add_task("", total=None, visible=False)

        def report(what: str, done: int, total: int) -> None:
            if done == 0:
                bar.reset(inner, description=what)
            bar.update(inner, description=what, completed=done, total=total, visible=done < total)

        yield lambda count: bar.advance(task, count), report

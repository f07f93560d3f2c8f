"""Files that commands read and write: sources and targets, errors that name them, groups that are coded together."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vcinr.bitstream import container

GROUP_SAMPLES = 2**22
"""Signals are coded together up to this many samples, which bounds memory and pads only the last batch of a group."""


def in_groups(items: Iterable[tuple[Hashable, int, Any]]) -> Iterator[tuple[Any, list]]:
    """Items of (key, samples, item) as lists of one key each, of about `GROUP_SAMPLES` at most."""
    groups: dict[Hashable, list] = {}
    samples: dict[Hashable, int] = {}
    for key, count, item in items:
        groups.setdefault(key, []).append(item)
        samples[key] = samples.get(key, 0) + count
        if samples[key] >= GROUP_SAMPLES:
            del samples[key]
            yield key, groups.pop(key)
    yield from groups.items()


def read_coded(path: str) -> bytes:
    """A file's bytes; of a foreign one only the first, however long it is."""
    with open(path, "rb") as file:
        start = file.read(len(container.MAGIC))
        return start + file.read() if start == container.MAGIC else start


def pairs(paths: Sequence[str], out: str | None, suffix_of: Callable[[str], str]) -> list[tuple[str, str]]:
    """(source, target) of each file; targets are plain files, and never the sources, nor each other.

    out: folder for the source's name with another suffix, which ``suffix_of`` tells of a source; None where paths are IN OUT.
    """
    if out is None:
        if len(paths) != 2:
            raise ValueError(f"give IN OUT, or FILES… --out DIR; got {len(paths)} paths and no --out")
        if os.path.isdir(paths[1]):
            raise ValueError(f"{paths[1]} is a folder: use --out {paths[1]}")
        found = [(paths[0], paths[1])]
    else:
        if os.path.exists(out) and not os.path.isdir(out):
            raise ValueError(f"--out {out} is a file; it names the folder to write into")
        found = [(path, str(Path(out) / (Path(path).stem + suffix_of(path)))) for path in paths]
    sources = {(status.st_dev, status.st_ino): source for source, _ in found if (status := _stat(source))}
    taken: dict[str, str] = {}
    for source, target in found:
        place = os.path.realpath(target)
        if place in taken:
            raise ValueError(f"{taken[place]} and {source} would both be written to {target}: use different folders")
        taken[place] = source
        status = _stat(target)
        if status and (status.st_dev, status.st_ino) in sources:
            raise ValueError(f"{target} would overwrite the input {sources[status.st_dev, status.st_ino]}: choose another output")
        if status and not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{target} is no plain file: choose another output")
    return found


def _stat(path: str) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return os.stat(path)
    return None


def check_overwritten(target: str) -> None:
    """Refuses to replace what is no encoded file, as `vcinr encode *.png` without --out would where there are two."""
    if os.path.isfile(target) and os.path.getsize(target) and read_coded(target)[: len(container.MAGIC)] != container.MAGIC:
        raise ValueError(f"{target} exists and is no vcinr file: remove it first, or name a folder with --out")


@contextlib.contextmanager
def about(path: str) -> Iterator[None]:
    """Errors inside name the file that they are about."""
    try:
        yield
    except MemoryError as error:
        raise ValueError(f"{path}: not enough memory for a signal of this size") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error

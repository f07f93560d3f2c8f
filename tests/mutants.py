"""Do the tests notice? Breaks the library in one small way at a time, in a copy of it, and runs the tests that should fail.

    python -m tests.mutants                 all mutants of tests/mutants.toml; `make mutants`
    python -m tests.mutants entropy/ gates  those whose file or description contains one of these words

A mutant is killed where a test fails, and has survived where all pass. The exit status is 1 if one survived, or if its tests
could not run at all.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".toml")
COPIED = ("vcinr", "tests", "configs", "experiments", "benchmarks", "pyproject.toml")
KILLED, SURVIVED, BROKEN = "killed", "SURVIVED", "BROKEN"
TIMEOUT_SECONDS = 3600


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of meaning.

    file: path from the root of the tree.
    old: text that occurs exactly once in it.
    new: what stands there instead.
    breaks: the truth that no longer holds, in one line.
    tests: files or single tests, as pytest names them.
    """

    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]

    def changed(self, text: str) -> str:
        """The file's text with the change made. ValueError unless ``old`` occurs exactly once."""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: {count} times, not once: {self.old!r}")
        return text.replace(self.old, self.new)


def read(path: Path = LIST) -> list[Mutant]:
    """The mutants of a list, in their order."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    return [Mutant(**{**row, "tests": tuple(row["tests"])}) for row in rows]


def environment(tree: Path, cache: Path) -> dict[str, str]:
    """Tests import the copy; programs that many mutants have in common are compiled once, in ``cache`` or the user's own."""
    jax = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return {**jax, **os.environ, "PYTHONPATH": str(tree)}


def outcome(tree: Path, cache: Path, tests: Iterable[str]) -> tuple[str, str]:
    """(killed, survived or broken; the first failure or the end of the output) of some tests in a tree."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", "--tb=line", *tests]
    try:
        run = subprocess.run(
            command, cwd=tree, env=environment(tree, cache), capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return BROKEN, f"no end after {TIMEOUT_SECONDS} s"
    # pytest says 1 where tests failed; 2 to 5 where it could not collect or run them, which tells nothing of the tests.
    verdict = {0: SURVIVED, 1: KILLED}.get(run.returncode, BROKEN)
    if verdict == BROKEN:
        return verdict, (run.stdout + run.stderr)[-2000:]
    return verdict, next((line.split()[1] for line in run.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))), "")


def judge(root: Path, mutants: Sequence[Mutant]) -> list[str]:
    """The verdict on each mutant, printed as it is found. ValueError where tests fail without any mutant, or a text has gone."""
    texts = [mutant.changed((root / mutant.file).read_text(encoding="utf-8")) for mutant in mutants]
    with tempfile.TemporaryDirectory() as name:
        tree, cache = Path(name) / "tree", Path(name) / "cache"
        for part in COPIED:
            if (root / part).is_dir():
                shutil.copytree(root / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
            elif (root / part).exists():
                shutil.copy2(root / part, tree / part)
        verdict, why = outcome(tree, cache, sorted({test for mutant in mutants for test in mutant.tests}))
        if verdict != SURVIVED:
            raise ValueError(f"without any mutant, tests fail: {why}")
        verdicts = []
        for number, (mutant, text) in enumerate(zip(mutants, texts, strict=True), 1):
            start, file = time.monotonic(), tree / mutant.file
            file.write_text(text, encoding="utf-8")
            # Compiled files are told apart by size and whole seconds, which two mutants of one file may share.
            os.utime(file, (number, number))
            verdict, why = outcome(tree, cache, mutant.tests)
            shutil.copy2(root / mutant.file, file)
            verdicts.append(verdict)
            seconds = time.monotonic() - start
            print(f"{verdict:8} {seconds:4.0f} s  {mutant.file}: {mutant.breaks}  {why}", flush=True)
    return verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the mutants that are asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", help="only mutants whose file or description contains one of these")
    words = parser.parse_args(arguments).words
    chosen = [m for m in read() if not words or any(word in f"{m.file}: {m.breaks}" for word in words)]
    if not chosen:
        parser.error(f"no mutant's file or description contains {' or '.join(map(repr, words))}")
    try:
        verdicts = judge(ROOT, chosen)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for mutant, verdict in zip(chosen, verdicts, strict=True):
        if verdict != KILLED:
            print(f"{verdict}: {mutant.file}: {mutant.breaks}")
    print(f"{verdicts.count(KILLED)} of {len(verdicts)} mutants killed")
    return int(verdicts.count(KILLED) < len(verdicts))


if __name__ == "__main__":
    sys.exit(main())

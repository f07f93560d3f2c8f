"""Hostile files whose checksum is right: `python -m benchmarks.fuzz --cases 1000000 --seed 0 [--codec NAME]`.

Valid files of small models of every codec are taken apart, changed in header, meta, symbols or payload, and signed again; so
nothing but the decoder's own checks stands between them and what it computes. A case passes where it is refused with a
BitstreamError, or decodes within limits to symbols that are written as the same bytes. Prints cases per second, outcomes, the
slowest case and peak memory; a case that fails is printed with its number, which ``--first N --cases 1`` runs again.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.small_models import small_model
from vcinr.bitstream import container, payload
from vcinr.bitstream.container import BitstreamError
from vcinr.bitstream.limits import Limits
from vcinr.codec import Code, grid_of
from vcinr.codecs import CODECS
from vcinr.model.model import Model
from vcinr.signals.signal import Grid

LIMITS = Limits(max_pixels=2**12, max_work=2**30)
SHAPES = ((5, 7), (1, 9), (8, 8))
SYNTHESISED = 256
"""One of so many cases is decoded up to its samples, one of a tenth as many is read unsigned."""
REFUSED, DECODED, UNWRITABLE = "refused", "decoded", "not writable"
EXTREMES = (0, 1, -1, 2, 255, 256, 2**15, 2**16, -(2**15), 2**30, 2**31 - 1, -(2**31))


class Wrong(Exception):
    """An outcome that no file may have."""


@dataclasses.dataclass(frozen=True)
class Valid:
    """A file of a model, taken apart: everything that `container.head_bytes` and `encode_payload` take, and what they give."""

    point: int
    codes: Sequence[Code]
    grids: Sequence[Grid]
    head: bytes
    payload: bytes


def valid_files(model: Model) -> list[Valid]:
    """Pictures at every operating point, each alone and all in one file."""
    rng = np.random.default_rng(0)
    pictures = [np.clip(rng.normal(rng.integers(256), 40, (*shape, 3)), 0, 255).astype(np.uint8) for shape in SHAPES]
    found = []
    for point in range(len(model.points)):
        if model.codec.patch:
            codes, grids = model.make_codes(pictures, point)
        else:  # A network is as good at any shape, and quicker made of one.
            codes, grids = [model.make_codes(pictures[:1], point)[0][0]] * len(SHAPES), [Grid(shape, shape) for shape in SHAPES]
        for chosen in (*([i] for i in range(len(codes))), range(len(codes)), [0, 0]):
            some, places = [codes[i] for i in chosen], [grids[i] for i in chosen]
            coded = payload.encode_payload(model.codec, model.params, point, places, some)
            shapes, metas = [grid.shape for grid in places], [{**code.metadata, **code.meta} for code in some]
            found.append(Valid(point, some, places, head_of(model, point, shapes, metas), coded))
    return found


def head_of(model: Model, point: int, shapes: Sequence, metas: Sequence[Mapping[str, int | float]]) -> bytes:
    """The head of a file at a point. ValueError for what the format cannot hold."""
    fingerprint = bytes.fromhex(model.points[point]["fingerprint"])
    return container.head_bytes(fingerprint, shapes, metas, model.meta_types)


def some_int(rng: np.random.Generator, near: int) -> int:
    """A number like ``near``, or a small one, or one at the end of a range."""
    kind = rng.integers(8)
    if kind < 4:
        return int(near + rng.integers(-3, 4))
    return int(rng.integers(0, 40)) if kind < 7 else int(rng.choice(EXTREMES))


def changed_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    """Bits flipped, bytes written over, cut out, put in, cut off or added at the end."""
    out = bytearray(data)
    kind, at = rng.integers(7), int(rng.integers(len(out) + 1))
    if kind == 0 and out:
        out[at % len(out)] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        out[at : at + 4] = rng.bytes(int(rng.integers(1, 5)))
    elif kind == 2:
        del out[at : at + int(rng.integers(1, 9))]
    elif kind == 3:
        out[at:at] = rng.bytes(int(rng.integers(1, 9)))
    elif kind == 4:
        del out[at:]
    elif kind == 5:
        out += rng.bytes(int(rng.integers(1, 9)))
    else:
        out = bytearray(rng.bytes(int(rng.integers(0, 24))))
    return bytes(out)


def changed_head(rng: np.random.Generator, model: Model, valid: Valid) -> bytes:
    """Other shapes, signals, metas or point. ValueError for what the format cannot hold."""
    shapes = [list(grid.shape) for grid in valid.grids]
    metas = [{**code.metadata, **code.meta} for code in valid.codes]
    point = valid.point
    for _ in range(rng.integers(1, 3)):
        i, kind = int(rng.integers(len(shapes))), rng.integers(8)
        if kind < 2:
            axis = int(rng.integers(len(shapes[i])))
            shapes[i][axis] = some_int(rng, shapes[i][axis])
        elif kind == 2:
            turn, rank = rng.integers(2), int(rng.integers(1, 4))
            shapes = [list(shape[::-1]) if turn else [*shape, 1][:rank] for shape in shapes]
        elif kind == 3:
            count = int(rng.choice((1, 2, 3, 40)))
            shapes, metas = (shapes * count)[:60], (metas * count)[:60]
        elif kind == 4:
            point = int(rng.integers(len(model.points)))
        elif metas[i]:
            name = list(metas[i])[int(rng.integers(len(metas[i])))]
            metas[i] = {**metas[i], name: some_int(rng, int(metas[i][name]))}
            if rng.integers(2):
                metas = [metas[i]] * len(metas)
    return head_of(model, point, shapes, metas)


def changed_codes(rng: np.random.Generator, model: Model, valid: Valid) -> list[Code]:
    """Other symbols: some of them far away, all of a stream alike, or a stream of another length."""
    codes = [dataclasses.replace(code, streams=dict(code.streams)) for code in valid.codes]
    for _ in range(rng.integers(1, 4)):
        streams = codes[int(rng.integers(len(codes)))].streams
        name = model.codec.streams[int(rng.integers(len(model.codec.streams)))]
        stream = np.array(streams[name])
        if stream.size:
            kind, chosen = rng.integers(5), rng.integers(0, stream.size, int(rng.integers(1, 5)))
            if kind < 2:
                stream[chosen] += rng.integers(-2, 3, chosen.size, np.int32)
            elif kind == 2:
                stream[chosen] = rng.choice(np.array(EXTREMES, np.int32), chosen.size)
            elif kind == 3:
                stream[:] = int(rng.choice(EXTREMES))
            else:
                stream = stream[: int(rng.integers(stream.size + 1))]
        streams[name] = stream
    return codes


def mutated(rng: np.random.Generator, model: Model, valid: Valid) -> tuple[bytes, bytes]:
    """(head, payload) of a changed file. ValueError where no file can be so."""
    head, coded = valid.head, valid.payload
    kind = rng.integers(10)
    if kind < 4:
        head = changed_head(rng, model, valid)
    elif kind == 4:
        head = changed_bytes(rng, head)
    elif kind < 7:
        codes = changed_codes(rng, model, valid)
        coded = payload.encode_payload(model.codec, model.params, valid.point, valid.grids, codes)
    if kind >= 7 or rng.integers(8) == 0:
        coded = changed_bytes(rng, coded)
    return head, coded


def sign(model: Model, head: bytes, coded: bytes) -> bytes:
    """The file, with the checksum of what its payload decodes to. BitstreamError where it does not decode."""
    unsigned = container.write(head, coded, 0)
    point = model.fingerprints.get(container.peek(unsigned, LIMITS.max_pixels).fingerprint)
    if point is None:
        raise BitstreamError("made with another model")
    frame = container.read(unsigned, model.meta_types, LIMITS.max_pixels)
    model.check_size(frame.shapes, LIMITS.max_pixels)
    grids = [grid_of(model.codec, shape) for shape in frame.shapes]
    metas = [{name: meta[name] for name in model.codec.meta_types} for meta in frame.metas]
    codes = payload.decode_payload(model.codec, model.params, point, grids, metas, frame.payload, LIMITS)
    return container.write(frame.head, frame.payload, container.checksum(frame.head, payload.ordered_streams(model.codec, codes)))


def run_case(model: Model, files: Sequence[Valid], seed: Sequence[int]) -> tuple[str, bytes]:
    """(outcome, file) of one case. Wrong where it has none that a file may have; whatever else is raised is wrong too."""
    rng = np.random.default_rng(seed)
    try:
        head, coded = mutated(rng, model, files[int(rng.integers(len(files)))])
    except ValueError:
        return UNWRITABLE, b""
    far, unsigned = rng.integers(SYNTHESISED) == 0, rng.integers(SYNTHESISED // 10) == 0
    data = container.write(head, coded, 0)
    try:
        data = sign(model, head, coded)
    except BitstreamError:
        if unsigned:
            _read_refused(model, data)
        return REFUSED, data
    try:
        point, codes, grids = model.read_codes(data, LIMITS.max_pixels, LIMITS.max_work)
    except BitstreamError as error:
        raise Wrong(f"it is signed, and refused: {error}") from error
    if model.write_codes(point, codes, grids) != data:
        raise Wrong("its symbols are written as other bytes")
    if far:
        try:
            signals = model.decode_together(data, LIMITS.max_pixels, LIMITS.max_work)
        except BitstreamError as error:
            if "not finite" not in str(error):
                raise Wrong(f"its symbols are read, and refused: {error}") from error
        else:
            if any(signal.shape[:-1] != grid.shape for signal, grid in zip(signals, grids, strict=True)):
                raise Wrong("a signal has another shape than its head says")
    return DECODED, data


def _read_refused(model: Model, data: bytes) -> None:
    try:
        model.read_codes(data, LIMITS.max_pixels, LIMITS.max_work)
    except BitstreamError:
        return
    raise Wrong("what does not decode is read")


@dataclasses.dataclass
class Tally:
    """Of one codec: outcomes; seconds in all, by the clock and of CPUs; the slowest case, its seconds and number; what failed."""

    outcomes: Counter
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)
    failed: list[tuple[int, str]] = dataclasses.field(default_factory=list)


def run(name: str, numbers: range, seed: int, most_failures: int = 10) -> Iterator[Tally]:
    """Runs the cases of these numbers on a codec; gives the tally, which goes on changing, after each of them."""
    model = small_model(name)
    files = valid_files(model)
    tally = Tally(Counter())
    for number in numbers:
        started, cpu = time.perf_counter(), time.process_time()
        try:
            outcome, _ = run_case(model, files, (seed, sorted(CODECS).index(name), number))
            tally.outcomes[outcome] += 1
        except Exception as error:  # Whatever it is, it is no refusal.
            tally.failed.append((number, f"{type(error).__name__}: {error}"))
        taken = time.perf_counter() - started
        tally.seconds += taken
        tally.cpu_seconds += time.process_time() - cpu
        tally.slowest = max(tally.slowest, (taken, number))
        yield tally
        if len(tally.failed) >= most_failures:
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; see the module. Returns 1 where a case failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description="Hostile files whose checksum is right.")
    parser.add_argument("--cases", type=int, default=10_000, help="of all codecs together (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each codec")
    parser.add_argument("--codec", choices=sorted(CODECS), help="one codec alone")
    options = parser.parse_args(arguments)
    names = [options.codec] if options.codec else sorted(CODECS)
    each = -(-options.cases // len(names))
    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table("codec", REFUSED, DECODED, UNWRITABLE, "failed", "cases/s", "slowest", "its number")
    tallies = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name in names:
            task = progress.add_task(name, total=each)
            for tally in run(name, range(options.first, options.first + each), options.seed):
                tallies[name] = tally
                progress.advance(task)
    for name, tally in tallies.items():
        counts = [tally.outcomes[outcome] for outcome in (REFUSED, DECODED, UNWRITABLE)]
        rate = (sum(counts) + len(tally.failed)) / tally.seconds
        row = [*counts, len(tally.failed), f"{rate:.0f}", f"{1e3 * tally.slowest[0]:.0f} ms", tally.slowest[1]]
        table.add_row(name, *map(str, row))
    console.print(table)
    failed = [(name, *case) for name, tally in tallies.items() for case in tally.failed]
    for name, number, words in failed:
        console.print(f"--codec {name} --first {number} --cases 1 --seed {options.seed}: {words}", markup=False, highlight=False)
    done = sum(sum(tally.outcomes.values()) + len(tally.failed) for tally in tallies.values())
    seconds, cpu = (sum(getattr(tally, which) for tally in tallies.values()) for which in ("seconds", "cpu_seconds"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(f"{done} cases in {seconds:.0f} s, {done / seconds:.0f} cases/s ({cpu:.0f} s of CPUs)", highlight=False)
    console.print(f"peak memory of the process, its models' making included: {peak:.2f} GiB", highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

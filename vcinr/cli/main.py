"""The command line: `vcinr encode`, `decode`, `info`, `models`."""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import vcinr
from vcinr.bitstream import container
from vcinr.bitstream.container import BitstreamError

# JAX, rich and Pillow are imported where they are needed: `vcinr --help` and `vcinr info` answer without them.

SUFFIX = ".vcinr"
DEFAULT_MODEL = "photo"
"""Bundled, for pictures of any size."""
GROUP_PIXELS = 2**22
"""Pictures are coded together up to this many pixels, which bounds memory and pads only the last batch of a group."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. What is wrong with the input is one line on standard error, and status 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # A file may have any name, a terminal any alphabet.
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            # Libraries warn those who program with them; what concerns who runs this is an error, or printed.
            warnings.simplefilter("ignore")
            options.run(options)
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        wrong = "not enough memory for signals of this size"
    except OSError as error:
        wrong = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    except ValueError as error:
        wrong = str(error)
    else:
        return 0
    print(f"vcinr: {' '.join(wrong.split())}", file=sys.stderr)
    return 1


def encode(options: argparse.Namespace) -> None:
    """`vcinr encode IN OUT`, or `vcinr encode FILES… --out DIR`."""
    from vcinr.modalities.picture_files import read_image

    pairs = _pairs(options.paths, options.out, SUFFIX)
    for _, target in pairs:
        _check_overwritten(target)
    _start_jax()
    model = _model(options.model)
    if options.point is None and options.bpp is None and options.psnr is None:
        if hasattr(model.codec, "choose_point") and len(model.points) > 1:
            raise ValueError(f"which of {len(model.points)} networks? give --bpp, --psnr or --point (see vcinr models NAME)")
        options.point = len(model.points) // 2

    def read(report: Callable) -> Iterator[tuple]:
        for source, target in pairs:
            picture = read_image(source, options.background, options.eight_bit, options.max_pixels)
            point = options.point
            with _about(source):
                model.check_size([picture.shape[:2]], options.max_pixels)
                if options.bpp is not None or options.psnr is not None:
                    wanted = (options.bpp, options.psnr, options.effort)
                    point = model.choose_point(picture, *wanted, workdir=options.workdir, progress=report)
            # Signals that are fitted whole come one by one: each file is there when its fit is, and the fit is that of --psnr.
            size = math.prod(picture.shape[:2]) if model.codec.patch else GROUP_PIXELS
            yield point, size, (source, target, picture)

    with _progress("encoding", len(pairs)) as (advance, report):
        for point, group in _in_groups(read(report)):
            _encode_group(model, point, group, options, report)
            advance(len(group))


def decode(options: argparse.Namespace) -> None:
    """`vcinr decode IN OUT.png`, or `vcinr decode FILES… --out DIR`."""
    from vcinr.modalities.picture_files import LOSSLESS_SUFFIXES
    from vcinr.model.finding import find_by_fingerprint

    pairs = _pairs(options.paths, options.out, ".png")
    for _, target in pairs:
        if Path(target).suffix.lower() not in LOSSLESS_SUFFIXES:
            raise ValueError(f"{target}: pictures are written as one of {', '.join(LOSSLESS_SUFFIXES)}, which keep every value")
    _start_jax()
    models = [vcinr.load(options.model)] if options.model is not None else []

    def read() -> Iterator[tuple]:
        for source, target in pairs:
            with _about(source):
                data = _read(source)
                peek = container.peek(data, options.max_pixels)
                able = [model for model in models if options.model is not None or peek.fingerprint in model.fingerprints]
                if not able:
                    able = [find_by_fingerprint(peek.fingerprint)]
                    models.extend(able)
            yield able[0], sum(map(math.prod, peek.shapes)), (source, target, data)

    with _progress("decoding", len(pairs)) as (advance, _):
        for model, group in _in_groups(read()):
            _decode_group(model, group, options.max_pixels)
            advance(len(group))


def info(options: argparse.Namespace) -> None:
    """`vcinr info FILE`: what a file says of itself, no model needed."""
    with _about(options.path):
        data = _read(options.path)
        peek = container.peek(data, options.max_pixels)
    shapes = ", ".join("×".join(map(str, shape)) for shape in peek.shapes[:4]) + (", …" if len(peek.shapes) > 4 else "")
    print(f"format version {peek.version}")
    print(f"fingerprint    {peek.fingerprint.hex()}")
    print(f"signals        {len(peek.shapes)} ({shapes})")
    print(f"size           {len(data)} bytes, {8 * len(data) / sum(map(math.prod, peek.shapes)):.4f} bpp")


def models(options: argparse.Namespace) -> None:
    """`vcinr models [DIR…]`: models and their operating points."""
    from rich.console import Console

    from vcinr.cli.listing import print_models

    print_models(options.folders, Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False))


def _in_groups(items: Iterable[tuple[Hashable, int, Any]]) -> Iterator[tuple[Any, list]]:
    """Items of (key, pixels, item) as lists of one key each, of about `GROUP_PIXELS` at most."""
    groups: dict[Hashable, list] = {}
    pixels: dict[Hashable, int] = {}
    for key, count, item in items:
        groups.setdefault(key, []).append(item)
        pixels[key] = pixels.get(key, 0) + count
        if pixels[key] >= GROUP_PIXELS:
            del pixels[key]
            yield key, groups.pop(key)
    yield from groups.items()


def _encode_group(model: vcinr.Model, point: int, group: list, options: argparse.Namespace, report: Callable) -> None:
    from vcinr.trees import write_atomically

    pictures = [picture for _, _, picture in group]
    with _about(group[0][0]) if len(group) == 1 else contextlib.nullcontext():
        codes, grids = model.make_codes(pictures, point, options.effort, workdir=options.workdir, progress=report)
    sizes = []
    for (_, target, _), code, grid in zip(group, codes, grids, strict=True):
        data = model.write_codes(point, [code], [grid])
        write_atomically(target, data)
        sizes.append(len(data))
    qualities = _verify(model, group, codes, options.max_pixels) if options.verify else [""] * len(group)
    for (source, target, picture), size, quality in zip(group, sizes, qualities, strict=True):
        print(f"{source} → {target}: {size} bytes, {8 * size / math.prod(picture.shape[:2]):.4f} bpp{quality}")


def _verify(model: vcinr.Model, group: list, codes: list, max_pixels: int) -> list[str]:
    """Reads the files back from disk; their PSNR. ValueError where one holds other symbols than were coded."""
    import numpy as np

    from vcinr.evaluation.metrics import mean_squared_error, psnr_db

    files = []
    for (_, target, _), code in zip(group, codes, strict=True):
        with _about(target):
            files.append(_read(target))
            _, (read,), _ = model.read_codes(files[-1], max_pixels)
            if not all(np.array_equal(read.streams[name], code.streams[name]) for name in model.codec.streams):
                raise ValueError("it reads back as other symbols than were coded")
    decoded = model.decode_batch(files, max_pixels)
    return [
        f", symbols equal, {psnr_db(mean_squared_error(picture, other)):.2f} dB"
        for (_, _, picture), other in zip(group, decoded, strict=True)
    ]


def _decode_group(model: vcinr.Model, group: list, max_pixels: int) -> None:
    try:
        pictures = model.decode_batch([data for _, _, data in group], max_pixels)
    except (BitstreamError, MemoryError):
        # One by one, to name the file that is wrong, or to take less memory.
        pictures = []
        for source, _, data in group:
            with _about(source):
                pictures.append(model.decode(data, max_pixels))
    for (_, target, _), picture in zip(group, pictures, strict=True):
        _write_picture(target, picture)


def _write_picture(path: str, picture: Any) -> None:
    """Writes a picture that is whole from the first moment on."""
    from vcinr.modalities.picture_files import write_image
    from vcinr.trees import write_atomically

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / f"picture{Path(path).suffix}"
        write_image(scratch, picture)
        write_atomically(path, scratch.read_bytes())


def _read(path: str) -> bytes:
    """A file's bytes; of a foreign one only the first, however long it is."""
    with open(path, "rb") as file:
        start = file.read(len(container.MAGIC))
        return start + file.read() if start == container.MAGIC else start


def _pairs(paths: Sequence[str], out: str | None, suffix: str) -> list[tuple[str, str]]:
    """(source, target) of each file; targets are plain files, and never the sources, nor each other."""
    if out is None:
        if len(paths) != 2:
            raise ValueError(f"give IN OUT, or FILES… --out DIR; got {len(paths)} paths and no --out")
        if os.path.isdir(paths[1]):
            raise ValueError(f"{paths[1]} is a folder: use --out {paths[1]}")
        pairs = [(paths[0], paths[1])]
    else:
        if os.path.exists(out) and not os.path.isdir(out):
            raise ValueError(f"--out {out} is a file; it names the folder to write into")
        pairs = [(path, str(Path(out) / (Path(path).stem + suffix))) for path in paths]
    sources = {(found.st_dev, found.st_ino): source for source, _ in pairs if (found := _stat(source))}
    taken: dict[str, str] = {}
    for source, target in pairs:
        place = os.path.realpath(target)
        if place in taken:
            raise ValueError(f"{taken[place]} and {source} would both be written to {target}: use different folders")
        taken[place] = source
        found = _stat(target)
        if found and (found.st_dev, found.st_ino) in sources:
            raise ValueError(f"{target} would overwrite the input {sources[found.st_dev, found.st_ino]}: choose another output")
        if found and not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{target} is no plain file: choose another output")
    return pairs


def _stat(path: str) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return os.stat(path)
    return None


def _check_overwritten(target: str) -> None:
    """Refuses to replace what is no encoded file, as `vcinr encode *.png` without --out would where there are two."""
    if os.path.isfile(target) and os.path.getsize(target) and _read(target)[: len(container.MAGIC)] != container.MAGIC:
        raise ValueError(f"{target} exists and is no vcinr file: remove it first, or name a folder with --out")


@contextlib.contextmanager
def _about(path: str) -> Iterator[None]:
    """Errors inside name the file that they are about."""
    try:
        yield
    except MemoryError as error:
        raise ValueError(f"{path}: not enough memory for a signal of this size") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _model(folder: str | None) -> vcinr.Model:
    """The model named, or else the default: the bundled one, and where it is not installed the only one that is at hand."""
    from vcinr.model.finding import built_in_names
    from vcinr.model.places import SEARCH_VARIABLE, bundled, model_folders

    if folder is not None:
        return vcinr.load(folder)
    found = model_folders()
    if (default := bundled(DEFAULT_MODEL)) is None and len(found) != 1:
        hand = f"at hand: {', '.join(map(str, found))}" if found else f"none is at hand, and {SEARCH_VARIABLE} names none"
        raise ValueError(
            f"which model? {DEFAULT_MODEL!r}, the default, is not installed ({hand}): install a vcinr that bundles it, "
            f"give --model DIR, or one that needs no folder: {', '.join(built_in_names())}"
        )
    return vcinr.load(default or found[0])


@contextlib.contextmanager
def _progress(description: str, total: int) -> Iterator[tuple[Callable[[int], None], Callable[[str, int, int], None]]]:
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


def _start_jax() -> None:
    from vcinr.devices import use_cpu_cores

    use_cpu_cores()
    _use_compilation_cache()


def _use_compilation_cache() -> None:
    """Keeps compiled programs between runs, so that the second start is fast; VCINR_CACHE moves it, empty switches it off."""
    chosen = os.environ.get("VCINR_CACHE")
    if chosen == "":
        return
    folder = chosen or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "vcinr", "jax")
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if chosen is None:
            return  # A home that cannot be written to costs the cache, not the command.
        raise ValueError(f"VCINR_CACHE={chosen} cannot be written to ({error.strerror}); empty switches the cache off") from error
    import jax

    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _positive(kind: Callable) -> Callable:
    def parse(text: str):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    parse.__name__ = kind.__name__
    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vcinr", description="Compress pictures with implicit neural representations.")
    parser.add_argument("--version", action="version", version=f"vcinr {vcinr.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable, description: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=description, description=description)
        command.set_defaults(run=run)
        if name != "models":
            limit = container.DEFAULT_MAX_PIXELS
            command.add_argument("--max-pixels", type=_positive(int), default=limit, help="refuse more samples (%(default)s)")
        return command

    command = add("encode", encode, "Pictures to files: IN OUT, or FILES… --out DIR.")
    command.add_argument("paths", nargs="+", metavar="FILE")
    command.add_argument("--out", metavar="DIR", help="folder for NAME" + SUFFIX + " of each FILE")
    command.add_argument("--model", metavar="DIR", help=f"a model, or its name (see vcinr models); default: {DEFAULT_MODEL}")
    choice = command.add_mutually_exclusive_group()
    choice.add_argument("--point", type=int, help="operating point (see vcinr models); the middle one where nothing is given")
    choice.add_argument("--bpp", type=_positive(float), help="the best point within this many bits per pixel of file")
    choice.add_argument("--psnr", type=_positive(float), help="the cheapest point that reaches this many decibels")
    command.add_argument("--effort", type=int, default=0, help="how long to look for a better code; 0 is the quickest")
    command.add_argument("--workdir", metavar="DIR", help="where codecs that fit for long keep what they have, to go on from")
    command.add_argument("--verify", action="store_true", help="read each file back, compare symbols, print its PSNR")
    command.add_argument("--background", metavar="COLOUR", help="composite translucent pictures over this colour, e.g. '#ffffff'")
    command.add_argument("--eight-bit", action="store_true", help="round 16-bit pictures to 8 bits")

    command = add("decode", decode, "Files to pictures: IN OUT.png, or FILES… --out DIR.")
    command.add_argument("paths", nargs="+", metavar="FILE")
    command.add_argument("--out", metavar="DIR", help="folder for NAME.png of each FILE")
    command.add_argument("--model", metavar="DIR", help="the model it was encoded with; default: found by its fingerprint")

    command = add("info", info, "What a file says of itself.")
    command.add_argument("path", metavar="FILE")

    command = add("models", models, "Models and their operating points.")
    command.add_argument("folders", nargs="*", metavar="DIR", help="a model, or a folder of models; default: those at hand")
    return parser


if __name__ == "__main__":
    sys.exit(main())

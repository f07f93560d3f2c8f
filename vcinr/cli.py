"""The command line: `vcinr encode`, `decode`, `info`, `models`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vcinr import bitstream
from vcinr.bitstream import DEFAULT_MAX_PIXELS, BitstreamError
from vcinr.model import Model, ModelError, find_by_fingerprint, load, model_folders
from vcinr.signals.images import read_image, write_image

SUFFIX = ".vcinr"
GROUP_PIXELS = 2**24
"""Pictures are encoded together up to this many pixels, which bounds memory and pads only the last batch of a group."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. What is wrong with the input is one line on standard error, and status 1."""
    options = _parser().parse_args(arguments)
    _use_compilation_cache()
    try:
        options.run(options)
    except (BitstreamError, ModelError, ValueError, OSError) as error:
        print(f"vcinr: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def encode(options: argparse.Namespace) -> None:
    """`vcinr encode IN OUT`, or `vcinr encode FILES… --out DIR`."""
    model = _model(options.model)
    pairs = _pairs(options.paths, options.out, SUFFIX)
    jobs: dict[int, list] = {}
    with _progress() as bar:
        task = bar.add_task("encoding", total=len(pairs))
        for source, target in pairs:
            picture = read_image(source, background=options.background, eight_bit=options.eight_bit, max_pixels=options.max_pixels)
            point = options.point
            if options.bpp is not None or options.psnr is not None:
                point = model.choose_point(picture, options.bpp, options.psnr, options.effort)
            group = jobs.setdefault(point, [])
            group.append((source, target, picture))
            if sum(p.shape[0] * p.shape[1] for _, _, p in group) >= GROUP_PIXELS:
                _encode_group(model, point, jobs.pop(point), options, bar.console)
            bar.advance(task)
        for point, group in jobs.items():
            _encode_group(model, point, group, options, bar.console)


def decode(options: argparse.Namespace) -> None:
    """`vcinr decode IN OUT.png`, or `vcinr decode FILES… --out DIR`."""
    pairs = _pairs(options.paths, options.out, ".png")
    models: dict[bytes, Model] = {}
    with _progress() as bar:
        task = bar.add_task("decoding", total=len(pairs))
        for source, target in pairs:
            data = Path(source).read_bytes()
            fingerprint = bitstream.peek(data, options.max_pixels).fingerprint
            if fingerprint not in models:
                models[fingerprint] = _model(options.model) if options.model else find_by_fingerprint(fingerprint)
            write_image(target, models[fingerprint].decode(data, options.max_pixels))
            bar.advance(task)


def info(options: argparse.Namespace) -> None:
    """`vcinr info FILE`: what a file says of itself, no model needed."""
    data = Path(options.path).read_bytes()
    peek = bitstream.peek(data, options.max_pixels)
    pixels = sum(int(np.prod(shape)) for shape in peek.shapes)
    shapes = ", ".join("×".join(map(str, shape)) for shape in peek.shapes[:4]) + (", …" if len(peek.shapes) > 4 else "")
    print(f"format version {peek.version}")
    print(f"fingerprint    {peek.fingerprint.hex()}")
    print(f"signals        {len(peek.shapes)} ({shapes})")
    print(f"size           {len(data)} bytes, {8 * len(data) / pixels:.4f} bpp")


def models(options: argparse.Namespace) -> None:
    """`vcinr models [DIR…]`: models and their operating points."""
    folders = [Path(folder) for folder in options.folders] or model_folders()
    if not folders:
        raise ModelError("no models found: name a folder, or set VCINR_MODELS to folders that hold models")
    table = Table("model", "codec", "point", "λ", "bpp", "PSNR / dB", "fingerprint", "MB")
    for folder in folders:
        model = load(folder)
        for i, point in enumerate(model.points):
            cells = [f"{point[key]:{spec}}" if key in point else "" for key, spec in (("lambda", "g"), ("bpp", ".3f"), ("psnr_db", ".2f"))]
            first = [str(folder), model.codec.name] if i == 0 else ["", ""]
            table.add_row(*first, str(i), *cells, point["fingerprint"], f"{model.num_bytes / 1e6:.1f}" if i == 0 else "")
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    print("bpp and PSNR are those of the validation patches at training time, in one container.")


def _encode_group(model: Model, point: int, group: list, options: argparse.Namespace, console: Console) -> None:
    files = model.encode_batch([picture for _, _, picture in group], point, options.effort)
    for (source, target, picture), data in zip(group, files, strict=True):
        Path(target).write_bytes(data)
        line = f"{source} → {target}: {len(data)} bytes, {8 * len(data) / (picture.shape[0] * picture.shape[1]):.4f} bpp"
        if options.verify:
            decoded = model.decode(Path(target).read_bytes(), options.max_pixels)
            error = np.mean(np.square(decoded.astype(np.float64) - picture)) / 255.0**2
            line += f", {-10 * np.log10(max(error, 1e-12)):.2f} dB"
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _pairs(paths: Sequence[str], out: str | None, suffix: str) -> list[tuple[str, str]]:
    """(source, target) of each file; targets are never the sources, nor each other."""
    if out is None:
        if len(paths) != 2:
            raise ValueError(f"give IN OUT, or FILES… --out DIR; got {len(paths)} paths and no --out")
        if os.path.isdir(paths[1]):
            raise ValueError(f"{paths[1]} is a folder: use --out {paths[1]}")
        pairs = [(paths[0], paths[1])]
    else:
        Path(out).mkdir(parents=True, exist_ok=True)
        pairs = [(path, str(Path(out) / (Path(path).stem + suffix))) for path in paths]
    targets = [os.path.realpath(target) for _, target in pairs]
    if len(set(targets)) != len(targets):
        raise ValueError("two inputs have the same name and would overwrite each other: encode them into different folders")
    if set(targets) & {os.path.realpath(source) for source, _ in pairs}:
        raise ValueError("an output would overwrite an input: choose another output")
    return pairs


def _model(folder: str | None) -> Model:
    if folder is not None:
        return load(folder)
    found = model_folders()
    if len(found) != 1:
        names = f"found {', '.join(map(str, found))}" if found else "none is bundled, and VCINR_MODELS names none"
        raise ModelError(f"which model? give --model DIR ({names})")
    return load(found[0])


def _progress() -> Progress:
    return Progress(console=Console(stderr=not sys.stdout.isatty()), transient=True)


def _use_compilation_cache() -> None:
    """Keeps compiled programs between runs, so that the second start is fast; VCINR_CACHE moves it, empty switches it off."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vcinr" / "jax"
    folder = os.environ.get("VCINR_CACHE", str(default))
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _positive(kind: Callable) -> Callable:
    def parse(text: str):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vcinr", description="Compress pictures with implicit neural representations.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable, description: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=description, description=description)
        command.set_defaults(run=run)
        if name != "models":
            command.add_argument(
                "--max-pixels", type=_positive(int), default=DEFAULT_MAX_PIXELS, help="refuse more samples than this (%(default)s)"
            )
        return command

    command = add("encode", encode, "Pictures to files: IN OUT, or FILES… --out DIR.")
    command.add_argument("paths", nargs="+", metavar="FILE")
    command.add_argument("--out", metavar="DIR", help="folder for NAME" + SUFFIX + " of each FILE")
    command.add_argument("--model", metavar="DIR", help="a trained model")
    choice = command.add_mutually_exclusive_group()
    choice.add_argument("--point", type=int, default=0, help="operating point (see vcinr models)")
    choice.add_argument("--bpp", type=_positive(float), help="the best point within this many bits per pixel of file")
    choice.add_argument("--psnr", type=_positive(float), help="the cheapest point that reaches this many decibels")
    command.add_argument("--effort", type=int, default=0, help="0 is the meta-learned encoder")
    command.add_argument("--verify", action="store_true", help="read each file back, decode it and print its PSNR")
    command.add_argument("--background", metavar="COLOUR", help="composite translucent pictures over this colour, e.g. '#ffffff'")
    command.add_argument("--eight-bit", action="store_true", help="round 16-bit pictures to 8 bits")

    command = add("decode", decode, "Files to pictures: IN OUT.png, or FILES… --out DIR.")
    command.add_argument("paths", nargs="+", metavar="FILE")
    command.add_argument("--out", metavar="DIR", help="folder for NAME.png of each FILE")
    command.add_argument("--model", metavar="DIR", help="the model it was encoded with; default: found by its fingerprint")

    command = add("info", info, "What a file says of itself.")
    command.add_argument("path", metavar="FILE")

    command = add("models", models, "Models and their operating points.")
    command.add_argument("folders", nargs="*", metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(main())

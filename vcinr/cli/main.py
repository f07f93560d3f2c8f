"""The command line: `vcinr encode`, `decode`, `info`, `models`."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence

import vcinr
from vcinr.bitstream import container, limits
from vcinr.cli import decode, encode, info
from vcinr.modalities import MODALITIES

# JAX, rich and Pillow are imported where they are needed: `vcinr --help` and `vcinr info` answer without them.


READER_LEFT = 141
"""Exit status where whoever read the output closed it, as `head` does: what shells report of a program that SIGPIPE ends."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. What is wrong with the input is one line on standard error, and status 1."""
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise Python would try again when it ends, and print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT


def _run(arguments: Sequence[str] | None) -> int:
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
    except BrokenPipeError:
        raise
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


def _models(options: argparse.Namespace) -> None:
    from vcinr.cli import models

    models.run(options)


def _positive(kind: Callable) -> Callable:
    def parse(text: str):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    parse.__name__ = kind.__name__
    return parse


def _shape(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no shape such as 512x768")
    return found


def _defaults() -> str:
    return ", ".join(f"{model} for a {modality}" for modality, model in encode.DEFAULT_MODELS.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vcinr", description="Compress signals with implicit neural representations.")
    parser.add_argument("--version", action="version", version=f"vcinr {vcinr.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable, description: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=description, description=description)
        command.set_defaults(run=run)
        if name != "models":
            limit = container.DEFAULT_MAX_PIXELS
            command.add_argument("--max-pixels", type=_positive(int), default=limit, help="refuse more samples (%(default)s)")
        return command

    command = add("encode", encode.run, "Signals to files: IN OUT, or FILES… --out DIR.")
    command.add_argument("paths", nargs="+", metavar="FILE")
    command.add_argument("--out", metavar="DIR", help="folder for NAME" + encode.SUFFIX + " of each FILE")
    command.add_argument("--model", metavar="DIR", help=f"a model, or its name (see vcinr models); default: {_defaults()}")
    command.add_argument("--modality", choices=list(MODALITIES), help="the kind of signal; default: by the first file's suffix")
    choice = command.add_mutually_exclusive_group()
    choice.add_argument("--point", type=int, help="operating point (see vcinr models); the middle one where nothing is given")
    choice.add_argument(
        "--bpp", type=_positive(float), help="the best point within this many bits of file per pixel or sample (coin: trial fits)"
    )
    choice.add_argument("--psnr", type=_positive(float), help="the cheapest point that reaches this many decibels")
    command.add_argument("--effort", type=int, default=0, help="how long to look for a better code; 0 is the quickest")
    command.add_argument("--workdir", metavar="DIR", help="where codecs that fit for long keep what they have, to go on from")
    command.add_argument("--verify", action="store_true", help="read each file back, compare symbols, print its PSNR")
    for option in {option.name: option for each in MODALITIES.values() for option in each.read_options}.values():
        kind = {"metavar": option.metavar} if option.metavar else {"action": "store_true"}
        command.add_argument(f"--{option.name.replace('_', '-')}", help=option.help, **kind)

    command = add("decode", decode.run, "Files to signals: IN OUT.png, or FILES… --out DIR.")
    command.add_argument("paths", nargs="+", metavar="FILE")
    command.add_argument("--out", metavar="DIR", help="folder for NAME.png of each FILE; of other signals NAME with their suffix")
    command.add_argument("--model", metavar="DIR", help="the model it was encoded with; default: found by its fingerprint")
    grid = command.add_mutually_exclusive_group()
    grid.add_argument("--scale", type=_positive(float), help="new samples per sample along each axis, between them too")
    grid.add_argument("--shape", type=_shape, metavar="N×M", help="the new grid, e.g. 512x768")
    grid.add_argument("--rate", type=_positive(float), help="the new sample or frame rate")
    grid.add_argument("--poses", metavar="JSON", help="views of a scene from the cameras in this file, see docs/modalities.md")
    work = limits.DEFAULT_MAX_WORK
    command.add_argument(
        "--max-work", type=_positive(int), default=work, help="refuse files that take more multiplications (%(default)s)"
    )

    command = add("info", info.run, "What a file says of itself.")
    command.add_argument("path", metavar="FILE")

    command = add("models", _models, "Models and their operating points.")
    command.add_argument("folders", nargs="*", metavar="DIR", help="a model, or a folder of models; default: those at hand")
    return parser


if __name__ == "__main__":
    sys.exit(main())

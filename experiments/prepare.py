"""Prepare a dataset, once: python -m experiments.prepare NAME [--data_dir D] [--manual_dir D] [--path P]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vcinr.datasets.catalogue import DATASETS_DIR_VARIABLE, DatasetMissing, prepare
from vcinr.datasets.table import DATASETS
from vcinr.modalities import MODALITIES


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares one dataset and prints its splits and folder; returns the exit status, 1 where it cannot be prepared."""
    width = max(map(len, DATASETS))
    parser = argparse.ArgumentParser(
        prog="python -m experiments.prepare",
        description="Write a dataset as array_record files, which training and evaluation read without TensorFlow.",
        epilog="datasets:\n" + "\n".join(f"  {name:{width}}  {row.description}" for name, row in DATASETS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="dataset, one of those below")
    parser.add_argument("--data_dir", help=f"where prepared sets live; default ${DATASETS_DIR_VARIABLE}, ~/tensorflow_datasets")
    parser.add_argument("--manual_dir", help="folder with a stock set's files, downloaded by hand")
    parser.add_argument("--path", help="folder of signals (dataset 'folder')")
    parser.add_argument("--modality", help="what they are (dataset 'folder'); default: picture")
    readers = {option.name: option for modality in MODALITIES.values() for option in modality.read_options}
    for option in readers.values():
        kind = {"metavar": option.metavar} if option.metavar else {"action": "store_true"}
        flags = dict.fromkeys((f"--{option.name.replace('_', '-')}", f"--{option.name}"))
        parser.add_argument(*flags, help=f"{option.help} (dataset 'folder')", **kind)
    args = parser.parse_args(argv)
    options = {name: getattr(args, name) for name in ("path", "modality", *readers)}
    try:
        prepared = prepare(args.name, args.data_dir, manual_dir=args.manual_dir, progress=True, **options)
    except (DatasetMissing, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    counts = ", ".join(f"{split} {count}" for split, count in prepared.counts.items())
    print(f"{prepared.name}: {counts} signals; {'was already' if prepared.already else 'now'} in {prepared.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How the studies end on the command line: a table, or one error in words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from vcinr.datasets.catalogue import DatasetMissing


def run_study(study: Callable[[argparse.Namespace], str], options: argparse.Namespace, *also: type[Exception]) -> int:
    """Prints the table of ``study``, or its error to stderr; the exit status, 1 where data are missing or a setting is wrong.

    ``also`` are errors that this study explains in words besides those; any other is a bug and keeps its traceback.
    """
    try:
        print(study(options))
    except (DatasetMissing, ValueError, *also) as error:
        print(error, file=sys.stderr)
        return 1
    return 0

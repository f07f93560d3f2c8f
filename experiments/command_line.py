"""Runs a study from the command line: prints its table, or an error in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from vcinr.datasets.catalogue import DatasetMissing


def run_study(study: Callable[[argparse.Namespace], str], options: argparse.Namespace, *also: type[Exception]) -> int:
    """Prints the table of ``study``, or its error to stderr; returns the exit status, 1 after an error.

    also: further exceptions that are printed as errors; any other is a bug and keeps its traceback.
    """
    try:
        print(study(options))
    except (DatasetMissing, ValueError, *also) as error:
        print(error, file=sys.stderr)
        return 1
    return 0

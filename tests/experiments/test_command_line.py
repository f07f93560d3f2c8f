"""How a study ends: with its table, with an error in words, or, where it has a bug, with a traceback."""

import argparse

import pytest

from experiments.command_line import run_study
from vcinr.datasets.catalogue import DatasetMissing

OPTIONS = argparse.Namespace(seeds=3)


def failing(error):
    def study(options):
        raise error

    return study


def test_the_table_of_the_options_is_printed(capsys):
    assert run_study(lambda options: f"| seeds |\n| {options.seeds} |", OPTIONS) == 0
    assert capsys.readouterr() == ("| seeds |\n| 3 |\n", "")


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (DatasetMissing("no faces"), ()),
        (ValueError("no faces"), ()),
        (RuntimeError("no faces"), (RuntimeError,)),
        (ValueError("no faces"), (RuntimeError,)),
    ],
)
def test_an_error_is_one_line_on_stderr(error, also, capsys):
    assert run_study(failing(error), OPTIONS, *also) == 1
    assert capsys.readouterr() == ("", "no faces\n")


@pytest.mark.parametrize("bug", [RuntimeError, FileNotFoundError, TypeError, KeyError, KeyboardInterrupt])
def test_bugs_are_not_hidden(bug):
    with pytest.raises(bug, match="a bug"):
        run_study(failing(bug("a bug")), OPTIONS)

"""The list of mutants fits the code, and what judges them tells killed from survived from broken."""

import ast

import pytest

from tests.mutants import BROKEN, KILLED, ROOT, SURVIVED, Mutant, judge, read

THING = "def double(x):\n    return 2 * x\n"
TEST = "from vcinr.thing import double\n\n\ndef test_double():\n    assert double(3) == 6\n"


@pytest.mark.parametrize("mutant", read(), ids=lambda mutant: f"{mutant.file}: {mutant.breaks}")
def test_a_mutant_changes_one_place_that_is_there_and_names_tests_that_are(mutant):
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert ast.dump(ast.parse(mutant.changed(text))) != ast.dump(ast.parse(text))
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8")


def test_no_mutant_stands_in_the_list_twice():
    changes = [(mutant.file, mutant.old, mutant.new) for mutant in read()]
    assert len(set(changes)) == len(changes)


@pytest.fixture
def tree(tmp_path):
    for folder, name, text in (("vcinr", "thing.py", THING), ("tests", "test_thing.py", TEST)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text, encoding="utf-8")
    (tmp_path / "vcinr" / "__init__.py").touch()
    return tmp_path


def mutant(old, new):
    return Mutant("vcinr/thing.py", old, new, "", ("tests/test_thing.py",))


def test_a_mutant_is_killed_by_a_failing_test_alone(tree):
    mutants = [mutant("2 * x", "3 * x"), mutant("2 * x", "x * 2"), mutant("def double", "def treble"), mutant("2 *", "4 *")]
    assert judge(tree, mutants) == [KILLED, SURVIVED, BROKEN, KILLED]
    assert (tree / "vcinr" / "thing.py").read_text(encoding="utf-8") == THING


def test_a_text_that_is_not_there_once_and_tests_that_fail_anyway_are_refused(tree):
    for old in ("5 * x", "x"):
        with pytest.raises(ValueError, match="times, not once"):
            judge(tree, [mutant(old, "y")])
    (tree / "tests" / "test_thing.py").write_text("def test_nothing():\n    assert False\n", encoding="utf-8")
    with pytest.raises(ValueError, match="without any mutant, tests fail"):
        judge(tree, [mutant("2 * x", "3 * x")])

"""The map of the rooms, and the rules that keep them pleasant to live in."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vcinr.modalities import MODALITIES

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for room in ("vcinr", "experiments", "configs", "benchmarks") for path in (ROOT / room).rglob("*.py"))
MAX_LINES = 400


def name(path):
    return str(path.relative_to(ROOT))


def lint_imports(folder):
    program = "from importlinter.cli import lint_imports_command as main; main()"
    command = [sys.executable, "-c", program, "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_rooms_keep_to_the_map():
    run = lint_imports(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("room", "statement"),
    [
        ("entropy/quantisers.py", "import vcinr.codec"),
        ("fields/siren.py", "import vcinr.entropy.tables"),
        ("codecs/klt.py", "import vcinr.codecs.vc_inr"),
        ("training/state.py", "import vcinr.bitstream.container"),
        ("evaluation/metrics.py", "import vcinr.modalities"),
        ("signals/patches.py", "def later():\n    import tensorflow"),
        ("training/run.py", "from absl import flags"),
        ("attic.py", "pass"),
    ],
)
def test_a_way_off_the_map_is_found(tmp_path, room, statement):
    shutil.copytree(ROOT / "vcinr", tmp_path / "vcinr", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with open(tmp_path / "vcinr" / room, "a", encoding="utf-8") as file:
        file.write(f"\n{statement}\n")
    run = lint_imports(tmp_path)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 broken" in run.stdout, run.stdout + run.stderr


def test_importing_the_library_imports_no_tensorflow():
    program = """
import pkgutil, importlib, sys
import vcinr
for module in pkgutil.walk_packages(vcinr.__path__, "vcinr."):
    importlib.import_module(module.name)
unwanted = {"tensorflow", "ml_collections", "experiments", "configs"} & {name.split(".")[0] for name in sys.modules}
print(len([name for name in sys.modules if name.startswith("vcinr.")]), *sorted(unwanted))
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    count, *unwanted = run.stdout.split()
    assert int(count) > 30
    assert unwanted == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_file_is_short_and_documented(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES, "a file this long is two files"
    if not text.strip():
        return
    tree = ast.parse(text)
    bare = [] if ast.get_docstring(tree) else ["the module itself"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            bare += [] if ast.get_docstring(node) else [node.name]
    assert bare == [], f"no docstring: {bare}"


def test_no_module_is_a_drawer():
    assert [name(path) for path in SOURCES if path.stem.strip("_") in {"util", "utils", "helpers", "misc", "common"}] == []


def test_every_file_is_on_the_map():
    """Every file of the library stands in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = [path for path in sorted((ROOT / "vcinr").rglob("*.py")) if path.name != "__init__.py"]
    assert [name(path) for path in files if f"`{path.name}`" not in text] == []


BLIND = ("codecs", "model", "training", "adaptation", "context", "compression", "posterior", "weights", "sparsity", "bitstream")
"""Rooms that serve every kind of signal alike."""


def of_one_kind(tree, kinds):
    """Lines of a module that compare something with the name of a kind of signal, look one up by it, or ask for its class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            asked = [node.slice]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "getattr"):
            asked = node.args[1:]
        elif isinstance(node, ast.MatchValue):
            asked = [node.value]
        else:
            continue
        constants = [part for each in asked for part in ast.walk(each) if isinstance(part, ast.Constant)]
        names = [part.id for each in asked for part in ast.walk(each) if isinstance(part, ast.Name)]
        if any(constant.value in kinds for constant in constants) or any(name in CLASSES for name in names):
            yield node.lineno


CLASSES = {type(row).__name__ for row in MODALITIES.values()}


@pytest.mark.parametrize("room", [*BLIND, "cli", "codec.py", "stage.py", "batching.py"])
def test_no_model_codec_training_or_command_asks_which_kind_of_signal_it_serves(room):
    place = ROOT / "vcinr" / room
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert list(of_one_kind(tree, set(MODALITIES))) == [], path
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not imported & CLASSES - {"Modality"}, path


@pytest.mark.parametrize(
    "asking",
    [
        'if codec.modality == "sound": pass',
        'row = MODALITIES["picture"]',
        "flag = isinstance(row, Picture)",
        'match name:\n    case "climate": pass',
        'x = name in ("voxels", "other")',
    ],
)
def test_such_questions_are_found(asking):
    assert list(of_one_kind(ast.parse(asking), set(MODALITIES)))

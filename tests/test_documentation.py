"""The pages say what is so: links lead somewhere, names exist, commands parse, examples run."""

import importlib
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

from experiments import readme
from vcinr.cli import main as command_line

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GUIDES = sorted((ROOT / "docs" / "guide").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROOMS = sorted(path.parent.name for path in (ROOT / "vcinr").glob("*/__init__.py"))


def name(path):
    return path.relative_to(ROOT).as_posix()


def text_of(path):
    return path.read_text(encoding="utf-8")


def prose(path):
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(path), flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    """Anchors of a page's headings, as GitHub and MkDocs make them of plain words."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def run_blocks(path, namespace):
    for number, block in enumerate(BLOCK.findall(text_of(path))):
        exec(compile(block, f"{path.name}, block {number}", "exec"), namespace)
    return namespace


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_inside_the_project_lead_somewhere(path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"https?:|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def exists(dotted):
    """Whether a full name leads to a module, or to something in one."""
    words = dotted.split(".")
    for count in range(len(words), 0, -1):
        try:
            found = importlib.import_module(".".join(words[:count]))
        except ModuleNotFoundError:
            continue
        for i, word in enumerate(words[count:], count):
            if not hasattr(found, word):
                fields = getattr(found, "__dataclass_fields__", {})
                return i == len(words) - 1 and word in fields
            found = getattr(found, word)
        return True
    return False


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_names_on_a_page_exist(path):
    """Full names of objects, and paths of files in the project."""
    spans = re.findall(r"`([^`\n]+)`", prose(path))
    if path.name == "CHANGELOG.md" or path.parent.name == "results" or path.name == "results.md":
        return  # These speak of the past.
    dotted = {span.removesuffix("()") for span in spans if re.fullmatch(r"vcinr(\.\w+)+(\(\))?", span)}
    assert {each for each in dotted if not exists(each)} == set()
    files = {span for span in spans if re.fullmatch(r"(vcinr|configs|experiments|tests|benchmarks|docs)/[\w./]+", span)}
    assert {each for each in files if not (ROOT / each).exists()} == set()


def commands():
    """(page, command line) of every command in a code block, continued lines joined, comments and variables' values left out."""
    for path in PAGES:
        if path.name == "results.md" or path.parent.name == "results":
            continue  # These keep the commands as they were given.
        for line in text_of(path).split("\n"):
            if not line.startswith(("    ", "$ ")):
                continue
            line = line.strip().removeprefix("$ ")
            if re.match(r"(vcinr (encode|decode|info|models)|python -m (experiments|benchmarks|vcinr)|make \w)", line):
                yield path, shlex.split(line.partition("  #")[0])


def test_commands_on_pages_are_such():
    found = list(commands())
    assert len(found) > 20
    makefile = text_of(ROOT / "Makefile")
    for path, words in found:
        where = f"{name(path)}: {' '.join(words)}"
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), where
        elif words[0] == "vcinr":
            assert command_line._parser().parse_args(words[1:]), where
        else:
            assert importlib.util.find_spec(words[2]), where
        for config, variant in re.findall(r"configs/(\w+)\.py:(\w+)", " ".join(words)):
            if not (config + variant).isupper() and "CODEC" not in (config, variant):
                assert variant in importlib.import_module(f"configs.{config}").VARIANTS, where


def test_every_room_has_a_guide_and_each_is_short():
    named = " ".join(text_of(path).split("\n")[0] for path in GUIDES)
    assert [room for room in ROOMS if room != "models" and not re.search(rf"\b{room}\b", named)] == []
    assert {name(path): len(text_of(path).splitlines()) for path in GUIDES if len(text_of(path).splitlines()) > 45} == {}


@pytest.mark.parametrize("path", [path for path in GUIDES if BLOCK.search(text_of(path))], ids=lambda path: path.stem)
def test_examples_of_the_guide_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(path, {})


def test_every_page_is_in_the_navigation():
    class Loader(yaml.SafeLoader):
        pass

    nav = str(yaml.load(text_of(ROOT / "mkdocs.yml"), Loader)["nav"])
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} - {"results/README.md"}
    assert {page for page in pages if f"'{page}'" not in nav} == set()


def test_the_readme_is_read_in_one_go():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 120


def test_figures_in_the_readme_are_those_of_the_results():
    assert readme.readme_table(text_of(ROOT / "docs" / "results.md")) in text_of(ROOT / "README.md")


def test_the_readme_takes_its_own_columns_and_rows_from_the_page(tmp_path, capsys):
    headings = ["codec", *readme.COLUMNS[:4], "more", *readme.COLUMNS[4:]]
    row = ["contextual_inr", "0.097", "25.71", "+1.00", "-0.35", "x", "–", "-", *map(str, range(4))]
    lines = [headings, ["--:"] * len(headings), row, ["KLT (linear floor)", *["9"] * (len(headings) - 1)]]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    page = f"## kodak, test: 24 signals\n\n### Above, at equal `bpp_file`\n\n{table}\n## next\n"
    (tmp_path / "results.md").write_text(page, encoding="utf-8")
    (tmp_path / "README.md").write_text("before\n\n| `bpp_file` | old |\n|--:|--:|\n| 1 | 2 |\n\nafter\n", encoding="utf-8")
    assert readme.main(str(tmp_path / "README.md"), str(tmp_path / "results.md")) == 0
    shown = text_of(tmp_path / "README.md").split("\n")
    assert shown[0] == "before" and shown[-2] == "after" and "old" not in "".join(shown)
    assert shown[2] == f"| {' | '.join(readme.COLUMNS)} |"
    assert shown[4] == "| 0.097 | 25.71 | +1.00 | −0.35 | – | − | 0 | 1 | 2 | 3 |"
    assert len([line for line in shown if line.startswith("|")]) == 3
    assert readme.main(str(tmp_path / "README.md"), str(tmp_path / "README.md")) == 1
    assert "run `python -m experiments.results`" in capsys.readouterr().err


def test_the_map_on_the_page_is_the_one_that_is_checked():
    contract = tomllib.loads(text_of(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    drawn = text_of(ROOT / "docs" / "architecture.md").partition("## Who may import whom")[2]
    lines = re.search(r"(?:^    .+\n)+", drawn, re.MULTILINE).group().splitlines()
    layers = [set(layer.split()) - {"|"} for layer in contract if layer != "__main__"]
    assert [set(line.split()) - {"·"} for line in lines] == layers


def test_hooks_before_a_commit_are_those_of_make_lint():
    hooks = [hook for repo in yaml.safe_load(text_of(ROOT / ".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]]
    recipe = re.search(r"^lint: setup\n((?:\t.+\n)+)", text_of(ROOT / "Makefile"), re.MULTILINE).group(1)
    assert [hook["entry"] for hook in hooks] == recipe.replace("\t", "").splitlines()
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in hooks)


@pytest.mark.slow
def test_the_tutorial_runs_and_every_step_of_it_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = run_blocks(ROOT / "docs" / "tutorial.md", {})
    assert page["coords"].shape == (64, 2)
    assert not np.allclose(page["neutral"], page["changed"], atol=1e-4)
    losses = page["losses"]
    assert losses[0] > losses[1] > losses[2] > 0.5 * losses[0]
    assert any(np.abs(leaf).max() > 0 for leaf in page["meta_gradient"].values() if not isinstance(leaf, dict))
    assert page["stages"] == ["meta", "latents", "quantise_0", "quantise_1"]
    # Meta-learned, three steps take the loss where they hardly moved it before; rounding costs little of that.
    flat = np.mean(np.square(page["patch"] - page["patch"].mean(0)))
    assert page["error"] < 0.5 * float(losses[2])
    assert flat > 0
    assert page["bits"].shape == page["symbols"].shape == (8,)
    np.testing.assert_array_equal(page["symbols"], np.round(page["symbols"]))
    assert len(page["small"]) < len(page["large"])
    assert page["estimated"] < len(page["large"]) < page["estimated"] + 20
    assert page["decoded"].shape == page["picture"].shape
    mean = page["picture"].mean((0, 1))
    flat_db = 10 * np.log10(255**2 / np.mean(np.square(page["picture"] - mean)))
    assert page["quality"]["psnr_db"] > flat_db + 2


def test_entries_of_docstrings_become_lists_on_the_reference_pages():
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs" / "docstrings.py")
    griffe = pytest.importorskip("griffe", reason="installed by make docs")
    assert griffe.Extension
    docstrings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docstrings)
    before = "A thing.\n\nx, y: first [*n].   ``z``: second,\n    continued.\nRaises ValueError for none.\n\nArgs:\n    a: b."
    after = "A thing.\n\n\n* `x, y`: first [\\*n].\n* `z`: second, continued.\n\nRaises ValueError for none.\n\nArgs:\n    a: b."
    assert docstrings.as_lists(before) == after
    assert docstrings.as_lists("One line: so.\n\n    a: drawn\n") == "One line: so.\n\n    a: drawn"

"""What MkDocs does besides, when it builds the site: names of objects become links, and every room gets a page of reference.

A code span that is the full name of something in vcinr, such as `vcinr.adaptation.fit.fit`, becomes a reference to it. One that
leads nowhere fails the build, so that pages cannot go on naming what was moved or deleted.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

PACKAGE = Path(__file__).parent.parent / "vcinr"
NAME = re.compile(r"(?<![`\[])`(vcinr(?:\.\w+)+)(\(\))?`(?![`\]])")
FENCE = re.compile(r"^\s*(```|~~~)")


def rooms() -> dict[str, list[str]]:
    """Page of the reference → modules on it: one page per room, and one for the files beside the rooms."""
    pages = {"foundations": ["vcinr", *(f"vcinr.{path.stem}" for path in sorted(PACKAGE.glob("*.py")) if path.stem[0] != "_")]}
    for folder in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
        files = sorted(path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py") if path.stem[0] != "_")
        pages[folder.name] = [f"vcinr.{folder.name}", *(".".join(["vcinr", folder.name, *path.parts]) for path in files)]
    return pages


def on_config(config):
    """The pages of reference, at the end of the navigation."""
    config.nav.append({"API reference": [{room: f"api/{room}.md"} for room in rooms()]})
    return config


def on_files(files, config):
    """The pages of reference themselves, written by mkdocstrings from the docstrings."""
    for room, modules in rooms().items():
        text = "\n\n".join([f"# {room}", *(f"::: {module}" for module in modules)])
        files.append(File.generated(config, f"api/{room}.md", content=text + "\n"))
    return files


def linked(markdown: str) -> str:
    """A page whose full names of objects, outside of code blocks and headings, refer to them."""
    lines, fenced = [], False
    for line in markdown.split("\n"):
        fenced ^= bool(FENCE.match(line))
        plain = fenced or line.startswith(("    ", "#", ":::"))
        lines.append(line if plain else NAME.sub(r"[`\1\2`][\1]", line))
    return "\n".join(lines)


def on_page_markdown(markdown, page, config, files):
    """`linked`."""
    return linked(markdown)

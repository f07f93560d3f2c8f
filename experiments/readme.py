"""Puts the figures of docs/results.md into the table of README.md: `python -m experiments.readme`, a part of `make results`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

SECTION = "## kodak, test"
TABLE = "at equal `bpp_file`"
CODEC = "contextual_inr"
COLUMNS = (
    "`bpp_file`",
    "PSNR dB",
    "KLT (linear floor)",
    "JPEG",
    "JPEG 2000",
    "MSCN, published",
    "RECOMBINER, published",
    "VC-INR, published",
    "BPG 4:4:4, published",
    "Cheng 2020, published",
)


def readme_table(results: str) -> str:
    """The README's table, from the text of docs/results.md. ValueError where that has no such section, table or column."""
    section = results.partition(SECTION)[2].partition("\n## ")[0]
    block = re.search(r"(?:^\|.*\n)+", section.partition(TABLE)[2], re.MULTILINE)
    if block is None:
        raise ValueError(f"the page of results has no table {TABLE!r} under {SECTION!r}: run `python -m experiments.results`")
    headings, _, *rows = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.group().splitlines())
    if missing := set(COLUMNS) - set(headings):
        raise ValueError(f"the table {TABLE!r} under {SECTION!r} lacks the columns {sorted(missing)}")
    shown = [[row[headings.index(name)] for name in COLUMNS] for row in rows if row[0] == CODEC]
    shown = [[*row[:2], *(cell.replace("-", "−") for cell in row[2:])] for row in shown]
    head, *body = (f"| {' | '.join(line)} |\n" for line in (COLUMNS, *shown))
    return "".join([head, "|" + "--:|" * len(COLUMNS) + "\n", *body])


def main(readme: str = "README.md", results: str = "docs/results.md") -> int:
    """Rewrites the table; returns the exit status."""
    try:
        table = readme_table(Path(results).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"readme: {error}", file=sys.stderr)
        return 1
    text = Path(readme).read_text(encoding="utf-8")
    text = re.sub(r"^\| `bpp_file`.*\n(?:^\|.*\n)+", lambda _: table, text, flags=re.MULTILINE)
    Path(readme).write_text(text, encoding="utf-8")
    print(f"wrote the table of {readme}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Renders docs/results.md and its plots from the measured points in docs/results/.

python -m experiments.results [--folder docs/results] [--out docs/results.md]
"""

from __future__ import annotations

import argparse
import sys

from vcinr.report.page import render_results


def main(arguments: list[str] | None = None) -> int:
    """Renders the page, prints the files written, and returns the exit status: 1 where points are missing or damaged."""
    parser = argparse.ArgumentParser(prog="python -m experiments.results", description="Renders the page of results.")
    parser.add_argument("--folder", default="docs/results", help="where the JSON files are and the plots go (%(default)s)")
    parser.add_argument("--out", default="docs/results.md", help="the page to write (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        written = render_results(options.folder, options.out)
    except (FileNotFoundError, ValueError) as error:
        print(f"results: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"wrote {path}" for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())

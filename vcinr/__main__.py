"""`python -m vcinr` is the command `vcinr`."""

import sys

from vcinr.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

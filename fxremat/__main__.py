"""`python -m fxremat` is the command `fxremat`."""

from __future__ import annotations

import sys

from fxremat.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

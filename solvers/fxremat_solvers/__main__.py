"""``python -m fxremat_solvers``: see `fxremat_solvers.cli`."""

import sys

from fxremat_solvers.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""The joint graphs of real models that lie in the repository; `fixtures` makes them."""

from __future__ import annotations

import gzip
from pathlib import Path

from fxremat_solvers import RematProblem

FOLDER = Path("tests/fxremat_solvers/fixtures")
_ENDING = ".json.gz"


def names() -> list[str]:
    """All of them."""
    return sorted(path.name.removesuffix(_ENDING) for path in FOLDER.glob(f"*{_ENDING}"))


def problem_of(name: str) -> RematProblem:
    """One by its name."""
    packed = (FOLDER / f"{name}{_ENDING}").read_bytes()
    return RematProblem.from_json(gzip.decompress(packed).decode())

"""The joint graphs of real models that are kept with the tests."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

from fxremat_solvers import RematProblem

_FOLDER = Path(__file__).parent / "fixtures"
NAMES = sorted(path.name.removesuffix(".json.gz") for path in _FOLDER.glob("*.json.gz"))


@functools.cache
def joint_graph(name: str) -> RematProblem:
    """The training step of a model, one of `NAMES`."""
    packed = (_FOLDER / f"{name}.json.gz").read_bytes()
    return RematProblem.from_json(gzip.decompress(packed).decode())

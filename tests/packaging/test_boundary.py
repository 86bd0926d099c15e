"""The solvers know nothing of torch: neither by import statement nor when they are loaded."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOLVERS = ROOT / "solvers" / "fxremat_solvers"
FORBIDDEN = {"torch", "fxremat"}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize(
    "path", sorted(SOLVERS.rglob("*.py")), ids=lambda path: str(path.relative_to(SOLVERS))
)
def test_solvers_import_no_torch(path: Path) -> None:
    assert not imported(path) & FORBIDDEN


def test_solvers_load_where_torch_is_missing() -> None:
    """A finder that refuses torch stands in for a machine without it."""
    program = (
        "import importlib, pkgutil, sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {FORBIDDEN!r}:\n"
        "            raise ImportError('refused: ' + name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"sys.path.insert(0, {str(SOLVERS.parent)!r})\n"
        "import fxremat_solvers\n"
        "for module in pkgutil.walk_packages(fxremat_solvers.__path__, 'fxremat_solvers.'):\n"
        "    importlib.import_module(module.name)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

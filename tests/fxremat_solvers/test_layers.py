"""The packages build on each other in one direction, and no file is too long to read."""

from __future__ import annotations

import ast
from pathlib import Path

import networkx as nx

import fxremat_solvers

ROOT = Path(fxremat_solvers.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Each may import those before it. Loops stand beside the search, and take its compiler.
LAYERS = (
    ("errors", "options", "version"),
    ("model",),
    ("programs",),
    ("bounds", "testing"),
    ("reference", "compose", "figures"),
    ("search",),
    ("loops", "portfolio"),
    ("solve",),
    ("pareto", "trace"),
    ("__init__", "cli"),
    ("__main__",),
)
MOST_LINES = 450


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            head, _, rest = node.module.partition(".")
            if head == "fxremat_solvers":
                found |= {f"{rest}.{alias.name}".strip(".") for alias in node.names}
                found |= {rest} if rest else {"__init__"}
    return found & {module_of(each) for each in FILES} - {module_of(path)}


def layer(module: str) -> int:
    head = module.partition(".")[0]
    return next(index for index, names in enumerate(LAYERS) if head in names)


def test_no_module_imports_a_later_package() -> None:
    upwards = [
        f"{module_of(path)} imports {other}"
        for path in FILES
        for other in imports(path)
        if layer(other) > layer(module_of(path))
    ]
    assert not upwards


def test_no_imports_go_in_a_circle() -> None:
    graph = nx.DiGraph((module_of(path), other) for path in FILES for other in imports(path))
    assert list(nx.simple_cycles(graph)) == []


def test_no_file_is_too_long() -> None:
    lengths = {module_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}

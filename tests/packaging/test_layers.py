"""`fxremat` reads in the order of the data: no module imports one that comes after it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[2] / "fxremat"
FILES = sorted(ROOT.rglob("*.py"))

# As architecture.md has them: what all ask, then the passes in order, then what drives them.
LAYERS = (
    ("torch_hooks", "inductor_hooks", "errors"),
    ("cache",),
    ("kernel",),
    ("nodes",),
    ("memory_model",),
    ("graph", "aliases"),
    ("policy",),
    ("measure",),
    ("capture",),
    ("annotate",),
    ("classify", "must_recompute"),
    ("lower",),
    ("plan",),
    ("rewrite",),
    ("execute",),
    ("inductor",),
    ("verify",),
    ("pipeline",),
    ("step",),
    ("frontend",),
    ("loops",),
    ("report",),
    ("estimate",),
    ("integrations",),
    ("cli",),
    ("__init__", "__main__"),
)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it, for types too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            head, _, rest = node.module.partition(".")
            if head == "fxremat":
                found |= {rest} if rest else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.partition(".")[2] for a in node.names if a.name.startswith("fxremat.")}
    return found & {module_of(each) for each in FILES} - {module_of(path)}


def layer(module: str) -> int:
    head = module.partition(".")[0]
    return next(index for index, names in enumerate(LAYERS) if head in names)


def test_every_module_has_its_layer() -> None:
    heads = {module_of(path).partition(".")[0] for path in FILES}
    assert heads == {name for names in LAYERS for name in names}


def test_no_module_imports_a_later_layer() -> None:
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


PRIVATE = re.compile(r"\btorch(?:\.\w+)*\._(?!_)\w+|from torch(?:\.\w+)*\._|\._schema\b|\._cdata\b")
# How ATen's ops are named, which is no part of torch's Python API.
OP_NAMES = re.compile(r"torch\.ops\.[\w.]+|aten\.\w+")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_torchs_private_parts_are_touched_in_two_modules(path: Path) -> None:
    code = "\n".join(
        line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")
    )
    code = re.sub(r'""".*?"""|"[^"\n]*"', "", code, flags=re.DOTALL)
    found = PRIVATE.findall(OP_NAMES.sub("", code))
    assert not found or module_of(path).partition(".")[0] in ("torch_hooks", "inductor_hooks")

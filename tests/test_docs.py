"""The pages of the documentation: their Python runs as printed, what they quote is said."""

from __future__ import annotations

import ast
import re
import runpy
import warnings
from pathlib import Path

import pytest

from fxremat import errors

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Pages whose blocks are fragments, of which tests elsewhere have the whole.
FRAGMENTS = {"loops.md", "recipes/README.md", "recipes/huggingface.md", "recipes/others.md"}
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text() for path in DOCS.rglob("*.md")}
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
RUN = {name: BLOCK.findall(text) for name, text in PAGES.items() if name not in FRAGMENTS}
EXTRAS = {"switch.md": ("transformers", "accelerate", "lightning")}


@pytest.mark.parametrize("page", [name for name, blocks in RUN.items() if blocks])
def test_every_block_runs(page: str, tmp_path: Path) -> None:
    """One after the other, as a script; each page sets up what it uses."""
    for package in EXTRAS.get(page, ()):
        pytest.importorskip(package)
    script = tmp_path / "page.py"
    script.write_text("\n".join(RUN[page]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", errors.UnplannedStepWarning)
        runpy.run_path(str(script))


def texts(node: ast.AST) -> str:
    """A string of the source as it is said, with … where something is put in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(texts(value) for value in node.values)
    return "…"


def test_messages_are_those_of_the_source() -> None:
    nodes = (
        node
        for path in (ROOT / "fxremat").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
    )
    said = "\n".join(
        texts(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr)
    )
    rows = re.findall(r"^\| (`.*?) \|", PAGES["troubleshooting.md"], re.MULTILINE)
    quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) > 40
    parts = [part for text in quoted for part in text.split("…") if part.strip()]
    assert [part for part in parts if part.strip() not in said] == []


def test_every_error_has_its_place() -> None:
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    kinds -= {"FxrematError", "PassesThroughDynamo"}
    assert [name for name in kinds if name not in PAGES["troubleshooting.md"]] == []

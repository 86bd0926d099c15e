"""No sentence of the documentation has more than 25 words.

A sentence ends at a full stop, a colon or a semicolon too. A word is what stands between spaces; a
code span is one, whatever is in it. An item of a list and a cell of a table stand by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST = 25

CODE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
# Between such marks is what the harness writes.
GENERATED = re.compile(r"<!-- ([\w ]+): begin -->.*?<!-- \1: end -->", re.DOTALL)
CODE_SPAN = re.compile(r"`[^`]+`")
ADDRESS = re.compile(r"(?<=\])\([^)]*\)")
# An empty line, the next item, heading or row, and the side of a cell.
PARAGRAPH = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+] |\d+\. |#+ |\|))|\|")
SENTENCE = re.compile(r"(?<=[.!?:;])[)\"*_]*\s")
WORD = re.compile(r"\S*\w\S*")


def sentences(page: str) -> Iterator[str]:
    prose = GENERATED.sub("\n\n", CODE.sub("\n\n", page))
    prose = ADDRESS.sub("", CODE_SPAN.sub("code", prose))
    for paragraph in PARAGRAPH.split(prose):
        for sentence in SENTENCE.split(paragraph):
            yield " ".join(sentence.split())


def too_long(page: str) -> list[str]:
    return [found for found in sentences(page) if len(WORD.findall(found)) > LONGEST]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_sentences_are_short(page: Path) -> None:
    assert too_long(page.read_text()) == []


def test_what_is_counted() -> None:
    most = " ".join(["word"] * LONGEST)
    assert (
        too_long(f"{most}\n\n- {most}\n  - {most}\n1. {most}\n# {most}\n| {most} | {most} |") == []
    )
    assert too_long(f"{most}: {most}; ({most}.) **{most}.** {most}") == []
    assert too_long(f"```\n{most} {most}\n```\n") == []
    assert too_long(f"<!-- a table: begin -->\n{most} {most}\n<!-- a table: end -->") == []
    assert too_long(f"{most}\n0.5") == [f"{most} 0.5"]
    assert too_long(f"- {most}\n  [`x`](a.md)") == [f"- {most} [code]"]
    assert too_long(f"{most} `some of\nthe code`") == [f"{most} code"]

"""The drawing of the portfolio in the docs, from the presets themselves.

python -m benchmarks.portfolio_drawing [--into docs/portfolio.svg]

A column a preset, a box a step, from above to below. Steps beside each other run at the same time,
those for the bound on the left, in blue.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from fxremat_solvers import PRESETS
from fxremat_solvers.search.state import Step
from fxremat_solvers.search.steps import Anneal, Together

COLUMN, HALF, BOX, GAP, TOP = 270, 124, 26, 12, 44
BOUND, PLAN = "#d9e4f5", "#e8eddc"
OF_BOUND = {"peak bound", "cut bound", "staged program", "deeper program"}


def rows_of(strategy: Sequence[Step]) -> list[list[list[str]]]:
    """What stands in each row: the labels of one box, or of several on top of each other a side."""
    rows: list[list[list[str]]] = []
    for step in strategy:
        sides = [step.bound, step.plan] if isinstance(step, Together) else [(step,)]
        rows.append([list(dict.fromkeys(map(label, side))) for side in sides])
    return rows


def label(step: Step) -> str:
    """A step's name, and how often it goes round."""
    if isinstance(step, Anneal):
        return f"{step.name}: {'a round' if step.most == 1 else 'further rounds'}"
    return step.name


def drawing() -> str:
    """The drawing as SVG."""
    columns = [(name, rows_of(strategy)) for name, strategy in PRESETS.items()]
    heights = [sum(max(map(len, row)) for row in rows) for _, rows in columns]
    gaps = max(len(rows) for _, rows in columns) * GAP
    width, height = COLUMN * len(columns) + GAP, TOP + max(heights) * BOX + gaps + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" font-family="sans-serif" font-size="13" text-anchor="middle">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for k, (name, rows) in enumerate(columns):
        left = GAP + k * COLUMN
        middle = left + (COLUMN - GAP) // 2
        parts.append(f'<text x="{middle}" y="26" font-size="16">{name}</text>')
        parts += column(rows, left)
    return "\n".join([*parts, "</svg>"]) + "\n"


def column(rows: Sequence[Sequence[Sequence[str]]], left: int) -> Iterator[str]:
    """The boxes of one preset, and lines between them."""
    y = TOP
    middle = left + (COLUMN - GAP) // 2
    for k, row in enumerate(rows):
        if k:
            yield f'<path d="M{middle} {y - GAP}v{GAP}" stroke="#888"/>'
        tall = max(map(len, row))
        for side, names in enumerate(row):
            wide = HALF if len(row) == 2 else COLUMN - GAP
            x = left + side * (COLUMN - GAP - HALF)
            fill = BOUND if OF_BOUND.intersection(names) else PLAN
            yield (
                f'<rect x="{x}" y="{y}" width="{wide}" height="{tall * BOX}" rx="5" '
                f'fill="{fill}" stroke="#888"/>'
            )
            for line, text in enumerate(names):
                at = y + 18 + line * BOX
                yield f'<text x="{x + wide // 2}" y="{at}">{escape(text)}</text>'
        y += tall * BOX + GAP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("docs/portfolio.svg"))
    args = parser.parse_args()
    args.into.write_text(drawing())
    print(args.into)


if __name__ == "__main__":
    main()

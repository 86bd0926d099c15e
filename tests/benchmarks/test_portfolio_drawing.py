"""The drawing of the portfolio in the docs is that of the presets."""

from __future__ import annotations

from pathlib import Path

from benchmarks.portfolio_drawing import drawing

ROOT = Path(__file__).parents[2]


def test_the_drawing_is_of_these_presets() -> None:
    drawn = (ROOT / "docs" / "portfolio.svg").read_text()
    assert drawn == drawing(), "python -m benchmarks.portfolio_drawing draws it anew"

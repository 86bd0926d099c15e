"""An estimate: its figures, and how they are shown."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult

from fxremat.estimate.page import page
from fxremat.estimate.record import Figures
from fxremat.estimate.text import rendered


@dataclass(frozen=True)
class Estimate(Figures):
    """What `fxremat.estimate` returns: print it, or write `to_html` and `to_json` to a file."""

    def to_html(self) -> str:
        """One page with everything on it, for a browser."""
        return page(self)

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        yield rendered(self)

    def __str__(self) -> str:
        text = io.StringIO()
        Console(width=100, file=text).print(self)
        return text.getvalue()

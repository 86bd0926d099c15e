"""Text between two marks of a page: how results get into the README and the docs."""

from __future__ import annotations

from pathlib import Path


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put `text` in place of what stands between two marks. `SystemExit` where they are missing."""
    old = page.read_text() if page.exists() else ""
    if begin not in old or end not in old:
        raise SystemExit(f"{page} has no place for the results: add {begin} and {end} to it")
    before, after = old.partition(begin)[0], old.partition(end)[2]
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def show(text: str, into: Path | None, begin: str, end: str) -> None:
    """Print `text`, or put it between the marks of the page that was asked for."""
    if into is None:
        print(text)
    else:
        write_between(into, begin, end, text)

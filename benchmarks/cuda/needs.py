"""What a cell needs beside torch."""

from __future__ import annotations

from benchmarks import zoo


def needs_of(model: str) -> tuple[str, ...]:
    """The package whose code the model is, where that isn't this project's own."""
    package = zoo.get(model).source.partition(" ")[0]
    return () if package.startswith("benchmarks.") else (package,)

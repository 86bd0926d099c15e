"""Where the models come from: modules with `names()` and `make(name)`, by their label."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

SOURCES: Mapping[str, str] = {
    "torch": "benchmarks.sweep.from_torch",
    "diffusers": "benchmarks.sweep.from_diffusers",
    "timm": "benchmarks.sweep.from_timm",
    "transformers": "benchmarks.sweep.from_transformers",
}


class NotBuilt(Exception):
    """A model that isn't built here; the message says why."""


def names(
    sources: Mapping[str, str] = SOURCES, without: Callable[[str], None] = lambda _: None
) -> list[str]:
    """All models as `label/name`. The sources take turns, so that a cut-off sweep has of each.

    `without` is told of a source whose library is not installed.
    """
    found: list[tuple[float, str]] = []
    for label, module in sources.items():
        try:
            own = importlib.import_module(module).names()
        except ModuleNotFoundError as error:
            without(f"{label} is left out: {error.name} is not installed")
            continue
        found += [((i + 0.5) / len(own), f"{label}/{name}") for i, name in enumerate(own)]
    return [name for _, name in sorted(found)]


def make(name: str, sources: Mapping[str, str] = SOURCES) -> Any:
    """The workload of this name, from one seed."""
    label, _, own = name.partition("/")
    return importlib.import_module(sources[label]).make(own)

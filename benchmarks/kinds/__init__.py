"""The kinds of cells, each a function from a cell to the figures of its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.kinds import batch, clip, step

if TYPE_CHECKING:
    from benchmarks.cell import Cell

Kind = Callable[["Cell", Mapping[str, Any]], dict[str, Any]]
KINDS: dict[str, Kind] = {"step": step.run, "batch": batch.run, "clip": clip.run}

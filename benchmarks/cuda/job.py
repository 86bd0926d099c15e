"""A cell of a part: a key, and the function that makes its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.records import Row

Rows = Mapping[str, Row]


@dataclass(frozen=True)
class Job:
    """`run` gets the rows so far, by key, and returns its own.

    Jobs of one `group` come one after another and may share what was compiled; `needs` are the
    packages without which it can't run.
    """

    key: str
    run: Callable[[Rows], Mapping[str, Any]]
    group: str = ""
    needs: tuple[str, ...] = ()

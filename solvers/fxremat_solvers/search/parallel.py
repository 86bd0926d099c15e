"""Independent runs on as many threads as there are processors: compiled code holds no lock.

The runs share nothing that is written to, so how many threads there are changes no result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TypeVar

_Result = TypeVar("_Result")

# Of the search that goes on in this context; no result depends on it.
_most: ContextVar[int | None] = ContextVar("threads", default=None)


@contextmanager
def at_most(threads: int) -> Generator[None, None, None]:
    """Runs in here go on so many threads, where there are as many processors."""
    before = _most.set(threads)
    try:
        yield
    finally:
        _most.reset(before)


def side_by_side(
    runs: Sequence[Callable[[], _Result]], threads: int | None = None
) -> list[_Result]:
    """What each of `runs` returns, in their order; the first error, if one raises."""
    threads = min(len(runs), threads or processors(), _most.get() or len(runs))
    if threads < 2:
        return [run() for run in runs]
    with ThreadPoolExecutor(threads) as pool:
        begun = [pool.submit(copy_context().run, run) for run in runs]
        return [each.result() for each in begun]


def processors() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

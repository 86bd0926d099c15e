"""Independent runs on as many threads as there are processors: compiled code holds no lock.

The runs share nothing that is written to, so how many threads there are changes no result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")
_Other = TypeVar("_Other")


def side_by_side(runs: Sequence[Callable[[], _Result]]) -> list[_Result]:
    """What each of `runs` returns, in their order; the first error, if one raises."""
    threads = min(len(runs), _processors())
    if threads < 2:
        return [run() for run in runs]
    with ThreadPoolExecutor(threads) as pool:
        return [done.result() for done in [pool.submit(run) for run in runs]]


def beside(run: Callable[[], _Result], other: Callable[[], _Other]) -> tuple[_Result, _Other]:
    """What each of two runs returns, of which at least one spends its time in compiled code."""
    with ThreadPoolExecutor(1) as pool:
        more = pool.submit(other)
        return run(), more.result()


def _processors() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

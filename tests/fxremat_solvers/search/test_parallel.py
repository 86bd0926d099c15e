"""Runs side by side: their results in order, their errors raised."""

from __future__ import annotations

import time
from functools import partial
from threading import Lock

import pytest

from fxremat_solvers.search import parallel as module
from fxremat_solvers.search.parallel import at_most, side_by_side


def test_results_come_in_the_order_of_the_runs():
    assert side_by_side([partial(pow, 2, k) for k in range(9)]) == [2**k for k in range(9)]


def test_an_error_is_raised():
    with pytest.raises(ZeroDivisionError):
        side_by_side([lambda: 1, lambda: 1 // 0])


def most_at_once(runs: int) -> int:
    """How many of some runs are seen to go on at the same time."""
    lock, now, most = Lock(), [0], [0]

    def run() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1

    side_by_side([run] * runs)
    return most[0]


def test_no_more_threads_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "processors", lambda: 4)
    assert most_at_once(8) > 2
    with at_most(2):
        assert most_at_once(8) == 2
        with at_most(1):
            assert most_at_once(8) == 1
        assert side_by_side([lambda: 1, lambda: most_at_once(8)], threads=2) == [1, 2]

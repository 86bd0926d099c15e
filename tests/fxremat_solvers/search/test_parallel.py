"""Runs side by side: their results in order, their errors raised."""

from __future__ import annotations

from functools import partial

import pytest

from fxremat_solvers.search.parallel import beside, side_by_side


def test_results_come_in_the_order_of_the_runs():
    assert side_by_side([partial(pow, 2, k) for k in range(9)]) == [2**k for k in range(9)]
    assert beside(lambda: 1, lambda: "2") == (1, "2")


def test_an_error_is_raised():
    with pytest.raises(ZeroDivisionError):
        side_by_side([lambda: 1, lambda: 1 // 0])

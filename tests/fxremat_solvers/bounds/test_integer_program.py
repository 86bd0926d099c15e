"""Integer programs by HiGHS: solved, and found to have no point."""

from __future__ import annotations

import numpy as np
import pytest

from fxremat_solvers.bounds.integer_program import Program, minimise


def one_row(at_least: float) -> Program:
    """Minimise 3a + 2b over a, b in {0, 1} with 2a + 2b at least so much."""
    return Program(
        cost=np.array([3.0, 2.0]),
        low=np.zeros(2),
        high=np.ones(2),
        start=np.array([0, 2]),
        column=np.array([0, 1]),
        entry=np.array([2.0, 2.0]),
        at_least=np.array([at_least]),
    )


@pytest.mark.parametrize(("at_least", "point", "cost"), [(1.0, [0, 1], 2.0), (3.0, [1, 1], 5.0)])
def test_the_cheapest_whole_point_is_found_and_proven(
    at_least: float, point: list[int], cost: float
):
    answer = minimise(one_row(at_least), steps=1000)
    assert answer.point is not None
    assert answer.point.tolist() == point
    assert answer.bound == pytest.approx(cost)


def test_a_program_without_points_has_none():
    assert minimise(one_row(5.0), steps=1000).point is None

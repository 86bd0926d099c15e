"""Which of several schedules is taken, and what is then known of it."""

from __future__ import annotations

import pytest

from fxremat_solvers import Status
from fxremat_solvers.model.incumbent import Candidate, best, solution
from fxremat_solvers.testing import chain

CHEAP = Candidate((0,), 1.0, 9, "cheap")
DEAR = Candidate((1,), 2.0, 5, "dear")
LOW = Candidate((2,), 8.0, 3, "low")


@pytest.mark.parametrize(("budget", "chosen"), [(9, CHEAP), (6, DEAR), (3, LOW), (1, LOW)])
def test_the_cheapest_that_fits_or_else_the_lowest(budget: int, chosen: Candidate):
    assert best([LOW, CHEAP, DEAR], budget) == chosen


@pytest.mark.parametrize(
    ("cost", "bound", "cut_off", "status"),
    [
        (25.0, 25.0, True, Status.OPTIMAL),
        (25.0 + 1e-6, 25.0, True, Status.OPTIMAL),
        (26.0, 25.0, False, Status.FEASIBLE),
        (26.0, 25.0, True, Status.TIME_LIMIT),
    ],
)
def test_a_plan_is_optimal_where_it_meets_its_bound(
    cost: float, bound: float, cut_off: bool, status: Status
):
    chosen = Candidate((0,), cost, 5, "")
    found = solution(chain(3), chosen, 5, lower_bound=bound, cut_off=cut_off)
    assert found.status is status
    assert found.lower_bound <= cost
    assert solution(chain(3), chosen, 4).status is Status.INFEASIBLE

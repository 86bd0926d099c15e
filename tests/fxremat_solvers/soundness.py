"""What every solution keeps: its figures are the oracle's, its bound and its status are true."""

from __future__ import annotations

import math

from fxremat_solvers import RematProblem, Solution, Status, simulate
from fxremat_solvers.model.dead_runs import without_dead_runs


def assert_sound(
    problem: RematProblem, budget: int, solution: Solution, optimum: float | None = None
) -> None:
    """`optimum`: the least cost of any schedule within the budget, where that is known."""
    replay = simulate(problem, solution.schedule)
    assert replay.peak_bytes == solution.peak_bytes
    assert math.isclose(replay.cost, solution.cost, rel_tol=1e-12)
    assert without_dead_runs(problem, solution.schedule.ops) == solution.schedule.ops
    assert (solution.status is Status.INFEASIBLE) == (replay.peak_bytes > budget)
    if optimum is not None:
        assert solution.lower_bound <= optimum + 1e-9
    if solution.status is Status.INFEASIBLE:
        return
    assert problem.baseline_cost <= solution.cost * (1 + 1e-12)
    assert solution.lower_bound <= solution.cost * (1 + 1e-12)
    if optimum is not None:
        assert optimum - 1e-9 <= solution.cost
        assert solution.status is not Status.OPTIMAL or math.isclose(solution.cost, optimum)

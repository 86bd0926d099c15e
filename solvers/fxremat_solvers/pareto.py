"""The front: what each budget costs, from the lowest peak found up to the baseline's."""

from __future__ import annotations

import time

from fxremat_solvers.errors import ArgumentError
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Solution, Status
from fxremat_solvers.model.simulate import baseline, simulate
from fxremat_solvers.search.lowest_peak import floor
from fxremat_solvers.solve import check_arguments, solve


def pareto(
    problem: RematProblem,
    *,
    points: int = 12,
    solver: str = "auto",
    time_limit_s: float = 300.0,
    seed: int = 0,
) -> tuple[Solution, ...]:
    """Solutions in order of peak, each cheaper than every one with a lower peak.

    The budgets are `points` steps, evenly spaced between the floor and the baseline's peak, both
    included. `time_limit_s` is for the whole front, shared evenly. Raises `ArgumentError` for fewer
    than two points or a time limit that is no number of seconds, `UnknownSolverError` as `solve`.
    """
    if points < 2:
        raise ArgumentError(f"points is {points}: it must be 2 or more, the floor and the peak")
    check_arguments(solver, time_limit_s)
    deadline = time.monotonic() + time_limit_s
    plain = simulate(problem, baseline(problem))
    share_s = time_limit_s / (points + 1)
    lowest = floor(problem, time_limit_s=share_s, seed=seed)
    found = [lowest]
    span = plain.peak_bytes - lowest.peak_bytes
    for k in range(points):
        budget = lowest.peak_bytes + span * k // (points - 1)
        if budget <= 0:
            continue
        left_s = max(0.1, min(share_s, deadline - time.monotonic()))
        solved = solve(problem, budget, solver=solver, time_limit_s=left_s, seed=seed)
        if solved.status is not Status.INFEASIBLE:
            found.append(solved)
    front: list[Solution] = []
    # Of two that are the same the one of which more is known.
    for point in sorted(found, key=lambda s: (s.peak_bytes, s.cost, -s.lower_bound)):
        if not front or point.cost < front[-1].cost:
            front.append(point)
    return tuple(front)

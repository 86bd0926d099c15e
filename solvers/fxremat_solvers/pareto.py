"""The front: what each budget costs, from the lowest peak found up to the baseline's."""

from __future__ import annotations

import time
from typing import Any

from fxremat_solvers.errors import ArgumentError
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Solution, Status
from fxremat_solvers.model.simulate import baseline, simulate
from fxremat_solvers.options import SolveOptions
from fxremat_solvers.search.lowest_peak import floor
from fxremat_solvers.solve import checked_options, solve

FRONT_TIME_LIMIT_S = 300.0


def pareto(
    problem: RematProblem,
    options: SolveOptions | None = None,
    *,
    points: int = 12,
    **changes: Any,
) -> tuple[Solution, ...]:
    """Solutions in order of peak, each cheaper than every one with a lower peak.

    The budgets are `points` steps, evenly spaced between the floor and the baseline's peak, both
    included. `changes` are fields of `SolveOptions`; their `time_limit_s` (300 unless given) is for
    the whole front, shared evenly. Raises as `solve`, and `ArgumentError` for fewer than two
    points.
    """
    if points < 2:
        raise ArgumentError(f"points is {points}: it must be 2 or more, the floor and the peak")
    if options is None:
        changes.setdefault("time_limit_s", FRONT_TIME_LIMIT_S)
    chosen = checked_options(options, **changes)
    deadline = time.monotonic() + chosen.time_limit_s
    plain = simulate(problem, baseline(problem))
    share_s = chosen.time_limit_s / (points + 1)
    lowest = floor(problem, time_limit_s=share_s, seed=chosen.seed)
    found = [lowest]
    span = plain.peak_bytes - lowest.peak_bytes
    for k in range(points):
        budget = lowest.peak_bytes + span * k // (points - 1)
        if budget <= 0:
            continue
        left_s = max(0.1, min(share_s, deadline - time.monotonic()))
        solved = solve(problem, budget, chosen, time_limit_s=left_s)
        if solved.status is not Status.INFEASIBLE:
            found.append(solved)
    front: list[Solution] = []
    # Of two that are the same the one of which more is known.
    for point in sorted(found, key=lambda s: (s.peak_bytes, s.cost, -s.lower_bound)):
        if not front or point.cost < front[-1].cost:
            front.append(point)
    return tuple(front)

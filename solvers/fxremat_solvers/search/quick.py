"""A plan at once, by what is known of like problems: milliseconds in place of a search.

Schedules of problems with the same ops and other sizes are replayed beside greedy's walks, and
the cheapest that fits is taken. The replay alone says what a schedule costs here and needs, so
nothing is assumed of where it comes from.

Limits: no bound is worked out, and nothing is improved.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from fxremat_solvers.errors import ScheduleError
from fxremat_solvers.model.incumbent import Candidate, best, candidate, solution
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Schedule, Solution
from fxremat_solvers.model.simulate import check
from fxremat_solvers.search.greedy import greedy_candidates


def quick(problem: RematProblem, budget_bytes: int, schedules: Iterable[Schedule] = ()) -> Solution:
    """The cheapest that fits of the given `schedules` and greedy's; one that can't run is none.

    Where none fits the solution's status is INFEASIBLE, and its schedule that of the lowest peak.
    """
    found: list[Candidate] = []
    for schedule in schedules:
        with suppress(ScheduleError):
            check(problem, schedule)
            found.append(candidate(problem, schedule.ops, "neighbour"))
    found += greedy_candidates(problem, budget_bytes)
    return solution(problem, best(found, budget_bytes), budget_bytes)

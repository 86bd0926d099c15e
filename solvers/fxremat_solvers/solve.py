"""`solve`: the one entry to every solver, by name."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol

from fxremat_solvers.errors import ArgumentError, BudgetError, UnknownSolverError
from fxremat_solvers.model.incumbent import best, candidate, solution
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Schedule, Solution, Status
from fxremat_solvers.model.simulate import baseline
from fxremat_solvers.portfolio import auto
from fxremat_solvers.reference.exact import exact
from fxremat_solvers.reference.mincut import mincut
from fxremat_solvers.search.greedy import greedy_candidates
from fxremat_solvers.search.lowest_peak import lowest_peak


class Solver(Protocol):
    """What every solver is: a problem and a budget in, the best schedule it finds out."""

    def __call__(
        self, problem: RematProblem, budget_bytes: int, *, time_limit_s: float, seed: int
    ) -> Solution: ...


def greedy(problem: RematProblem, budget_bytes: int, *, time_limit_s: float, seed: int) -> Solution:
    """The baseline if it fits, else lookahead eviction, by the best of its rules."""
    del time_limit_s, seed
    candidates = [candidate(problem, baseline(problem).ops, "baseline")]
    if candidates[0].peak_bytes > budget_bytes:
        candidates += greedy_candidates(problem, budget_bytes)
    return solution(problem, best(candidates, budget_bytes), budget_bytes)


def _ilp(problem: RematProblem, budget_bytes: int, *, time_limit_s: float, seed: int) -> Solution:
    # Imported here: PuLP takes longer to import than most problems take to solve.
    from fxremat_solvers.reference.ilp import ilp

    return ilp(problem, budget_bytes, time_limit_s=time_limit_s, seed=seed)


def _exact(problem: RematProblem, budget_bytes: int, *, time_limit_s: float, seed: int) -> Solution:
    del seed
    return exact(problem, budget_bytes, time_limit_s=time_limit_s)


SOLVERS: Mapping[str, Solver] = MappingProxyType(
    {"auto": auto, "greedy": greedy, "mincut": mincut, "ilp": _ilp, "exact": _exact}
)


def solve(
    problem: RematProblem,
    budget_bytes: int,
    *,
    solver: str = "auto",
    time_limit_s: float = 30.0,
    seed: int = 0,
    effort: float = 1.0,
) -> Solution:
    """The cheapest schedule found whose peak is at most `budget_bytes`.

    Same problem, budget, solver, seed and effort give the same schedule: the work is counted in
    edits, which `effort` scales for "auto" (the others have no scale), and `time_limit_s` is a
    safety stop. Where no schedule within the budget is found the solution's status is INFEASIBLE
    and its schedule the one with the lowest peak found.
    Raises `BudgetError` for a budget that is not a positive integer, `UnknownSolverError` for a
    solver that does not exist, `ArgumentError` for a time limit or an effort that is no such
    number, `SolverError` where "exact" finds no answer in time.
    """
    if isinstance(budget_bytes, bool) or not isinstance(budget_bytes, int) or budget_bytes <= 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BudgetError(f"budget_bytes is {budget_bytes!r}: it must be a positive integer")
    check_arguments(solver, time_limit_s)
    if not (math.isfinite(effort) and effort > 0):
        raise ArgumentError(f"effort is {effort}: it must be a positive number")
    if solver == "auto":
        return auto(problem, budget_bytes, time_limit_s=time_limit_s, seed=seed, effort=effort)
    deadline = time.monotonic() + time_limit_s
    solved = SOLVERS[solver](problem, budget_bytes, time_limit_s=time_limit_s, seed=seed)
    live = candidate(problem, solved.schedule.ops, solved.solver)
    if solved.status is not Status.INFEASIBLE:
        return replace(
            solved, schedule=Schedule(live.ops), cost=live.cost, peak_bytes=live.peak_bytes
        )
    # What this solver can't fit, the search for the floor may: a budget named as one can be met.
    lowest = lowest_peak(problem, deadline=max(deadline, time.monotonic() + 1))
    chosen = best([live, lowest], budget_bytes)
    return solution(problem, chosen, budget_bytes, lower_bound=solved.lower_bound)


def check_arguments(solver: str, time_limit_s: float) -> None:
    """Raise `UnknownSolverError` or `ArgumentError` for what no solver can be called with."""
    if solver not in SOLVERS:
        raise UnknownSolverError(f"no solver {solver!r}: choose one of {', '.join(SOLVERS)}")
    if not time_limit_s >= 0:  # also what is not a number
        raise ArgumentError(f"time_limit_s is {time_limit_s}: it must be 0 or more seconds")

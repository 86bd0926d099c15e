"""Choosing among schedules: the cheapest within the budget, or else the one of lowest peak."""

from __future__ import annotations

from dataclasses import dataclass

from fxremat_solvers.model.dead_runs import without_dead_runs
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Schedule, Solution, Status
from fxremat_solvers.model.simulate import simulate

# Of the baseline's cost (`cost_scale`): the tolerance of the optimisers that bounds come from.
_SAME_COST = 2e-6


@dataclass(frozen=True)
class Candidate:
    """A schedule with the oracle's figures and the name of the method that found it."""

    ops: tuple[int, ...]
    cost: float
    peak_bytes: int
    method: str


def candidate(problem: RematProblem, ops: tuple[int, ...], method: str) -> Candidate:
    """`ops` without dead runs, replayed by the oracle; `ScheduleError` if it can't execute them."""
    live = without_dead_runs(problem, ops)
    replay = simulate(problem, live)
    return Candidate(live, replay.cost, replay.peak_bytes, method)


def best(candidates: list[Candidate], budget_bytes: int) -> Candidate:
    """The cheapest candidate within the budget (lower peak on ties), or else the lowest peak."""
    fitting = [c for c in candidates if c.peak_bytes <= budget_bytes]
    if fitting:
        return min(fitting, key=lambda c: (c.cost, c.peak_bytes))
    return min(candidates, key=by_peak)


def by_peak(found: Candidate) -> tuple[int, float]:
    """What the lowest peak, the cheapest of those, is the least by."""
    return found.peak_bytes, found.cost


def same_cost(problem: RematProblem) -> float:
    """How much dearer than its bound a plan may be and count as optimal.

    A share of the problem's `cost_scale`; where costs are whole less than a unit of them.
    """
    near = _SAME_COST * problem.cost_scale
    return min(near, problem.cost_unit / 2) if problem.cost_unit else near


def solution(
    problem: RematProblem,
    chosen: Candidate,
    budget_bytes: int,
    *,
    lower_bound: float = 0.0,
    cut_off: bool = False,
) -> Solution:
    """`chosen` as a `Solution`: its bound is never below running every op once."""
    bound = max(lower_bound, problem.baseline_cost)
    if chosen.peak_bytes > budget_bytes:
        status = Status.INFEASIBLE
    elif chosen.cost - bound <= same_cost(problem):
        status, bound = Status.OPTIMAL, min(bound, chosen.cost)
    else:
        status = Status.TIME_LIMIT if cut_off else Status.FEASIBLE
    return Solution(
        schedule=Schedule(chosen.ops),
        cost=chosen.cost,
        peak_bytes=chosen.peak_bytes,
        lower_bound=bound,
        status=status,
        solver=chosen.method,
    )

"""`solve`: the one entry to every solver, by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from fxremat_solvers.errors import BudgetError
from fxremat_solvers.model.incumbent import best, candidate, solution
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Schedule, Solution, Status
from fxremat_solvers.model.simulate import baseline
from fxremat_solvers.options import SolveOptions
from fxremat_solvers.portfolio import PRESETS, portfolio
from fxremat_solvers.reference.binomial import binomial_schedule
from fxremat_solvers.reference.exact import MAX_OPS, exact
from fxremat_solvers.reference.ilp import ilp
from fxremat_solvers.reference.mincut import mincut
from fxremat_solvers.search.greedy import greedy_candidates
from fxremat_solvers.search.lowest_peak import lowest_peak

Run = Callable[[RematProblem, int, SolveOptions], Solution]
_ANY_SIZE = 1 << 40


@dataclass(frozen=True)
class Solver:
    """A way to solve, and what it is good for.

    `proves`: its bound may lie above the baseline's cost. `complete`: what it finds no plan for
    within the budget is searched for the lowest peak already. `has_presets`: options choose how
    long it goes on. `most_ops`: the size of graph it is meant for; larger ones take minutes, or are
    refused. `needs_chain`: it solves uniform chains only. `several_runs`: it may run an op more
    than twice, which the lowest budgets need.
    """

    run: Run
    about: str
    proves: bool = False
    complete: bool = False
    has_presets: bool = False
    needs_chain: bool = False
    several_runs: bool = True
    most_ops: int = _ANY_SIZE


def _auto(problem: RematProblem, budget_bytes: int, options: SolveOptions) -> Solution:
    return portfolio(problem, budget_bytes, options).solution


def _greedy(problem: RematProblem, budget_bytes: int, _options: SolveOptions) -> Solution:
    found = [candidate(problem, baseline(problem).ops, "baseline")]
    if found[0].peak_bytes > budget_bytes:
        found += greedy_candidates(problem, budget_bytes)
    return solution(problem, best(found, budget_bytes), budget_bytes)


def _mincut(problem: RematProblem, budget_bytes: int, options: SolveOptions) -> Solution:
    return mincut(problem, budget_bytes, time_limit_s=options.time_limit_s)


def _ilp(problem: RematProblem, budget_bytes: int, options: SolveOptions) -> Solution:
    limit_s, seed = options.time_limit_s, options.seed
    return ilp(problem, budget_bytes, time_limit_s=limit_s, seed=seed).solution


def _exact(problem: RematProblem, budget_bytes: int, options: SolveOptions) -> Solution:
    return exact(problem, budget_bytes, time_limit_s=options.time_limit_s)


def _binomial(problem: RematProblem, budget_bytes: int, _options: SolveOptions) -> Solution:
    """The closed form; the baseline where the graph is no uniform chain or nothing fits."""
    found = [candidate(problem, baseline(problem).ops, "baseline")]
    schedule = binomial_schedule(problem, budget_bytes)
    if schedule is not None:
        found.append(candidate(problem, schedule.ops, "binomial"))
    return solution(problem, best(found, budget_bytes), budget_bytes)


SOLVERS: Mapping[str, Solver] = MappingProxyType(
    {
        "auto": Solver(_auto, "the portfolio", proves=True, complete=True, has_presets=True),
        "greedy": Solver(_greedy, "lookahead eviction, by the best of its rules"),
        "mincut": Solver(_mincut, "priced cuts", proves=True, several_runs=False, most_ops=1_200),
        "ilp": Solver(_ilp, "the retention formulation", proves=True, most_ops=700),
        "exact": Solver(_exact, "all schedules", proves=True, complete=True, most_ops=MAX_OPS),
        "binomial": Solver(_binomial, "the closed form of uniform chains", needs_chain=True),
    }
)


def solve(
    problem: RematProblem,
    budget_bytes: int,
    options: SolveOptions | None = None,
    **changes: Any,
) -> Solution:
    """The cheapest schedule found whose peak is at most `budget_bytes`.

    `changes` are fields of `SolveOptions`: ``solve(problem, 2**30, preset="thorough")``. Same
    problem, budget and options give the same schedule. Where no schedule within the budget is
    found the solution's status is INFEASIBLE and its schedule the one with the lowest peak found.
    Raises `BudgetError` for a budget that is not a positive integer, `UnknownSolverError` for a
    solver that does not exist, `ArgumentError` for other options that mean nothing, `SolverError`
    where "exact" finds no answer in time.
    """
    if isinstance(budget_bytes, bool) or not isinstance(budget_bytes, int) or budget_bytes <= 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BudgetError(f"budget_bytes is {budget_bytes!r}: it must be a positive integer")
    chosen = checked_options(options, **changes)
    solver = SOLVERS[chosen.solver]
    deadline = time.monotonic() + chosen.time_limit_s
    solved = solver.run(problem, budget_bytes, chosen)
    if solver.has_presets:
        return solved
    live = candidate(problem, solved.schedule.ops, solved.solver)
    if solver.complete or solved.status is not Status.INFEASIBLE:
        return replace(
            solved, schedule=Schedule(live.ops), cost=live.cost, peak_bytes=live.peak_bytes
        )
    # What this solver can't fit, the search for the floor may: a budget named as one can be met.
    lowest = lowest_peak(problem, deadline=max(deadline, time.monotonic() + 1))
    return solution(
        problem, best([live, lowest], budget_bytes), budget_bytes, lower_bound=solved.lower_bound
    )


def checked_options(options: SolveOptions | None = None, **changes: Any) -> SolveOptions:
    """The options with changes; raises for what no solver can be called with."""
    chosen = (options or SolveOptions()).given(**changes)
    chosen.check(tuple(SOLVERS), tuple(PRESETS))
    return chosen

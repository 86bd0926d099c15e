"""Plans that earlier processes searched for, on disk: a restart replays them.

The key has the ops, the sizes, the budget, the options and the machine, and no times. A plan from
here is replayed on the problem of today, and is within the budget in that, or is searched for; what
is written of it is verified as that of any plan. Where the times are the same, too, it keeps the
bound that was proved beside it.
"""

from __future__ import annotations

import logging
import math
from dataclasses import fields, replace

import msgspec
import torch

from fxremat.cache import store
from fxremat.cache.keys import hashed, surroundings
from fxremat.plan.agree import structure_of
from fxremat.plan.options import Options
from fxremat.plan.plan import Search, search_schedule
from fxremat_solvers import RematProblem, Schedule, Solution, SolverError, Status, simulate

_LOG = logging.getLogger("fxremat")

_KIND = "plans"
# A budget is in the key as bytes; how many threads search changes no plan.
_IN_NO_KEY = ("budget", "threads")


class _Plan(msgspec.Struct):
    """`figures` is a hash of all costs and workspaces; a bound of infinity is None."""

    ops: tuple[int, ...]
    figures: str
    lower_bound: float | None
    status: str
    solver: str


def kept(search: Search, purpose: str) -> Search:
    """A search that first looks for what an earlier process found, and leaves what it finds."""

    def recall_or(problem: RematProblem, budget_bytes: int, options: Options) -> Solution:
        if store.folder() is None:
            return search(problem, budget_bytes, options)
        key = _key(purpose, problem, budget_bytes, options)
        found = _recall(key, problem, budget_bytes)
        if found is not None:
            _LOG.info("the plan of an earlier process is taken: %s", found.solver)
            return found
        solution = search(problem, budget_bytes, options)
        _keep(key, problem, solution)
        return solution

    return recall_or


def recall_or_search(problem: RematProblem, budget_bytes: int, options: Options) -> Solution:
    """The schedule that the options' solver finds, or found in an earlier process."""
    return kept(search_schedule, "step")(problem, budget_bytes, options)


def _key(purpose: str, problem: RematProblem, budget_bytes: int, options: Options) -> str:
    chosen = [(f.name, getattr(options, f.name)) for f in fields(options)]
    given = [(name, value) for name, value in chosen if name not in _IN_NO_KEY]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return hashed(purpose, structure_of(problem), budget_bytes, given, surroundings(device))


def _figures(problem: RematProblem) -> str:
    runs = [run for op in problem.ops for run in (op, *op.reruns)]
    return hashed([(run.cost, run.workspace_bytes) for run in runs])


def _recall(key: str, problem: RematProblem, budget_bytes: int) -> Solution | None:
    """What lies under a key, replayed; None without one, or where it isn't within the budget."""
    plan = store.read(_KIND, key, msgspec.json.Decoder(_Plan).decode)
    if plan is None:
        return None
    schedule = Schedule(plan.ops)
    try:
        replay = simulate(problem, schedule)
        status = Status(plan.status)
    except (SolverError, ValueError) as error:
        store.damaged(_KIND, key, str(error))
        return None
    if replay.peak_bytes > budget_bytes:
        return None  # Kernels take more than they did.
    solution = Solution(
        schedule=schedule,
        cost=replay.cost,
        peak_bytes=replay.peak_bytes,
        lower_bound=math.inf if plan.lower_bound is None else plan.lower_bound,
        status=status,
        solver=f"{plan.solver}, kept",
    )
    if plan.figures != _figures(problem):
        bound = problem.baseline_cost
        return replace(solution, lower_bound=bound, status=Status.FEASIBLE)
    return solution


def _keep(key: str, problem: RematProblem, solution: Solution) -> None:
    if solution.status is Status.INFEASIBLE:
        return
    bound = solution.lower_bound
    plan = _Plan(
        ops=tuple(map(int, solution.schedule.ops)),  # NumPy's integers are ints.
        figures=_figures(problem),
        lower_bound=bound if math.isfinite(bound) else None,
        status=str(solution.status),
        solver=solution.solver,
    )
    store.write(_KIND, key, msgspec.json.encode(plan))

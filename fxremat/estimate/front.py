"""What budgets cost: quick plans on a grid between the least and the most that a step takes.

Each budget is planned by greedy's walks, which take half a second on a graph of four thousand ops,
and no schedule under it takes less than the bound that stands beside. `optimize` searches longer
and may find cheaper plans; none is cheaper than the bound.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fxremat.pipeline.progress import Say
from fxremat_solvers import (
    RematProblem,
    Schedule,
    Solution,
    Status,
    baseline,
    floor,
    quick,
    simulate,
)
from fxremat_solvers.bounds.cost_bound import proof

_BOUND_S = 10.0  # of one budget


@dataclass(frozen=True)
class Planned:
    """A schedule of a step. `extra_seconds` are those of its recomputation, of which any schedule
    in as few bytes takes `bound_seconds` at the least; None where there was no time to find out."""

    schedule: Schedule
    peak_bytes: int
    extra_seconds: float
    bound_seconds: float | None


@dataclass(frozen=True)
class Front:
    """Plans by falling extra time, from the one of the least memory to nothing recomputed."""

    plans: tuple[Planned, ...]

    @property
    def lowest(self) -> Planned:
        """The plan of the least memory."""
        return self.plans[0]

    @property
    def schedules(self) -> list[Schedule]:
        """What to replay at other sizes."""
        return [plan.schedule for plan in self.plans]


def front_of(problem: RematProblem, *, points: int, time_limit_s: float, say: Say) -> Front:
    """Plans for `points` budgets, closer to each other where memory is short.

    Bounds are left out once the time is up. `say` hears what goes on.
    """
    deadline = time.monotonic() + time_limit_s
    kept = plans_of(problem, points=points, time_limit_s=time_limit_s / 4, say=say)
    found: list[Planned] = []
    for each in kept:
        say(f"bound {len(found) + 1} of {len(kept)}")
        found.append(planned(problem, each, deadline))
    return Front(rising(found))


def rising(plans: Sequence[Planned]) -> tuple[Planned, ...]:
    """The same plans: what the least extra time is in more memory, it is in less, too."""
    found: list[Planned] = []
    least = 0.0
    for plan in reversed(plans):
        least = max(least, plan.bound_seconds or 0.0)
        known = plan.bound_seconds is not None
        found.append(replace(plan, bound_seconds=least) if known else plan)
    return tuple(reversed(found))


def plans_of(
    problem: RematProblem, *, points: int, time_limit_s: float, say: Say
) -> list[Solution]:
    """The plans of the front alone; the one of the least memory is searched for in that time."""
    most = simulate(problem, baseline(problem)).peak_bytes
    say("searching for the least budget")
    least = floor(problem, time_limit_s=max(0.1, time_limit_s))
    found = [least]
    for k in range(1, points):
        say(f"planning budget {k} of {points}")
        budget = least.peak_bytes + int((most - least.peak_bytes) * (k / (points - 1)) ** 1.5)
        found.append(cheapest(problem, budget, [each.schedule for each in found[-1:]]))
    found.append(cheapest(problem, most))
    return _front(found)


def cheapest(
    problem: RematProblem, budget_bytes: int, schedules: Iterable[Schedule] = ()
) -> Solution:
    """The cheapest plan found quickly; its status says where none is within the budget."""
    plain = baseline(problem)
    return quick(problem, max(1, budget_bytes), [plain, *schedules])


def _front(found: Sequence[Solution]) -> list[Solution]:
    """Those that none with a lower peak is as cheap as."""
    kept: list[Solution] = []
    for each in sorted(found, key=lambda s: (s.peak_bytes, s.cost)):
        if not kept or each.cost < kept[-1].cost:
            kept.append(each)
    return kept


def planned(problem: RematProblem, solution: Solution, deadline: float) -> Planned:
    """A plan with its bound, where there is time for one."""
    extra = max(0.0, solution.cost - problem.baseline_cost)
    bound = None if extra else 0.0
    if extra and time.monotonic() < deadline:
        until = min(deadline, time.monotonic() + _BOUND_S)
        found = proof(problem, solution.peak_bytes, thorough=False, deadline=until).bound
        if math.isfinite(found):
            bound = min(extra, max(0.0, found - problem.baseline_cost))
    return Planned(solution.schedule, solution.peak_bytes, extra, bound)


def fits(solution: Solution) -> bool:
    """Whether a plan is within the budget that it was made for."""
    return solution.status is not Status.INFEASIBLE

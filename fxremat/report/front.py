"""The front of a plan's problem: what other budgets would cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fxremat.plan.plan import Plan, search_threads
from fxremat_solvers import pareto


@dataclass(frozen=True)
class FrontPoint:
    """A peak in bytes, what recomputation for it takes in seconds, and the least that any must."""

    peak_bytes: int
    extra_seconds: float
    lower_bound_seconds: float


def front_of(plan: Plan, *, points: int = 8, time_limit_s: float = 60.0) -> tuple[FrontPoint, ...]:
    """Points from the smallest budget to all that the step needs, searched for now."""
    problem = plan.problem
    with search_threads(plan.options):
        found = pareto(problem, points=points, time_limit_s=time_limit_s, seed=plan.options.seed)
    base = plan.baseline_seconds
    return tuple(
        FrontPoint(
            peak_bytes=each.peak_bytes,
            extra_seconds=each.cost - base,
            lower_bound_seconds=min(each.cost - base, max(0.0, each.lower_bound - base))
            if math.isfinite(each.lower_bound)
            else 0.0,
        )
        for each in found
    )

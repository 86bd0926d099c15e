"""The same plans of a step's calls on every rank of a distributed run (`plan.agree` says how)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fxremat import torch_hooks
from fxremat.plan.agree import agreed, problems_key, say_it_differs
from fxremat.plan.budget import Budget
from fxremat.plan.options import Options
from fxremat.step.compose import Front, StepPlan, peak_under
from fxremat.step.record import Moment
from fxremat_solvers import Schedule, SolverError


def agreed_budget(
    moments: Sequence[Moment],
    calls: Sequence[Front],
    options: Options,
    largest_step_bytes: int,
    purpose: str = "",
) -> Budget:
    """The budget of these calls on all ranks: a fraction is one of the step that the first
    recorded, for no two recordings are the same to the byte."""
    if options.budget.fraction is None or torch_hooks.shared_store() is None:
        return options.budget
    as_it_is = peak_under(moments, [front.baseline for front in calls])
    mine = options.budget.to_bytes(max(as_it_is, largest_step_bytes))
    what = f"budget {options.budget.fraction} {purpose}"
    return Budget(nbytes=agreed(lambda: _key(what, calls, 0, options), mine))


def agreed_step(
    plan: StepPlan, calls: Sequence[Front], options: Options, purpose: str = ""
) -> StepPlan:
    """The plan that all ranks follow for these calls under this budget.

    One that doesn't fit is no rank's to give, nor is it what a rank goes by. `purpose` is what
    else the ranks have in common.
    """
    if not plan.fits:
        return plan
    found: list[Any] = agreed(
        lambda: _key(f"step {purpose}", calls, plan.budget_bytes, options),
        [each.schedule.ops for each in plan.plans],
    )
    schedules = [Schedule(tuple(ops)) for ops in found]
    if schedules == [each.schedule for each in plan.plans]:
        return plan
    try:
        pairs = zip(calls, schedules, strict=True)
        plans = tuple(front.plan_by(schedule) for front, schedule in pairs)
        peak = peak_under(plan.moments, plans)
    except (SolverError, ValueError):
        peak, plans = plan.budget_bytes + 1, plan.plans
    if peak > plan.budget_bytes:
        say_it_differs()
        return plan
    return replace(plan, plans=plans, peak_bytes=peak, cost=sum(each.cost for each in plans))


def _key(purpose: str, calls: Sequence[Front], budget_bytes: int, options: Options) -> str:
    problems = [front.lowering.problem for front in calls]
    return problems_key(purpose, problems, budget_bytes, options)

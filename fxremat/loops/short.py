"""Plans of loops too short to be measured by four steps: each schedule there is, is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch

from fxremat.errors import BudgetInfeasible
from fxremat.loops.calibrate import STEPS, MakeRun, whole_loop
from fxremat.loops.figures import Figures
from fxremat.loops.plan import Kind, LoopPlan, plan_of
from fxremat.loops.randomness import Generators
from fxremat.measure.peak import measure_peak
from fxremat.plan.budget import Budget
from fxremat_solvers.loops.actions import Action
from fxremat_solvers.loops.binomial import binomial
from fxremat_solvers.loops.segments import segments

Actions = Callable[[], Iterator[Action]]


def is_short(steps: int) -> bool:
    """Whether a loop has too few steps for figures of its own."""
    return steps < STEPS


def short_plan(
    steps: int,
    budget: Budget | None,
    slots: int | None,
    make_run: MakeRun,
    generators: Generators,
    device: torch.device,
) -> LoopPlan:
    """The schedule of the fewest evaluations within a budget, or the one of so many slots.

    Raises `BudgetInfeasible`. The random states are afterwards what they were before.
    """
    before = generators.read()
    try:
        if budget is None:
            kept = min(steps, slots or 1)
            return _measured(steps, "states", lambda: binomial(steps, kept), make_run, device)
        first = _measured(steps, "all tapes", lambda: segments(steps, 1, steps), make_run, device)
        nbytes = budget.to_bytes(first.peak_bytes)
        found = [first]
        for kept in range(steps, 0, -1):
            if found[-1].peak_bytes <= nbytes:
                return found[-1].under(nbytes)
            found.append(
                _measured(steps, "states", lambda k=kept: binomial(steps, k), make_run, device)
            )
        if found[-1].peak_bytes <= nbytes:
            return found[-1].under(nbytes)
    finally:
        generators.write(before)
    floor = min(plan.peak_bytes for plan in found)
    raise BudgetInfeasible(
        f"the loop's budget is {nbytes} bytes, but its {steps} steps take {floor} with one state "
        "kept: give at least that, or a step that takes less",
        budget_bytes=nbytes,
        floor_bytes=floor,
        holders=(("the loop with one state kept", floor),),
    )


def _measured(
    steps: int, kind: Kind, actions: Actions, make_run: MakeRun, device: torch.device
) -> LoopPlan:
    # First calls allocate more than later ones.
    whole_loop(make_run(steps, actions()))
    begin = time.perf_counter()
    whole_loop(make_run(steps, actions()))
    seconds = time.perf_counter() - begin
    peak = measure_peak(lambda: whole_loop(make_run(steps, actions())), device=device).peak_bytes
    figures = Figures.at_most(peak, seconds / steps)
    return plan_of(steps, kind, figures, actions, None, exact=True)

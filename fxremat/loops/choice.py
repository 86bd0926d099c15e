"""The step's own plan and the loop's schedule, chosen together under one budget.

A plan of the step that takes less is slower, but leaves room for more states and tapes. The step's
front of plans is ranked by what a loop would take with each; the best of them are measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fxremat.errors import BudgetInfeasible
from fxremat.loops.compiled import CompiledStep, compiled_step
from fxremat.loops.figures import Figures
from fxremat.loops.plan import LoopPlan, estimated_seconds, plain_peak, within
from fxremat.loops.traced import TracedStep
from fxremat.plan.budget import Budget
from fxremat.step.compose import Front
from fxremat.step.least import least_saved
from fxremat.step.parts import PartPlan
from fxremat_solvers import SOLVERS, RematProblem, Solution, SolveOptions

# So many plans of a step are measured, beside the one that recomputes nothing.
_MEASURED = 3
_NOBODY = frozenset[int]()

Measure = Callable[[CompiledStep], Figures]


@dataclass(frozen=True)
class _Candidate:
    """A plan of the step, and what a loop of such steps is expected to take."""

    plan: PartPlan
    figures: Figures


def as_it_is(traced: TracedStep) -> CompiledStep:
    """The step with nothing recomputed."""
    front = Front.of(traced.lowered.lowering, least_saved(traced.lowered.lowering))
    return compiled_step(traced, front.baseline.schedule)


def chosen(budget: Budget, steps: int, traced: TracedStep, measure: Measure) -> LoopPlan:
    """The plan of the fewest seconds within a budget. Raises `BudgetInfeasible`."""
    lowering = traced.lowered.lowering
    front = Front.of(lowering, least_saved(lowering))
    plain = compiled_step(traced, front.baseline.schedule)
    figures = measure(plain)
    cap = Budget(nbytes=budget.to_bytes(plain_peak(steps, figures)))
    found, failed = _tried(cap, steps, figures, plain)
    if found is not None and found.evaluations == steps:
        return found
    front.grow(_quick)
    ranked: list[tuple[float, _Candidate]] = []
    for plan in front.plans:
        candidate = _Candidate(plan, _expected(figures, front.baseline, plan))
        seconds = estimated_seconds(cap, steps, candidate.figures)
        if plan is not front.baseline and seconds is not None:
            ranked.append((seconds, candidate))
    ranked.sort(key=lambda each: each[0])
    tried = [candidate.plan for _, candidate in ranked[:_MEASURED]]
    if found is None and front.least not in tried:
        tried.append(front.least)
    for plan in tried:
        compiled = compiled_step(traced, plan.schedule)
        other, error = _tried(cap, steps, measure(compiled), compiled)
        if other is not None and (found is None or other.seconds < found.seconds):
            found = other
        if error is not None and (failed is None or error.floor_bytes < failed.floor_bytes):
            failed = error
    if found is None:
        assert failed is not None
        raise failed
    return found


def chosen_short(traced: TracedStep, plan: Callable[[CompiledStep], LoopPlan]) -> LoopPlan:
    """For a loop of few steps: the step as it is, or where that doesn't fit its least plan."""
    front = Front.of(traced.lowered.lowering, least_saved(traced.lowered.lowering))
    for each in (front.baseline, front.least):
        compiled = compiled_step(traced, each.schedule)
        try:
            return replace(plan(compiled), compiled=compiled)
        except BudgetInfeasible:
            if each is front.least:
                raise
    raise AssertionError


def _tried(
    cap: Budget, steps: int, figures: Figures, compiled: CompiledStep
) -> tuple[LoopPlan | None, BudgetInfeasible | None]:
    try:
        return replace(within(cap, steps, figures), compiled=compiled), None
    except BudgetInfeasible as error:
        return None, error


def _expected(measured: Figures, plain: PartPlan, plan: PartPlan) -> Figures:
    """The figures of a step by another plan than the one that was measured."""

    def peak(each: PartPlan) -> int:
        return max(each.forward_bytes, each.backward_peak(_NOBODY, 0))

    more = peak(plan) - peak(plain)
    return replace(
        measured,
        tape=max(1, measured.tape + plan.saved_bytes(_NOBODY) - plain.saved_bytes(_NOBODY)),
        beside={moment: max(1, taken + more) for moment, taken in measured.beside.items()},
        backward_seconds=measured.backward_seconds + plan.cost - plain.cost,
    )


def _quick(problem: RematProblem, budget_bytes: int) -> Solution:
    return SOLVERS["greedy"].run(problem, budget_bytes, SolveOptions("greedy"))

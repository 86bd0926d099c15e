"""What a loop keeps under a budget, and what that takes, before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from fxremat.errors import BudgetInfeasible, OptionError
from fxremat.loops.compiled import CompiledStep
from fxremat.loops.figures import Figures
from fxremat.plan.budget import Budget
from fxremat_solvers.loops import binomial as closed_form
from fxremat_solvers.loops.actions import Action
from fxremat_solvers.loops.segments import best_segments, segments, segments_evaluations
from fxremat_solvers.loops.tapes import EXHAUSTIVE, cells, tape_table

# A table of so many cells takes some seconds: an exhaustive one, and one that is searched nearby.
MOST_CELLS = {True: 2_000_000, False: 12_000_000}

_ROOMS = 3  # so many tables are solved, more only where none of them fits

Kind = Literal["states", "states and tapes", "segments", "all tapes"]


@dataclass(frozen=True)
class LoopPlan:
    """The schedule of a loop of known length and what it takes.

    `evaluations` of the step, each of the loop's once included; `bound` of them at least are needed
    for what is kept at once, where that is known. `peak_bytes` is the step memory of the loop and
    its backward: everything that they allocate, results, gradients and incoming gradients included.
    `states` and `tapes` are kept at most, beside the tape at work. `compiled` is the step as it was
    traced and planned, for all loops that the plan is given to.
    """

    steps: int
    kind: Kind
    states: int
    tapes: int
    evaluations: int
    bound: int | None
    peak_bytes: int
    seconds: float
    budget_bytes: int | None
    figures: Figures
    _actions: Callable[[], Iterator[Action]] = field(repr=False)
    compiled: CompiledStep | None = field(default=None, repr=False)

    def under(self, budget_bytes: int) -> LoopPlan:
        """The plan, made for a budget."""
        return replace(self, budget_bytes=budget_bytes)

    def schedule(self) -> Iterator[Action]:
        """The actions, anew at each call."""
        return self._actions()

    def __str__(self) -> str:
        each = self.evaluations / max(1, self.steps)
        best = (
            "the fewest for what is kept"
            if self.bound == self.evaluations
            else ("not proved to be the fewest" if self.bound is None else f"at least {self.bound}")
        )
        budget = "" if self.budget_bytes is None else f" of {_size(self.budget_bytes)}"
        f, peak = self.figures, _size(self.peak_bytes)
        work = _size(f.least(0) - f.random)
        return (
            f"loop of {self.steps} steps by {self.kind}: {self.states} states and {self.tapes} "
            f"tapes kept\n"
            f"  {self.evaluations} evaluations of the step ({each:.2f} each; {best})\n"
            f"  {peak}{budget} at most, about {self.seconds:.3g} s with backward\n"
            f"  a state takes {_size(f.state + f.random)}, a tape {_size(f.tape)}, the step at "
            f"work {work}"
            + (f", outputs and xs {_size(f.per_step * self.steps)}" if f.per_step else "")
            + ("" if self.compiled is None else f"\n  the step, compiled, {self.compiled}")
        )


def plan_of(
    steps: int,
    kind: Kind,
    figures: Figures,
    actions: Callable[[], Iterator[Action]],
    budget: int | None,
    exact: bool,
) -> LoopPlan:
    """The plan that is a schedule; where it is `exact`, there is none of fewer evaluations."""
    peak, done = figures.peak(actions(), steps)
    return LoopPlan(
        steps=steps,
        kind=kind,
        states=done.most_states,
        tapes=max(0, done.most_tapes - 1),
        evaluations=done.evaluations,
        bound=done.evaluations if exact else None,
        peak_bytes=peak,
        seconds=figures.seconds(done.evaluations, steps),
        budget_bytes=budget,
        figures=figures,
        _actions=actions,
    )


def by_slots(steps: int, slots: int, figures: Figures) -> LoopPlan:
    """The binomial schedule."""
    slots = min(steps, slots)
    return plan_of(
        steps, "states", figures, lambda: closed_form.binomial(steps, slots), None, exact=True
    )


def slots_within(budget: Budget, figures: Figures, steps: int | None) -> int:
    """How many states a loop may keep beside one tape, of unknown length where `steps` is None.

    Raises `BudgetInfeasible`.
    """
    if budget.nbytes is None:
        raise OptionError("the budget of such a loop is one in bytes: '200MiB'")
    if steps is None and figures.per_step:
        raise OptionError(
            "the outputs of a loop take memory with each step: where their number isn't known, a "
            "budget needs max_steps=, for which there must be room (or give slots=)"
        )
    work = figures.least(steps or 0)
    if work > budget.nbytes:
        raise _infeasible(budget.nbytes, work, figures, steps or 0)
    return 1 + (budget.nbytes - work) // max(1, figures.state + figures.random)


def within(budget: Budget, steps: int, figures: Figures) -> LoopPlan:
    """The schedule of the fewest evaluations whose peak is within a budget.

    A budget that is a fraction is one of the plain loop's memory. Raises `BudgetInfeasible`.
    """
    everything = plan_of(steps, "all tapes", figures, lambda: segments(steps, 1, steps), None, True)
    nbytes = budget.to_bytes(everything.peak_bytes)
    if everything.peak_bytes <= nbytes:
        return plan_of(steps, "all tapes", figures, lambda: segments(steps, 1, steps), nbytes, True)
    least = by_slots(steps, 1, figures)
    floor = min(least.peak_bytes, everything.peak_bytes)
    if floor > nbytes:
        raise _infeasible(nbytes, floor, figures, steps)
    state = max(1, figures.state + figures.random)
    tape = max(1, figures.tape)
    # The table counts each state and tape by itself. Some share memory, and the first state takes
    # none: what a plan leaves, or takes too much, is put right in another one.
    room, best = state, None
    left = nbytes - least.peak_bytes
    for tried in itertools.count(1):
        room += left
        if room < state:
            break
        found = _in_room(steps, room, state, tape, figures, nbytes)
        left = nbytes - found.peak_bytes
        if left >= 0 and (best is None or found.evaluations < best.evaluations):
            best = found
        enough = tried >= _ROOMS or steps > EXHAUSTIVE or 0 <= left < min(state, tape)
        if best is not None and enough:
            break
    if best is not None:
        return best
    return plan_of(
        steps, "states", figures, lambda: closed_form.binomial(steps, 1), nbytes, exact=True
    )


def plain_peak(steps: int, figures: Figures) -> int:
    """The memory of the plain loop."""
    peak, _ = figures.peak(segments(steps, 1, steps), steps)
    return peak


def estimated_seconds(budget: Budget, steps: int, figures: Figures) -> float | None:
    """About what a loop takes within a budget, by a closed form; None where it can't be."""
    assert budget.nbytes is not None
    work = figures.least(steps)
    state = max(1, figures.state + figures.random)
    room = budget.nbytes - work + state
    if room < state:
        return None
    slots, length = best_segments(steps, room, state, max(1, figures.tape))
    return figures.seconds(segments_evaluations(steps, slots, length), steps)


def _infeasible(nbytes: int, floor: int, figures: Figures, steps: int) -> BudgetInfeasible:
    return BudgetInfeasible(
        f"the loop's budget is {_size(nbytes)}, but a step at work with one state kept takes "
        f"{_size(floor)} ({floor} bytes): give at least that, or a step that takes less (smaller "
        "batches, fxremat.optimize(step, budget=...))",
        budget_bytes=nbytes,
        floor_bytes=floor,
        holders=(
            ("the step at work", figures.least(0) - figures.random),
            ("outputs, xs and their gradients", figures.per_step * steps),
            ("random states", figures.random),
        ),
    )


def _in_room(
    steps: int, room: int, state: int, tape: int, figures: Figures, nbytes: int
) -> LoopPlan:
    exhaustive = steps <= EXHAUSTIVE
    for kept_tape, exact in ((tape, exhaustive), (_coarse(tape, state), False)):
        if cells(steps, room, state, kept_tape) <= MOST_CELLS[exhaustive]:
            table = tape_table(steps, room, state, kept_tape)
            return plan_of(steps, "states and tapes", figures, table.schedule, nbytes, exact)
    slots, length = best_segments(steps, room, state, tape)
    actions = lambda: segments(steps, slots, length)  # noqa: E731
    return plan_of(steps, "segments", figures, actions, nbytes, exact=False)


def _coarse(tape: int, state: int) -> int:
    """A tape a little larger, so that states and tapes share one unit."""
    if tape >= state:
        return -(-tape // state) * state
    return -(-state // (state // tape))


def _size(nbytes: int) -> str:
    return f"{nbytes / 2**20:.2f} MiB" if nbytes >= 2**20 else f"{nbytes / 2**10:.1f} KiB"

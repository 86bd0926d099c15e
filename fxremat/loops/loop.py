"""`fxremat.loop(step, state, ...)`: a recurrence, differentiated in the memory of a few states."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from fxremat import torch_hooks
from fxremat.errors import LoopError, OptionError, UnsupportedGraphError
from fxremat.execute.eager import Eager
from fxremat.inductor.executor import Inductor
from fxremat.loops.calibrate import measured
from fxremat.loops.choice import as_it_is, chosen, chosen_short
from fxremat.loops.figures import Figures
from fxremat.loops.function import differentiable
from fxremat.loops.in_graph import is_one_operation, traced_loop
from fxremat.loops.plain import run_plainly
from fxremat.loops.plan import LoopPlan, by_slots, slots_within, within
from fxremat.loops.prepared import Prepared, Step, whole_number
from fxremat.loops.progress import Bars
from fxremat.loops.randomness import Generators
from fxremat.loops.replayed import Check
from fxremat.loops.run import Run
from fxremat.loops.short import is_short, short_plan
from fxremat.loops.storage import Storage
from fxremat.loops.traced import TracedStep, traced_step
from fxremat.plan.budget import Budget
from fxremat.plan.options import make_options
from fxremat_solvers.loops.actions import Action
from fxremat_solvers.loops.binomial import binomial
from fxremat_solvers.loops.far import best_period, far_plan, online_far
from fxremat_solvers.loops.online import online

_LOG = logging.getLogger("fxremat")

Schedule = Literal["auto"] | Iterable[Action] | LoopPlan


class Loop:
    """What `fxremat.loop` is: call it to run a loop, `plan` it to see what that takes."""

    def __call__(
        self,
        step: Step,
        state: Any,
        *,
        steps: int | None = None,
        xs: Any = None,
        while_: Callable[[Any, int], Any] | None = None,
        max_steps: int | None = None,
        budget: Any = None,
        slots: int | None = None,
        schedule: Schedule = "auto",
        store: str | Storage = "ram",
        compile: bool = False,
        executor: str = "eager",
        outputs: bool = False,
        params: Iterable[torch.Tensor] | nn.Module | None = None,
        rng: bool = True,
        check: Check = "first",
        progress: bool = False,
    ) -> Any:
        """Apply `step` again and again; gradients are bit for bit those of the plain Python loop.

        ``step(state, i)`` returns the next state for i in range(steps); ``step(state, x)`` does for
        every x of `xs`, whose tensors are stacked along their first dimension. With `outputs` it
        returns (state, output), and the loop (state, stacked outputs). States, xs and outputs are
        tensors in nested tuples, lists and dicts. With ``while_(state, i)`` the loop goes on while
        that is true, for at most `max_steps`, and the number of steps is one more result.

        One of three says what is kept for backward, where steps run again from what is kept:

        - `budget`, as of `fxremat.optimize`: the memory of the loop and its backward. The loop's
          first steps are measured before (`plan` does so once for many loops).
        - `slots`: so many states, the first among them. Steps run the fewest times possible.
        - `schedule`: a `LoopPlan`, or actions (`fxremat_solvers.loops.actions`).

        With `store` further states than the slots' go to a far place: "cpu" is pinned host memory,
        for a loop on a GPU, "disk:FOLDER" files there; a `Storage` has prices for it.

        With `compile` one step and its reversal are traced, and run by an `executor` ("eager",
        "inductor", "auto", as for `fxremat.optimize`). Under a budget the step's own plan, what it
        recomputes in its backward, is chosen together with the schedule. That is done at each call:
        have `plan` do it once for many loops.

        What else requires gradients and is used by the steps is found, or named in `params`. `rng`
        has steps that run again draw the same random numbers. `check` compares states that are
        computed again with those of the first run. `progress` shows a bar for the loop and one for
        its reversal.
        """
        if torch.compiler.is_dynamo_compiling() and is_one_operation(
            state, while_, budget, slots, schedule, store, compile, params, progress
        ):
            return traced_loop(step, state, steps, xs, outputs, slots)
        how = {
            "steps": steps,
            "xs": xs,
            "while_": while_,
            "max_steps": max_steps,
            "outputs": outputs,
            "params": params,
            "rng": rng,
            "check": check,
        }
        keeping = _Keeping(budget, slots, schedule, store)
        return _run(step, state, how, keeping, _Compiling.of(compile, executor), progress)

    torch_hooks.never_compile_frame(__call__)

    def plan(
        self,
        step: Step,
        state: Any,
        *,
        steps: int | None = None,
        xs: Any = None,
        budget: Any = None,
        slots: int | None = None,
        compile: bool = False,
        executor: str = "eager",
        outputs: bool = False,
        params: Iterable[torch.Tensor] | nn.Module | None = None,
        rng: bool = True,
    ) -> LoopPlan:
        """What such a loop would keep, and take: evaluations, bytes, seconds. Print it.

        Runs some forty steps, the loop's first four, to measure them; random states, gradients and
        the first state stay as they are. Give the plan to loops that are alike as `schedule`. With
        `compile` it holds the compiled step. Raises `BudgetInfeasible`, which names the smallest
        budget.
        """
        prepared = Prepared.of(
            step,
            state,
            steps=steps,
            xs=xs,
            while_=None,
            max_steps=None,
            outputs=outputs,
            params=params,
            rng=rng,
            check="first",
        )
        return _planned(prepared, budget, slots, _Compiling.of(compile, executor))


@dataclass(frozen=True)
class _Keeping:
    """What of the options says what is kept, and where."""

    budget: Any
    slots: int | None
    schedule: Schedule
    store: str | Storage

    def check(self) -> None:
        """Raise `OptionError` unless one of them says it."""
        planned = not isinstance(self.schedule, str)
        if [self.budget is not None, self.slots is not None, planned].count(True) != 1:
            raise OptionError(
                "give one of budget= (the loop's memory), slots= (kept states) and schedule= (a "
                "plan, or actions)"
            )


@dataclass(frozen=True)
class _Compiling:
    """Whether, and by which executor, steps run compiled."""

    wanted: bool
    executor: str

    @staticmethod
    def of(wanted: bool, executor: str) -> _Compiling:
        """Checked. Raises `OptionError`."""
        make_options({"budget": 1.0, "executor": executor})
        if executor != "eager" and not wanted:
            raise OptionError(f"executor={executor!r} is for compile=True, which isn't given")
        return _Compiling(wanted, executor)


def _looped(
    step: Step,
    state: Any,
    how: dict[str, Any],
    keeping: _Keeping,
    compiling: _Compiling,
    progress: bool,
) -> Any:
    prepared = Prepared.of(step, state, **how)
    if prepared.steps == 0:
        return _nothing(state, prepared)
    if not torch.is_grad_enabled():
        result, number = run_plainly(
            prepared.recurrence, prepared.leaves, prepared.steps, prepared.condition
        )
        return _counted(result, number, prepared)

    # Emptied after the first run: the schedule, which the run holds, must not hold the run.
    runs: list[Run] = []

    def going(number: int) -> bool:
        condition = prepared.condition
        return condition is not None and condition.holds(runs[0].current_state(), number)

    storage = Storage.of(keeping.store)
    keeping, prepared = _with_step(prepared, keeping, storage, compiling)
    actions = _actions(prepared, keeping, storage, going)
    run = prepared.run(actions, storage.stores(prepared.device), Bars() if progress else None)
    runs.append(run)
    try:
        run.sweep()
    finally:
        runs.clear()
    number = run.interpreter.steps or 0
    result = differentiable(run) if number else _nothing(state, prepared)
    return _counted(result, number, prepared)


# Dynamo would trace the driver itself, and each step anew.
_run = torch_hooks.without_dynamo(
    _looped, "fxremat.loop runs by its own schedule; compile=True compiles its step"
)


def _with_step(
    prepared: Prepared, keeping: _Keeping, storage: Storage, compiling: _Compiling
) -> tuple[_Keeping, Prepared]:
    """What keeps what, and the loop, its step compiled where that is asked for."""
    plan = keeping.schedule
    if isinstance(plan, LoopPlan):
        if compiling.wanted and plan.compiled is None:
            raise OptionError(
                "compile=True with a plan whose step isn't compiled: "
                "fxremat.loop.plan(..., compile=True) makes one"
            )
        return keeping, prepared.by(plan.compiled)
    if not compiling.wanted:
        return keeping, prepared
    if keeping.budget is not None and not storage.is_far and prepared.steps is not None:
        keeping.check()
        plan = _planned(prepared, keeping.budget, None, compiling)
        return _Keeping(None, None, plan, keeping.store), prepared.by(plan.compiled)
    return keeping, prepared.by(as_it_is(_traced(prepared, compiling)))


def _planned(prepared: Prepared, budget: Any, slots: int | None, compiling: _Compiling) -> LoopPlan:
    if (budget is None) == (slots is None):
        raise OptionError("give one of budget= (the loop's memory) and slots= (kept states)")
    cap = None if budget is None else Budget.of(budget)
    length = prepared.steps
    assert length is not None
    if cap is None:
        slots = whole_number("slots", slots)
    if not compiling.wanted:
        if is_short(length):
            return _short(prepared, cap, slots)
        figures = _figures(prepared)
        if cap is None:
            return by_slots(length, whole_number("slots", slots), figures)
        return within(cap, length, figures)
    traced = _traced(prepared, compiling)
    if is_short(length):
        return chosen_short(traced, lambda compiled: _short(prepared.by(compiled), cap, slots))
    if cap is None:
        compiled = as_it_is(traced)
        figures = _figures(prepared.by(compiled))
        plan = by_slots(length, whole_number("slots", slots), figures)
        return dataclasses.replace(plan, compiled=compiled)
    return chosen(cap, length, traced, lambda compiled: _figures(prepared.by(compiled)))


def _traced(prepared: Prepared, compiling: _Compiling) -> TracedStep:
    """The loop's step, traced; random states are afterwards what they were before."""
    generators = prepared.generators or Generators()
    before = generators.read()
    executor = Eager() if compiling.executor == "eager" else Inductor()
    try:
        return traced_step(prepared.recurrence, prepared.leaves, executor)
    except UnsupportedGraphError as error:
        if compiling.executor != "auto":
            raise
        _LOG.warning("the step of the loop runs op by op: %s", error)
        generators.write(before)
        return traced_step(prepared.recurrence, prepared.leaves, Eager())
    finally:
        generators.write(before)


def _short(prepared: Prepared, budget: Budget | None, slots: int | None) -> LoopPlan:
    assert prepared.steps is not None
    with torch.enable_grad():
        return short_plan(
            prepared.steps,
            budget,
            slots,
            lambda count, actions: prepared.beginning(count).run(actions),
            prepared.generators or Generators(),
            prepared.device,
        )


def _figures(prepared: Prepared) -> Figures:
    with torch.enable_grad():
        return measured(
            lambda count, actions: prepared.beginning(count).run(actions),
            prepared.generators or Generators(),
            prepared.device,
        )


def _actions(
    prepared: Prepared, keeping: _Keeping, storage: Storage, going: Callable[[int], bool]
) -> Iterator[Action]:
    """The schedule that the options ask for."""
    keeping.check()
    budget, slots, schedule = keeping.budget, keeping.slots, keeping.schedule
    if isinstance(schedule, LoopPlan):
        if schedule.steps != prepared.steps:
            raise OptionError(
                f"the plan is for {schedule.steps} steps, the loop has "
                f"{'an unknown number of' if prepared.steps is None else prepared.steps}"
            )
        return schedule.schedule()
    if not isinstance(schedule, str):
        return iter(schedule)
    if schedule != "auto":
        raise OptionError(f"schedule is {schedule!r}: it is 'auto', a plan, or actions")
    if storage.is_far:
        return _near_and_far(prepared, budget, slots, storage, going)
    if prepared.steps is None:
        if budget is not None:
            slots = slots_within(Budget.of(budget), _figures(prepared), _most(prepared))
        return online(whole_number("slots", slots), going)
    if budget is not None:
        return _planned(prepared, budget, None, _Compiling(False, "eager")).schedule()
    slots = whole_number("slots", slots)
    return binomial(prepared.steps, min(slots, prepared.steps))


def _most(prepared: Prepared) -> int | None:
    """How many steps there are at most."""
    return prepared.steps if prepared.condition is None else prepared.condition.most


def _near_and_far(
    prepared: Prepared,
    budget: Any,
    slots: int | None,
    storage: Storage,
    going: Callable[[int], bool],
) -> Iterator[Action]:
    """The schedule with `slots` near states, or those that a budget has room for."""
    if budget is not None:
        figures = _figures(prepared)
        # One state is on its way back while another is in use.
        cap = Budget.of(budget)
        slots = max(1, slots_within(cap, figures, _most(prepared)) - 1)
    slots = whole_number("slots", slots)
    write, read = storage.write, storage.read
    if prepared.steps is None:
        return online_far(slots, best_period(slots, write, read), going)
    return far_plan(prepared.steps, slots, write, read).schedule()


def _counted(result: Any, number: int, prepared: Prepared) -> Any:
    if prepared.condition is None:
        return result
    return (*result, number) if prepared.recurrence.has_outputs else (result, number)


def _nothing(state: Any, prepared: Prepared) -> Any:
    if prepared.recurrence.has_outputs:
        raise LoopError("a loop of no steps has no outputs to stack")
    return state


loop = Loop()

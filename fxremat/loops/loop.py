"""`fxremat.loop(step, state, ...)`: a recurrence, differentiated in the memory of a few states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import nn

from fxremat.errors import LoopError, OptionError
from fxremat.loops.captured import Captured
from fxremat.loops.casting import Casting
from fxremat.loops.condition import Condition
from fxremat.loops.function import differentiable, refuse_transforms
from fxremat.loops.plain import run_plainly
from fxremat.loops.randomness import Generators
from fxremat.loops.reachable import reachable
from fxremat.loops.recurrence import Recurrence
from fxremat.loops.replayed import Check, Replays
from fxremat.loops.run import Run
from fxremat.loops.store import Memory
from fxremat_solvers.loops.actions import Action
from fxremat_solvers.loops.binomial import binomial
from fxremat_solvers.loops.online import online


class Loop:
    """What `fxremat.loop` is: call it to run a loop."""

    def __call__(
        self,
        step: Callable[[Any, Any], Any],
        state: Any,
        *,
        steps: int | None = None,
        xs: Any = None,
        while_: Callable[[Any, int], Any] | None = None,
        max_steps: int | None = None,
        slots: int | None = None,
        schedule: Literal["auto"] | Iterable[Action] = "auto",
        outputs: bool = False,
        params: Iterable[torch.Tensor] | nn.Module | None = None,
        rng: bool = True,
        check: Check = "first",
    ) -> Any:
        """Apply `step` again and again; gradients are bit for bit those of the plain Python loop.

        ``step(state, i)`` returns the next state for i in range(steps); ``step(state, x)`` does for
        every x of `xs`, whose tensors are stacked along their first dimension. With `outputs` it
        returns (state, output), and the loop (state, stacked outputs). States, xs and outputs are
        tensors in nested tuples, lists and dicts. With ``while_(state, i)`` the loop goes on while
        that is true, for at most `max_steps`, and the number of steps is one more result.

        `slots` states are kept, the first among them; steps run again from those in backward, the
        fewest times that are possible. Or a `schedule` of actions
        (`fxremat_solvers.loops.actions`) says what is kept and when. Everything else that requires
        gradients and that the steps use is found, or named in `params`. `rng` has steps that run
        again draw the same random numbers. `check` compares states that are computed again with
        those of the first run.
        """
        refuse_transforms()
        recurrence, leaves = Recurrence.of(step, state, xs, outputs)
        count = _length(steps, recurrence, while_, max_steps)
        tensors = [t for t in (*leaves, *recurrence.xs) if isinstance(t, torch.Tensor)]
        reached = reachable(step)
        generators = Generators.of(tensors, reached.generators) if rng else None
        condition = None
        if while_ is not None:
            condition = Condition(while_, max_steps, generators, always=check == "always")
        if count == 0:
            return _nothing(state, outputs)
        if not torch.is_grad_enabled():
            result, number = run_plainly(recurrence, leaves, count, condition)
            return result if condition is None else _counted(result, outputs, number)
        casting = Casting.now({t.device.type for t in tensors} | {"cpu"})
        casting.check()
        named = params.parameters() if isinstance(params, nn.Module) else params or ()
        ours = {id(t) for t in tensors}

        actions: Iterator[Action]
        if not isinstance(schedule, str):
            _no_slots_beside_a_schedule(slots)
            actions = iter(schedule)
        elif schedule != "auto":
            raise OptionError(f"schedule is {schedule!r}: it is 'auto', or actions")
        elif slots is None:
            raise OptionError("give slots= (how many states are kept)")
        elif count is None:
            actions = online(_checked("slots", slots), lambda number: going(number))
        else:
            actions = binomial(count, min(_checked("slots", slots), count))

        def going(number: int) -> bool:
            return condition is not None and condition.holds(run.current_state(), number)

        run = Run(
            recurrence,
            leaves,
            actions,
            steps=count,
            captured=Captured(step, named),
            stores={0: Memory()},
            generators=generators,
            casting=casting,
            replays=Replays(check),
            reachable=[t for t in reached.tensors if id(t) not in ours],
            careful=check != "never",
        )
        run.sweep()
        number = run.interpreter.steps or 0
        result = differentiable(run, leaves) if number else _nothing(state, outputs)
        return result if condition is None else _counted(result, outputs, number)


def _no_slots_beside_a_schedule(slots: int | None) -> None:
    if slots is not None:
        raise OptionError("slots= beside a schedule of actions, which says itself what is kept")


def _counted(result: Any, outputs: bool, number: int) -> tuple[Any, ...]:
    return (*result, number) if outputs else (result, number)


def _nothing(state: Any, outputs: bool) -> Any:
    if outputs:
        raise LoopError("a loop of no steps has no outputs to stack")
    return state


def _length(
    steps: int | None, recurrence: Recurrence, condition: Any, max_steps: int | None
) -> int | None:
    """The number of steps, None where a condition says when to end."""
    if [steps is not None, bool(recurrence.xs), condition is not None].count(True) != 1:
        raise OptionError(
            "give one of steps= (a number), xs= (tensors to iterate over) and while_= (a condition)"
        )
    if max_steps is not None:
        _checked("max_steps", max_steps, least=0)
        if condition is None:
            raise OptionError("max_steps is for while_=; without it the number of steps is known")
    if condition is not None:
        return None
    if steps is not None:
        return _checked("steps", steps, least=0)
    lengths = {x.shape[0] if x.ndim else None for x in recurrence.xs}
    if len(lengths) != 1 or None in lengths:
        raise OptionError(
            "the tensors of xs have different lengths in their first dimension, along which the "
            f"loop goes: {sorted(map(str, lengths))}"
        )
    return int(lengths.pop() or 0)


def _checked(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} is {value!r}: it is a whole number, {least} or more")
    return value


loop = Loop()

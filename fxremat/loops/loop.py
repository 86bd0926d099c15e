"""`fxremat.loop(step, state, ...)`: a recurrence, differentiated in the memory of a few states."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from fxremat.errors import LoopError, OptionError
from fxremat.loops.captured import Captured
from fxremat.loops.casting import Casting
from fxremat.loops.function import differentiable, refuse_transforms
from fxremat.loops.plain import run_plainly
from fxremat.loops.randomness import Generators
from fxremat.loops.reachable import reachable
from fxremat.loops.recurrence import Recurrence
from fxremat.loops.replayed import Check, Replays
from fxremat.loops.run import Run
from fxremat.loops.store import Memory
from fxremat_solvers.loops.binomial import binomial


class Loop:
    """What `fxremat.loop` is: call it to run a loop."""

    def __call__(
        self,
        step: Callable[[Any, Any], Any],
        state: Any,
        *,
        steps: int | None = None,
        xs: Any = None,
        slots: int,
        outputs: bool = False,
        params: Iterable[torch.Tensor] | nn.Module | None = None,
        rng: bool = True,
        check: Check = "first",
    ) -> Any:
        """Apply `step` again and again; gradients are bit for bit those of the plain Python loop.

        ``step(state, i)`` returns the next state for i in range(steps); ``step(state, x)`` does for
        every x of `xs`, whose tensors are stacked along their first dimension. With `outputs` it
        returns (state, output), and the loop (state, stacked outputs). States, xs and outputs are
        tensors in nested tuples, lists and dicts.

        `slots` states are kept, the first among them; steps run again from those in backward, the
        fewest times that are possible. Everything else that requires gradients and that the steps
        use is found, or named in `params`. `rng` has steps that run again draw the same random
        numbers. `check` compares states that are computed again with those of the first run.
        """
        refuse_transforms()
        recurrence, leaves = Recurrence.of(step, state, xs, outputs)
        count = _length(steps, recurrence)
        if count == 0:
            if outputs:
                raise LoopError("a loop of no steps has no outputs to stack")
            return state
        if not torch.is_grad_enabled():
            return run_plainly(recurrence, leaves, count, lambda _, number: number < count)[0]
        tensors = [t for t in (*leaves, *recurrence.xs) if isinstance(t, torch.Tensor)]
        casting = Casting.now({t.device.type for t in tensors} | {"cpu"})
        casting.check()
        reached = reachable(step)
        named = params.parameters() if isinstance(params, nn.Module) else params or ()
        ours = {id(t) for t in tensors}
        run = Run(
            recurrence,
            leaves,
            binomial(count, min(_checked("slots", slots), count)),
            steps=count,
            captured=Captured(step, named),
            stores={0: Memory()},
            generators=Generators.of(tensors, reached.generators) if rng else None,
            casting=casting,
            replays=Replays(check),
            reachable=[t for t in reached.tensors if id(t) not in ours],
            careful=check != "never",
        )
        run.sweep()
        return differentiable(run, leaves)


def _length(steps: int | None, recurrence: Recurrence) -> int:
    if (steps is None) == (not recurrence.xs):
        raise OptionError("give one of steps= (a number) and xs= (tensors to iterate over)")
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

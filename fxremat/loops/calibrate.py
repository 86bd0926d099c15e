"""The figures of a step, measured: four of its steps run, are reversed, and are run in parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch

from fxremat import torch_hooks
from fxremat.loops.figures import Figures
from fxremat.loops.function import differentiable
from fxremat.loops.randomness import Generators
from fxremat.loops.run import Run
from fxremat.measure.peak import measure_peak
from fxremat_solvers.loops.actions import Action, Advance, Store
from fxremat_solvers.loops.actions import Tape as MakeTape
from fxremat_solvers.loops.binomial import binomial, evaluations
from fxremat_solvers.loops.segments import segments

STEPS = 4

MakeRun = Callable[[int, Iterator[Action]], Run]
"""A run of the first so many steps by a schedule, from leaves of its own."""


def measured(make_run: MakeRun, generators: Generators, device: torch.device) -> Figures:
    """The figures of a loop. The random states are afterwards what they were before.

    Runs about forty steps, `STEPS` of them being the first ones of the loop again and again.
    """
    before = generators.read()
    try:
        # First calls allocate more than later ones.
        for actions in (segments(STEPS, 1, STEPS), binomial(STEPS, 1)):
            whole_loop(make_run(STEPS, actions))
        forward, backward = _seconds(make_run, device)
        state, random, tape = _parts(make_run, device)
        per_step = _per_step(make_run)
        taped, again = (
            measure_peak(lambda a=a: whole_loop(make_run(STEPS, a)), device=device).peak_bytes
            for a in (segments(STEPS, 1, STEPS), binomial(STEPS, 1))
        )
    finally:
        generators.write(before)
    return Figures(
        state=state,
        random=random,
        tape=tape,
        # With all steps taped the most is taken where the last one is reversed, or the one before.
        first=taped - (STEPS - 1) * tape - STEPS * per_step,
        later=again - random - STEPS * per_step,
        pulled=taped - (STEPS - 2) * tape - STEPS * per_step,
        per_step=per_step,
        forward_seconds=forward,
        backward_seconds=backward,
    )


def whole_loop(run: Run) -> None:
    """A loop and its backward, as the user's."""
    run.sweep()
    inputs = [t for t in run.inputs() if _differentiable(t)]
    results = [t for t in torch_hooks.tree_leaves(differentiable(run)) if _differentiable(t)]
    if results:
        seeds = [torch.ones_like(t) for t in results]
        torch.autograd.grad(results, inputs, seeds, allow_unused=True)


def _differentiable(leaf: object) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.requires_grad


def _parts(make_run: MakeRun, device: torch.device) -> tuple[int, int, int]:
    """The bytes of a state, of the random states that are kept with it, and of a tape."""
    run = make_run(STEPS, iter(()))

    def taken(action: Action) -> int:
        return measure_peak(lambda: run.follow(action), device=device).end_bytes

    with torch.no_grad():
        run.follow(Advance(0, 1))
        random = taken(Store(1))
        state = taken(Advance(1, 2))
        run.follow(MakeTape(2))
        tape = taken(MakeTape(3))
    run.close()
    return state, random, tape


def _per_step(make_run: MakeRun) -> int:
    """The bytes of one step's outputs, of their gradients, and of the gradients of its xs."""
    run = make_run(STEPS, segments(STEPS, 1, STEPS))
    run.sweep()
    outputs = run.stacked()
    run.close()
    total = sum(t.nbytes * (2 if live else 1) for t, live in outputs)
    total += sum(x.nbytes for x in run.recurrence.xs if x.requires_grad)
    return total // STEPS


def _seconds(make_run: MakeRun, device: torch.device) -> tuple[float, float]:
    """Of a step without its graph, and of one with it and its reversal."""

    def timed(actions: Callable[[], Iterator[Action]]) -> float:
        found: list[float] = []
        for _ in range(2):
            run = make_run(STEPS, actions())
            begin = time.perf_counter()
            whole_loop(run)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            found.append(time.perf_counter() - begin)
        return min(found)

    taped = timed(lambda: segments(STEPS, 1, STEPS))
    again = timed(lambda: binomial(STEPS, 1))
    more = evaluations(STEPS, 1) - STEPS
    return max(0.0, again - taped) / more, taped / STEPS

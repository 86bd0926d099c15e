"""The figures of a step, measured: four of its steps run, are reversed, and are run in parts."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator

import torch

from fxremat import torch_hooks
from fxremat.loops.figures import Figures, Moment, Position
from fxremat.loops.function import differentiable
from fxremat.loops.randomness import Generators
from fxremat.loops.run import Run
from fxremat.measure.peak import measure_moments
from fxremat_solvers.loops.actions import Action, Advance, Drop, Load, Pull, Store, Turn
from fxremat_solvers.loops.actions import Tape as MakeTape
from fxremat_solvers.loops.binomial import binomial, evaluations
from fxremat_solvers.loops.segments import segments

STEPS = 4

MakeRun = Callable[[int, Iterator[Action]], Run]
"""A run of the first so many steps by a schedule, from leaves of its own."""

# Tapes beside stored states: the moments that neither of the two others has.
_BOTH = (
    *(Store(0), Advance(0, 1), Store(1), Advance(1, 3), MakeTape(3), Turn(4), Pull(3)),
    *(Load(1), Drop(1), MakeTape(1), MakeTape(2), Pull(2), Pull(1)),
    *(Load(0), Drop(0), MakeTape(0), Pull(0)),
)
_SCHEDULES = (tuple(segments(STEPS, 1, STEPS)), tuple(binomial(STEPS, 1)), _BOTH)


def measured(make_run: MakeRun, generators: Generators, device: torch.device) -> Figures:
    """The figures of a loop. The random states are afterwards what they were before.

    Runs some forty steps, `STEPS` of them being the first ones of the loop again and again.
    """
    before = generators.read()
    try:
        # First calls allocate more than later ones.
        for actions in _SCHEDULES:
            whole_loop(make_run(STEPS, iter(actions)))
        forward, backward = _seconds(make_run, device)
        state, random, tape, first_tape, begins, ends = _parts(make_run, device)
        outputs, per_step = _per_step(make_run)
        figures = Figures(
            state=state,
            random=random,
            tape=tape,
            first_tape=first_tape,
            begins=begins,
            ends=ends,
            beside={},
            outputs=outputs,
            per_step=per_step,
            forward_seconds=forward,
            backward_seconds=backward,
        )
        beside: dict[Moment, int] = {}
        for actions in _SCHEDULES:
            for moment, nbytes in _moments(make_run, actions, figures, device):
                beside[moment] = max(nbytes, beside.get(moment, 0))
    finally:
        generators.write(before)
    return dataclasses.replace(figures, beside=beside)


def whole_loop(run: Run) -> None:
    """A loop and its backward, as the user's."""
    run.sweep()
    inputs = [t for t in run.inputs() if _differentiable(t)]
    returned = torch_hooks.tree_leaves(differentiable(run))  # held to the end, as the user's
    results = [t for t in returned if _differentiable(t)]
    if results:
        seeds = [torch.ones_like(t) for t in results]
        torch.autograd.grad(results, inputs, seeds, allow_unused=True)


def _differentiable(leaf: object) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.requires_grad


def _moments(
    make_run: MakeRun, actions: Iterable[Action], figures: Figures, device: torch.device
) -> Iterator[tuple[Moment, int]]:
    """What a schedule's moments take beside what is kept, and beside outputs and xs."""

    def run(mark: Callable[[], None]) -> None:
        def marked() -> Iterator[Action]:
            for action in actions:
                mark()
                yield action

        whole_loop(make_run(STEPS, marked()))

    peaks = measure_moments(run, device).peak_after
    position = Position(figures, STEPS)
    for action, peak in zip(actions, peaks, strict=False):
        moment = position.moment(action)
        if moment is not None:
            yield moment, peak - position.kept_during(moment) - STEPS * figures.each(moment)
        position.take(action)


def _parts(make_run: MakeRun, device: torch.device) -> tuple[int, int, int, int, int, int]:
    """The bytes of a state, of the random states that are kept with it, of a tape, and of the first
    one beside its states; and what a tape holds of the states that it begins and ends with."""

    def follow(mark: Callable[[], None]) -> None:
        run = make_run(STEPS, iter(()))
        with torch.no_grad():
            for actions in (
                # The first step that is run, and the first that is taped, make what lasts.
                [Store(0), Advance(0, 1), MakeTape(1), Load(0)],
                [MakeTape(0)],
                [Store(1)],
                [Advance(1, 2)],
                [Store(2), MakeTape(2)],
                [MakeTape(3)],
                [Load(2)],
                [Drop(2), Load(1)],
            ):
                mark()
                for action in actions:
                    run.follow(action)
            mark()
        run.close()

    levels = measure_moments(follow, device).at_mark
    more = [after - before for before, after in itertools.pairwise(levels)]
    _, first, random, state, _, tape, ended, begun = more
    return state, random, tape, first - state, state + random + begun, state + ended


def _per_step(make_run: MakeRun) -> tuple[int, int]:
    """The bytes of one step's outputs; and with their gradients and the gradients of its xs."""
    run = make_run(STEPS, segments(STEPS, 1, STEPS))
    run.sweep()
    outputs = run.stacked()
    run.close()
    stacked = sum(t.nbytes for t, _ in outputs)
    total = stacked + sum(t.nbytes for t, live in outputs if live)
    total += sum(x.nbytes for x in run.recurrence.xs if x.requires_grad)
    return stacked // STEPS, total // STEPS


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

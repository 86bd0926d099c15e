"""Loops by schedules of the user's own, tapes among them; wrong ones are errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import fxremat
from fxremat_solvers.loops.actions import Action, Advance, Drop, Load, Pull, Store, Tape, Turn
from fxremat_solvers.loops.segments import segments
from fxremat_solvers.loops.tapes import tape_table
from tests.fxremat.loops.plain import Cell, assert_same, plain, trace

STEPS = 12


def own() -> Iterator[Action]:
    """Tapes first and last, and a state in the middle that is used twice."""
    yield Tape(0)
    yield Tape(1)
    yield Store(2)
    yield Advance(2, 9)
    yield Tape(9)
    yield Tape(10)
    yield Tape(11)
    yield Turn(STEPS)
    for step in (11, 10, 9):
        yield Pull(step)
    for step in reversed(range(2, 9)):
        yield Load(2)
        if step > 2:
            yield Advance(2, step)
        yield Tape(step)
        yield Pull(step)
    yield Drop(2)
    yield Pull(1)
    yield Pull(0)


SCHEDULES: dict[str, Callable[[], Iterator[Action]]] = {
    "own": own,
    "program": lambda: tape_table(STEPS, 9, 1, 2).schedule(),
    "all taped": lambda: tape_table(STEPS, 100, 1, 2).schedule(),
    "uniform": lambda: segments(STEPS, 4, 3),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("grad", [True, False])
def test_bits(name: str, grad: bool) -> None:
    cell = Cell(dropout=0.2)
    y = torch.randn(8, 16, requires_grad=grad)

    def step(state: Any, i: int) -> Any:
        y, speed = state
        new = cell(y, i)
        return (new, speed + 0.1 * y), (new, speed)

    leaves = [*([y] if grad else []), *cell.parameters()]
    state = (y, torch.zeros(8, 16))
    expected = trace(lambda: plain(step, state, steps=STEPS, outputs=True), leaves)
    actions = SCHEDULES[name]()
    found = trace(
        lambda: fxremat.loop(
            step, state, steps=STEPS, outputs=True, schedule=actions, check="always"
        ),
        leaves,
    )
    assert_same(expected, found)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([Store(0), Load(0)], "before the turn"),
        ([Advance(0, 2)], "before its turn"),
        ([Store(0, level=1)], "level 1"),
        (["store"], "no action"),
        ([Advance(0, 3)], "steps end at 2"),
    ],
)
def test_wrong_schedules(actions: Any, message: str) -> None:
    weight = torch.ones(3, requires_grad=True)
    with pytest.raises(fxremat.OptionError, match=message):
        fxremat.loop(lambda y, _: y * weight, torch.ones(3), steps=2, schedule=actions)


def test_a_schedule_that_ends_in_backward() -> None:
    weight = torch.ones(3, requires_grad=True)
    actions = [Advance(0, 1), Tape(1), Turn(2), Pull(1)]
    final = fxremat.loop(lambda y, _: y * weight, torch.ones(3), steps=2, schedule=actions)
    with pytest.raises(fxremat.OptionError, match="the reversal of step 0"):
        final.sum().backward()


@pytest.mark.parametrize(
    "options", [{"slots": 2, "schedule": [Turn(2)]}, {"schedule": "fast"}, {}], ids=str
)
def test_options(options: Any) -> None:
    with pytest.raises(fxremat.OptionError, match=r"slots|schedule"):
        fxremat.loop(lambda y, _: y, torch.ones(3, requires_grad=True), steps=2, **options)

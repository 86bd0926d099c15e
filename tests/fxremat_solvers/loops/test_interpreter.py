"""The interpreter refuses what can't be done, and counts what is done."""

from __future__ import annotations

import pytest

from fxremat_solvers.errors import ScheduleError
from fxremat_solvers.loops.actions import Action, Advance, Drop, Load, Pull, Store, Tape, Turn
from tests.fxremat_solvers.loops.followed import interpret

RIGHT = [
    Store(0),
    Advance(0, 1),
    Tape(1),
    Turn(2),
    Pull(1),
    Load(0),
    Drop(0),
    Tape(0),
    Pull(0),
]


def test_counts() -> None:
    found = interpret(RIGHT, 2)
    assert (found.evaluations, found.tapes_made, found.most_states, found.most_tapes) == (
        3,
        2,
        1,
        1,
    )
    assert (found.stores, found.loads) == ({0: 1}, {0: 1})
    assert interpret(RIGHT).steps == 2


@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        (1, Store(1), "x_0 is current"),
        (1, Store(0), "kept there already"),
        (1, Load(0), "before the turn"),
        (1, Drop(1), "not kept"),
        (1, Drop(0, 1), "not kept"),
        (1, Advance(1, 2), "x_0 is current"),
        (1, Advance(0, 0), "runs no step"),
        (1, Advance(0, 3), "steps end at 2"),
        (1, Pull(0), "before the turn"),
        (1, Turn(2), "x_0 is current"),
        (3, Tape(1), "x_2 is current"),
        (3, Tape(2), "steps end at 2"),
        (3, Turn(3), "has 2 steps"),
        (4, Turn(2), "a second turn"),
        (4, Pull(0), "the next step to reverse is 1"),
        (5, Pull(0), "no tape"),
        (5, Advance(0, 1), "no state is current"),
        (6, Advance(0, 2), "reversed already"),
        (6, "load", "no action"),
    ],
)
def test_wrong_actions(place: int, wrong: Action, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        interpret([*RIGHT[:place], wrong, *RIGHT[place:]], 2)


def test_a_tape_is_made_once() -> None:
    again = [Store(0), Tape(0), Tape(1), Turn(2), Load(0), Tape(0)]
    with pytest.raises(ScheduleError, match="tape is kept already"):
        interpret(again)


@pytest.mark.parametrize(("length", "missing"), [(3, "its turn"), (8, "the reversal of step 0")])
def test_a_schedule_that_ends_early(length: int, missing: str) -> None:
    with pytest.raises(ScheduleError, match=missing):
        interpret(RIGHT[:length])

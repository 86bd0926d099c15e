"""Schedules with tapes: optimal by an independent recursion, in their room, better than others."""

from __future__ import annotations

import functools
import math

import pytest

from fxremat_solvers.loops import binomial
from fxremat_solvers.loops.actions import Tape, Turn
from fxremat_solvers.loops.interpreter import Interpreter
from fxremat_solvers.loops.segments import best_segments, segments_evaluations
from fxremat_solvers.loops.tapes import TapeTable, cells, tape_table


def optimum(steps: int, room: int, state: int, tape: int) -> int:
    """By what it means, without a table."""

    @functools.cache
    def fewest(room: int, k: int) -> float:
        if k == 1:
            return 1
        found = [math.inf]
        if room >= state:
            found += [j + fewest(room - state, k - j) + fewest(room, j) for j in range(1, k)]
        if room >= tape:
            found.append(1 + fewest(room - tape, k - 1))
        return min(found)

    return int(fewest(room, steps))


def most_room(table: TapeTable, state: int, tape: int) -> int:
    """What is kept at once, by the actions: of the tapes not the one that is pulled next."""
    interpreter, most = Interpreter(table.steps), 0
    for action in table.schedule():
        interpreter.take(action)
        kept = len(interpreter.tapes)
        if kept and isinstance(action, (Tape, Turn)):
            kept -= 1
        most = max(most, len(interpreter.states) * state + kept * tape)
    interpreter.finish()
    assert interpreter.evaluations == table.evaluations
    assert not interpreter.states
    return most


@pytest.mark.parametrize(("state", "tape"), [(1, 1), (1, 4), (3, 2), (5, 13), (7, 1)])
def test_the_optimum_within_the_room(state: int, tape: int) -> None:
    for steps in (1, 2, 5, 17, 30):
        for room in (state, 2 * state, 3 * state + 1, 5 * state + 2 * tape, 40):
            table = tape_table(steps, max(room, state), state, tape)
            assert table.evaluations == optimum(steps, max(room, state), state, tape)
            assert most_room(table, state, tape) <= max(room, state)


@pytest.mark.parametrize("slots", [1, 2, 5, 12])
def test_without_room_for_a_tape_it_is_binomial(slots: int) -> None:
    for steps in (1, 10, 150):
        table = tape_table(steps, slots, 1, slots + 1)
        assert table.evaluations == binomial.evaluations(steps, slots)


@pytest.mark.parametrize(
    ("units", "evaluations"), [(5, 6828), (10, 3921), (20, 2823), (40, 2142), (60, 1958)]
)
def test_as_mixed_checkpointing(units: int, evaluations: int) -> None:
    """The figures of its implementation in `checkpoint_schedules`, for tapes as large as states."""
    assert tape_table(1000, units, 1, 1).evaluations == evaluations


def test_as_published_schedules() -> None:
    schedules = pytest.importorskip("checkpoint_schedules")
    for steps, units in ((30, 4), (80, 9)):
        theirs = schedules.MixedCheckpointSchedule(steps, units)
        total = sum(a.n1 - a.n0 for a in theirs if isinstance(a, schedules.Forward))
        assert tape_table(steps, units, 1, 1).evaluations == total


@pytest.mark.parametrize("tape", [1, 4])
def test_a_search_nearby_finds_what_an_exhaustive_one_does(tape: int) -> None:
    table = tape_table(1600, 30, 1, tape)
    assert not table.exhaustive
    assert table.evaluations == {1: 4348, 4: 4808}[tape]


@pytest.mark.parametrize(("steps", "room"), [(1000, 150), (1000, 20), (10_000, 100)])
def test_never_more_than_segments(steps: int, room: int) -> None:
    slots, length = best_segments(steps, room, 1, 4)
    table = tape_table(steps, room, 1, 4)
    assert table.evaluations <= segments_evaluations(steps, slots, length)


def test_cells_are_not_fewer_than_there_are() -> None:
    for room, state, tape in ((60, 1, 4), (61, 3, 7), (500, 10, 3)):
        table = tape_table(50, room, state, tape)
        assert table.rows * 50 <= cells(50, room, state, tape)


@pytest.mark.parametrize("wrong", [(0, 5, 1, 1), (3, 5, 0, 1), (3, 5, 1, 0), (3, 4, 5, 3)])
def test_wrong_arguments(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="room"):
        tape_table(*wrong)

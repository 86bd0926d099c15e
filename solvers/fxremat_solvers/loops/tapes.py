"""Schedules that keep tapes as well as states: a dynamic program over both.

A state takes `state` bytes, a tape `tape` bytes, the state that it begins with among them. The
current state and one tape at work aren't counted. With m bytes for what is kept, k steps from a
current state take

    G(m, 1) = 1
    G(m, k) = min( min_j  j + G(m - state, k - j) + G(m, j),      keep this state, go on to x_j
                   1 + G(m - tape, k - 1) )                        keep the first step's tape

evaluations: a state is kept until its stretch is reversed, and may go before that. Where a tape is
as large as a state these are the figures of Maddison's mixed checkpointing ("Step-based
checkpointing with high-level algorithmic differentiation", 2023). Only rooms m that differ by what
is kept matter, so that bytes are exact.

Up to `EXHAUSTIVE` steps every stretch is tried. Beyond, the search for it begins near the last one
and ends after `MISSES` lengths without a gain, which gave the same figures on 40 problems of 1,600
and 2,000 steps, with tapes of 1 to 8 states and room for 3 to 150.

Weaknesses: tapes of different steps are taken to be equally large. The table has a row for every
room that can be left, and a cell for every number of steps: `cells` says how many, and where they
are too many, `segments.py` has a closed form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fxremat_solvers.loops.actions import Action, Advance, Drop, Load, Pull, Store, Tape, with_turn

EXHAUSTIVE = 1500
MISSES = 200
_NEVER = 1 << 60


@dataclass(frozen=True)
class TapeTable:
    """The solved program: `choices[row, k]` for every room that can be left of `room`."""

    steps: int
    evaluations: int
    exhaustive: bool
    _choices: NDArray[np.int32]
    _after_state: NDArray[np.int64]
    _after_tape: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """How many rooms the table has."""
        return len(self._choices)

    def schedule(self) -> Iterator[Action]:
        """The actions."""
        return with_turn(self._actions(), self.steps)

    def _actions(self) -> Iterator[Action]:
        current: int | None = 0
        # What is left to reverse: so many steps from a state with a room (a row), which has the
        # state's own place in it where that is `kept`. Where it has a tape it is no step.
        stack = [(0, self.steps, len(self._choices) - 1, False)]
        while stack:
            low, count, row, kept = stack.pop()
            if not count:
                yield Pull(low)
                current = None
                continue
            if current != low:
                yield Load(low)
            stretch = int(self._choices[row, count]) if count > 1 else 0
            if stretch:
                if not kept:
                    yield Store(low)
                current = low + stretch
                yield Advance(low, current)
                stack.append((low, stretch, row, True))
                stack.append((current, count - stretch, int(self._after_state[row]), False))
                continue
            if kept:
                yield Drop(low)
            yield Tape(low)
            current = low + 1
            stack.append((low, 0, row, False))
            if count > 1:
                stack.append((current, count - 1, int(self._after_tape[row]), False))


def tape_table(steps: int, room: int, state: int, tape: int) -> TapeTable:
    """Solve the program for a loop of `steps` with `room` bytes for what is kept.

    Raises `ValueError` where there is no step, a size isn't positive, or the room is too small.
    """
    if steps < 1 or state < 1 or tape < 1 or room < 0:
        raise ValueError(
            f"{steps} steps, states of {state} bytes, tapes of {tape} and room for {room}: steps "
            "and sizes must be positive, and the room must not be negative"
        )
    if steps > 1 and room < min(state, tape * (steps - 1)):
        raise ValueError(
            f"room for {room} bytes: less than a state, of {state}, and than {steps - 1} tapes, of "
            f"{tape} each"
        )
    rooms = _rooms(steps, room, state, tape)
    row_of = {m: row for row, m in enumerate(rooms)}
    after_state = np.array([row_of.get(m - state, -1) for m in rooms], dtype=np.int64)
    after_tape = np.array([row_of.get(m - tape, -1) for m in rooms], dtype=np.int64)
    costs = np.full((len(rooms), steps + 1), _NEVER, dtype=np.int64)
    choices = np.zeros((len(rooms), steps + 1), dtype=np.int32)
    costs[:, 0] = 0
    exhaustive = steps <= EXHAUSTIVE
    # Imported here: it brings numba, which takes a third of a second to import.
    from fxremat_solvers.loops.kernel_tapes import fill

    fill(costs, choices, after_state, after_tape, steps, steps if exhaustive else MISSES)
    found = int(costs[-1, steps])
    return TapeTable(steps, found, exhaustive, choices, after_state, after_tape)


def cells(steps: int, room: int, state: int, tape: int) -> int:
    """How many cells the table would have, at most."""
    states, tapes = min(steps, room // state + 1), min(steps, room // tape + 1)
    several = states * tapes if tape % state else min(states * tapes, room // state + 1)
    return several * steps


def _rooms(steps: int, room: int, state: int, tape: int) -> list[int]:
    """What can be left of a room, least first: it minus states and tapes."""
    return sorted(
        {
            room - states * state - tapes * tape
            for states in range(min(steps, room // state + 1))
            for tapes in range(min(steps, (room - states * state) // tape + 1))
        }
    )

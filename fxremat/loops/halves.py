"""A schedule in two halves that share states alone: what runs forward, and what runs in backward.

A tape can't go from one operator to another. So the steps that the first run would have taped run
without one, and once more in backward.
"""

from __future__ import annotations

from collections.abc import Iterator

from fxremat_solvers.loops.actions import Action, Advance, Drop, Load, Store, Tape, Turn
from fxremat_solvers.loops.segments import segments


def in_halves(steps: int, slots: int, length: int) -> Iterator[Action]:
    """`segments`, with no tape before the turn."""
    actions = segments(steps, slots, length)
    kept: set[int] = set()
    dropped: Drop | None = None
    for action in actions:
        match action:
            case Drop():
                dropped = action
            case Tape(step):
                if step not in kept:
                    yield Store(step)
                    dropped = Drop(step)
                yield Advance(step, steps)
                yield Turn(steps)
                yield Load(step)
                if dropped is not None:
                    yield dropped
                yield action
                break
            case Store(state):
                kept.add(state)
                yield action
            case _:
                yield action
    for action in actions:
        if not isinstance(action, Turn):
            yield action


def kept_states(steps: int, slots: int, length: int) -> list[int]:
    """The states that are kept at the turn, in order."""
    found: list[int] = []
    for action in in_halves(steps, slots, length):
        if isinstance(action, Turn):
            break
        if isinstance(action, Store):
            found.append(action.state)
    return found

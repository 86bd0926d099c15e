"""What a schedule of a loop may say. One current state is at hand, x_0 at the beginning.

A *level* is a place for states: 0 the nearest (memory), 1 the next (a disk, or host memory).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Store:
    """Keep the current state, x_state, at a level."""

    state: int
    level: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """Make a kept state the current one; it stays kept."""

    state: int
    level: int = 0


@dataclass(frozen=True, slots=True)
class Drop:
    """Keep a state no longer. Where it is the current one, it stays that."""

    state: int
    level: int = 0


@dataclass(frozen=True, slots=True)
class Advance:
    """Run the steps from `begin` up to, not including, `end`; keep nothing of them."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Tape:
    """Run one step and keep what its reversal needs."""

    step: int


@dataclass(frozen=True, slots=True)
class Turn:
    """The loop's first run is over: the current state is x_steps, the result."""

    steps: int


@dataclass(frozen=True, slots=True)
class Pull:
    """Reverse a step by its tape, which is used up. Afterwards no state is current."""

    step: int


Action = Store | Load | Drop | Advance | Tape | Turn | Pull


def with_turn(actions: Iterable[Action], steps: int) -> Iterator[Action]:
    """The first run turns into the reversal as soon as the last step's first tape is made."""
    rest = iter(actions)
    for action in rest:
        yield action
        if isinstance(action, Tape) and action.step == steps - 1:
            yield Turn(steps)
            break
    yield from rest

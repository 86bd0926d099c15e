"""Binomial schedules (Revolve: Griewank and Walther 2000, ACM TOMS 26), as streams.

With room for s states, x_0 among them, and one tape, n steps take P(n, s) + n evaluations
(`extra_advances`), the fewest possible where every step takes the same time. The last step of the
first run makes the first tape, so that nothing is evaluated only for the result.

Weakness: where there is room for more than one tape, keeping some is cheaper (`tapes.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from fxremat_solvers.loops.actions import (
    Action,
    Advance,
    Drop,
    Load,
    Pull,
    Store,
    Tape,
    with_turn,
)
from fxremat_solvers.reference.binomial import extra_advances, optimal_split


def evaluations(steps: int, slots: int) -> int:
    """The evaluations of a step that `binomial` takes."""
    return extra_advances(steps, slots) + steps


def binomial(steps: int, slots: int) -> Iterator[Action]:
    """The schedule of a loop of known length with room for `slots` states.

    Raises `ValueError` where either is below 1.
    """
    if steps < 1 or slots < 1:
        raise ValueError(f"{steps} steps and {slots} slots: both must be at least 1")
    return with_turn(chain([Store(0)], reversal(0, steps, slots, current=0)), steps)


def reversal(begin: int, end: int, slots: int, current: int | None = None) -> Iterator[Action]:
    """Reverse the steps from `begin` up to `end`, where x_begin is kept in one of `slots` slots.

    `current` is the state at hand, None where there is none of use.
    """
    stack = [(begin, end, slots)]
    while stack:
        low, high, free = stack.pop()
        if free == 1 or high - low == 1:
            for step in range(high - 1, low - 1, -1):
                if current != low:
                    yield Load(low)
                if step == low:
                    yield Drop(low)  # the current state is all that is needed of it
                else:
                    yield Advance(low, step)
                yield Tape(step)
                yield Pull(step)
                current = None
            continue
        middle = low + optimal_split(high - low, free)
        if current != low:
            yield Load(low)
        yield Advance(low, middle)
        yield Store(middle)
        current = middle
        stack.append((low, middle, free))
        stack.append((middle, high, free - 1))

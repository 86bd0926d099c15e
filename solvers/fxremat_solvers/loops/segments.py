"""Segments of taped steps, reversed by a binomial schedule: closed form for any number of steps.

With segments of l steps and s slots n steps take P(ceil(n / l), s) l + n evaluations, and room for
s states and l tapes. With as many slots as segments that is uniform checkpointing
(`torch.utils.checkpoint` around each l steps). The best l is up to a fifth above the dynamic
program (`tapes.py`) for 2,000 steps, tapes of 1 to 8 states and room for 3 to 150; 6 % on average.
"""

from __future__ import annotations

from collections.abc import Iterator

from fxremat_solvers.loops.actions import Action, Advance, Pull, Tape, Turn
from fxremat_solvers.loops.binomial import binomial
from fxremat_solvers.reference.binomial import extra_advances


def segments(steps: int, slots: int, length: int) -> Iterator[Action]:
    """The schedule with `slots` kept states and segments of `length` steps.

    Raises `ValueError` where one of the three is below 1.
    """
    if steps < 1 or slots < 1 or length < 1:
        raise ValueError(f"{steps} steps, {slots} slots, segments of {length}: at least 1 each")
    return _segments(steps, slots, length)


def _segments(steps: int, slots: int, length: int) -> Iterator[Action]:
    for action in binomial(-(-steps // length), slots):
        match action:
            case Advance(begin, end):
                yield Advance(begin * length, end * length)
            case Tape(step):
                for each in range(step * length, min(steps, (step + 1) * length)):
                    yield Tape(each)
            case Turn():
                yield Turn(steps)
            case Pull(step):
                for each in reversed(range(step * length, min(steps, (step + 1) * length))):
                    yield Pull(each)
            case _:
                yield type(action)(action.state * length)


def segments_evaluations(steps: int, slots: int, length: int) -> int:
    """The evaluations of a step that `segments` takes."""
    return extra_advances(-(-steps // length), slots) * length + steps


def best_segments(steps: int, room: int, state: int, tape: int) -> tuple[int, int]:
    """The slots and the segments' length that take the fewest evaluations.

    `room` is for the kept states, of `state` bytes each, and all tapes but one, of `tape` bytes.
    Raises `ValueError` where one state doesn't fit.
    """
    if room < state:
        raise ValueError(f"room for {room} bytes, less than a state's {state}")
    found: list[tuple[int, int, int]] = []
    length = 1
    while length <= steps and (length - 1) * tape + state <= room:
        slots = min((room - (length - 1) * tape) // state, -(-steps // length))
        found.append((segments_evaluations(steps, slots, length), length, slots))
        # Long segments are tried in steps of a percent.
        length += 1 + length // 100
    _, length, slots = min(found)
    return slots, length

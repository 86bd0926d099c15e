"""Which states to keep when the number of steps isn't known, one rule for any length.

Wang, Moin and Iaccarino, "Minimal repetition dynamic checkpointing algorithm for unsteady adjoint
calculation", SIAM J. Sci. Comput. 31 (2009). Every new state is kept, at level 0, and another one
goes: the last that lies before one of a higher level. Where there is none, the state before the
new one goes, and the new one is a level above it.

At the end each gap is reversed by the binomial schedule for the slots that are free by then, which
is the best for these states. The last step runs once more, as it wasn't known to be the last. Up to
20,000 steps and with 5 to 100 slots that takes at most 1.32 times the evaluations of the best
schedule of known length (for 20 steps and more), 1.08 times on average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from fxremat_solvers.loops.actions import Action, Advance, Drop, Store, Turn
from fxremat_solvers.loops.binomial import reversal


class Keeper:
    """The states that are kept, at most `slots`, while steps come one by one."""

    def __init__(self, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"slots is {slots}: it must be at least 1")
        self._slots = slots
        # Levels never rise from one firm state to the next; what a rise would leave is spare.
        self._firm: list[tuple[int, float]] = [(0, math.inf)]
        self._spare: list[int] = []

    def keep(self, state: int) -> int | None:
        """Keep a state, the next one; which state goes for it, None where none has to.

        With one slot the new one goes at once.
        """
        level, gone = 0.0, None
        if self._slots == 1:
            return state
        if len(self._firm) + len(self._spare) == self._slots:
            if self._spare:
                gone = self._spare.pop()
            else:
                gone, level = self._firm.pop()
                level += 1
                risen = len(self._firm)
                while self._firm[risen - 1][1] < level:
                    risen -= 1
                self._spare = [state for state, _ in self._firm[risen:]]
                del self._firm[risen:]
        self._firm.append((state, level))
        return gone

    def states(self) -> list[int]:
        """The kept states, in order."""
        return sorted([*self._spare, *(state for state, _ in self._firm)])


def online(slots: int, going: Callable[[int], bool]) -> Iterator[Action]:
    """The schedule of a loop that goes on while `going(i)`, asked once with x_i current."""
    return _online(Keeper(slots), slots, going)


def _online(keeper: Keeper, slots: int, going: Callable[[int], bool]) -> Iterator[Action]:
    step = 0
    while going(step):
        if step == 0:
            yield Store(0)
        else:
            gone = keeper.keep(step)
            if gone is not None and gone != step:
                yield Drop(gone)
            if gone != step:
                yield Store(step)
        yield Advance(step, step + 1)
        step += 1
    yield Turn(step)
    states, end = keeper.states() if step else [], step
    while states:
        begin = states.pop()
        yield from reversal(begin, end, slots - len(states))
        end = begin

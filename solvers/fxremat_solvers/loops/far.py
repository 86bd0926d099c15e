"""Two places for states: a near one with few slots, a far one with room for all, and a price.

Disk-Revolve (Aupy, Herrmann, Hovland, Robert, "Optimal multistage algorithm for adjoint
computation", SIAM J. Sci. Comput. 38, 2016): with R(l) evaluations to reverse l steps by s near
slots alone, and prices of a write and a read in evaluations,

    D(l) = min( R(l), min_j  write + j + D(l - j) + read + R(j) )

states go far on the first run only, and each is read once. The loop's first state is at hand
anyway and has no price. Stretches of up to `LONGEST` steps are tried.

Where the number of steps isn't known every `period`-th state goes far, the period that takes the
least a step in the long run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fxremat_solvers.loops.actions import Action, Advance, Drop, Load, Store, Turn, with_turn
from fxremat_solvers.loops.binomial import evaluations, reversal

LONGEST = 4096


@dataclass(frozen=True)
class FarPlan:
    """Where the stretches begin, the first at 0; all but that one go far, and the last stays near.

    `price` counts evaluations, writes and reads.
    """

    steps: int
    slots: int
    begins: tuple[int, ...]
    price: float

    @property
    def evaluations(self) -> int:
        """The evaluations of a step."""
        ends = (*self.begins[1:], self.steps)
        reversed_ = sum(
            evaluations(end - begin, self.slots)
            for begin, end in zip(self.begins, ends, strict=True)
        )
        return self.begins[-1] + reversed_

    @property
    def writes(self) -> int:
        """How many states go far, and come back."""
        return max(0, len(self.begins) - 2)

    def schedule(self) -> Iterator[Action]:
        """The actions; level 1 is far."""
        yield Store(0)
        for begin, end in zip(self.begins, self.begins[1:], strict=False):
            if begin:
                yield Store(begin, 1)
            yield Advance(begin, end)
        last = self.begins[-1]
        if last:
            yield Store(last)
        yield from with_turn(reversal(last, self.steps, self.slots, last), self.steps)
        yield from _come_back(self.begins[:-1], last, self.slots)


def _come_back(begins: tuple[int, ...], end: int, slots: int) -> Iterator[Action]:
    """Reverse the stretches that begin at states that are far, but for the first, which is near."""
    for begin in reversed(begins):
        if begin:
            yield Load(begin, 1)
            yield Drop(begin, 1)
            yield Store(begin)
        yield from reversal(begin, end, slots, begin if begin else None)
        end = begin


def far_plan(steps: int, slots: int, write: float, read: float) -> FarPlan:
    """The cheapest plan with `slots` near states, and far ones at these prices.

    Raises `ValueError` where a number is below 1 or a price is negative.
    """
    if steps < 1 or slots < 1 or write < 0 or read < 0:
        raise ValueError(
            f"{steps} steps, {slots} slots, prices {write} and {read}: steps and slots must be at "
            "least 1, prices not negative"
        )
    longest = min(steps, LONGEST)
    alone = np.array([0.0, *(evaluations(k, slots) for k in range(1, longest + 1))])
    # What a stretch of j steps takes beside the rest: its first run, and its reversal.
    stretch = np.arange(longest + 1) + alone
    best, choice = np.zeros(steps + 1), np.zeros(steps + 1, dtype=np.int64)
    for k in range(1, steps):
        j = np.arange(1, min(k, longest + 1))
        costs = stretch[j] + best[k - j] + write + read
        at = int(np.argmin(costs)) if len(costs) else -1
        best[k] = alone[k] if k <= longest else np.inf
        if at >= 0 and costs[at] < best[k]:
            best[k], choice[k] = costs[at], j[at]
    j = np.arange(1, min(steps, longest + 1))
    costs = stretch[j] + best[steps - j]
    price = float(evaluations(steps, slots))
    begins = [0]
    if len(costs) and costs.min() < price:
        price = float(costs.min())
        begins.append(int(j[int(np.argmin(costs))]))
        while choice[steps - begins[-1]]:
            begins.append(begins[-1] + int(choice[steps - begins[-1]]))
    return FarPlan(steps, slots, tuple(begins), price)


def best_period(slots: int, write: float, read: float) -> int:
    """Every how many steps a state goes far, where the number of steps isn't known."""
    lengths = range(1, LONGEST + 1)
    return min(lengths, key=lambda k: (write + read + k + evaluations(k, slots)) / k)


def online_far(slots: int, period: int, going: Callable[[int], bool]) -> Iterator[Action]:
    """The schedule of a loop that goes on while `going(i)`, asked once with x_i current."""
    step = 0
    while going(step):
        if step % period == 0:
            yield Store(step, 1 if step else 0)
        yield Advance(step, step + 1)
        step += 1
    yield Turn(step)
    if step:
        yield from _come_back(tuple(range(0, step, period)), step, slots)

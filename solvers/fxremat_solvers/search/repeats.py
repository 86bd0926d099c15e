"""The repeated steps of an unrolled loop, found by what its ops look like from nearby.

The forward part of such a graph is a few ops, then the same row of ops over and over, each reading
what the one before left, then a loss. The ops of a step are known again by their sizes: the period
is the shortest shift under which most of the forward part meets itself. It is cut into steps where
the least crosses from one to the next. A backward op belongs to the step whose values it reads.

Limits: one loop a graph, its steps in a row, and a part that is marked as the backward one. What
comes out is a guess, to be held against a replay: nothing here depends on it being right.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fxremat_solvers.model.arrays import Integers
from fxremat_solvers.model.problem import RematProblem


@dataclass(frozen=True)
class Tuning:
    """What counts as a loop.

    `least`: steps that a loop must have. `covered`: the share of the forward part that they are.

    On the 13 kept graphs these two find the unrolled ODE and LSTM, and the blocks of stacks.
    """

    least: int = 8
    covered: float = 0.8


TUNING = Tuning()


@dataclass(frozen=True)
class Loop:
    """Ranges of ops in the baseline's order: forward, the turn, and back from the last step on.

    `forward[i]` is step i, `backward[i]` what is worked out from it. Step 0 is all that comes
    before the first step that looks like the others. Some ranges may be empty.
    """

    forward: tuple[range, ...]
    turn: range
    backward: tuple[range, ...]


def find_loop(problem: RematProblem) -> Loop | None:
    """The loop that the graph unrolls, or None."""
    end = problem.first_backward_op
    if end is None or end < 2 * TUNING.least:
        return None
    found = _period(_looks(problem)[:end])
    if found is None:
        return None
    first, last, period = found
    start = _thinnest(problem, first, last, period)
    cuts = [0, *range(start, last + 1, period)]
    if len(cuts) - 2 < TUNING.least:
        return None
    backward = _backward(problem, cuts)
    turn = range(cuts[-1], backward[-1].start)
    return Loop(tuple(range(a, b) for a, b in pairwise(cuts)), turn, backward)


def _looks(problem: RematProblem) -> Integers:
    """A number for each op, the same for ops that look the same: by sizes, not by costs or names.

    Costs may be measured, and differ from step to step.
    """
    known: dict[object, int] = {}
    counted, values = problem.counted_bytes, problem.values
    looks = np.empty(len(problem.ops), dtype=np.int64)
    for k, op in enumerate(problem.ops):
        again = problem.reruns[k]
        reads = tuple(counted[x] for x in op.inputs)
        makes = tuple((values[x].nbytes, values[x].lazy, x in again.outputs) for x in op.outputs)
        look = reads, makes, op.workspace_bytes, again.workspace_bytes, op.recomputable
        looks[k] = known.setdefault(look, len(known))
    return looks


def _period(looks: Integers) -> tuple[int, int, int] | None:
    """Where the repetition begins and ends, and its period; the shortest that covers enough."""
    enough = TUNING.covered * len(looks)
    for period in range(1, len(looks) // TUNING.least):
        same = looks[period:] == looks[:-period]
        if np.count_nonzero(same) + period < enough:
            continue
        breaks = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
        longest = int(np.argmax(np.diff(breaks)))
        first, last = int(breaks[longest]), int(breaks[longest + 1]) - 1 + period
        if last - first >= enough:
            return first, last, period
    return None


def _thinnest(problem: RematProblem, first: int, last: int, period: int) -> int:
    """The cut from `first` on, within a period, that the fewest bytes made since `first` cross."""
    middle = first + (last - first) // (2 * period) * period
    end = problem.first_backward_op or 0
    crossing = np.zeros(period + 1)
    for op in range(first, middle + period):
        for x in problem.ops[op].outputs:
            read = max((k for k in problem.consumers[x] if k < end), default=op)
            low, high = max(op + 1, middle), min(read, middle + period - 1)
            if low <= high:
                crossing[low - middle] += problem.counted_bytes[x]
                crossing[high + 1 - middle] -= problem.counted_bytes[x]
    return first + int(np.argmin(np.cumsum(crossing)[:period]))


def _backward(problem: RematProblem, cuts: Sequence[int]) -> tuple[range, ...]:
    """The backward ops of each step.

    An op may be of every step from the one that makes what it reads to the last that reads that in
    the forward part. It stays with the op before it where it may, else an earlier step begins.
    """
    boundary = problem.first_backward_op or 0
    turn = len(cuts) - 1
    begins = [len(problem.ops)] * turn
    current = turn
    for op in range(boundary, len(problem.ops)):
        low, high = 0, turn
        for x in problem.ops[op].inputs:
            maker = problem.producer[x]
            if 0 <= maker < boundary:
                read = max((k for k in problem.consumers[x] if k < boundary), default=maker)
                low = max(low, bisect_right(cuts, maker) - 1)
                high = min(high, bisect_right(cuts, read) - 1)
        step = max(low, high)
        if step < current:
            begins[step:current] = [op] * (current - step)
            current = step
    ends = [len(problem.ops), *begins[:-1]]
    return tuple(range(a, b) for a, b in zip(begins, ends, strict=True))

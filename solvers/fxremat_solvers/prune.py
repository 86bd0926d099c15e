"""Leave out what a schedule runs for nothing.

A walk that recomputes a value for one use may drop it and make it again before anyone reads it;
local search leaves such runs where they cost nothing. They serve no one: without them the schedule
is never dearer and its peak never higher.
"""

from __future__ import annotations

from collections import Counter

from fxremat_solvers.problem import RematProblem


def without_dead_runs(problem: RematProblem, ops: tuple[int, ...]) -> tuple[int, ...]:
    """`ops` without the runs whose outputs are made again, or end, before anyone reads them.

    Every op still runs at least once. `ops` must be a schedule that the oracle accepts.
    """
    runs = Counter(ops)
    wanted = [False] * len(problem.values)
    for value in problem.outputs:
        wanted[value] = True
    kept: list[int] = []
    for index in reversed(ops):
        op = problem.ops[index]
        if runs[index] > 1 and not any(wanted[value] for value in op.outputs):
            runs[index] -= 1
            continue
        kept.append(index)
        for value in op.outputs:
            wanted[value] = False
        for value in op.inputs:
            wanted[value] = True
    return tuple(reversed(kept))

"""Leave out what a schedule runs for nothing.

A walk that recomputes a value for one use may drop it and make it again before anyone reads it;
local search leaves such runs where they cost nothing. They serve no one: without them the schedule
is never dearer and its peak never higher.
"""

from __future__ import annotations

from collections import Counter

from fxremat_solvers.model.problem import RematProblem


def without_dead_runs(problem: RematProblem, ops: tuple[int, ...]) -> tuple[int, ...]:
    """`ops` without the runs whose outputs are made again, or end, before anyone reads them.

    Every op still runs at least once. `ops` must be a schedule that the oracle accepts.
    """
    runs = Counter(ops)
    # A first run that differs from the reruns stays: without it the next one would be the first.
    first = {ops.index(index): index for index in problem.differing}
    wanted = [False] * len(problem.values)
    for value in problem.outputs:
        wanted[value] = True
    kept: list[int] = []
    for step in range(len(ops) - 1, -1, -1):
        index = ops[step]
        run = problem.ops[index] if step in first else problem.reruns[index]
        if runs[index] > 1 and step not in first and not any(wanted[v] for v in run.outputs):
            runs[index] -= 1
            continue
        kept.append(index)
        for value in run.outputs:
            wanted[value] = False
        for value in run.inputs:
            wanted[value] = True
    return tuple(reversed(kept))

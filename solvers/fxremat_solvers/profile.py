"""A vectorised replay: the peak and the memory of each stage, for solvers that try many schedules.

The figures are those of `simulate` (tests compare them); it is some twenty times faster on
graphs of hundreds of ops and checks nothing: the schedule must be executable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fxremat_solvers.problem import RematProblem
from fxremat_solvers.rows import Rows, rows_of

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Profiler:
    """The accesses of every row, flat: `value` and `writes` in `start[row] : start[row + 1]`."""

    rows: Rows
    start: Integers
    value: Integers
    writes: NDArray[np.bool_]
    nbytes: Integers
    lazy: NDArray[np.bool_] | None
    workspace: Integers
    final: NDArray[np.bool_]

    def running_bytes(self, steps: Integers) -> Integers:
        """Memory while each step runs, as `Simulation.running_bytes`."""
        if self.rows.is_larger:
            steps = np.array(self.rows.of(steps.tolist()), dtype=np.int64)
        m = len(steps)
        counts = self.start[steps + 1] - self.start[steps]
        ends = np.cumsum(counts)
        which = np.arange(int(ends[-1]) if m else 0) + np.repeat(
            self.start[steps] - (ends - counts), counts
        )
        value, writes = self.value[which], self.writes[which]
        when = np.repeat(np.arange(m), counts)
        order = np.argsort(value * m + when, kind="stable")
        value, writes, when = value[order], writes[order], when[order]
        if not len(value):
            return self.workspace[steps]
        # A lifetime is a write and the reads up to the next write of the same value.
        first = np.flatnonzero(writes)
        last = np.append(first[1:], len(value)) - 1
        born, dies, size = when[first], when[last], self.nbytes[value[first]]
        newest = np.append(value[first][1:] != value[first][:-1], True)
        kept = newest & self.final[value[first]]
        if self.lazy is not None:
            size = np.where((born == dies) & ~kept & self.lazy[value[first]], 0, size)
        change = np.bincount(born, weights=size, minlength=m + 1)
        change -= np.bincount(np.where(kept, m, dies + 1), weights=size, minlength=m + 1)[: m + 1]
        return np.rint(np.cumsum(change[:m])).astype(np.int64) + self.workspace[steps]

    def peak_bytes(self, steps: Integers) -> int:
        """The largest running figure."""
        return int(self.running_bytes(steps).max(initial=0))


def profiler(problem: RematProblem) -> Profiler:
    """Flatten a problem once, for many replays."""
    uncounted = set(problem.inputs)
    value: list[int] = []
    writes: list[bool] = []
    start = [0]
    rows = rows_of(problem)
    for run in rows.runs:
        reads = [v for v in dict.fromkeys(run.inputs) if v not in uncounted]
        value += [*run.outputs, *reads]
        writes += [True] * len(run.outputs) + [False] * len(reads)
        start.append(len(value))
    final = np.zeros(len(problem.values), dtype=np.bool_)
    final[list(problem.outputs)] = True
    lazy = np.array([v.lazy for v in problem.values], dtype=np.bool_)
    return Profiler(
        rows=rows,
        start=np.array(start, dtype=np.int64),
        value=np.array(value, dtype=np.int64),
        writes=np.array(writes, dtype=np.bool_),
        nbytes=np.array([v.nbytes for v in problem.values], dtype=np.int64),
        lazy=lazy if lazy.any() else None,
        workspace=np.array([run.workspace_bytes for run in rows.runs], dtype=np.int64),
        final=final,
    )

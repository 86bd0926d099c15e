"""A vectorised replay: the peak and the memory of each stage, for solvers that try many schedules.

The figures are those of `simulate` (tests compare them); it is some twenty times faster on
graphs of hundreds of ops and checks nothing: the schedule must be executable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fxremat_solvers.model.arrays import Floats, Integers
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.rows import Rows, rows_of

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Profiler:
    """The accesses of every row, flat: `value` and `writes` in `start[row] : start[row + 1]`."""

    rows: Rows
    start: Integers
    value: Integers
    writes: Flags
    nbytes: Integers
    lazy: Flags
    workspace: Integers
    final: Flags

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
        live, _ = live_bytes(value, writes, when, m, self.nbytes, self.final, self.lazy)
        return np.rint(live).astype(np.int64) + self.workspace[steps]

    def peak_bytes(self, steps: Integers) -> int:
        """The largest running figure."""
        return int(self.running_bytes(steps).max(initial=0))


def live_bytes(
    value: Integers,
    writes: Flags,
    when: Integers,
    n_steps: int,
    nbytes: Floats | Integers,
    final: Flags,
    lazy: Flags,
) -> tuple[Floats, Floats]:
    """What is live while each step runs, workspace aside, and what after it.

    From all accesses, sorted by value and then by step: to which value, whether they write, and
    when. Then what is known of each value; one that is read but never made must have no bytes.
    """
    newest = np.append(value[1:] != value[:-1], True)[: len(value)]
    # A life starts where a value is made and ends at its last access before it is made again.
    ends = np.where(newest, ~final[value], np.append(writes[1:], True)[: len(value)])
    size = np.where(writes & ends & lazy[value], 0, nbytes[value])
    born = np.bincount(when[writes], size[writes], n_steps)
    dead = np.bincount(when[ends], size[ends], n_steps)
    resident = np.cumsum(born - dead, dtype=np.float64)  # bincount of nothing counts in integers
    return resident + dead, resident


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
    return Profiler(
        rows=rows,
        start=np.array(start, dtype=np.int64),
        value=np.array(value, dtype=np.int64),
        writes=np.array(writes, dtype=np.bool_),
        nbytes=np.array([v.nbytes for v in problem.values], dtype=np.int64),
        lazy=np.array([v.lazy for v in problem.values], dtype=np.bool_),
        workspace=np.array([run.workspace_bytes for run in rows.runs], dtype=np.int64),
        final=final,
    )

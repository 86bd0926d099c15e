"""The runs of a problem as rows, for solvers that work on arrays.

Row k is the first run of op k. Where the reruns of an op differ from it a row of their own follows
behind all first runs: it makes again some of what row k makes, and may run any number of times, or
never. In rows a schedule needs no history: what a step reads and makes is in its row. A first run
that differs occurs once, before the reruns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fxremat_solvers.model.problem import Op, RematProblem, Rerun


@dataclass(frozen=True)
class Rows:
    """`runs[r]` is what row r does, `op_of[r]` the op that it runs.

    `again[k]` is the row in which op k runs after its first run: its own where they do the same.
    """

    runs: tuple[Op | Rerun, ...]
    op_of: tuple[int, ...]
    again: tuple[int, ...]

    @property
    def is_larger(self) -> bool:
        """Whether there are reruns in rows of their own."""
        return len(self.op_of) > len(self.again)

    def of(self, ops: Sequence[int]) -> Sequence[int]:
        """A schedule of ops in rows."""
        seen = bytearray(len(self.again))
        rows: list[int] = []
        for op in ops:
            rows.append(self.again[op] if seen[op] else op)
            seen[op] = 1
        return rows

    def ops(self, rows: Sequence[int]) -> tuple[int, ...]:
        """A schedule in rows as one of ops."""
        return tuple(self.op_of[row] for row in rows)


def rows_of(problem: RematProblem) -> Rows:
    """The rows of a problem."""
    differing = sorted(problem.differing)
    row_of = {op: len(problem.ops) + k for k, op in enumerate(differing)}
    return Rows(
        runs=(*problem.ops, *(problem.reruns[op] for op in differing)),
        op_of=(*range(len(problem.ops)), *differing),
        again=tuple(row_of.get(op, op) for op in range(len(problem.ops))),
    )

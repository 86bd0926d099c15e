"""A part's problem with limits of its own for forward, for what is saved, and for backward.

Solvers know one budget. So the tighter limits become ballast: bytes that are live throughout
forward, or throughout backward, and workspace of the op between the two. A schedule of the problem
with ballast is within the budget just where the part's schedule is within the three limits.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from fxremat.lower.lowering import Lowering
from fxremat_solvers import Op, RematProblem, Schedule, Value

# Ops that stand before the part's own: one before forward, one more before the tangents.
_BEFORE_FORWARD = 1
_BEFORE_TANGENTS = 2


@dataclass(frozen=True)
class Limits:
    """Bytes that forward may take, that may be saved after it, and that backward may take."""

    forward: int
    saved: int
    backward: int


@dataclass(frozen=True)
class Limited:
    """A problem that is within `budget_bytes` where the part is within its limits."""

    problem: RematProblem
    budget_bytes: int
    tangents_op: int

    def schedule_of_part(self, schedule: Schedule) -> Schedule:
        """A schedule of the problem as one of the part."""
        first = self.tangents_op
        own: list[int] = []
        for op in schedule:
            if _BEFORE_FORWARD <= op < first + _BEFORE_FORWARD:
                own.append(op - _BEFORE_FORWARD)
            elif op >= first + _BEFORE_TANGENTS:
                own.append(op - _BEFORE_TANGENTS)
        return Schedule(tuple(own))

    def schedule_of_problem(self, schedule: Schedule) -> Schedule:
        """A schedule of the part as one of the problem."""
        first = self.tangents_op
        ops: list[int] = [0]
        for op in schedule:
            if op == first:
                ops.append(first + 1)
            ops.append(op + (_BEFORE_FORWARD if op < first else _BEFORE_TANGENTS))
        return Schedule(tuple(ops))


def limited(lowering: Lowering, limits: Limits, free: Collection[int] = ()) -> Limited:
    """The part's problem under `limits`; `free` are values that others hold, which take nothing."""
    problem, first = lowering.problem, lowering.tangents_op
    budget = max(limits.forward, limits.saved, limits.backward, 1)
    count = len(problem.values)
    in_forward, begun, ended, in_backward = range(count, count + 4)
    values = [replace(v, nbytes=0) if k in free else v for k, v in enumerate(problem.values)]
    values += (
        Value("ballast of forward", budget - limits.forward),
        Value("forward has begun", 0),
        Value("forward has ended", 0),
        Value("ballast of backward", budget - limits.backward),
    )
    given = set(problem.inputs)
    ops = [Op("begin", (), (in_forward, begun), 0.0)]
    for op in problem.ops[:first]:
        starts = given.issuperset(op.inputs)
        ops.append(replace(op, inputs=(*op.inputs, begun)) if starts else op)
    tangents = problem.ops[first]
    last = (*tangents.inputs, begun, in_forward)
    made = sum(problem.values[v].nbytes for v in tangents.outputs) + budget - limits.backward
    ops += (
        Op("end of forward", last, (ended,), 0.0),
        replace(
            tangents,
            inputs=(ended,),
            outputs=(*tangents.outputs, in_backward),
            # Where this would be negative what backward may take says how much can be saved.
            workspace_bytes=max(0, budget - limits.saved - made),
        ),
    )
    ops += problem.ops[first + 1 :]
    return Limited(
        problem=RematProblem(
            ops=tuple(ops),
            values=tuple(values),
            inputs=problem.inputs,
            outputs=(*problem.outputs, in_backward),
            first_backward_op=first + _BEFORE_TANGENTS,
        ),
        budget_bytes=budget,
        tangents_op=first,
    )

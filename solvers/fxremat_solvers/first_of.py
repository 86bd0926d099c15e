"""Lower bounds by cases: which of several ops runs first.

A position (`bounds`) knows nothing of ops that neither lead to it nor come from it; the relaxation
has them run whenever that suits it. Where a value is summed up in many steps (the gradient of a
weight that an unrolled net reads at every step), all sums may be put off to the end, each for
itself, as far as any one position can see. But one of them begins first. So for ops of which none
leads to another,

    any schedule's cost >= the least, over these ops, of the bound given that this one runs first,

and its own position, with all the others still to come, tells what that takes. The same once more
for which of them comes second.

That op f first runs before op g is written as a value of no bytes that f makes and g reads: it
can be held for nothing, so the relaxation of a case is that of an ordinary problem.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fxremat_solvers.problem import Op, RematProblem, Value

_MOST = 4  # ops to tell apart: twelve cases of a first and a second
_WORTH = 0.01  # of the budget: smaller outputs are left out

Bound = Callable[[RematProblem, Sequence[int]], float]
"""A bound on the extra cost from a chain of positions, for the problem of a case."""


def least_of_cases(problem: RematProblem, budget_bytes: int, bound: Bound, known: float) -> float:
    """The bound by cases, or `known` where that is more; `bound` is asked for each case."""
    rivals = sums_of(problem, budget_bytes).begin[:_MOST]
    if len(rivals) < 2:
        return known
    once = {f: _case(problem, (f,), rivals, bound) for f in rivals}
    # From the weakest on: what lies above the least of the refined ones needs no second look.
    least = float("inf")
    for f in sorted(rivals, key=lambda f: once[f]):
        if once[f] >= least:
            break
        twice = min(_case(problem, (f, g), rivals, bound) for g in rivals if g != f)
        least = min(least, max(once[f], twice))
    return max(known, least)


@dataclass(frozen=True)
class Sums:
    """The large outputs that are summed up in many steps.

    `begin`: for each of them the op that begins it; none of these leads to another. `steps`: of
    the longest sum. `reach[k]`: the large outputs that op k leads to, a bit for each.
    """

    begin: tuple[int, ...]
    steps: int
    reach: tuple[int, ...]


def sums_of(problem: RematProblem, budget_bytes: int) -> Sums:
    """What is summed up, the sums whose steps take the most memory first.

    Of the ops that lead to one large output alone, those that take the most memory themselves,
    where there are several: the steps of a sum.
    """
    large = [v for v in problem.outputs if problem.values[v].nbytes > _WORTH * budget_bytes]
    goals = {value: 1 << k for k, value in enumerate(large)}
    reach = [0] * len(problem.ops)
    for k in range(len(problem.ops) - 1, -1, -1):
        for value in problem.ops[k].outputs:
            reach[k] |= goals.get(value, 0)
            for reader in problem.consumers[value]:
                reach[k] |= reach[reader]
    nbytes = [value.nbytes for value in problem.values]
    for value in problem.inputs:
        nbytes[value] = 0
    own = [
        op.workspace_bytes + sum(nbytes[v] for v in {*op.inputs, *op.outputs}) for op in problem.ops
    ]
    steps: dict[int, list[int]] = {}
    for k, goal in enumerate(reach):
        if goal.bit_count() != 1:
            continue
        known = steps.setdefault(goal, [])
        if known and own[k] > own[known[0]]:
            known.clear()
        if not known or own[k] == own[known[0]]:
            known.append(k)
    found = [known for known in steps.values() if len(known) > 1]
    found.sort(key=lambda known: (-own[known[0]], known[0]))
    return Sums(tuple(k[0] for k in found), max(map(len, found), default=0), tuple(reach))


def _case(
    problem: RematProblem, order: tuple[int, ...], rivals: tuple[int, ...], bound: Bound
) -> float:
    """The bound given that of some rivals these run first, in this order."""
    rest = [(order[-1], g) for g in rivals if g not in order]
    case, place = in_order(problem, [*itertools.pairwise(order), *rest])
    return bound(case, [place[f] for f in order])


def in_order(
    problem: RematProblem, pairs: Sequence[tuple[int, int]]
) -> tuple[RematProblem, list[int]]:
    """The problem with, for each pair, the first op's first run before the second's.

    And where each op is now. Raises ValueError where the pairs contradict the graph.
    """
    n_ops, n_values = len(problem.ops), len(problem.values)
    reads: list[list[int]] = [list(op.inputs) for op in problem.ops]
    makes: list[list[int]] = [list(op.outputs) for op in problem.ops]
    later: list[list[int]] = [[] for _ in problem.ops]
    waits = [0] * n_ops
    for k, op in enumerate(problem.ops):
        for maker in {problem.producer[v] for v in op.inputs} - {-1}:
            later[maker].append(k)
            waits[k] += 1
    for token, (f, g) in enumerate(pairs, n_values):
        makes[f].append(token)
        reads[g].append(token)
        later[f].append(g)
        waits[g] += 1
    ready = [k for k in range(n_ops) if not waits[k]]
    order: list[int] = []
    while ready:
        k = heapq.heappop(ready)
        order.append(k)
        for reader in later[k]:
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) < n_ops:
        raise ValueError("the pairs contradict the order of the graph")
    place = [0] * n_ops
    for where, k in enumerate(order):
        place[k] = where
    ops: list[Op] = [
        replace(problem.ops[k], inputs=tuple(reads[k]), outputs=tuple(makes[k])) for k in order
    ]
    tokens = [Value(f"order {k}", 0) for k in range(len(pairs))]
    case = replace(
        problem, ops=tuple(ops), values=(*problem.values, *tokens), first_backward_op=None
    )
    return case, place

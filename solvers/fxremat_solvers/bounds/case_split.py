"""Lower bounds by cases: which of several ops runs first.

A position (`cost_bound`) knows nothing of ops that neither lead to it nor come from it; the
relaxation has them run whenever that suits it. Where a value is summed up in many steps (the
gradient of a weight that an unrolled net reads at every step), all sums may be put off to the end,
each for itself, as far as any one position can see. But one of them begins first. So for ops of
which none leads to another,

    any schedule's cost >= the least, over these ops, of the bound given that this one runs first,

and its own position, with all the others still to come, tells what that takes. The same once more
for which of them comes second.

That op f first runs before op g is written as a value of no bytes that f makes and g reads: it
can be held for nothing, so the relaxation of a case is that of an ordinary problem.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from fxremat_solvers.model.accumulations import sums_of
from fxremat_solvers.model.orders import makers_of, topological_order
from fxremat_solvers.model.problem import Op, RematProblem, Rerun, Value

_MOST = 4  # ops to tell apart: twelve cases of a first and a second

Bound = Callable[[RematProblem, Sequence[int], float], float]
"""A bound on the extra cost from a chain of positions, for the problem of a case.

No more is asked for than the last argument.
"""


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
        for g in rivals:
            if g != f:
                twice = _case(problem, (f, g), rivals, bound, enough=least)
                least = min(least, max(once[f], twice))
    return max(known, least)


def _case(
    problem: RematProblem,
    order: tuple[int, ...],
    rivals: tuple[int, ...],
    bound: Bound,
    enough: float = float("inf"),
) -> float:
    """The bound given that of some rivals these run first, in this order."""
    rest = [(order[-1], g) for g in rivals if g not in order]
    case, place = in_order(problem, [*itertools.pairwise(order), *rest])
    return bound(case, [place[f] for f in order], enough)


def in_order(
    problem: RematProblem, pairs: Sequence[tuple[int, int]]
) -> tuple[RematProblem, list[int]]:
    """The problem with, for each pair, the first op's first run before the second's.

    And where each op is now. Raises ValueError where the pairs contradict the graph.
    """
    before = makers_of(problem)
    reads: list[tuple[int, ...]] = [()] * len(problem.ops)
    makes: list[tuple[int, ...]] = [()] * len(problem.ops)
    for token, (f, g) in enumerate(pairs, len(problem.values)):
        makes[f] += (token,)
        reads[g] += (token,)
        before[g].add(f)
    order = topological_order(before, key=range(len(before)))
    ops = [_with_tokens(problem.ops[k], reads[k], makes[k]) for k in order]
    tokens = [Value(f"order {k}", 0) for k in range(len(pairs))]
    case = replace(
        problem, ops=tuple(ops), values=(*problem.values, *tokens), first_backward_op=None
    )
    place = {k: where for where, k in enumerate(order)}
    return case, [place[k] for k in range(len(order))]


def _with_tokens(op: Op, reads: tuple[int, ...], makes: tuple[int, ...]) -> Op:
    """The op with more values of no bytes; its reruns read and make them, too."""

    def with_tokens(run: Rerun) -> Rerun:
        return replace(run, inputs=(*run.inputs, *reads), outputs=(*run.outputs, *makes))

    if not reads and not makes:
        return op
    first = with_tokens(op.first_run)
    reruns = tuple(map(with_tokens, op.reruns))
    return replace(op, inputs=first.inputs, outputs=first.outputs, reruns=reruns)

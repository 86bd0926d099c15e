"""The floor: the schedule with the lowest peak that we can find, whatever it costs.

Annealing whose budget follows the best peak down (`local_search.lowest`), from the baseline order
and, on smaller graphs, from greedy's lowest peak: that one finds the deep recomputations of long
chains, annealing finds better orders. Limits: no proof; `bounds.peak_lower_bound` is the bound.
"""

from __future__ import annotations

import time

from fxremat_solvers.candidates import Candidate, candidate, solution
from fxremat_solvers.greedy import greedy_ops
from fxremat_solvers.kernel import kernel
from fxremat_solvers.local_search import Search, lowest, scale_of
from fxremat_solvers.problem import RematProblem
from fxremat_solvers.schedule import Solution
from fxremat_solvers.simulate import baseline

_HALVINGS = 7
_GREEDY_OPS = 250
_EDITS_PER_OP = 1_000
_MOST_EDITS = 500_000
_ROUNDS = 2


def floor(problem: RematProblem, *, time_limit_s: float = 30.0, seed: int = 0) -> Solution:
    """The schedule of lowest peak found, as a solution under the budget that is its own peak."""
    plain = candidate(problem, baseline(problem).ops, "baseline")
    kernel(problem)  # compiled, where that is to be done, before the clock starts
    found = lowest_peak(problem, plain, deadline=time.monotonic() + time_limit_s, seed=seed)
    return solution(problem, found, found.peak_bytes)


def lowest_peak(
    problem: RematProblem, start: Candidate, *, deadline: float, seed: int = 0
) -> Candidate:
    """The schedule of lowest peak found from `start` and from greedy's walks."""
    compiled = kernel(problem)
    found = [start]
    if compiled is None or len(problem.ops) <= _GREEDY_OPS:
        found.append(_greedy_floor(problem, start, deadline))
    if compiled is not None:
        search = Search(problem, compiled, scale_of(problem), deadline)
        edits = min(_MOST_EDITS, _EDITS_PER_OP * len(problem.ops))
        for origin in tuple(found):
            reached = origin
            for turn in range(_ROUNDS):
                reached = lowest(search, reached, edits=edits, seed=seed * _ROUNDS + turn)
            found.append(reached)
    return min(found, key=lambda c: (c.peak_bytes, c.cost))


def _greedy_floor(problem: RematProblem, start: Candidate, deadline: float) -> Candidate:
    """Bisect the greedy walk's budget between what one op needs and the best peak so far."""
    reached, low = start, single_op_bytes(problem)
    for _ in range(_HALVINGS):
        if low >= reached.peak_bytes or time.monotonic() > deadline:
            break
        middle = (low + reached.peak_bytes) // 2
        tried = candidate(problem, greedy_ops(problem, middle), "greedy")
        if tried.peak_bytes > middle:
            low = middle + 1
        reached = min(reached, tried, key=lambda c: (c.peak_bytes, c.cost))
    return reached


def single_op_bytes(problem: RematProblem) -> int:
    """What the hungriest op needs on its own: inputs, outputs and workspace. A bound on any peak.

    Outputs of the problem that exist at the end are all live there, which bounds it as well.
    """
    counted = [value.nbytes for value in problem.values]
    for value in problem.inputs:
        counted[value] = 0
    at_once = sum(counted[value] for value in problem.outputs)
    for op in problem.ops:
        own = sum(counted[value] for value in {*op.inputs, *op.outputs})
        at_once = max(at_once, own + op.workspace_bytes)
    return at_once

"""The floor: the schedule with the lowest peak that we can find, whatever it costs."""

from __future__ import annotations

import time

from fxremat_solvers.candidates import Candidate, candidate, solution
from fxremat_solvers.greedy import DEFAULT_RULE, GreedyRule, greedy_ops
from fxremat_solvers.problem import RematProblem
from fxremat_solvers.schedule import Solution
from fxremat_solvers.simulate import baseline

_RULES = (DEFAULT_RULE, GreedyRule(cost=0.0), GreedyRule(cost=0.5, distance=0.5))
_HALVINGS = 12


def floor(problem: RematProblem, *, time_limit_s: float = 30.0, seed: int = 0) -> Solution:
    """The schedule of lowest peak found, as a solution under the budget that is its own peak."""
    found = lowest_peak(problem, time_limit_s=time_limit_s, seed=seed)
    return solution(problem, found, found.peak_bytes)


def lowest_peak(problem: RematProblem, *, time_limit_s: float = 30.0, seed: int = 0) -> Candidate:
    """Bisect the budget of the greedy walk between what one op needs and the best peak so far."""
    del seed  # nothing random yet
    deadline = time.monotonic() + time_limit_s
    lowest = candidate(problem, baseline(problem).ops, "baseline")
    needed = single_op_bytes(problem)
    for rule in _RULES:
        low = needed
        for _ in range(_HALVINGS):
            if low >= lowest.peak_bytes or time.monotonic() > deadline:
                break
            middle = (low + lowest.peak_bytes) // 2
            tried = candidate(problem, greedy_ops(problem, middle, rule), "greedy")
            if tried.peak_bytes > middle:
                low = middle + 1
            lowest = min(lowest, tried, key=lambda c: (c.peak_bytes, c.cost))
    return lowest


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

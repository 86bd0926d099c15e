"""The floor: the schedule with the lowest peak that we can find, whatever it costs.

Annealing whose budget follows the best peak down (`local_search.lowest`): a hot run from the
baseline order beside a steady one from greedy's lowest peak (greedy finds the deep recomputations
of long chains, annealing better orders); then steadily on from the better of the two, and with
dear bytes from the other. Unrolled loops of thousands of ops start from a plan of their steps.
Tiny graphs are left to brute force. Limits: no proof; `bounds.peak_bound` is the bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from fxremat_solvers.errors import SolverError
from fxremat_solvers.model.incumbent import Candidate, by_peak, candidate, solution
from fxremat_solvers.model.problem import Op, RematProblem
from fxremat_solvers.model.schedule import Solution
from fxremat_solvers.model.simulate import baseline
from fxremat_solvers.reference.exact import TINY_OPS, least_peak
from fxremat_solvers.search.greedy import compile_walk, greedy_ops
from fxremat_solvers.search.kernel import kernel
from fxremat_solvers.search.local_search import DEAR, HOT, STEADY, Recipe, Search, lowest
from fxremat_solvers.search.parallel import side_by_side
from fxremat_solvers.search.unrolled import lowest_of_loop


@dataclass(frozen=True)
class Tuning:
    """Numbers of the search for the lowest peak. Sizes are numbers of ops.

    `halvings` of the budget of greedy's walks, up to `walked` ops, above which one takes seconds.
    Above `looped` an unrolled loop is looked for: greedy and annealing left half of the peaks of
    the ODE and the LSTM, of 4,900 and 4,700 ops. `edits` of each run: for an op, and at most.
    """

    halvings: int = 7
    walked: int = 20_000
    looped: int = 3_000
    edits: tuple[int, int] = (700, 350_000)


TUNING = Tuning()


def floor(problem: RematProblem, *, time_limit_s: float = 30.0, seed: int = 0) -> Solution:
    """The schedule of lowest peak found, as a solution under the budget that is its own peak."""
    kernel(problem)  # both compiled, where that is to be done, before the clock starts
    compile_walk()
    found = lowest_peak(problem, deadline=time.monotonic() + time_limit_s, seed=seed)
    return solution(problem, found, found.peak_bytes)


def lowest_peak(problem: RematProblem, *, deadline: float, seed: int = 0) -> Candidate:
    """The schedule of lowest peak found from the baseline order and from greedy's walks.

    It is searched for with every op at one price, so that it depends on sizes alone: where costs
    are measured they differ from run to run, the smallest budget that can be met must not.
    """
    even = replace(problem, ops=tuple(map(_priced_alike, problem.ops)))
    found = _searched(even, deadline, seed)
    return candidate(problem, found.ops, found.method)


def _priced_alike(op: Op) -> Op:
    reruns = tuple(replace(again, cost=1.0) for again in op.reruns)
    return replace(op, cost=1.0 if reruns else 0.0, reruns=reruns)


def _searched(problem: RematProblem, deadline: float, seed: int) -> Candidate:
    if len(problem.ops) <= TINY_OPS:
        with suppress(SolverError):  # too many values: on with the search
            least = least_peak(problem, single_op_bytes(problem) - 1, deadline=deadline)
            return candidate(problem, least, "exact")
    start = candidate(problem, baseline(problem).ops, "baseline")
    found = [start]
    if len(problem.ops) <= TUNING.walked:
        found.append(_greedy_floor(problem, start, deadline))
    if len(problem.ops) > TUNING.looped:
        found += lowest_of_loop(problem)
        found.sort(key=by_peak, reverse=True)
    if len(problem.ops) > TUNING.walked and len(found) > 1:
        return found[-1]  # edits of so long a schedule are slow, and found nothing lower
    search = Search(problem, deadline)
    edits = min(TUNING.edits[1], TUNING.edits[0] * len(problem.ops))

    def anneal(origin: Candidate, recipe: Recipe, run: int) -> Callable[[], Candidate]:
        return lambda: lowest(search, origin, recipe, edits=edits, seed=seed * 4 + run)

    first = side_by_side([anneal(start, HOT, 0), anneal(found[-1], STEADY, 2)])
    ahead, behind = sorted(first, key=by_peak)
    found += side_by_side([anneal(ahead, STEADY, 3), anneal(behind, DEAR, 1)])
    return min(found, key=by_peak)


def _greedy_floor(problem: RematProblem, start: Candidate, deadline: float) -> Candidate:
    """Bisect the greedy walk's budget between what one op needs and the best peak so far."""
    reached, low = start, single_op_bytes(problem)
    for _ in range(TUNING.halvings):
        if low >= reached.peak_bytes or time.monotonic() > deadline:
            break
        middle = (low + reached.peak_bytes) // 2
        tried = candidate(problem, greedy_ops(problem, middle), "greedy")
        if tried.peak_bytes > middle:
            low = middle + 1
        reached = min(reached, tried, key=by_peak)
    return reached


def single_op_bytes(problem: RematProblem) -> int:
    """What the hungriest op needs on its own: inputs, outputs and workspace. A bound on any peak.

    Outputs of the problem that exist at the end are all live there, which bounds it as well.
    """
    at_end = sum(problem.counted_bytes[value] for value in problem.outputs)
    return max((at_end, *problem.own_bytes))

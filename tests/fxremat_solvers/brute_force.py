"""The least cost of a schedule, by the memory model spelled out: what solvers are held against."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable

from fxremat_solvers import RematProblem


def least_cost(problem: RematProblem, budget_bytes: int) -> float:
    """The least cost of a schedule within a budget, by the memory model spelled out; or infinity.

    Dijkstra's search over what has run and what is held, with every choice written out: values
    may be freed at any time, and lazy ones are allocated or not.
    """
    sizes = [value.nbytes for value in problem.values]
    resident = frozenset(problem.inputs)
    goal = frozenset(problem.outputs) - resident
    every = frozenset(range(len(problem.ops)))
    start = (frozenset[int](), frozenset[int]())
    paid = {start: 0.0}
    heap: list[tuple[float, int, tuple[frozenset[int], frozenset[int]]]] = [(0.0, 0, start)]
    count = itertools.count(1)
    while heap:
        cost, _, state = heapq.heappop(heap)
        if cost > paid[state]:
            continue
        done, held = state
        if done == every and goal <= held:
            return cost
        ways = [(0.0, (done, held - {value})) for value in held]
        for k, op in enumerate(problem.ops):
            for run in op.reruns if k in done else (op.first_run,):
                if not set(run.inputs) <= held | resident:
                    continue
                lazy = [v for v in run.outputs if problem.values[v].lazy]
                for left_out in _subsets(lazy):
                    allocated = set(run.outputs) - left_out
                    live = held - set(run.outputs) | allocated
                    if run.workspace_bytes + sum(sizes[v] for v in live) <= budget_bytes:
                        ways.append((run.cost, (done | {k}, frozenset(live))))
        for more, then in ways:
            if cost + more < paid.get(then, math.inf):
                paid[then] = cost + more
                heapq.heappush(heap, (cost + more, next(count), then))
    return math.inf


def _subsets(items: Iterable[int]) -> Iterable[set[int]]:
    some = list(items)
    for size in range(len(some) + 1):
        for chosen in itertools.combinations(some, size):
            yield set(chosen)

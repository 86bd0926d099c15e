"""Orders in which the ops of a problem can first run."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from fxremat_solvers.problem import RematProblem


def makers_of(problem: RematProblem) -> list[set[int]]:
    """For each op the ops that make what its first run reads, and its reruns."""
    producer = problem.producer
    makers = [{producer[v] for v in op.inputs} - {-1} for op in problem.ops]
    for k in problem.differing:
        makers[k] |= {producer[v] for v in problem.reruns[k].inputs} - {-1, k}
    return makers


def topological_order(before: Sequence[Collection[int]], key: Sequence[Any]) -> list[int]:
    """Every op after those before it; of the ops that can come next that of the least key.

    Keys are distinct. Raises ValueError where ops wait for each other in a circle.
    """
    later: list[list[int]] = [[] for _ in before]
    for k, earlier in enumerate(before):
        for other in earlier:
            later[other].append(k)
    waits = [len(earlier) for earlier in before]
    ready = [(key[k], k) for k, n in enumerate(waits) if not n]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        _, k = heapq.heappop(ready)
        order.append(k)
        for reader in later[k]:
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, (key[reader], reader))
    if len(order) < len(before):
        raise ValueError("the order contradicts itself: ops wait for each other in a circle")
    return order


def reordered(problem: RematProblem, order: Sequence[int]) -> RematProblem:
    """The problem with its ops in another order that can be executed."""
    return replace(problem, ops=tuple(problem.ops[k] for k in order), first_backward_op=None)

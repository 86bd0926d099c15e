"""Orders in which the ops of a problem can first run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from fxremat_solvers.model.problem import RematProblem


def makers_of(problem: RematProblem) -> list[set[int]]:
    """For each op the ops that make what its first run reads, and its reruns."""
    producer = problem.producer
    makers = [{producer[v] for v in op.inputs} - {-1} for op in problem.ops]
    for k in problem.differing:
        makers[k] |= {producer[v] for v in problem.reruns[k].inputs} - {-1, k}
    return makers


def topological_order(before: Sequence[Collection[int]], key: Sequence[Any]) -> list[int]:
    """Every op after those before it; of the ops that can come next that of the least key.

    Raises ValueError where ops wait for each other in a circle.
    """
    import networkx as nx  # Here: few problems need it, and it takes long to import.

    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(before)))
    graph.add_edges_from((other, k) for k, earlier in enumerate(before) for other in earlier)
    try:
        return list(nx.lexicographical_topological_sort(graph, key=key.__getitem__))
    except nx.NetworkXUnfeasible as error:
        raise ValueError("the order contradicts itself: ops wait for each other") from error


def reordered(problem: RematProblem, order: Sequence[int]) -> RematProblem:
    """The problem with its ops in another order that can be executed."""
    return replace(problem, ops=tuple(problem.ops[k] for k in order), first_backward_op=None)

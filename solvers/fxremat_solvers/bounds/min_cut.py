"""Minimum cuts by scipy's Dinic, on networks whose capacities change from call to call.

A network is a set of arcs over nodes 0 (the source) and 1 (the sink) and any others; a node on
the source side of a cut is *on*. An arc p -> q of infinite capacity says "p on implies q on";
an arc p -> sink of capacity c "p on costs c"; source -> q "q off costs c"; p -> q "p on and q off
costs c". Minimising such costs is a minimum closure (Picard 1976), the form in which both the
lower bound and the min-cut solver choose what to keep.

Limits: scipy's capacities are 32-bit integers, so costs are scaled and rounded down: a cut's
value never exceeds the true one, and lower bounds stay lower bounds.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fxremat_solvers.model.arrays import Floats, Integers

SOURCE, SINK = 0, 1
INFINITE = 2**31 - 1


@dataclass(frozen=True)
class Network:
    """Arcs merged by (tail, head): `slot[k]` is the merged arc that arc k adds its capacity to.

    Each merged arc has its reverse beside it, of no capacity where no arc gives it one: scipy's
    flows have these as well, so that one can be taken from the other place by place.
    """

    n_nodes: int
    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    slot: Integers
    tail_of_arc: Integers
    head_of_arc: Integers


class Arcs:
    """The arcs of a network, one after the other: what each costs, and more numbers of its own.

    Those that no cut parts are left out. `plain` are the numbers of arcs that are given none.
    """

    def __init__(self, *plain: float) -> None:
        self._plain = plain
        self._n_nodes = 2
        self._arcs: list[tuple[float, ...]] = []

    def node(self) -> int:
        """One more node."""
        self._n_nodes += 1
        return self._n_nodes - 1

    def arc(self, tail: int, head: int, cost: float, *numbers: float) -> None:
        """One more arc."""
        if tail not in (head, SINK) and head != SOURCE:
            self._arcs.append((tail, head, cost, *(numbers or self._plain)))

    def network(self) -> tuple[Network, Floats]:
        """The arcs sorted and merged, once for many cuts; what they cost and their numbers."""
        n = self._n_nodes
        columns = np.array(self._arcs).reshape(-1, 3 + len(self._plain)).T
        tails, heads = columns[:2].astype(np.int64)
        key, reverse = tails * n + heads, heads * n + tails
        unique, slot = np.unique(np.concatenate((key, reverse)), return_inverse=True)
        counts = np.bincount(unique // n, minlength=n)
        indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        slot = slot.reshape(-1)[: len(key)]
        return Network(n, indptr, (unique % n).astype(np.int32), slot, tails, heads), columns[2:]


def minimum_cut(net: Network, capacities: Floats) -> tuple[int, NDArray[np.bool_]]:
    """The value of a minimum cut and which nodes are on (the source side, the smallest one).

    `capacities` are per arc, in the integer unit; np.inf stands for "never cut".
    """
    # Imported here: it takes a quarter of a second, and a plan from the cache needs no cut.
    sparse: Any = importlib.import_module("scipy.sparse")
    csgraph: Any = importlib.import_module("scipy.sparse.csgraph")
    merged = np.zeros(len(net.indices))
    np.add.at(merged, net.slot, capacities)
    whole = np.minimum(np.floor(merged), INFINITE).astype(np.int32)
    shape = (net.n_nodes, net.n_nodes)
    graph = sparse.csr_array((whole, net.indices, net.indptr), shape=shape)
    result = csgraph.maximum_flow(graph, SOURCE, SINK, method="dinic")
    # The flow matrix holds f on an arc and -f on its reverse: capacity - flow is the residual.
    residual = result.flow
    residual.data = whole > residual.data
    residual.eliminate_zeros()
    reached = csgraph.breadth_first_order(residual, SOURCE, return_predecessors=False)
    on = np.zeros(net.n_nodes, dtype=np.bool_)
    on[reached] = True
    return int(result.flow_value), on

"""The relaxation over a chain of positions, as a network (`cost_bound` has the argument)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fxremat_solvers.bounds.min_cut import SINK, SOURCE, Arcs, Network, minimum_cut
from fxremat_solvers.bounds.positions import first_after, last_before
from fxremat_solvers.model.arrays import Floats, Integers
from fxremat_solvers.model.problem import RematProblem


@dataclass(frozen=True)
class Relaxation:
    """The relaxation over one chain of positions.

    `fixed_bytes[j]` is what the op at position j takes itself. Arc k costs `cost[k]` plus, where
    `position[k]` is not -1, `size[k]` bytes at the price of that position; arcs of infinite cost
    are implications.
    """

    chain: tuple[int, ...]
    fixed_bytes: Floats
    net: Network
    cost: Floats
    position: Integers
    size: Floats


def relax(problem: RematProblem, chain: Sequence[int]) -> Relaxation:
    """Write the relaxation over a chain of positions (indices 1..k) as a network."""
    arcs, k = Arcs(-1, 0.0), len(chain)
    node, arc = arcs.node, arcs.arc
    ops, producer, values = problem.ops, problem.producer, problem.values
    reruns, remade, differing = problem.reruns, problem.remade, problem.differing
    end = len(ops)
    # after[w]: the last position w always runs after; by[w]: the first it always runs by.
    after = [*last_before(problem, chain), k]
    by = [*first_after(problem, chain), k + 1]
    for j, v in enumerate(chain, 1):
        by[v] = j
    outputs = set(problem.outputs)
    fixed = np.array([float(problem.own_bytes[v]) for v in chain])
    own = [problem.own_values(v) for v in chain]
    # again[x][j]: the node for "the maker of x runs after position j, before the next read
    # of x that is known to come between two positions".
    again, wanted, gap = ([list[int]()] * len(values) for _ in range(3))
    last = [0] * len(values)
    reread = problem.rerun_consumers
    readers = [(*r, end) if x in outputs else r for x, r in enumerate(problem.consumers)]
    for u, op in enumerate(ops):
        again_outputs = reruns[u].outputs or op.outputs
        main = max(again_outputs, key=lambda x: values[x].nbytes, default=-1)
        for x in sorted(op.outputs, key=lambda x: x != main):
            narrow = sorted({after[w] for w in readers[x] if by[w] == after[w] + 1})
            last[x] = max((after[w] for w in readers[x]), default=0)
            row = [SOURCE] * (k + 2)
            gaps = [next((g for g in narrow if g >= j), k + 1) for j in range(k + 2)]
            for j in range(1, k + 1):
                if j <= after[u]:
                    continue
                if j >= by[u] and not remade[x]:
                    row[j] = SINK
                    continue
                row[j] = node()
                opens = j == max(by[u], 1) or (j > by[u] and gaps[j] != gaps[j - 1])
                if not (j == 1 or (opens and j > by[u])) and row[j - 1] != SOURCE:
                    arc(row[j], row[j - 1], math.inf)
                if x == main:
                    if opens and j >= by[u]:
                        arc(row[j], SINK, reruns[u].cost)
                elif j >= by[u] and gaps[j] <= gap[main][j]:
                    arc(row[j], again[main][j], math.inf)
            again[x] = row
            gap[x] = gaps
    for x, u in enumerate(producer):
        if u < 0:
            continue
        row = [SINK] * (k + 2)
        size = float(values[x].nbytes)
        for j in range(after[u] + 1, k + 1):
            if j <= last[x]:
                row[j] = SOURCE
            elif readers[x] or reread[x]:
                row[j] = node()
                if j > last[x] + 1 and j > after[u] + 1:
                    arc(row[j], row[j - 1], math.inf)
            if size and x not in own[j - 1] and row[j] != SINK:
                arc(row[j], again[x][j], 0.0, j - 1, size)
        wanted[x] = row
    for u, op in enumerate(ops):
        reads = both = reruns[u].inputs
        if u in differing:
            both = tuple(x for x in reads if x in op.inputs)
        for y in op.outputs:
            for j in range(1, k + 1):
                here = again[y][j]
                if here in (SINK, SOURCE):
                    continue
                for x in dict.fromkeys(reads if j >= by[u] else both):
                    if producer[x] >= 0 and j > after[producer[x]]:
                        arc(here, wanted[x][j], math.inf)
    net, (cost, position, size) = arcs.network()
    return Relaxation(tuple(chain), fixed, net, cost, position.astype(np.int64), size)


def evaluate(
    relaxation: Relaxation, prices: Floats, budget_bytes: int, unit: float
) -> tuple[float, Floats]:
    """The dual value at some prices (cost per byte at each position), and a supergradient."""
    priced = relaxation.position >= 0
    weight = relaxation.cost.copy()
    weight[priced] += prices[relaxation.position[priced]] * relaxation.size[priced]
    value, on = minimum_cut(relaxation.net, weight / unit)
    dual = value * unit + float(prices @ (relaxation.fixed_bytes - budget_bytes))
    tail, head = relaxation.net.tail_of_arc, relaxation.net.head_of_arc
    cut = priced & on[tail] & ~on[head]
    used = np.bincount(
        relaxation.position[cut], weights=relaxation.size[cut], minlength=len(prices)
    )
    return dual, used + relaxation.fixed_bytes - budget_bytes

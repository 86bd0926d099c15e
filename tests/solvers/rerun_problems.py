"""Small random problems whose reruns differ from first runs, and what they cost by brute force."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Iterable
from dataclasses import replace

from small_graphs import random_problem

from fxremat_solvers import Op, RematProblem, Rerun, Value, plain_op


def random_reruns(seed: int, n_ops: int) -> RematProblem:
    """A small problem some of whose ops are like random ones, or like BatchNorm, or just differ.

    A random op keeps a lazy state, which its rerun reads and sets aside; BatchNorm makes
    statistics in its first run only. Others cost less, or more, read less or something earlier,
    or make values that are lazy.
    """
    problem = random_problem(seed, n_ops)
    draw = random.Random(seed)
    values, ops = list(problem.values), list(problem.ops)
    outputs = list(problem.outputs)
    order: int | None = None  # what keeps random ops in order
    for k, op in enumerate(ops):
        kind = draw.choice(["random", "statistics", "other", "plain"])
        if not op.reruns or kind == "plain":
            continue
        reads, makes = op.inputs, op.outputs
        again = op.first_run
        if kind == "random":
            nbytes = draw.randint(0, 4)
            values.append(Value(f"state{k}", nbytes, lazy=True))
            state = len(values) - 1
            makes = (*makes, state)
            again = replace(
                again, inputs=(*reads, state), workspace_bytes=op.workspace_bytes + nbytes
            )
            if order is not None:
                reads = (*reads, order)
            values.append(Value(f"order{k}", 0))
            order = len(values) - 1
            makes = (*makes, order)
        elif kind == "statistics":
            values.append(Value(f"statistics{k}", draw.randint(0, 3)))
            makes = (*makes, len(values) - 1)
            if draw.random() < 0.7:
                outputs.append(len(values) - 1)
        else:
            again = _changed(draw, problem, k)
        ops[k] = Op(op.name, reads, makes, op.cost, op.workspace_bytes, (again,))
    values = [replace(v, lazy=v.lazy or draw.random() < 0.1) for v in values]
    return RematProblem(
        tuple(ops), tuple(values), problem.inputs, tuple(outputs), problem.first_backward_op
    )


def _changed(draw: random.Random, problem: RematProblem, k: int) -> Rerun:
    op = problem.ops[k]
    reads = [v for v in op.inputs if draw.random() < 0.8]
    earlier = [v for v, maker in enumerate(problem.producer) if maker < k and v not in reads]
    if earlier and draw.random() < 0.4:
        reads.append(draw.choice(earlier))
    makes = [v for v in op.outputs if draw.random() < 0.9]
    return Rerun(tuple(reads), tuple(makes), float(draw.randint(0, 6)), draw.choice([0, 0, 2]))


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


def dropout_chain() -> RematProblem:
    """Seven ops; within 17 bytes the least schedule leaves the random op alone.

    ``wide`` is dear and ``cheap`` is not; both are made before ``draw`` and read after ``body``,
    which needs 8 bytes for itself. To draw again the state is kept, which frees nothing. So
    ``cheap`` runs twice: 55 + 4. With a state that counts where nobody reads it both would have to
    go while ``draw`` runs: 55 + 4 + 50.
    """
    values = (
        Value("x", 100),
        Value("a", 1),
        Value("wide", 5),
        Value("wide_done", 0),
        Value("cheap", 5),
        Value("cheap_done", 0),
        Value("mask", 4),
        Value("state", 4, lazy=True),
        Value("body_done", 0),
        Value("sum", 1),
        Value("end", 1),
    )
    ops = (
        plain_op("embed", (0,), (1,), 0.0),
        plain_op("wide", (1,), (2, 3), 50.0),
        plain_op("cheap", (1, 3), (4, 5), 4.0),
        Op("draw", (1, 5), (6, 7), 1.0, 0, (Rerun((1, 7), (6,), 1.0, 4),)),
        Op("body", (6,), (8,), 0.0, 8),
        plain_op("sum", (2, 4, 8), (9,), 0.0),
        plain_op("end", (9, 6), (10,), 0.0),
    )
    return RematProblem(ops, values, (0,), (10,), 5)


def with_state_always(problem: RematProblem) -> RematProblem:
    """`dropout_chain` with reruns that equal first runs: an op of its own makes the state."""
    embed, wide, cheap, draw, *rest = problem.ops
    values = [replace(value, lazy=False) for value in problem.values]
    keep = Op("keep_state", (), (7,), 0.0)
    again = plain_op("draw", (*draw.inputs, 7), (6,), draw.cost, 4)
    ops = (embed, wide, cheap, keep, again, *rest)
    return replace(problem, ops=ops, values=tuple(values))

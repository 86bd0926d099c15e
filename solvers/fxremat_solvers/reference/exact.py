"""Brute force: the cheapest schedule of a small graph, over all orders and all recomputations.

A* over states (ops run so far, values in memory). Values are dropped late, only when an op
would not fit, and then in every inclusion-minimal way: keeping a value that still fits never
hurts, so no cheaper schedule is missed. A lazy value that an op makes may be dropped at once.
The remaining cost of the ops that have not run is the (consistent) heuristic. Exponential: for
tests, for tiny graphs and at most `MAX_OPS` ops.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from fxremat_solvers.errors import SolverError
from fxremat_solvers.model.problem import Op, RematProblem, Rerun
from fxremat_solvers.model.schedule import Schedule, Solution, Status
from fxremat_solvers.model.simulate import baseline, simulate

MAX_OPS = 14
"""Largest graph that is tried."""

MAX_STATES = 2_000_000
"""Most states expanded, or sets of values looked at, before giving up."""

TINY_OPS = 10
"""Graphs so small that `auto` and the floor leave them to this: about a second, as measured."""

_OFTEN = 1024  # sets between two looks at the clock


def exact(problem: RematProblem, budget_bytes: int, *, time_limit_s: float = math.inf) -> Solution:
    """The optimum under a budget, with `lower_bound` equal to the cost.

    Where no schedule fits, status INFEASIBLE, with a schedule of the smallest peak there is and
    `lower_bound` infinite: no schedule under the budget exists. Raises `SolverError` on graphs
    of more than `MAX_OPS` ops, or where the search grows beyond `MAX_STATES` states or its time.
    """
    if len(problem.ops) > MAX_OPS:
        raise SolverError(
            f"exact search takes at most {MAX_OPS} ops and this problem has {len(problem.ops)}: "
            "use ilp, or auto"
        )
    plain = baseline(problem).ops
    if simulate(problem, plain).peak_bytes <= budget_bytes:
        return _solution(problem, plain, Status.OPTIMAL)
    deadline = time.monotonic() + time_limit_s
    steps = _search(problem, budget_bytes, deadline)
    if steps is not None:
        return _solution(problem, steps, Status.OPTIMAL)
    lowest = least_peak(problem, budget_bytes, deadline=deadline)
    return _solution(problem, lowest, Status.INFEASIBLE)


def _solution(problem: RematProblem, ops: tuple[int, ...], status: Status) -> Solution:
    replay = simulate(problem, ops)
    bound = math.inf if status is Status.INFEASIBLE else replay.cost
    return Solution(Schedule(ops), replay.cost, replay.peak_bytes, bound, status, "exact")


def least_peak(
    problem: RematProblem, too_small: int, *, deadline: float = math.inf
) -> tuple[int, ...]:
    """The cheapest schedule of the smallest peak there is, which is above `too_small`.

    Bisection on the budget between that and the baseline's peak. Errors as `exact`; `deadline` is
    one of `time.monotonic`.
    """
    best = baseline(problem).ops
    low, high = max(too_small, -1), simulate(problem, best).peak_bytes
    while high - low > 1:
        middle = (low + high) // 2
        steps = _search(problem, middle, deadline)
        if steps is None:
            low = middle
        else:
            best, high = steps, simulate(problem, steps).peak_bytes
    return best


def _search(problem: RematProblem, budget_bytes: int, deadline: float) -> tuple[int, ...] | None:
    """A* with dominance: a state is dropped when a no dearer one holds a superset."""
    ops, nbytes = problem.ops, [value.nbytes for value in problem.values]
    counted = ~_mask(problem.inputs)
    lazy = _mask(v for v, value in enumerate(problem.values) if value.lazy)

    def ways(runs: Sequence[Op | Rerun]) -> list[tuple[int, int, int, float]]:
        """What each reads and makes, its workspace and its cost."""
        return [
            (_mask(r.inputs) & counted, _mask(r.outputs), r.workspace_bytes, r.cost) for r in runs
        ]

    first, again = ways(ops), ways(problem.reruns)
    final = _mask(problem.outputs) & counted
    used = final  # what nobody uses is freed at once
    for reads, *_ in (*first, *again):
        used |= reads
    every = (1 << len(ops)) - 1
    start = (0, 0)
    left = math.fsum(op.cost for op in ops)
    # Heap entries: estimate, tie-break, cost so far, ops run, values held.
    heap: list[tuple[float, int, float, int, int]] = [(left, 0, 0.0, 0, 0)]
    paid: dict[tuple[int, int], float] = {start: 0.0}
    came: dict[tuple[int, int], tuple[tuple[int, int], int]] = {}
    settled: dict[int, list[int]] = {}
    pushed = looked_at = 0

    def look(count: int) -> None:
        nonlocal looked_at
        looked_at += count
        if looked_at > MAX_STATES or time.monotonic() > deadline:
            raise SolverError(
                f"exact search passed {MAX_STATES} states or its time: use a smaller graph, or ilp"
            )

    while heap:
        _, _, cost, done, held = heapq.heappop(heap)
        if cost > paid[done, held]:
            continue
        if done == every and held & final == final:
            return _walk(came, (done, held))
        # Settled states with the same ops run cost no more (the heuristic is the same).
        others = settled.setdefault(done, [])
        if any(held & ~other == 0 for other in others):
            continue
        others.append(held)
        look(1)
        for k, op in enumerate(ops):
            reads, makes, workspace, price = again[k] if done >> k & 1 else first[k]
            if reads & ~held or (done >> k & 1 and not op.recomputable):
                continue
            spent = cost + price
            needed = reads | (makes & ~lazy)
            free = (held & ~makes | makes & lazy & used) & ~needed
            room = budget_bytes - workspace - _bytes(needed, nbytes)
            if room < 0:
                continue
            for rest in _maximal(free, room, nbytes, look):
                state = (done | 1 << k, (rest | needed) & used)
                if spent < paid.get(state, math.inf):
                    paid[state] = spent
                    came[state] = ((done, held), k)
                    pushed += 1
                    undone = math.fsum(o.cost for i, o in enumerate(ops) if not state[0] >> i & 1)
                    heapq.heappush(heap, (spent + undone, pushed, spent, *state))
    return None


def _maximal(
    values: int, room: int, nbytes: list[int], look: Callable[[int], None]
) -> Iterator[int]:
    """The inclusion-maximal subsets of `values` that fit in `room` bytes."""
    if _bytes(values, nbytes) <= room:
        yield values
        return
    members = [k for k in range(values.bit_length()) if values >> k & 1]
    for subset in range((1 << len(members)) - 1):
        if subset % _OFTEN == 0:
            look(min(_OFTEN, 1 << len(members)))
        chosen = _mask(members[i] for i in range(len(members)) if subset >> i & 1)
        spare = room - _bytes(chosen, nbytes)
        if spare >= 0 and all(nbytes[k] > spare for k in members if not chosen >> k & 1):
            yield chosen


def _mask(members: Iterable[int]) -> int:
    mask = 0
    for member in members:
        mask |= 1 << member
    return mask


def _bytes(mask: int, nbytes: list[int]) -> int:
    total = 0
    while mask:
        low = mask & -mask
        total += nbytes[low.bit_length() - 1]
        mask ^= low
    return total


def _walk(
    came: dict[tuple[int, int], tuple[tuple[int, int], int]], state: tuple[int, int]
) -> tuple[int, ...]:
    steps: list[int] = []
    while state in came:
        state, op = came[state]
        steps.append(op)
    return tuple(reversed(steps))

"""The walk of lookahead eviction (`greedy`), compiled by numba.

All functions work on the flat arrays of a `Walk`. A walk over the joint graph of a GPT-2 (472 ops)
takes a hundredth of a second; interpreted, without numba, a quarter to a whole one.
"""

# numba has no types
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Iterable, MutableSequence, Sequence
from typing import Any, NamedTuple

import numpy as np

from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.rows import rows_of
from fxremat_solvers.search.kernel_jit import compiled, part

_NEVER = 1 << 60
_KEPT = 1e300  # the score of what can't go: above every other
_LONGEST = 8  # schedules of more runs an op are not worth going on with

Numbers = MutableSequence[int]


class Walk(NamedTuple):
    """The problem, the state of a walk and its scratch space.

    Row r (`rows`) reads the values arcs[reads[r]:makes[r]] and makes arcs[makes[r]:reads[r + 1]].
    Op i first runs in row i, then in row rerun[i]. The ops whose first runs read value v are
    readers[reader_at[v]:reader_at[v + 1]], in order; those whose reruns do lie in `rereaders`.
    A lazy value counts from its computation on, read or not: schedules take no more than that.
    """

    reads: Sequence[int]
    makes: Sequence[int]
    arcs: Sequence[int]
    rerun: Sequence[int]
    cost: Sequence[float]
    workspace: Sequence[int]
    remade: Sequence[int]  # can the value be made again?
    producer: Sequence[int]  # an op
    nbytes: Sequence[int]
    evictable: Sequence[int]
    is_output: Sequence[int]
    reader_at: Sequence[int]
    readers: Sequence[int]
    rereader_at: Sequence[int]
    rereaders: Sequence[int]
    exponents: Sequence[float]  # of cost, bytes and distance
    weight: Sequence[float]  # factor of the score for bytes
    # the state
    resident: Numbers
    pins: Numbers
    steps: Numbers
    totals: Numbers  # number of steps, bytes live, the last stamp given
    # scratch
    next_use: Numbers
    score: MutableSequence[float]
    alone: MutableSequence[float]  # `again` where nothing that the producer reads is missing
    again: MutableSequence[float]  # factor of the score for bringing back, or a bound below it
    exact: Numbers  # is `again` the factor?
    candidates: Numbers
    op_stamp: Numbers
    value_stamp: Numbers
    stack: Numbers
    plan: Numbers


def walk_of(problem: RematProblem, exponents: tuple[float, float, float]) -> Walk:
    """The start of a walk: only the problem's inputs are resident."""
    reads: list[int] = [0]
    makes: list[int] = []
    arcs: list[int] = []
    rows = rows_of(problem)
    for run in rows.runs:
        arcs += dict.fromkeys(run.inputs)
        makes.append(len(arcs))
        arcs += run.outputs
        reads.append(len(arcs))
    n_ops, n_values = len(problem.ops), len(problem.values)
    outputs, inputs = set(problem.outputs), set(problem.inputs)
    nbytes = [value.nbytes for value in problem.values]

    def ints(numbers: Iterable[int]) -> Any:
        return np.array(list(numbers), np.int64)

    def zeros(n: int = n_values, kind: type = np.int64) -> Any:
        return np.zeros(n, kind)

    of_problem: list[Any] = [
        *map(ints, (reads, makes, arcs, rows.again)),
        np.array([run.cost for run in rows.runs], np.float64),
        ints(run.workspace_bytes for run in rows.runs),
        *map(ints, (problem.remade, problem.producer, nbytes)),
        # Values without bytes cost nothing to keep: like the problem's inputs they stay.
        ints(made >= 0 and size > 0 for made, size in zip(problem.producer, nbytes, strict=True)),
        ints(v in outputs for v in range(n_values)),
        *map(ints, (*_flat(problem.consumers), *_flat(problem.rerun_consumers))),
        np.array(exponents, np.float64),
        np.array([float(size) ** exponents[1] for size in nbytes], np.float64),
    ]
    return Walk(
        *of_problem,
        resident=ints(v in inputs for v in range(n_values)),
        pins=zeros(),
        steps=zeros(_LONGEST * n_ops),
        totals=zeros(3),
        next_use=zeros(),
        score=zeros(kind=np.float64),
        alone=zeros(kind=np.float64),
        again=zeros(kind=np.float64),
        exact=zeros(),
        candidates=zeros(),
        op_stamp=zeros(n_ops),
        value_stamp=zeros(),
        stack=zeros(len(arcs) + n_ops + n_values + 1),
        plan=zeros(n_ops),
    )


def _flat(lists: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Lists one behind the other: where each begins, then the end; and what is in them."""
    starts, items = [0], list[int]()
    for some in lists:
        items += some
        starts.append(len(items))
    return starts, items


@compiled
def run(w: Walk, budget: int, tiny: float) -> bool:
    """Walk the whole program; `w.steps` then holds the schedule, `w.totals[0]` its length.

    False where the schedule would be longer than `_LONGEST` runs an op.
    """
    n_ops = len(w.rerun)
    for value in range(len(w.producer)):
        w.next_use[value] = _next_use(w, value, 0)
        if w.producer[value] >= 0:
            w.alone[value] = _alone(w, value, tiny)
            w.again[value] = w.alone[value]
    for op in range(n_ops):
        if not _execute(w, op, op, budget, tiny):
            return False
        for i in range(w.reads[op], w.makes[op]):
            w.next_use[w.arcs[i]] = _next_use(w, w.arcs[i], op + 1)
    for value in range(len(w.producer)):
        missing = w.is_output[value] and not w.resident[value]
        if missing and not _execute(w, w.producer[value], n_ops, budget, tiny):
            return False
    return True


@part
def _execute(w: Walk, op: int, now: int, budget: int, tiny: float) -> bool:
    """Run an op, what its missing inputs need before it. False: the schedule is full.

    It is its first run if it is the program's turn (`now`).
    """
    n = _missing_ops(w, op, now)
    if w.totals[0] + n > len(w.steps):
        return False
    for k in range(n):
        row = _row(w, w.plan[k], now)
        for i in range(w.reads[row], w.makes[row]):
            w.pins[w.arcs[i]] += 1
    for k in range(n):
        step = w.plan[k]
        row = _row(w, step, now)
        fresh = w.workspace[row]
        for i in range(w.makes[row], w.reads[row + 1]):
            if not w.resident[w.arcs[i]]:
                fresh += w.nbytes[w.arcs[i]]
        if w.totals[1] + fresh > budget:
            # What is being made must stay, as what is about to be read must.
            for i in range(w.makes[row], w.reads[row + 1]):
                w.pins[w.arcs[i]] += 1
            _make_room(w, fresh, now, budget, tiny)
            for i in range(w.makes[row], w.reads[row + 1]):
                w.pins[w.arcs[i]] -= 1
        w.steps[w.totals[0]] = step
        w.totals[0] += 1
        came_back = False
        for i in range(w.makes[row], w.reads[row + 1]):
            value = w.arcs[i]
            if not w.resident[value]:
                w.resident[value] = 1
                w.totals[1] += w.nbytes[value]
                if step < now:
                    _outdate(w, value, now, True)
                    came_back = True
        if came_back:
            _not_wanted_for(w, step, now)
        for i in range(w.reads[row], w.makes[row]):
            w.pins[w.arcs[i]] -= 1
    return True


@part
def _row(w: Walk, op: int, now: int) -> int:
    """The row in which an op runs: its first run is at the program's turn, others are not."""
    return op if op == now else int(w.rerun[op])


@part
def _missing_ops(w: Walk, op: int, now: int) -> int:
    """Into `w.plan`: the ops that bring an op's missing inputs back, depth first, then the op."""
    w.totals[2] += 1
    stamp = w.totals[2]
    n, top = 0, 0
    w.stack[0] = op
    while top >= 0:
        op = w.stack[top]
        top -= 1
        if op < 0:
            op = -1 - op
            if w.op_stamp[op] != stamp:
                w.op_stamp[op] = stamp
                w.plan[n] = op
                n += 1
            continue
        if w.op_stamp[op] == stamp:
            continue
        top += 1
        w.stack[top] = -1 - op
        row = _row(w, op, now)
        for i in range(w.makes[row] - 1, w.reads[row] - 1, -1):
            value = w.arcs[i]
            if not w.resident[value] and w.op_stamp[w.producer[value]] != stamp:
                top += 1
                w.stack[top] = w.producer[value]
    return n


@part
def _make_room(w: Walk, wanted: int, now: int, budget: int, tiny: float) -> None:
    """Drop what scores least until there is room, as far as anything may go.

    Dropping a value only raises the scores of others. So a score is a bound below what it would be
    now, and only of the value that comes out least it has to be known exactly.
    """
    n = 0
    for value in range(len(w.producer)):
        if w.resident[value] and w.evictable[value] and not w.pins[value]:
            w.candidates[n] = value
            n += 1
            w.score[value] = _score(w, value, now)
    while w.totals[1] + wanted > budget and n:
        chosen = 0
        for k in range(1, n):
            value, least = w.candidates[k], w.candidates[chosen]
            if w.score[value] < w.score[least] or (
                w.score[value] == w.score[least] and w.nbytes[value] > w.nbytes[least]
            ):
                chosen = k
        value = w.candidates[chosen]
        if w.score[value] >= _KEPT:
            return
        if not w.exact[value]:
            w.again[value] = _bringing_back(w, value, tiny)
            w.exact[value] = 1
        score = _score(w, value, now)
        if score > w.score[value]:
            w.score[value] = score
            continue
        n -= 1
        for k in range(chosen, n):  # in order, so that ties go to the first
            w.candidates[k] = w.candidates[k + 1]
        w.resident[value] = 0
        w.totals[1] -= w.nbytes[value]
        _wanted_for(w, value)
        _outdate(w, value, now, False)


@part
def _next_use(w: Walk, value: int, now: int) -> int:
    """When a value is next read: by the program, or to bring back what was dropped."""
    low, high = w.reader_at[value], w.reader_at[value + 1]
    end = high
    while low < high:
        middle = (low + high) // 2
        if w.readers[middle] < now:
            low = middle + 1
        else:
            high = middle
    when = _NEVER
    if low < end:
        when = w.readers[low]
    elif w.is_output[value]:
        when = len(w.rerun)
    for j in range(w.rereader_at[value], w.rereader_at[value + 1]):
        if w.rereaders[j] >= now:
            break
        row = w.rerun[w.rereaders[j]]
        for i in range(w.makes[row], w.reads[row + 1]):
            if not w.resident[w.arcs[i]]:
                when = min(when, w.next_use[w.arcs[i]])
    return when


@part
def _not_wanted_for(w: Walk, op: int, now: int) -> None:
    """What `op` makes is back: its sources are not wanted for it any more, nor are theirs."""
    w.totals[2] += 1
    stamp = w.totals[2]
    w.op_stamp[op] = stamp
    pending = 1
    while pending:
        if w.op_stamp[op] == stamp:
            pending -= 1
            for i in range(w.reads[w.rerun[op]], w.makes[w.rerun[op]]):
                source = w.arcs[i]
                when = _next_use(w, source, now)
                if when == w.next_use[source]:
                    continue
                w.next_use[source] = when
                maker = w.producer[source]
                if not w.resident[source] and w.op_stamp[maker] != stamp:
                    w.op_stamp[maker] = stamp
                    pending += 1
        op -= 1


@part
def _score(w: Walk, value: int, now: int) -> float:
    """What dropping a value costs for its bytes and for how long they are free; lowest goes."""
    if w.next_use[value] >= _NEVER:
        return 0.0
    if w.again[value] >= _KEPT:
        return _KEPT
    distance = float(max(1, w.next_use[value] - now + 1))
    return w.again[value] / (w.weight[value] * distance ** w.exponents[2])


@part
def _alone(w: Walk, value: int, tiny: float) -> float:
    """The factor for running a value's producer again where that misses nothing."""
    if not w.remade[value]:
        return _KEPT
    return (tiny + (w.cost[w.rerun[w.producer[value]]] + tiny)) ** w.exponents[0]


@part
def _bringing_back(w: Walk, value: int, tiny: float) -> float:
    """The factor for running a value's producer again, with what it then misses."""
    w.totals[2] += 1
    stamp = w.totals[2]
    if not w.remade[value]:
        return _KEPT
    cost = tiny
    top = 0
    w.stack[0] = w.producer[value]
    w.op_stamp[w.producer[value]] = stamp
    while top >= 0:
        op = w.stack[top]
        top -= 1
        row = w.rerun[op]
        cost += w.cost[row] + tiny
        for i in range(w.reads[row], w.makes[row]):
            source = w.arcs[i]
            if w.resident[source]:
                continue
            if not w.remade[source]:
                return _KEPT
            if w.op_stamp[w.producer[source]] != stamp:
                w.op_stamp[w.producer[source]] = stamp
                top += 1
                w.stack[top] = w.producer[source]
    return cost ** w.exponents[0]


@part
def _outdate(w: Walk, changed: int, now: int, is_back: bool) -> None:
    """A value went, or is back: what hangs on it costs more to bring back, or less."""
    w.totals[2] += 1
    stamp = w.totals[2]
    w.value_stamp[changed] = stamp
    top = 0
    w.stack[0] = changed
    while top >= 0:
        value = w.stack[top]
        top -= 1
        for j in range(w.rereader_at[value], w.rereader_at[value + 1]):
            op = w.rereaders[j]
            if op >= now:  # has not run yet, and nothing that hangs on it has
                break
            for i in range(w.makes[w.rerun[op]], w.reads[w.rerun[op] + 1]):
                child = w.arcs[i]
                if w.value_stamp[child] == stamp:
                    continue
                w.value_stamp[child] = stamp
                w.exact[child] = 0
                if is_back:
                    w.again[child] = w.alone[child]
                if not w.resident[child]:
                    top += 1
                    w.stack[top] = child


@part
def _wanted_for(w: Walk, dropped: int) -> None:
    """A value went: its sources are wanted when it is, and the sources of those that are gone."""
    top = 0
    w.stack[0] = w.producer[dropped]
    while top >= 0:
        op = w.stack[top]
        top -= 1
        for i in range(w.reads[w.rerun[op]], w.makes[w.rerun[op]]):
            source = w.arcs[i]
            if w.next_use[dropped] < w.next_use[source]:
                w.next_use[source] = w.next_use[dropped]
                if not w.resident[source]:
                    top += 1
                    w.stack[top] = w.producer[source]

"""The walk of lookahead eviction (`greedy`), compiled by numba where there is numba.

All functions work on the flat arrays of a `Walk`: numpy's when compiled, lists when interpreted.
The code is the same either way, and so is the schedule. Compiled, a walk over the joint graph of a
GPT-2 (472 ops) takes a hundredth of a second, interpreted a quarter to a whole one.
"""

# numba has no types
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import importlib
from collections.abc import Callable, MutableSequence, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fxremat_solvers.problem import RematProblem

_Function = TypeVar("_Function", bound=Callable[..., object])

_jit: Any
try:
    _jit = importlib.import_module("fxremat_solvers.kernel_jit")
except ImportError:
    _jit = None


def _part(function: _Function) -> _Function:
    return function if _jit is None else _jit.part(function)


def _compiled(function: _Function) -> _Function:
    return function if _jit is None else _jit.compiled(function)


_NEVER = 1 << 60
_KEPT = 1e300  # the score of what can't go: above every other
_LONGEST = 8  # schedules of more runs an op are not worth going on with

Numbers = MutableSequence[int]


class Walk(NamedTuple):
    """The problem, the state of a walk and its scratch space.

    Op i reads the values arcs[reads[i]:makes[i]] and makes arcs[makes[i]:reads[i + 1]]; the ops
    that read value v are readers[reader_at[v]:reader_at[v + 1]], in order.
    """

    reads: Sequence[int]
    makes: Sequence[int]
    arcs: Sequence[int]
    cost: Sequence[float]
    workspace: Sequence[int]
    recomputable: Sequence[int]
    producer: Sequence[int]
    nbytes: Sequence[int]
    evictable: Sequence[int]
    is_output: Sequence[int]
    reader_at: Sequence[int]
    readers: Sequence[int]
    exponents: Sequence[float]  # of cost, bytes and distance
    # the state
    resident: Numbers
    pins: Numbers
    steps: Numbers
    totals: Numbers  # number of steps, bytes live, the last stamp given
    # scratch
    next_use: Numbers
    score: MutableSequence[float]
    candidates: Numbers
    op_stamp: Numbers
    value_stamp: Numbers
    touched: Numbers
    stack: Numbers
    plan: Numbers


def walk_of(problem: RematProblem, exponents: tuple[float, float, float]) -> Walk:
    """The start of a walk: only the problem's inputs are resident."""
    reads: list[int] = [0]
    makes: list[int] = []
    arcs: list[int] = []
    for op in problem.ops:
        arcs += dict.fromkeys(op.inputs)
        makes.append(len(arcs))
        arcs += op.outputs
        reads.append(len(arcs))
    reader_at: list[int] = [0]
    readers: list[int] = []
    for consumers in problem.consumers:
        readers += consumers
        reader_at.append(len(readers))
    n_ops, n_values = len(problem.ops), len(problem.values)
    outputs, inputs = set(problem.outputs), set(problem.inputs)
    # Values without bytes cost nothing to keep: like the problem's inputs they are never dropped.
    evictable = [
        int(problem.producer[v] >= 0 and value.nbytes > 0) for v, value in enumerate(problem.values)
    ]

    def array(numbers: list[Any], kind: type) -> Any:
        return numbers if _jit is None or not _jit.AVAILABLE else np.array(numbers, kind)

    return Walk(
        array(reads, np.int64),
        array(makes, np.int64),
        array(arcs, np.int64),
        array([op.cost for op in problem.ops], np.float64),
        array([op.workspace_bytes for op in problem.ops], np.int64),
        array([int(op.recomputable) for op in problem.ops], np.int64),
        array(list(problem.producer), np.int64),
        array([value.nbytes for value in problem.values], np.int64),
        array(evictable, np.int64),
        array([int(v in outputs) for v in range(n_values)], np.int64),
        array(reader_at, np.int64),
        array(readers, np.int64),
        array(list(exponents), np.float64),
        resident=array([int(v in inputs) for v in range(n_values)], np.int64),
        pins=array([0] * n_values, np.int64),
        steps=array([0] * (_LONGEST * n_ops), np.int64),
        totals=array([0, 0, 0], np.int64),
        next_use=array([0] * n_values, np.int64),
        score=array([0.0] * n_values, np.float64),
        candidates=array([0] * n_values, np.int64),
        op_stamp=array([0] * n_ops, np.int64),
        value_stamp=array([0] * n_values, np.int64),
        touched=array([0] * (2 * n_values), np.int64),
        stack=array([0] * (len(arcs) + n_ops + n_values + 1), np.int64),
        plan=array([0] * n_ops, np.int64),
    )


@_compiled
def run(w: Walk, budget: int, tiny: float) -> bool:
    """Walk the whole program; `w.steps` then holds the schedule, `w.totals[0]` its length.

    False where the schedule would be longer than `_LONGEST` runs an op.
    """
    n_ops = len(w.makes)
    for op in range(n_ops):
        if not _execute(w, op, op, budget, tiny):
            return False
    for value in range(len(w.producer)):
        missing = w.is_output[value] and not w.resident[value]
        if missing and not _execute(w, w.producer[value], n_ops, budget, tiny):
            return False
    return True


@_part
def _execute(w: Walk, op: int, now: int, budget: int, tiny: float) -> bool:
    """Run an op, what its missing inputs need before it. False: the schedule is full."""
    n = _missing_ops(w, op)
    if w.totals[0] + n > len(w.steps):
        return False
    for k in range(n):
        for i in range(w.reads[w.plan[k]], w.makes[w.plan[k]]):
            w.pins[w.arcs[i]] += 1
    for k in range(n):
        step = w.plan[k]
        fresh = w.workspace[step]
        for i in range(w.makes[step], w.reads[step + 1]):
            if not w.resident[w.arcs[i]]:
                fresh += w.nbytes[w.arcs[i]]
        if w.totals[1] + fresh > budget:
            # What is being made must stay, as what is about to be read must.
            for i in range(w.makes[step], w.reads[step + 1]):
                w.pins[w.arcs[i]] += 1
            _make_room(w, fresh, now, budget, tiny)
            for i in range(w.makes[step], w.reads[step + 1]):
                w.pins[w.arcs[i]] -= 1
        w.steps[w.totals[0]] = step
        w.totals[0] += 1
        for i in range(w.makes[step], w.reads[step + 1]):
            value = w.arcs[i]
            if not w.resident[value]:
                w.resident[value] = 1
                w.totals[1] += w.nbytes[value]
        for i in range(w.reads[step], w.makes[step]):
            w.pins[w.arcs[i]] -= 1
    return True


@_part
def _missing_ops(w: Walk, op: int) -> int:
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
        for i in range(w.makes[op] - 1, w.reads[op] - 1, -1):
            value = w.arcs[i]
            if not w.resident[value] and w.op_stamp[w.producer[value]] != stamp:
                top += 1
                w.stack[top] = w.producer[value]
    return n


@_part
def _make_room(w: Walk, wanted: int, now: int, budget: int, tiny: float) -> None:
    _next_uses(w, now)
    n = 0
    for value in range(len(w.producer)):
        w.score[value] = -1.0
        if w.resident[value] and w.evictable[value] and not w.pins[value]:
            w.candidates[n] = value
            n += 1
            w.score[value] = _score(w, value, now, tiny)
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
        n -= 1
        for k in range(chosen, n):  # in order, so that ties go to the first
            w.candidates[k] = w.candidates[k + 1]
        w.score[value] = -1.0
        w.resident[value] = 0
        w.totals[1] -= w.nbytes[value]
        _rescore(w, value, now, tiny)


@_part
def _next_uses(w: Walk, now: int) -> None:
    """When each value is next read, by the program or to bring a dropped value back."""
    n_ops = len(w.makes)
    for value in range(len(w.producer)):
        low, high = w.reader_at[value], w.reader_at[value + 1]
        end = high
        while low < high:
            middle = (low + high) // 2
            if w.readers[middle] < now:
                low = middle + 1
            else:
                high = middle
        if low < end:
            w.next_use[value] = w.readers[low]
        elif w.is_output[value]:
            w.next_use[value] = n_ops
        else:
            w.next_use[value] = _NEVER
    for op in range(min(now, n_ops) - 1, -1, -1):
        wanted = _NEVER
        for i in range(w.makes[op], w.reads[op + 1]):
            if not w.resident[w.arcs[i]]:
                wanted = min(wanted, w.next_use[w.arcs[i]])
        if wanted < _NEVER:
            for i in range(w.reads[op], w.makes[op]):
                w.next_use[w.arcs[i]] = min(w.next_use[w.arcs[i]], wanted)


@_part
def _score(w: Walk, value: int, now: int, tiny: float) -> float:
    """What dropping a value costs for its bytes and for how long they are free; lowest goes."""
    if w.next_use[value] >= _NEVER:
        return 0.0
    w.totals[2] += 1
    stamp = w.totals[2]
    cost = tiny
    top = 0
    w.stack[0] = w.producer[value]
    w.op_stamp[w.producer[value]] = stamp
    while top >= 0:
        op = w.stack[top]
        top -= 1
        if not w.recomputable[op]:
            return _KEPT
        cost += w.cost[op] + tiny
        for i in range(w.reads[op], w.makes[op]):
            source = w.arcs[i]
            if not w.resident[source] and w.op_stamp[w.producer[source]] != stamp:
                w.op_stamp[w.producer[source]] = stamp
                top += 1
                w.stack[top] = w.producer[source]
    distance = float(max(1, w.next_use[value] - now + 1))
    return cost ** w.exponents[0] / (
        float(w.nbytes[value]) ** w.exponents[1] * distance ** w.exponents[2]
    )


@_part
def _rescore(w: Walk, dropped: int, now: int, tiny: float) -> None:
    """After dropping a value: its sources are wanted sooner, what hangs on it costs more."""
    w.totals[2] += 1
    stamp = w.totals[2]
    n = 0
    top = 0
    w.stack[0] = w.producer[dropped]
    while top >= 0:
        op = w.stack[top]
        top -= 1
        for i in range(w.reads[op], w.makes[op]):
            source = w.arcs[i]
            if w.next_use[dropped] < w.next_use[source]:
                w.next_use[source] = w.next_use[dropped]
                if w.value_stamp[source] != stamp:
                    w.value_stamp[source] = stamp
                    w.touched[n] = source
                    n += 1
                if not w.resident[source]:
                    top += 1
                    w.stack[top] = w.producer[source]
    # Stamped anew: a source of the dropped value may hang on it too, by another way.
    w.totals[2] += 1
    stamp = w.totals[2]
    w.value_stamp[dropped] = stamp
    top = 0
    w.stack[0] = dropped
    while top >= 0:
        value = w.stack[top]
        top -= 1
        for j in range(w.reader_at[value], w.reader_at[value + 1]):
            op = w.readers[j]
            if op >= now:  # has not run yet, and nothing that hangs on it has
                break
            for i in range(w.makes[op], w.reads[op + 1]):
                child = w.arcs[i]
                if w.value_stamp[child] == stamp:
                    continue
                w.value_stamp[child] = stamp
                if w.score[child] >= 0:
                    w.touched[n] = child
                    n += 1
                elif not w.resident[child]:
                    top += 1
                    w.stack[top] = child
    for k in range(n):
        if w.score[w.touched[k]] >= 0:
            w.score[w.touched[k]] = _score(w, w.touched[k], now, tiny)

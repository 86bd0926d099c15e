"""Plans for unrolled loops of any length: one step is planned, and all steps alike.

Where there is room for the state of every step, each keeps some of its values and recomputes the
others just before its backward part. What to keep is a front of plans for one step with a barrier
between its two parts, from keeping all to keeping the state; most steps follow one of two
neighbours of the front, the earlier ones the smaller of them. Where there is less room states are
kept as in Revolve (`reference.binomial`), and a step is run again from its state, as it is or by a
plan of the lowest peak.

How many steps follow which, and how many states are kept, is found by bisection over replays. So a
plan takes some seconds for a hundred thousand ops; nothing in it grows faster than the graph.

Limits: steps at the ends that look different keep all; states are never dropped for less than a
whole step; the loop is what `repeats` finds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from fxremat_solvers.errors import ScheduleError
from fxremat_solvers.model.incumbent import Candidate, best, by_peak, candidate
from fxremat_solvers.model.problem import Op, RematProblem, Rerun, Value
from fxremat_solvers.model.schedule import Schedule
from fxremat_solvers.model.simulate import baseline, simulate
from fxremat_solvers.model.vectorised_replay import profiler
from fxremat_solvers.reference.binomial import extra_advances, moves
from fxremat_solvers.search.greedy import greedy_candidates
from fxremat_solvers.search.local_search import DEAR, HOT, Search, cheapest, lowest
from fxremat_solvers.search.repeats import Loop, find_loop


@dataclass(frozen=True)
class Tuning:
    """`front`: plans of one step between keeping all and its state. `edits`: of each of them.

    `longest`: runs of a step in a schedule, in numbers of steps: it bounds how few states are kept.
    On the ODE of 48 steps twice the plans or edits change its costs by less than 0.05 points.
    """

    front: int = 8
    edits: int = 20_000
    longest: int = 8


TUNING = Tuning()
METHOD = "unrolled"


@dataclass(frozen=True)
class Pattern:
    """What one step does when its turn comes to go back, and what it holds until then.

    `ops` count from the first op of the step, those of its backward part behind the others.
    """

    ops: tuple[int, ...]
    held_bytes: int
    cost: float


def unrolled(problem: RematProblem, budget_bytes: int) -> list[Candidate]:
    """A plan within the budget, or else that of the lowest peak; none where there is no loop."""
    return _planned(problem, lambda planner: planner.plan(budget_bytes))


def lowest_of_loop(problem: RematProblem) -> list[Candidate]:
    """The plan of the lowest peak, whatever it costs; none where there is no loop."""
    return _planned(problem, lambda planner: planner.revolved(0, planner.lowest_step()))


def _planned(problem: RematProblem, plan: Callable[[_Planner], Candidate]) -> list[Candidate]:
    loop = find_loop(problem)
    if loop is None:
        return []
    try:
        return [plan(_Planner(problem, loop))]
    except ScheduleError:  # the steps only looked alike
        return []


class _Planner:
    def __init__(self, problem: RematProblem, loop: Loop) -> None:
        self.problem, self.loop = problem, loop
        self.replay = profiler(problem)
        self.typical = len(loop.forward) // 2
        shape = self._shape(self.typical)
        self.again = [[k for k in step if problem.ops[k].recomputable] for step in loop.forward]
        self.alike = [self._shape(i) == shape for i in range(len(loop.forward))]

    def plan(self, budget_bytes: int) -> Candidate:
        """The cheapest within the budget of all ways to go, or else the lowest."""
        front = self._front()
        most = (len(front) - 1) * len(self.loop.forward)
        kept = self._first_that_fits(budget_bytes, lambda level: self._kept(front, level), most)
        again = (None, self.lowest_step())
        return best([kept, *(self.revolved(budget_bytes, way) for way in again)], budget_bytes)

    def revolved(self, budget_bytes: int, again: Sequence[int] | None) -> Candidate:
        """The plan that keeps the most states within the budget, or else the fewest."""
        n = len(self.loop.forward)
        counts = range(1, n + 1)
        fewest = next(s for s in counts if extra_advances(n, s) <= TUNING.longest * n)
        plan = partial(self._revolved, again)
        return self._first_that_fits(budget_bytes, lambda left: plan(n - left), n - fewest)

    def _first_that_fits(
        self, budget_bytes: int, plan: Callable[[int], tuple[int, ...]], last: int
    ) -> Candidate:
        """The plan of the first level that fits, or that of the last."""
        low = 0
        while low < last:
            middle = (low + last) // 2
            steps = np.array(plan(middle), dtype=np.int64)
            if self.replay.peak_bytes(steps) <= budget_bytes:
                last = middle
            else:
                low = middle + 1
        return candidate(self.problem, plan(low), METHOD)

    def _shape(self, i: int) -> tuple[int, int]:
        return len(self.loop.forward[i]), len(self.loop.backward[i])

    def _placed(self, i: int, ops: Sequence[int]) -> list[int]:
        """Ops of a pattern as those of step i."""
        forward, backward = self.loop.forward[i], self.loop.backward[i]
        shift = backward.start - len(forward)
        return [forward.start + k if k < len(forward) else shift + k for k in ops]

    def _kept(self, front: Sequence[Pattern], level: int) -> tuple[int, ...]:
        """All steps forward, then back by two neighbours of the front."""
        n, loop = len(self.loop.forward), self.loop
        each, smaller = divmod(level, n)
        ops = list(range(loop.turn.stop))
        for i in range(n - 1, -1, -1):
            pattern = front[each + (i < smaller)]
            ops += self._placed(i, pattern.ops) if self.alike[i] else loop.backward[i]
        return tuple(ops)

    def _revolved(self, again: Sequence[int] | None, slots: int) -> tuple[int, ...]:
        """With some states kept; a step goes back by `again` where it is like the others."""
        loop, last = self.loop, len(self.loop.forward) - 1
        ops: list[int] = []
        reached = 0  # steps that have run
        for low, high in moves(last + 1, slots):
            for i in range(low, high):
                ops += self.again[i] if i < reached else loop.forward[i]
                reached = max(reached, i + 1)
            if low == high == last:
                ops += (*loop.forward[low], *loop.turn, *loop.backward[low])
            elif low == high and again is not None and self.alike[low]:
                ops += self._placed(low, again)
            elif low == high:
                ops += (*self.again[low], *loop.backward[low])
        return tuple(ops)

    def _front(self) -> list[Pattern]:
        """Plans of one step, from what holds the most to the least, each worth its cost."""
        forward, backward = self.loop.forward[self.typical], self.loop.backward[self.typical]
        step, n = _with_barrier(self.problem, forward, backward), len(forward)
        keeps = _pattern(step, n, range(len(step.ops)))
        again = (k for k in range(n) if step.ops[k].recomputable)
        state = _pattern(step, n, (*range(n + 1), *again, *range(n + 1, len(step.ops))))
        spread = keeps.held_bytes - state.held_bytes
        room = step.ops[n].workspace_bytes
        found = [keeps, state]
        for k in range(1, TUNING.front):
            budget = room + state.held_bytes + spread * k // TUNING.front
            starts = greedy_candidates(step, budget)
            plan = cheapest(_search(step), starts, budget, edits=TUNING.edits, runs=2, seed=k)
            found.append(_pattern(step, n, plan.ops))
        return _hull(found)

    def lowest_step(self) -> tuple[int, ...]:
        """One step run again and back with the lowest peak."""
        ops, backward = self.problem.ops, self.loop.backward[self.typical]
        again = self.again[self.typical]
        runs = [_as_first(ops[k], self.problem.reruns[k]) for k in again]
        step = _part(self.problem, [*runs, *(ops[k] for k in backward)], len(runs))
        start = candidate(step, baseline(step).ops, METHOD)
        search, edits = _search(step), 4 * TUNING.edits
        found = [lowest(search, start, recipe, edits=edits, seed=0) for recipe in (HOT, DEAR)]
        forward = self.loop.forward[self.typical]
        place = [k - forward.start for k in again]
        place += range(len(forward), len(forward) + len(backward))
        return tuple(place[op] for op in min(found, key=by_peak).ops)


def _search(problem: RematProblem) -> Search:
    return Search(problem, time.monotonic() + 60.0, threads=1)


def _as_first(op: Op, again: Rerun) -> Op:
    return Op(op.name, again.inputs, again.outputs, again.cost, again.workspace_bytes, (again,))


def _with_barrier(problem: RematProblem, forward: range, backward: range) -> RematProblem:
    """One step, and between its parts an op beside which only what is held then counts.

    It reads what crosses to the next step. All ops behind it run once, and after it.
    """
    made = {x for k in forward for x in problem.ops[k].outputs}
    end = problem.first_backward_op or 0
    reads = (x for x in made if any(forward.stop <= k < end for k in problem.consumers[x]))
    used = {x for k in (*forward, *backward) for x in problem.ops[k].inputs} | made
    room = sum(problem.values[x].nbytes for x in used)
    token = len(problem.values)
    barrier = Op("barrier", tuple(sorted(reads)), (token,), 0.0, room)
    later = (problem.ops[k] for k in backward)
    ops = [problem.ops[k] for k in forward]
    ops += [barrier, *(replace(op, inputs=(*op.inputs, token), reruns=()) for op in later)]
    return _part(problem, ops, 0, (*problem.values, Value("barrier", 0)))


def _part(
    problem: RematProblem, ops: Sequence[Op], first: int, values: Sequence[Value] = ()
) -> RematProblem:
    """Some runs as a problem: what they read from outside are its inputs.

    Its outputs are what those from number `first` on make and others read.
    """
    own = {x for op in ops for x in op.outputs}
    inside = Counter(x for op in ops for x in set(op.inputs))
    kept = set(problem.outputs)
    outputs = [
        x
        for op in ops[first:]
        for x in op.outputs
        if x in kept or (x < len(problem.values) and len(problem.consumers[x]) > inside[x])
    ]
    used = sorted(own | set(inside))
    name = {x: k for k, x in enumerate(used)}

    def named(of: Iterable[int]) -> tuple[int, ...]:
        return tuple(name[x] for x in of)

    return RematProblem(
        ops=tuple(
            replace(
                op,
                inputs=named(op.inputs),
                outputs=named(op.outputs),
                reruns=tuple(
                    replace(again, inputs=named(again.inputs), outputs=named(again.outputs))
                    for again in op.reruns
                ),
            )
            for op in ops
        ),
        values=tuple((values or problem.values)[x] for x in used),
        inputs=named(x for x in used if x not in own),
        outputs=named(outputs),
    )


def _pattern(step: RematProblem, barrier: int, ops: Sequence[int]) -> Pattern:
    replay = simulate(step, Schedule(tuple(ops)))
    place = list(ops).index(barrier)
    behind = tuple(op if op < barrier else op - 1 for op in ops[place + 1 :])
    held = replay.running_bytes[place] - step.ops[barrier].workspace_bytes
    return Pattern(behind, held, replay.cost)


def _hull(patterns: Sequence[Pattern]) -> list[Pattern]:
    """Those on the lower convex hull, from the cheapest on: mixtures of others are no better."""
    hull: list[Pattern] = []
    for new in sorted(patterns, key=lambda p: (-p.held_bytes, p.cost)):
        while hull and new.cost <= hull[-1].cost:
            hull.pop()
        while len(hull) > 1 and _above(hull[-2], hull[-1], new):
            hull.pop()
        hull.append(new)
    return hull


def _above(first: Pattern, middle: Pattern, last: Pattern) -> bool:
    """Whether the middle is no better than a mixture of the others."""
    span = first.held_bytes - last.held_bytes
    along = (first.held_bytes - middle.held_bytes) * (last.cost - first.cost)
    return (middle.cost - first.cost) * span >= along

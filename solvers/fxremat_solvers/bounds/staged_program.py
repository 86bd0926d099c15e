"""Bounds and plans from few stages: the runs between the first runs of a few chosen ops.

Choose ops v_1, ..., v_k, each a strict descendant of the one before (`cost_bound` has the same
positions). Their first runs cut any schedule into stages 0 to k. With whole variables

    runs[u, g]: op u runs in stage g          live[x, j]: value x is live when v_j first runs

every schedule under the budget satisfies, whatever its order within the stages:

    live[x, j] <= live[x, j-1] + runs[maker of x, j-1]
    runs[u, g] <= live[x, g] + runs[maker of x, g]    for every input x of u
    the bytes live at v_j, and those that it takes itself, fit the budget
    u runs before what depends on it, after what it depends on; the outputs are live at the end

and costs at least the sum of cost[u] * runs[u, g]. Where reruns differ cost[u] is that of a rerun:
what is charged for is every run but one. A run in a stage by which its op has surely run is a
rerun; a run that may be either needs what both read.

To these come rows that no whole point needs but that keep HiGHS from splitting a run among stages:
`again[u, j]`, u runs between position j and the next stage in which what it makes is surely read
(then every input is live at j or made in that time). This is the program of Checkmate (Jain et al.
2020) with k stages instead of one for every op and the memory of k moments: tiny, and a bound on
any schedule, as nothing is said of the order within a stage.

Which moments matter is found out: the program's answer, written as a schedule, shows the op of the
chain where memory is over the budget by the most, and that is the next position. Where the schedule
fits it is a plan, the cheapest there is if the program was solved to the end.

What is lost: memory between the positions, and off the chain.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fxremat_solvers.bounds.positions import first_after, last_before
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Schedule
from fxremat_solvers.model.simulate import simulate
from fxremat_solvers.programs.highs import SAFETY_STOP_S, minimise
from fxremat_solvers.programs.program import Writer


@dataclass(frozen=True)
class Tuning:
    """`columns` of the largest program that is tried, and the most `positions`.

    `work`: most columns times steps of branch and bound spent on one program, whose first seconds
    gain the most; one that gets fewer than `steps` isn't begun. The program is scaled by `cost` and
    `nbytes`, the whole costs and the budget, so that absolute tolerances mean nothing; `tolerance`
    is taken off its bound.
    """

    columns: int = 10_000
    positions: int = 8
    work: int = 250_000
    steps: int = 20
    cost: float = 1e5
    nbytes: float = 1e4
    tolerance: float = 0.1


TUNING = Tuning()


@dataclass(frozen=True)
class Staged:
    """What any schedule costs beyond the baseline, at least, and schedules made on the way.

    The schedules can be executed; they may need more than the budget. `positions` is where to go
    on, or None where nothing more can be learnt.
    """

    extra: float
    schedules: tuple[tuple[int, ...], ...] = ()
    positions: tuple[int, ...] | None = None


def by_stages(
    problem: RematProblem,
    budget_bytes: int,
    chain: Sequence[int],
    positions: Sequence[int],
    work: int,
    known: float = 0.0,
    worth: float = -math.inf,
    deadline: float = math.inf,
) -> Staged:
    """Solve the program with some positions of a chain of ops, then with more and more of them.

    `work`: columns times steps of branch and bound, in all. A program that adds less than `worth`
    to the bound `known` is the last one. `deadline`: of `time.monotonic`, a safety stop.
    """
    chosen = tuple(positions)
    extra = known
    schedules: list[tuple[int, ...]] = []
    while len(chosen) <= TUNING.positions:
        stages = _Stages(problem, [chain[i] for i in chosen], budget_bytes)
        size = len(stages.writer.cost)
        if size > TUNING.columns:
            break
        steps = min(work, TUNING.work) // size
        left_s = deadline - time.monotonic()
        if steps < TUNING.steps or left_s <= 0:
            return Staged(extra, tuple(schedules), chosen)
        answer = minimise(stages.writer.program(), steps, min(left_s, SAFETY_STOP_S))
        work -= answer.steps * size
        above = (answer.bound - stages.once - TUNING.tolerance) / TUNING.cost * problem.cost_scale
        gained, extra = above - extra, max(extra, above)
        if answer.point is None:
            break
        ops = stages.schedule([value > 0.5 for value in answer.point])
        schedules.append(ops)
        worst = _worst(problem, ops, chain, chosen, budget_bytes)
        if worst is None or gained < worth:
            break
        chosen = tuple(sorted([*chosen, worst]))
    return Staged(extra, tuple(schedules), None)


def _worst(
    problem: RematProblem,
    ops: tuple[int, ...],
    chain: Sequence[int],
    chosen: Sequence[int],
    budget_bytes: int,
) -> int | None:
    """The position whose first run is over the budget by the most; None where none is."""
    running = simulate(problem, Schedule(ops)).running_bytes
    first: dict[int, int] = {}
    for step, op in enumerate(ops):
        first.setdefault(op, running[step])
    rest = [i for i in range(len(chain)) if i not in chosen and first[chain[i]] > budget_bytes]
    return max(rest, key=lambda i: (first[chain[i]], -i), default=None)


class _Stages:
    """The program over some positions. Stage g lies between position g and position g + 1."""

    def __init__(self, problem: RematProblem, chain: Sequence[int], budget_bytes: int) -> None:
        self.problem = problem
        self.chain = chain
        self.budget_bytes = budget_bytes
        self.runs: dict[tuple[int, int], int] = {}
        self.live: dict[tuple[int, int], int] = {}
        self.writer = Writer()
        self.once = 0.0  # what the first run of every op costs
        # For each op the last position that it always runs after, or is, and the first it runs by.
        self.after = last_before(problem, chain)
        for j, v in enumerate(chain, 1):
            self.after[v] = j
        self.by = first_after(problem, chain)
        self.read_in = self._sure_reads()
        self._columns()
        self._values()
        self._ops()
        self._again()
        self._memory()

    def _sure_reads(self) -> list[list[int]]:
        """For each value the stages in which it is read for certain."""
        outputs = set(self.problem.outputs)
        reads: list[list[int]] = []
        for x, readers in enumerate(self.problem.consumers):
            # An op at a position reads at the end of the stage before.
            at_position = {self.after[w] - 1 for w in readers if w in self.chain}
            others = [w for w in readers if w not in self.chain]
            within = {self.after[w] for w in others if self.by[w] == self.after[w] + 1}
            at_end = {len(self.chain)} if x in outputs else set[int]()
            reads.append(sorted(at_position | within | at_end))
        return reads

    def _columns(self) -> None:
        problem, k = self.problem, len(self.chain)
        scale = TUNING.cost / problem.cost_scale
        for u, op in enumerate(problem.ops):
            # Less only for what runs once.
            cost = min(problem.reruns[u].cost, problem.cost_scale) * scale
            self.once += cost
            for g in range(self.after[u], k + 1):
                if op.recomputable or g < self.by[u]:
                    at_position = g > 0 and self.chain[g - 1] == u
                    self.runs[u, g] = self.writer.column(cost, float(at_position))
        for x, u in enumerate(problem.producer):
            if u >= 0:
                for j in range(self.after[u] + 1, k + 1):
                    read = x in problem.ops[self.chain[j - 1]].inputs
                    self.live[x, j] = self.writer.column(0.0, float(read))

    def _values(self) -> None:
        """What is live at a position was so at the one before or has been made since."""
        problem, k = self.problem, len(self.chain)
        outputs = set(problem.outputs)
        for x, u in enumerate(problem.producer):
            if u < 0:
                continue
            for j in range(self.after[u] + 1, k + 1):
                before, made = self.live.get((x, j - 1)), self._makes(x, j - 1)
                self.writer.row([(self.live[x, j], -1.0), (before, 1.0), (made, 1.0)], 0.0)
            if x in outputs:
                self.writer.row([(self.live.get((x, k)), 1.0), (self._makes(x, k), 1.0)], 1.0)

    def _makes(self, x: int, g: int) -> int | None:
        """The run in stage g that makes a value, if one can."""
        u = self.problem.producer[x]
        return self.runs.get((u, g)) if self.problem.remade[x] or g < self.by[u] else None

    def _reads(self, u: int, g: int) -> tuple[int, ...]:
        """What a run of op u in stage g is sure to read, each once."""
        first, again = self.problem.ops[u].inputs, self.problem.reruns[u].inputs
        if g == self.after[u] or u not in self.problem.differing:
            return tuple(dict.fromkeys(first))
        if g >= self.by[u]:
            return tuple(dict.fromkeys(again))
        return tuple(x for x in dict.fromkeys(first) if x in again)

    def _ops(self) -> None:
        """Every op runs in time, and where it runs its inputs are live or made."""
        problem = self.problem
        for u, op in enumerate(problem.ops):
            stages = [g for g in range(self.after[u], len(self.chain) + 1) if (u, g) in self.runs]
            in_time = [(self.runs[u, g], 1.0) for g in stages if g < self.by[u]]
            self.writer.row(in_time, 1.0)
            if not op.recomputable:
                self.writer.row([(column, -1.0) for column, _ in in_time], -1.0)
            for g in stages:
                for x in self._reads(u, g):
                    if problem.producer[x] >= 0:
                        there = self.live.get((x, g)), self._makes(x, g)
                        ways = [(column, 1.0) for column in there]
                        self.writer.row([(self.runs[u, g], -1.0), *ways], 0.0)

    def _again(self) -> None:
        """Rows that tie together runs in several stages."""
        problem, k = self.problem, len(self.chain)
        again: dict[tuple[int, int], int] = {}
        until: dict[tuple[int, int], int] = {}
        for u, run in enumerate(problem.reruns):
            reads = sorted({g for x in run.outputs for g in self.read_in[x]})
            for j in range(max(self.after[u] + 1, self.by[u]), k + 1):
                until[u, j] = next((g for g in reads if g >= j), k)
                again[u, j] = self.writer.column()
                self.writer.row([(again[u, j], -1.0), *self._runs_within(u, j, until[u, j])], 0.0)
        for (x, j), live in self.live.items():
            u = problem.producer[x]
            read = next((g for g in self.read_in[x] if g >= j), None)
            if u in problem.differing and not problem.remade[x]:
                if (u, j) in again and read is not None:
                    self.writer.row([(live, 1.0)], 1.0)
            elif (u, j) in again and read == until[u, j]:
                self.writer.row([(live, 1.0), (again[u, j], 1.0)], 1.0)
        for (u, j), column in again.items():
            for x in dict.fromkeys(problem.reruns[u].inputs):
                maker, live = problem.producer[x], self.live.get((x, j))
                if live is None:
                    continue
                if not problem.remade[x] and maker in problem.differing:
                    stages = range(j, min(until[u, j] + 1, self.by[maker]))
                    made = [(self.runs.get((maker, g)), 1.0) for g in stages]
                elif (maker, j) in again and until[maker, j] >= until[u, j]:
                    made = [(again[maker, j], 1.0)]
                else:
                    made = self._runs_within(maker, j, until[u, j])
                self.writer.row([(column, -1.0), (live, 1.0), *made], 0.0)

    def _runs_within(self, u: int, first: int, last: int) -> list[tuple[int | None, float]]:
        return [(self.runs.get((u, g)), 1.0) for g in range(first, last + 1)]

    def _memory(self) -> None:
        problem = self.problem
        counted = problem.counted_bytes
        scale = TUNING.nbytes / max(self.budget_bytes, 1)
        for j, v in enumerate(self.chain, 1):
            own = problem.own_values(v)
            room = self.budget_bytes - problem.own_bytes[v]
            others = [x for x in range(len(counted)) if counted[x] and x not in own]
            held = [(self.live.get((x, j)), -scale * counted[x]) for x in others]
            self.writer.row(held, -scale * room)

    def schedule(self, on: Sequence[bool]) -> tuple[int, ...]:
        """A point of the program as a schedule: each stage in the baseline's order.

        What is made again comes just before the first op of the stage that reads it.
        """
        ops: list[int] = []
        done: set[int] = set()
        for g in range(len(self.chain) + 1):
            due = {u for (u, stage), column in self.runs.items() if stage == g and on[column]}
            # What a first run before its time needed has run by now.
            due = {u for u in due if u not in done or self.problem.ops[u].recomputable}
            held = {x for (x, j), column in self.live.items() if j == g and on[column]}
            first = [u for u in sorted(due) if u not in done]
            position = [self.chain[g - 1]] if g else []
            ops += self._in_order([*position, *first, *sorted(due)], due, held, done)
            done.update(ops)
        return tuple(ops)

    def _in_order(
        self, wanted: Sequence[int], due: set[int], live: set[int], done: set[int]
    ) -> list[int]:
        """The ops of a stage, each after those of the stage that it needs."""
        problem = self.problem
        order: list[int] = []
        placed: set[int] = set()
        stack = list(reversed(wanted))
        while stack:
            u = stack[-1]
            run = problem.reruns[u] if u in done else problem.ops[u]
            needs = [problem.producer[x] for x in run.inputs if x not in live]
            missing = [m for m in needs if m >= 0 and (m in due or m not in done)]
            missing = [m for m in missing if m not in placed and m != u]
            if u in placed or not missing:
                stack.pop()
                if u not in placed:
                    placed.add(u)
                    order.append(u)
            else:
                stack.extend(reversed(missing))
        return order

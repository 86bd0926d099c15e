"""The retention formulation: a mixed-integer program over what is held and what is recomputed.

The first runs of the ops follow the baseline order; *stage* t is the time from after the first
run of op t-1 to the end of the first run of op t. In stage t some earlier ops may be recomputed,
in baseline order and at most once each per stage, before op t runs. For every value the stages in
which it may be made or read (its *events*) cut time into gaps, and one variable per gap says
whether the value is held across it: the retention intervals of Moccasin (Bartan et al., ICML
2023), in the staged time of Checkmate (Jain et al., MLSys 2020). Memory is followed exactly from
step to step, the way `simulate` does: outputs are allocated while inputs are live, workspace
counts while the op runs, and a value is freed after its last use in the stage unless it is held.

Only the recomputations are integer: with them fixed, the least feasible holds are integral.

Limits: the order of the first runs is fixed, and no op is recomputed twice in one stage, so the
optimum of this program is not a lower bound on schedules in general.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fxremat_solvers.model.problem import Op, RematProblem, Rerun
from fxremat_solvers.programs.program import Program, Writer


@dataclass(frozen=True)
class RetentionClass:
    """Which schedules a program may choose from.

    `hops` bounds the chains of recomputations in one stage (None: no bound), `early` allows an op
    to be recomputed in a stage that does not read it, `backward_only` confines recomputation to
    stages of the backward part, `max_recomputations` bounds it per op (None: no bound).
    """

    hops: int | None
    early: bool
    backward_only: bool
    max_recomputations: int | None

    def __str__(self) -> str:
        times = (
            "any number of times"
            if self.max_recomputations is None
            else f"at most {self.max_recomputations} times"
        )
        return (
            f"first runs in baseline order; each op recomputed {times}, at most once per stage, "
            f"{'in backward' if self.backward_only else 'anywhere'}, "
            f"{'at any stage' if self.early else 'in stages that read it'}, "
            f"chains of {'any length' if self.hops is None else f'up to {self.hops}'}"
        )


Candidates = tuple[tuple[int, ...], ...]
"""For each op the stages in which it may be recomputed, ascending."""


@dataclass(frozen=True)
class RetentionModel:
    """The program; `recompute[op, stage]` are its whole columns."""

    program: Program
    recompute: dict[tuple[int, int], int]
    cost_per_unit: float


def candidates(problem: RematProblem, allowed: RetentionClass, cap: int) -> Candidates | None:
    """The (op, stage) pairs that can be useful in a class; None when there are more than `cap`.

    A recomputation is useful in a stage that reads it: the stage's own op, or another candidate
    of the same stage. A stage right after the value's birth or with nothing to relieve is not.
    """
    ops, producer = problem.ops, problem.producer
    n = len(ops)
    first = problem.first_backward_op
    start = first if allowed.backward_only and first is not None else 0
    per_op: list[list[int]] = [[] for _ in range(n)]
    total = 0
    for stage in range(start, n):
        depth = {stage: 0}
        queue = [stage]
        for reader in queue:
            if allowed.hops is not None and depth[reader] >= allowed.hops:
                continue
            for value in ops[stage].inputs if reader == stage else problem.reruns[reader].inputs:
                maker = producer[value]
                if maker < 0 or maker in depth or not problem.remade[value]:
                    continue
                if allowed.backward_only and first is not None and maker >= first:
                    continue
                # Recomputing the op that has just run relieves nothing.
                if maker == stage - 1:
                    continue
                depth[maker] = depth[reader] + 1
                queue.append(maker)
        for maker in queue[1:]:
            per_op[maker].append(stage)
        total += len(queue) - 1
        if total > cap:
            return None
    if allowed.early:
        for maker, stages in enumerate(per_op):
            if stages:
                per_op[maker] = list(range(maker + 2, stages[-1] + 1))
        if sum(map(len, per_op)) > cap:
            return None
    return tuple(map(tuple, per_op))


def stages_of(schedule: Iterable[int], n_ops: int) -> set[tuple[int, int]]:
    """The (op, stage) pairs of a schedule whose first runs are in baseline order."""
    seen = bytearray(n_ops)
    stage = 0
    pairs: set[tuple[int, int]] = set()
    for op in schedule:
        if seen[op]:
            pairs.add((op, stage))
        else:
            seen[op] = 1
            stage = op + 1
    return {(op, t) for op, t in pairs if t < n_ops}


def build(
    problem: RematProblem,
    budget_bytes: int,
    per_op: Candidates,
    max_recomputations: int | None,
    least_extra: float = 0.0,
) -> RetentionModel:
    """Write the program down.

    `least_extra` is a known lower bound on the cost beyond the baseline, stated as a constraint.
    """
    return _Builder(problem, budget_bytes, per_op, max_recomputations).build(least_extra)


@dataclass
class _Level:
    """An affine level in [0, 1]: a column (or none) plus a constant."""

    column: int | None
    constant: float = 0.0


class _Builder:
    def __init__(
        self,
        problem: RematProblem,
        budget_bytes: int,
        per_op: Candidates,
        max_recomputations: int | None,
    ) -> None:
        self.problem = problem
        self.per_op = per_op
        self.max_recomputations = max_recomputations
        self.writer = Writer()
        sizes = [v.nbytes for v in problem.values]
        sizes += [run.workspace_bytes for run in (*problem.ops, *problem.reruns)]
        # Bytes in units of their common divisor: small integers keep the solver's absolute
        # tolerance far below the smallest real violation.
        divisor = math.gcd(*sizes) or 1
        scale = float(divisor)
        budget_units = budget_bytes // divisor
        if budget_units > 1_000_000:
            scale *= budget_units / 100_000
        self.scale = scale
        self.budget = budget_units * divisor / scale
        self.size = [v.nbytes / scale for v in problem.values]
        for value in problem.inputs:
            self.size[value] = 0.0
        # What steps add to their running memory for lazy values, beside their other outputs.
        self.lazily: dict[tuple[int, int], list[tuple[float, _Level]]] = {}
        # Costs may be microseconds: scaled so that solvers' absolute tolerances mean nothing.
        total = problem.cost_scale
        self.cost_scale = 1e5 / total if total > 0 else 1.0
        self.recompute: dict[tuple[int, int], int] = {}

    def column(self, upper: float = 1.0) -> int:
        return self.writer.column(high=upper, whole=False)

    def row(
        self, terms: Iterable[tuple[float, _Level | int]], low: float, high: float = math.inf
    ) -> None:
        """Add low <= sum of factor x level <= high, folding constants into the limits."""
        coefficients: dict[int, float] = {}
        constant = 0.0
        for factor, level in terms:
            if isinstance(level, int):
                coefficients[level] = coefficients.get(level, 0.0) + factor
                continue
            constant += factor * level.constant
            if level.column is not None:
                coefficients[level.column] = coefficients.get(level.column, 0.0) + factor
        coefficients = {c: f for c, f in coefficients.items() if f}
        # One without columns that can't hold stays, for the solver to see the contradiction.
        if coefficients or not low - 1e-9 <= constant <= high + 1e-9:
            self.writer.row(coefficients.items(), low - constant, high - constant)

    def build(self, least_extra: float) -> RetentionModel:
        problem, n = self.problem, len(self.problem.ops)
        in_stage: list[list[int]] = [[] for _ in range(n)]
        for op, stages in enumerate(self.per_op):
            cost = problem.reruns[op].cost * self.cost_scale
            for stage in stages:
                self.recompute[op, stage] = self.writer.column(cost)
                in_stage[stage].append(op)
            if self.max_recomputations is not None and len(stages) > self.max_recomputations:
                self.row(
                    [(1.0, self.recompute[op, s]) for s in stages],
                    -math.inf,
                    self.max_recomputations,
                )
        if least_extra > 0:
            # A hair less than the bound, for the solver's tolerances.
            self.row(
                [(self.writer.cost[k], k) for k in self.recompute.values()],
                least_extra * self.cost_scale * (1 - 1e-6),
            )
        self.memory(in_stage, self.values(in_stage))
        return RetentionModel(self.writer.program(), self.recompute, 1.0 / self.cost_scale)

    def values(
        self, in_stage: list[list[int]]
    ) -> dict[tuple[int, int], list[tuple[float, _Level]]]:
        """Holds and their constraints; how resident memory changes after each (stage, step)."""
        problem = self.problem
        outputs = set(problem.outputs)
        changes: dict[tuple[int, int], list[tuple[float, _Level]]] = {}
        readers_in: list[dict[int, list[int]]] = [{} for _ in problem.values]
        for stage, extra in enumerate(in_stage):
            for step in (*extra, stage):
                for value in dict.fromkeys(self.run(stage, step).inputs):
                    readers_in[value].setdefault(stage, []).append(step)

        def change(stage: int, step: int, factor: float, level: _Level) -> None:
            if factor:
                changes.setdefault((stage, step), []).append((factor, level))

        for value, maker in enumerate(problem.producer):
            if maker < 0:
                continue
            size = self.size[value]
            remade = problem.remade[value]
            events = sorted({*readers_in[value], *(self.per_op[maker] if remade else ())})
            last = _Level(None, 1.0 if value in outputs else 0.0)
            hold = last if not events else _Level(self.column())
            change(maker, maker, size, hold)
            if problem.values[value].lazy:
                self.lazily.setdefault((maker, maker), []).append((size, hold))
            for k, stage in enumerate(events):
                after = last if k == len(events) - 1 else _Level(self.column())
                made = self.recompute.get((maker, stage)) if remade else None
                readers = readers_in[value].get(stage, [])
                arriving: list[tuple[float, _Level | int]] = [(1.0, hold)]
                if made is not None:
                    arriving.append((1.0, made))
                    # Recomputing what is still held would only waste the hold.
                    self.row(arriving, -math.inf, 1.0)
                self.row([*arriving, (-1.0, after)], 0.0)
                levels = self.levels(stage, readers, after)
                for reader in readers:
                    self.row([*arriving, (-1.0, self.need(stage, reader))], 0.0)
                if made is not None:
                    change(stage, maker, size, levels[0])
                    change(stage, maker, -size, hold)
                    if problem.values[value].lazy:  # where it is made it was not held
                        self.lazily.setdefault((stage, maker), []).extend(
                            [(size, levels[0]), (-size, hold)]
                        )
                else:
                    levels[0] = hold
                for reader, before, then in zip(readers, levels, levels[1:], strict=False):
                    change(stage, reader, -size, before)
                    change(stage, reader, size, then)
                hold = after
        return changes

    def run(self, stage: int, step: int) -> Op | Rerun:
        """What an op does in a stage: the stage's own runs for the first time."""
        return self.problem.ops[step] if step == stage else self.problem.reruns[step]

    def need(self, stage: int, reader: int) -> _Level:
        if reader == stage:
            return _Level(None, 1.0)
        return _Level(self.recompute[reader, stage])

    def levels(self, stage: int, readers: list[int], after: _Level) -> list[_Level]:
        """How much of a value is live before each reader of a stage, and after the last."""
        levels = [after]
        for reader in reversed(readers):
            need = self.need(stage, reader)
            behind = levels[0]
            if need.constant == 1.0 or behind.constant == 1.0:
                levels.insert(0, _Level(None, 1.0))
            elif behind.column is None:
                levels.insert(0, need)
            else:
                level = _Level(self.column())
                self.row([(1.0, level), (-1.0, need)], 0.0)
                self.row([(1.0, level), (-1.0, behind)], 0.0)
                levels.insert(0, level)
        return levels

    def memory(
        self,
        in_stage: list[list[int]],
        changes: dict[tuple[int, int], list[tuple[float, _Level]]],
    ) -> None:
        problem = self.problem
        resident: _Level = _Level(None, 0.0)
        for stage, extra in enumerate(in_stage):
            for step in (*extra, stage):
                run = self.run(stage, step)
                made = (v for v in run.outputs if not problem.values[v].lazy)
                footprint = run.workspace_bytes / self.scale + sum(self.size[v] for v in made)
                running: list[tuple[float, _Level | int]] = [
                    (1.0, resident),
                    (footprint, self.need(stage, step)),
                    *self.lazily.get((stage, step), []),
                ]
                self.row(running, -math.inf, self.budget)
                moves = changes.get((stage, step))
                if not moves:
                    continue
                following = _Level(self.column(self.budget))
                self.row([(1.0, following), (-1.0, resident), *((-f, x) for f, x in moves)], 0, 0)
                resident = following

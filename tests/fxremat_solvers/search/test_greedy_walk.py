"""Greedy's walk, which scores late and from what it remembers, against one that starts afresh."""

from __future__ import annotations

import math
import random

from fxremat_solvers import RematProblem
from fxremat_solvers.search.greedy_walk import run, walk_of
from tests.fxremat_solvers.budgets import share_of_peak
from tests.fxremat_solvers.random_problems import random_problem

# A power of two, so that sums with the problems' whole costs are exact and ties are ties.
TINY = 2.0**-20


class Afresh:
    """The rule by its definition: every score computed anew before every drop."""

    def __init__(self, problem: RematProblem, budget: int) -> None:
        self.problem, self.budget = problem, budget
        self.resident = set(problem.inputs)
        self.live_bytes = 0
        self.steps: list[int] = []

    def run(self) -> list[int]:
        n_ops = len(self.problem.ops)
        for op in range(n_ops):
            self.execute(op, op)
        for value in sorted(self.problem.outputs):
            if value not in self.resident:
                self.execute(self.problem.producer[value], n_ops)
        return self.steps

    def execute(self, op: int, now: int) -> None:
        plan = self.missing(op, [])
        reads = [set(self.problem.ops[step].inputs) for step in plan]
        for k, step in enumerate(plan):
            made = set(self.problem.ops[step].outputs)
            fresh = self.nbytes(made - self.resident) + self.problem.ops[step].workspace_bytes
            self.make_room(fresh, now, made.union(*reads[k:]))
            self.steps.append(step)
            self.live_bytes += self.nbytes(made - self.resident)
            self.resident |= made

    def missing(self, op: int, plan: list[int]) -> list[int]:
        """Appends to `plan` what brings the missing inputs of `op` back, in order, then `op`."""
        for value in self.problem.ops[op].inputs:
            maker = self.problem.producer[value]
            if value not in self.resident and maker not in plan:
                self.missing(maker, plan)
        plan.append(op)
        return plan

    def make_room(self, fresh: int, now: int, pinned: set[int]) -> None:
        while self.live_bytes + fresh > self.budget:
            when = self.next_uses(now)
            sizes = [value.nbytes for value in self.problem.values]
            free = sorted(v for v in self.resident - pinned - set(self.problem.inputs) if sizes[v])
            scores = [(self.score(v, when[v], now), -sizes[v], v) for v in free]
            least = min(scores, default=(math.inf, 0, 0))
            if least[0] == math.inf:
                return
            self.resident.remove(least[2])
            self.live_bytes -= sizes[least[2]]

    def next_uses(self, now: int) -> list[float]:
        problem = self.problem
        when = [math.inf] * len(problem.values)
        for value, readers in enumerate(problem.consumers):
            end = float(len(problem.ops)) if value in problem.outputs else math.inf
            when[value] = min((op for op in readers if op >= now), default=end)
        for op in reversed(problem.ops[:now]):
            wanted = min((when[v] for v in op.outputs if v not in self.resident), default=math.inf)
            for value in op.inputs:
                when[value] = min(when[value], wanted)
        return when

    def score(self, value: int, when: float, now: int) -> float:
        if when == math.inf:
            return 0.0
        again: set[int] = set()
        stack = [self.problem.producer[value]]
        while stack:
            op = stack.pop()
            again.add(op)
            inputs = self.problem.ops[op].inputs
            stack += [self.problem.producer[v] for v in inputs if v not in self.resident]
        if not all(self.problem.ops[op].recomputable for op in again):
            return math.inf
        cost = TINY + sum(self.problem.ops[op].cost + TINY for op in again)
        return cost / (self.problem.values[value].nbytes * max(1, when - now + 1))

    def nbytes(self, values: set[int]) -> int:
        return sum(self.problem.values[value].nbytes for value in values)


def test_remembered_scores_are_the_scores():
    for seed in range(300):  # one in 9 tells a walk that forgets to lower a score
        problem = random_problem(seed, 40)
        of_peak = random.Random(seed).uniform(0.3, 0.9)
        budget = share_of_peak(problem, of_peak)
        walk = walk_of(problem, (1.0, 1.0, 1.0))
        assert run(walk, budget, TINY)
        assert list(walk.steps[: walk.totals[0]]) == Afresh(problem, budget).run(), seed

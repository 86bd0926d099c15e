"""Lookahead eviction: walk the baseline order and, when memory runs out, drop what is cheapest.

The future uses of every value are known, so eviction follows Belady's rule (the farthest next use
goes first) weighed with what it costs to bring the value back and with its size, the priority of
DTR (Kirisame et al., "Dynamic Tensor Rematerialization", ICLR 2021) with the past replaced by the
future. A missing input is recomputed just before its use together with all of its missing
ancestors; a value may be dropped and recomputed any number of times.

Limits: the order of first computations is the baseline's, and decisions are never revised.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from fxremat_solvers.problem import RematProblem

_NEVER = 1 << 60


@dataclass(frozen=True)
class GreedyRule:
    """Exponents of the eviction priority ``cost**c / (bytes**b * distance**d)``; lowest goes."""

    cost: float = 1.0
    nbytes: float = 1.0
    distance: float = 1.0


DEFAULT_RULE = GreedyRule()


def greedy_ops(
    problem: RematProblem, budget_bytes: int, rule: GreedyRule = DEFAULT_RULE
) -> tuple[int, ...]:
    """Op indices of a schedule that runs everything, within the budget where the rule can.

    Where nothing is left to evict the walk goes on above the budget, so the answer always
    executes; its peak has to be asked of the oracle.
    """
    return _Walk(problem, budget_bytes, rule).run()


class _Walk:
    """The state of one walk: what is resident and which value each missing one depends on."""

    def __init__(self, problem: RematProblem, budget_bytes: int, rule: GreedyRule) -> None:
        self.problem = problem
        self.budget_bytes = budget_bytes
        self.rule = rule
        n_values = len(problem.values)
        self.nbytes = [value.nbytes for value in problem.values]
        self.producer = problem.producer
        self.consumers = problem.consumers
        self.evictable = bytearray(n_values)
        self.is_output = bytearray(n_values)
        for value in problem.outputs:
            self.is_output[value] = 1
        # Problem inputs and values without bytes cost nothing to keep: they are never dropped.
        self.resident = bytearray(n_values)
        for value in problem.inputs:
            self.resident[value] = 1
        for value, producer in enumerate(self.producer):
            self.evictable[value] = producer >= 0 and self.nbytes[value] > 0
        self.pins = [0] * n_values
        self.held: set[int] = set()
        self.live_bytes = 0
        self.schedule: list[int] = []
        mean = problem.baseline_cost / max(1, len(problem.ops))
        # Free ops are not quite free to the rule: recomputing them still costs memory.
        self.tiny = mean * 1e-6 if mean > 0 else 1.0

    def run(self) -> tuple[int, ...]:
        for index in range(len(self.problem.ops)):
            self._execute(self._missing_ops(index), index)
        leftovers = [v for v in self.problem.outputs if not self.resident[v]]
        for value in leftovers:
            if not self.resident[value]:
                self._execute(self._missing_ops(self.producer[value]), len(self.problem.ops))
        return tuple(self.schedule)

    def _missing_ops(self, index: int) -> list[int]:
        """`index` preceded by the ops that bring its missing inputs back, depth first."""
        ops = self.problem.ops
        order: list[int] = []
        done: set[int] = set()
        stack = [(index, False)]
        while stack:
            op, expanded = stack.pop()
            if op in done:
                continue
            if expanded:
                done.add(op)
                order.append(op)
                continue
            stack.append((op, True))
            stack.extend(
                (self.producer[value], False)
                for value in reversed(ops[op].inputs)
                if not self.resident[value] and self.producer[value] not in done
            )
        return order

    def _execute(self, plan: list[int], now: int) -> None:
        problem = self.problem
        for op in plan:
            for value in set(problem.ops[op].inputs):
                self.pins[value] += 1
        for op in plan:
            node = problem.ops[op]
            fresh = sum(self.nbytes[v] for v in node.outputs if not self.resident[v])
            self._make_room(fresh + node.workspace_bytes, now, set(node.outputs))
            self.schedule.append(op)
            for value in node.outputs:
                if not self.resident[value]:
                    self.resident[value] = 1
                    self.live_bytes += self.nbytes[value]
                    if self.evictable[value]:
                        self.held.add(value)
            for value in set(node.inputs):
                self.pins[value] -= 1

    def _make_room(self, wanted_bytes: int, now: int, making: set[int]) -> None:
        if self.live_bytes + wanted_bytes <= self.budget_bytes:
            return
        next_use = self._next_uses(now)
        candidates = [v for v in sorted(self.held) if not self.pins[v] and v not in making]
        score = {v: self._score(v, now, next_use) for v in candidates}
        while self.live_bytes + wanted_bytes > self.budget_bytes and score:
            value = min(score, key=lambda v: (score[v], -self.nbytes[v], v))
            if score[value] == float("inf"):
                return
            del score[value]
            self.resident[value] = 0
            self.held.discard(value)
            self.live_bytes -= self.nbytes[value]
            self._rescore(value, now, next_use, score)

    def _rescore(self, value: int, now: int, next_use: list[int], score: dict[int, float]) -> None:
        """After dropping `value`: its sources are wanted sooner, what hangs on it costs more."""
        ops = self.problem.ops
        stack = [self.producer[value]]
        touched: set[int] = set()
        while stack:
            for source in ops[stack.pop()].inputs:
                if next_use[value] < next_use[source]:
                    next_use[source] = next_use[value]
                    touched.add(source)
                    if not self.resident[source]:
                        stack.append(self.producer[source])
        stack = [value]
        seen = {value}
        while stack:
            for op in self.consumers[stack.pop()]:
                for child in ops[op].outputs:
                    if child not in seen:
                        seen.add(child)
                        if child in score:
                            touched.add(child)
                        elif not self.resident[child]:
                            stack.append(child)
        for other in sorted(touched):
            if other in score:
                score[other] = self._score(other, now, next_use)

    def _next_uses(self, now: int) -> list[int]:
        """When each value is next read, by the program or to bring a dropped value back."""
        ops = self.problem.ops
        next_use = [_NEVER] * len(self.nbytes)
        for value in range(len(self.nbytes)):
            readers = self.consumers[value]
            at = bisect_left(readers, now)
            if at < len(readers):
                next_use[value] = readers[at]
            elif self.is_output[value]:
                next_use[value] = len(ops)
        for index in range(min(now, len(ops)) - 1, -1, -1):
            node = ops[index]
            wanted = min(
                (next_use[v] for v in node.outputs if not self.resident[v]), default=_NEVER
            )
            if wanted < _NEVER:
                for value in node.inputs:
                    if wanted < next_use[value]:
                        next_use[value] = wanted
        return next_use

    def _score(self, value: int, now: int, next_use: list[int]) -> float:
        if next_use[value] >= _NEVER:
            return 0.0
        ops = self.problem.ops
        cost = self.tiny
        seen = {self.producer[value]}
        stack = [self.producer[value]]
        while stack:
            op = stack.pop()
            node = ops[op]
            if not node.recomputable:
                return float("inf")
            cost += node.cost + self.tiny
            for source in node.inputs:
                producer = self.producer[source]
                if not self.resident[source] and producer not in seen:
                    seen.add(producer)
                    stack.append(producer)
        rule = self.rule
        distance = max(1, next_use[value] - now + 1)
        return cost**rule.cost / (self.nbytes[value] ** rule.nbytes * distance**rule.distance)

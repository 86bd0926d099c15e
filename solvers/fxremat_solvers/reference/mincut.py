"""Priced minimum cuts: what to hold and what to drop, for the whole graph at once.

The order of first runs is the baseline's. Between two consecutive reads of a value (its birth
and the end count as reads) lies a *gap*; a value is held across it, or dropped and recomputed
just before the read that ends it, for its maker's cost. With a price per byte at each step, a
hold costs its bytes times the prices it passes, a recomputation its seconds, and it needs its
own inputs, held or recomputed; the cheapest choice is a minimum cut (the idea of PyTorch's
min-cut partitioner, which has no prices; Lagrangian relaxation of the memory constraints).

Prices rise where the replayed schedule is over the budget and fall where there is slack
(a subgradient method on the oracle's own figures). Each cut gives a schedule by recomputing just
before the first use, never early; the cheapest one that fits is kept, and then every drop that
turns out unnecessary is undone.

Limits: the memory that recomputed values take while they wait for one another is not in the cut,
only in the prices' response to it; ops are not reordered.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fxremat_solvers.bounds.cost_bound import proof
from fxremat_solvers.bounds.min_cut import SINK, SOURCE, Arcs, Network, minimum_cut
from fxremat_solvers.model.arrays import Floats, Integers
from fxremat_solvers.model.incumbent import candidate, solution
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Solution
from fxremat_solvers.model.simulate import Simulation, baseline, simulate
from fxremat_solvers.model.vectorised_replay import profiler

_UNITS = 5e8
"""The integer cost of the whole baseline in cuts."""


@dataclass(frozen=True)
class Tuning:
    """Numbers of the search over prices. How much each matters has not been measured.

    `tilt`: how much dearer dropping the last value counts than the first. `near`: the share of the
    budget from which on memory is crowded. A price rises by its `step`, at first, least and most,
    which grows and shrinks by `faster` and `slower`; it falls by half of the share of the budget
    that is free, to `fall` at the least. `learn`: how fast charges follow what was really paid.
    """

    tilt: float = 0.03
    near: float = 0.8
    step: tuple[float, float, float] = (0.02, 0.002, 0.2)
    faster: float = 1.2
    slower: float = 0.7
    fall: float = 0.8
    learn: float = 0.3


TUNING = Tuning()

Gap = tuple[int, int]
"""(value, k): the gap that ends with the value's k-th read."""


@dataclass(frozen=True)
class _Cut:
    """The network over gaps. Arc k costs `cost[k]` plus `size[k]` x prices in (low, high]."""

    gaps: tuple[Gap, ...]
    nodes: tuple[int, ...]
    tails: tuple[tuple[int, int, int], ...]
    net: Network
    cost: Floats
    maker: Integers
    size: Floats
    low: Integers
    high: Integers


def mincut(
    problem: RematProblem,
    budget_bytes: int,
    *,
    time_limit_s: float = 30.0,
    iterations: int = 120,
    with_bound: bool = True,
) -> Solution:
    """The best schedule of a series of priced cuts.

    Deterministic: `iterations` bounds the work, the clock only cuts it off. `with_bound=False`
    leaves out the bound of any schedule: then it is the baseline's cost.
    """
    plain = candidate(problem, baseline(problem).ops, "mincut")
    if plain.peak_bytes <= budget_bytes:
        return solution(problem, plain, budget_bytes)
    search = _Search(problem, budget_bytes, time.monotonic() + time_limit_s)
    search.run(simulate(problem, plain.ops), iterations)
    if time.monotonic() <= search.deadline:
        search.fill()
    cut_off = time.monotonic() > search.deadline
    steps = search.lowest if search.best is None else search.best
    found = candidate(problem, tuple(map(int, steps)), "mincut")
    bound = 0.0
    if with_bound and search.best is not None:
        bound = proof(problem, budget_bytes, deadline=search.deadline).bound
    return solution(problem, found, budget_bytes, lower_bound=bound, cut_off=cut_off)


def _reads(problem: RematProblem) -> tuple[tuple[int, ...], ...]:
    n, outputs = len(problem.ops), set(problem.outputs)
    return tuple(
        () if maker < 0 else (maker, *problem.consumers[value], *((n,) if value in outputs else ()))
        for value, maker in enumerate(problem.producer)
    )


class _Search:
    def __init__(self, problem: RematProblem, budget_bytes: int, deadline: float) -> None:
        self.problem = problem
        self.budget = budget_bytes
        self.deadline = deadline
        self.n = len(problem.ops)
        self.nbytes = [v.nbytes for v in problem.values]
        self.reads = _reads(problem)
        self.unit = problem.cost_scale / _UNITS or 1.0
        self.profiler = profiler(problem)
        self.costs = np.array([again.cost for again in problem.reruns])
        # What first runs cost beyond that.
        self.once = sum(problem.ops[k].cost - self.costs[k] for k in problem.differing)
        self.best: Integers | None = None
        self.best_cost = float("inf")
        self.best_drops: frozenset[Gap] = frozenset()
        self.best_prices: Floats = np.zeros(self.n + 2)
        self.lowest: Integers = np.arange(self.n)
        self.lowest_peak = 2**63
        self.charge = np.ones(self.n)
        # Repeated blocks tie at one price, all dropped or none: a slight preference for dropping
        # early values (they are recomputed when less is live) lets the price split them.
        self.preference = 1.0 + TUNING.tilt * np.arange(self.n) / max(self.n, 1)
        self.last_steps: Integers = np.arange(self.n)
        self.closing: list[list[Gap]] = [[] for _ in problem.ops]

    # ---- the search over prices

    def run(self, replay: Simulation, iterations: int) -> None:
        n, budget = self.n, self.budget
        cut = self.network(replay)
        scale = self.problem.cost_scale / budget
        prices = np.zeros(n + 1)
        memory = np.array([*replay.running_bytes, 0], dtype=float)
        first, least, most = TUNING.step
        step = np.full(n + 1, first)
        for _ in range(iterations):
            over = (memory - budget) / budget
            worst = int(np.argmax(over))
            if over[worst] > 0:
                prices[worst] += step[worst] * scale
                step[worst] = min(step[worst] * TUNING.faster, most)
            slack = (over < 0) & (prices > 0)
            prices[slack] *= np.maximum(1.0 + 0.5 * over[slack], TUNING.fall)
            step[slack] = np.maximum(step[slack] * TUNING.slower, least)
            drops = self.solve(cut, prices)
            memory = self.attempt(drops, prices)
            self.learn(drops)
            if time.monotonic() > self.deadline:
                return

    def attempt(self, drops: frozenset[Gap], prices: Floats) -> Floats:
        """Replay the schedule of some drops; the most memory in each stage."""
        steps = np.array(self.recover(drops, prices), dtype=np.int64)
        self.last_steps = steps
        running = self.profiler.running_bytes(steps)
        peak, cost = int(running.max()), float(self.costs[steps].sum()) + self.once
        if peak < self.lowest_peak:
            self.lowest, self.lowest_peak = steps, peak
        if peak <= self.budget and cost < self.best_cost:
            self.best, self.best_cost = steps, cost
            self.best_drops, self.best_prices = drops, prices.copy()
        # Stage t ends with the first run of op t, and first runs are in baseline order.
        highest = np.maximum.accumulate(steps)
        fresh = np.concatenate(([True], highest[1:] > highest[:-1]))
        stage = np.cumsum(fresh) - fresh
        memory = np.zeros(self.n + 1)
        np.maximum.at(memory, stage, running)
        return memory

    def learn(self, drops: frozenset[Gap]) -> None:
        """How often each dropped value was really recomputed per drop, smoothed.

        A cut charges a drop once; where recomputations wait for one another the maker runs
        again for each. Charging what the last schedules paid steers away from long chains.
        """
        extra = np.bincount(self.last_steps, minlength=self.n) - 1
        dropped = np.zeros(self.n)
        for value, _ in drops:
            dropped[self.problem.producer[value]] += 1
        chosen = dropped > 0
        paid = np.maximum(extra[chosen] / dropped[chosen], 1.0)
        self.charge[chosen] += TUNING.learn * (paid - self.charge[chosen])

    # ---- the cut

    def network(self, replay: Simulation) -> _Cut:
        """One node per gap that memory above the budget touches."""
        problem, reads = self.problem, self.reads
        over = np.array([b > TUNING.near * self.budget for b in replay.running_bytes] + [False])
        crowded = np.concatenate(([0], np.cumsum(over)))
        arcs = Arcs(0, 0.0, 0, 0)
        arc = arcs.arc
        tail_node: dict[tuple[int, int], int] = {}

        def needs(inputs: Iterable[int], here: int, when: int) -> None:
            """A recomputation at a step reads inputs past their last read: hold them on."""
            for y in dict.fromkeys(inputs):
                wanted = tail_node.get((y, when))
                if wanted is not None:
                    arc(here, wanted, np.inf)

        node: dict[Gap, int] = {}
        for value, times in enumerate(reads):
            maker = problem.producer[value]
            if maker < 0 or not problem.remade[value]:
                continue
            for k in range(1, len(times)):
                # Steps strictly between the reads; a crowded one must be among them.
                if crowded[times[k]] > crowded[times[k - 1] + 1]:
                    node[value, k] = arcs.node()
        last = [times[-1] if times else -1 for times in reads]
        # A value past its last read may be held on for a recomputation that reads it.
        ends: dict[int, set[int]] = {}
        for run in reversed(problem.reruns):
            again = {
                reads[v][k] for v in run.outputs for k in range(len(reads[v])) if (v, k) in node
            }
            again.update(min(ends[v]) for v in run.outputs if v in ends)
            for y in run.inputs:
                if problem.producer[y] >= 0:
                    late = [when for when in again if when > last[y]]
                    if late:
                        ends.setdefault(y, set()).update(late)
        tail_times: dict[int, list[int]] = {}
        drop_tail: dict[int, int] = {}
        for y, times in ends.items():
            tail_times[y] = sorted(times)
            before = last[y]
            maker = problem.producer[y]
            dropped = SINK
            if problem.remade[y]:
                dropped = drop_tail[y] = arcs.node()
                arc(dropped, SINK, problem.reruns[maker].cost, maker, 0.0, 0, 0)
            previous = -1
            for when in tail_times[y]:
                wanted = tail_node[y, when] = arcs.node()
                arc(wanted, dropped, 0.0, 0, self.nbytes[y], before, when)
                if previous >= 0:
                    arc(wanted, previous, np.inf)
                previous, before = wanted, when
        for (value, k), here in node.items():
            run = problem.reruns[problem.producer[value]]
            times = reads[value]
            main = max(run.outputs, key=lambda x: self.nbytes[x])
            partner = self.gap_at(main, times[k])
            linked = node.get((main, partner)) if value != main and partner else None
            maker = problem.producer[value]
            arc(here, SINK if linked is None else linked, run.cost, maker, 0.0, 0, 0)
            arc(SOURCE, here, 0.0, 0, self.nbytes[value], times[k - 1], times[k] - 1)
            needs(run.inputs, here, times[k])
        for y, dropped in drop_tail.items():
            again = problem.reruns[problem.producer[y]]
            needs(again.inputs, dropped, tail_times[y][0])
        for y, dropped in drop_tail.items():
            node[y, len(reads[y])] = dropped
        ordered = tuple(node)
        net, (cost, maker, size, low, high) = arcs.network()
        self.closing = [[] for _ in problem.ops]
        for value, k in ordered:
            self.closing[reads[value][k - 1]].append((value, k))
        return _Cut(
            gaps=ordered,
            nodes=tuple(node[g] for g in ordered),
            tails=tuple((y, len(reads[y]), tail_node[y, tail_times[y][0]]) for y in tail_times),
            net=net,
            cost=cost,
            maker=maker.astype(np.int64),
            size=size,
            low=low.astype(np.int64),
            high=high.astype(np.int64),
        )

    def gap_at(self, value: int, when: int) -> int:
        """The gap of a value that a step falls into (0: before its birth or after its last)."""
        times = self.reads[value]
        k = bisect.bisect_left(times, when)
        return k if 0 < k < len(times) else 0

    def solve(self, cut: _Cut, prices: Floats) -> frozenset[Gap]:
        total = np.concatenate(([0.0], np.cumsum(prices)))
        weight = cut.cost * (self.charge * self.preference)[cut.maker] + cut.size * (
            total[cut.high + 1] - total[cut.low + 1]
        )
        _, on = minimum_cut(cut.net, weight / self.unit)
        drops = {g for g, k in zip(cut.gaps, cut.nodes, strict=True) if on[k]}
        drops.update((y, k) for y, k, wanted in cut.tails if not on[wanted])
        return frozenset(drops)

    # ---- from drops to a schedule

    def recover(self, drops: frozenset[Gap], prices: Floats) -> list[int]:
        """Run the baseline order, dropping values over their gaps, recomputing just in time."""
        problem, reads, nbytes = self.problem, self.reads, self.nbytes
        producer, ops, reruns = problem.producer, problem.ops, problem.reruns
        total = np.concatenate(([0.0], np.cumsum(prices))).tolist()
        available = bytearray(len(nbytes))
        for value in problem.inputs:
            available[value] = 1
        steps: list[int] = []
        outputs = problem.outputs
        for stage in range(self.n + 1):
            wanted: Sequence[int] = ops[stage].inputs if stage < self.n else outputs
            helpers: list[int] = []
            missing = [v for v in wanted if not available[v]]
            # Depth first: a maker runs after the makers of what it misses.
            stack = [(producer[v], False) for v in reversed(missing)]
            while stack:
                maker, ready = stack.pop()
                if ready:
                    if all(available[v] for v in reruns[maker].outputs):
                        continue
                    steps.append(maker)
                    for v in reruns[maker].outputs:
                        available[v] = 1
                        helpers.append(v)
                    continue
                if all(available[v] for v in reruns[maker].outputs):
                    continue
                stack.append((maker, True))
                needed = reruns[maker].inputs
                stack.extend((producer[v], False) for v in reversed(needed) if not available[v])
            if stage < self.n:
                steps.append(stage)
                for v in ops[stage].outputs:
                    available[v] = 1
            # A value made only to make another is dropped again if holding it on is dear.
            for v in helpers:
                times = reads[v]
                k = bisect.bisect_left(times, stage)
                if k < len(times) and times[k] == stage:
                    continue
                if k >= len(times):
                    if (v, k) in drops:
                        available[v] = 0
                    continue
                rent = nbytes[v] * (total[times[k]] - total[min(stage + 1, times[k])])
                if rent > reruns[producer[v]].cost and ops[producer[v]].recomputable:
                    available[v] = 0
            if stage < self.n:
                for gap in self.closing[stage]:
                    if gap in drops:
                        available[gap[0]] = 0
        return steps

    # ---- undoing drops

    def fill(self) -> None:
        """Undo drops as long as the schedule fits.

        One by one, the dearest first; on large graphs in groups of neighbouring values, halved
        where a group does not fit.
        """
        tries = max(60, min(1000, 500_000 // max(self.n, 1)))
        producer, reruns = self.problem.producer, self.problem.reruns
        order = sorted(self.best_drops, key=lambda g: (-reruns[producer[g[0]]].cost, g))
        size = 1
        if len(order) > tries:
            order.sort(key=lambda g: (-producer[g[0]], g))
            size = len(order) // 8
        groups = [order[k : k + size] for k in range(0, len(order), size)]
        while groups and tries > 0 and time.monotonic() <= self.deadline:
            smaller: list[list[Gap]] = []
            for group in groups:
                live = [g for g in group if g in self.best_drops]
                if not live or tries <= 0:
                    continue
                tries -= 1
                before = self.best_cost
                self.attempt(self.best_drops - set(live), self.best_prices)
                if self.best_cost >= before and len(live) > 1:
                    half = len(live) // 2
                    smaller += [live[:half], live[half:]]
            groups = smaller

"""A lower bound on the peak of every schedule: any order, any number of recomputations."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from fxremat_solvers.model.problem import RematProblem, Rerun

_WORK_PER_OP = 20_000
"""Most values that the peak bound looks at for one op."""

_MOST_WORK = 250_000
"""Most values in all."""


def peak_lower_bound(problem: RematProblem) -> int:
    """A lower bound on the peak of any schedule: any order, any number of recomputations.

    For every op (and for the end, which reads the problem's outputs) the bytes it takes itself,
    and what it takes to have its inputs live at once: of a set of values that are live together
    one was computed last, while the others were live, by an op whose inputs were live too; so on
    backwards, along the best choices (a minimax search over sets, as in pebbling games). Values
    of ops that must not be recomputed are added where they must wait for what depends on the op.

    The searches are cut off after a fixed number of sets, which keeps the bound valid.
    """
    ops = problem.ops
    nbytes = problem.counted_bytes
    waiting = _waiting_bytes(problem, nbytes)
    own = [a + b for a, b in zip(problem.own_bytes, waiting, strict=True)]
    best = max(own, default=0)
    final = frozenset(v for v in problem.outputs if nbytes[v])
    best = max(best, sum(nbytes[v] for v in final))
    order = sorted(range(len(ops)), key=lambda k: (-own[k], k))
    reads = (frozenset(v for v in ops[k].inputs if nbytes[v]) for k in order)
    search = _Together(problem, nbytes)
    for target in (final, *reads):
        best = max(best, search.least_peak(target, best))
    return best


class _Together:
    """What it takes to have a set of values live at once.

    A best-first search backwards from the set; every set in the queue is a way to go on, so the
    smallest key is a bound at any time. All that matters is whether a target needs more than is
    known already, so sets from which the start was reached within that are remembered.
    """

    def __init__(self, problem: RematProblem, nbytes: Sequence[int]) -> None:
        self.problem = problem
        self.nbytes = nbytes
        self.lazy = frozenset(v for v, value in enumerate(problem.values) if value.lazy)
        self.ways = [[self._way(op.first_run)] for op in problem.ops]
        for k in problem.differing:
            self.ways[k].append(self._way(problem.reruns[k]))
        self.work = _MOST_WORK
        self.reached: set[frozenset[int]] = {frozenset()}

    def _way(self, run: Rerun) -> tuple[frozenset[int], frozenset[int], frozenset[int], int]:
        """What a run reads, makes, has to allocate of that, and its workspace."""
        makes = frozenset(run.outputs)
        reads = frozenset(v for v in run.inputs if self.nbytes[v])
        allocated = makes if makes.isdisjoint(self.lazy) else makes - self.lazy
        return reads, makes, allocated, run.workspace_bytes

    def least_peak(self, target: frozenset[int], known: int) -> int:
        """The least peak by which `target` can be live at once, or a bound on it."""
        producer, nbytes = self.problem.producer, self.nbytes
        heap: list[tuple[int, int, int, frozenset[int]]] = [(known, 0, 0, target)]
        lowest = {target: known}
        came: dict[frozenset[int], frozenset[int]] = {}
        left = min(self.work, _WORK_PER_OP)
        self.work -= left
        count = 0
        while heap:
            key, depth, _, values = heapq.heappop(heap)
            if values in self.reached or left <= 0:
                if key == known and left > 0:
                    while values != target:
                        self.reached.add(values)
                        values = came[values]
                    self.reached.add(target)
                break
            if key > lowest[values]:
                continue
            for maker in dict.fromkeys(producer[v] for v in sorted(values)):
                left -= len(values)
                for reads, makes, allocated, workspace in self.ways[maker]:
                    before = (values - makes) | reads
                    live = before | makes if allocated is makes else values | reads | allocated
                    running = max(key, sum(nbytes[v] for v in live) + workspace)
                    if running < lowest.get(before, running + 1):
                        lowest[before] = running
                        came[before] = values
                        count += 1
                        # Ties: deepest first, then the order of discovery.
                        heapq.heappush(heap, (running, depth - 1, count, before))
        else:
            return known
        self.work += max(left, 0)
        return key


def _waiting_bytes(problem: RematProblem, nbytes: Sequence[int]) -> list[int]:
    """For each op, bytes of values that can't be remade and are read only after it, at least.

    The value's maker runs before the op in any schedule and must not run again, and a reader (or
    the end) comes after the op in any schedule, so the value is live when the op first runs.
    """
    ops = problem.ops
    waiting = [0] * len(ops)
    pinned = [
        v
        for v, maker in enumerate(problem.producer)
        if maker >= 0 and nbytes[v] and not problem.remade[v]
    ]
    pinned.sort(key=lambda v: (-nbytes[v], v))
    outputs = set(problem.outputs)
    for value in pinned[: max(1, 2_000_000 // max(len(ops), 1))]:
        maker = problem.producer[value]
        after = bytearray(len(ops))
        before = bytearray(len(ops))
        after[maker] = 1
        for k in range(maker + 1, len(ops)):
            if any(p >= 0 and after[p] for p in map(problem.producer.__getitem__, ops[k].inputs)):
                after[k] = 1
        if value not in outputs:
            last = max(problem.consumers[value], default=-1)
            for k in range(last, maker, -1):
                readers = (r for v in ops[k].outputs for r in problem.consumers[v])
                if any(before[r] or value in ops[r].inputs for r in readers):
                    before[k] = 1
        touched = {*problem.consumers[value], maker}
        for k in range(maker + 1, len(ops)):
            if after[k] and k not in touched and (before[k] or value in outputs):
                waiting[k] += nbytes[value]
    return waiting

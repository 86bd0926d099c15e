"""Lower bounds that hold for every schedule: any order of the ops, any number of recomputations.

**Cost.** Take a chain of ops v_1, ..., v_k, each a strict descendant of the one before, and let
position j be the moment when v_j runs for the first time: in any schedule the positions come in
this order. What depends on v_j runs after position j; what v_j depends on has run before. So at
each position, for each value x that is needed later, one of these holds:

- x is live at position j, and its bytes count beside those v_j itself takes, or
- the op that makes x runs after position j, and if it had run before, its cost is paid again.

Between two positions that a value must be read between, a hold and a recomputation serve only
that read, so recomputations in different *gaps* are different and are all paid. What is
recomputed after a position needs its own inputs, by the same alternative.

Where reruns differ from the first run, "again" is a rerun: its cost, its inputs and what it makes.
A run that may be the first one or not needs what both read. A lazy value counts where it is held,
not at the run that makes it.

Dropping everything else gives a relaxation. With a price per byte at each position for the
memory constraints (Lagrange) it is a minimum closure, so a minimum cut solves it exactly; the
prices are found by a cutting-plane method with a trust region, and every evaluation is a valid
bound (Geoffrion 1974; closures: Picard 1976). The single-position case is the cut between
forward and backward used by PyTorch's min-cut partitioner, with a budget.

Prices treat values as divisible, and pay once for a value that is recomputed for several others
at different times. Both is mended on graphs of up to a few thousand ops by an integer program over
few positions (`stages`), which also leads to schedules. What no single position sees, that of
several long sums one begins first, is added by cases (`first_of`).

What is lost: memory taken in between by recomputed values that are held for other
recomputations, and positions outside the chain.

**Peak.** See `peak_lower_bound`.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]

from fxremat_solvers.closure import (
    SINK,
    SOURCE,
    Floats,
    Integers,
    Network,
    minimum_cut,
    network,
)
from fxremat_solvers.first_of import least_of_cases
from fxremat_solvers.positions import first_after, last_before
from fxremat_solvers.problem import RematProblem, Rerun
from fxremat_solvers.simulate import baseline, simulate
from fxremat_solvers.stages import Staged, by_stages

# SciPy is untyped.
_optimize: Any = optimize

_UNITS = 1.5e9
"""The integer cost of the whole baseline: cuts are rounded down to this resolution."""

_STAGES_WORK = (400, 500_000)
"""Columns times steps of branch and bound spent on programs over stages: for every op, and most."""

_DEEPER_WORK = 400_000
"""The same in `deeper`."""

_STAGES_OPS = (3_000, 300)
"""Larger graphs get no program over stages: training graphs; others, of which chains see little."""

_DEEPER_WORTH = 1e-3
"""Of the baseline's cost: `deeper` ends with a program that adds less to the bound."""

_CASES_EFFORT = 40_000
"""Ops and their arcs of the largest graph that is looked at by cases, too."""

_WORK_PER_OP = 20_000
"""Most values that the peak bound looks at for one op."""

_MOST_WORK = 250_000
"""Most values in all."""


@dataclass(frozen=True)
class Relaxation:
    """The relaxation over one chain of positions.

    `fixed_bytes[j]` is what the op at position j takes itself. Arc k costs `cost[k]` plus, where
    `position[k]` is not -1, `size[k]` bytes at the price of that position; arcs of infinite cost
    are implications.
    """

    chain: tuple[int, ...]
    fixed_bytes: Floats
    net: Network
    cost: Floats
    position: Integers
    size: Floats


@dataclass(frozen=True)
class Proof:
    """A lower bound on the cost of any schedule, and schedules made on the way to it.

    Any schedule: any order of first runs, any number of recomputations. `bound` is infinite where
    the budget is below `peak_lower_bound`, that is where no schedule exists, and never below the
    baseline's cost. The schedules can be executed; they may need more than the budget.
    """

    bound: float
    schedules: tuple[tuple[int, ...], ...] = ()
    positions: tuple[int, ...] | None = None
    """Of the main chain, for `deeper` to go on with."""


def lower_bound(
    problem: RematProblem,
    budget_bytes: int,
    *,
    thorough: bool = True,
    deadline: float = math.inf,
) -> float:
    """A lower bound on the cost of any schedule whose peak is at most `budget_bytes`.

    That of `proof`, which says what it is a bound of.
    """
    return proof(problem, budget_bytes, thorough=thorough, deadline=deadline).bound


def proof(
    problem: RematProblem,
    budget_bytes: int,
    *,
    thorough: bool = True,
    deadline: float = math.inf,
) -> Proof:
    """What any schedule whose peak is at most `budget_bytes` costs, at least.

    `thorough=False` looks at a third of the positions and leaves out the integer program, which
    takes a quarter of the time and loses some tenths of a per cent. `deadline`, of
    `time.monotonic`, is a safety stop: the bound of what has been looked at by then.
    """
    if simulate(problem, baseline(problem)).peak_bytes <= budget_bytes:
        return Proof(problem.baseline_cost)
    if peak_lower_bound(problem) > budget_bytes:
        return Proof(math.inf)
    known = by_cuts(problem, budget_bytes, thorough=thorough, deadline=deadline)
    return by_program(problem, budget_bytes, known, deadline=deadline) if thorough else known


def by_cuts(problem: RematProblem, budget_bytes: int, *, thorough: bool, deadline: float) -> Proof:
    """The first part of `proof`, for a budget from `peak_lower_bound` to below the baseline's."""
    if problem.cost_scale <= 0:
        return Proof(problem.baseline_cost)
    extra, positions = _extra_cost(problem, budget_bytes, thorough=thorough, deadline=deadline)
    return _proof(problem, Staged(extra, positions=positions))


def by_program(problem: RematProblem, budget_bytes: int, known: Proof, *, deadline: float) -> Proof:
    """`known`, the proof by cuts, with what the integer program adds where there is one."""
    per_op, most = _STAGES_WORK
    work = min(per_op * len(problem.ops), most)
    return _further(problem, budget_bytes, known, work, -math.inf, deadline)


def deeper(
    problem: RematProblem, budget_bytes: int, known: Proof, *, deadline: float = math.inf
) -> Proof:
    """A proof with more positions and with further schedules; it takes some seconds.

    `known` is the proof for the same problem and budget so far.
    """
    worth = _DEEPER_WORTH * problem.baseline_cost
    return _further(problem, budget_bytes, known, _DEEPER_WORK, worth, deadline)


def has_program(problem: RematProblem) -> bool:
    """Whether the graph is small enough for the integer program."""
    return len(problem.ops) <= _STAGES_OPS[problem.first_backward_op is None]


def _further(
    problem: RematProblem,
    budget_bytes: int,
    known: Proof,
    work: int,
    worth: float,
    deadline: float,
) -> Proof:
    """`known` with what the integer program adds, where there is one."""
    if known.positions is None or not has_program(problem):
        return known
    chain = main_chain(problem, budget_bytes)
    extra = known.bound - problem.baseline_cost
    found = by_stages(
        problem, budget_bytes, chain, known.positions, work, extra, worth, deadline=deadline
    )
    return _proof(problem, found)


def _proof(problem: RematProblem, found: Staged) -> Proof:
    extra = _whole_costs(problem, found.extra)
    return Proof(problem.baseline_cost + extra, found.schedules, found.positions)


def main_chain(problem: RematProblem, budget_bytes: int) -> tuple[int, ...]:
    """A path of ops that passes through as much of the memory above the budget as possible."""
    running = simulate(problem, baseline(problem)).running_bytes
    n = len(problem.ops)
    best = [0.0] * n
    previous = [-1] * n
    for k, op in enumerate(problem.ops):
        over = running[k] - budget_bytes
        weight = over / budget_bytes + 1.0 if over > 0 else 1e-3
        for value in op.inputs:
            p = problem.producer[value]
            if p >= 0 and best[p] > best[k]:
                best[k], previous[k] = best[p], p
        best[k] += weight
    node = max(range(n), key=lambda k: best[k])
    path: list[int] = []
    while node >= 0:
        path.append(node)
        node = previous[node]
    return tuple(reversed(path))


def relax(problem: RematProblem, chain: Sequence[int]) -> Relaxation:
    """Write the relaxation over a chain of positions (indices 1..k) as a network."""
    return _Relaxer(problem, tuple(chain)).build()


class _Relaxer:
    def __init__(self, problem: RematProblem, chain: tuple[int, ...]) -> None:
        self.problem = problem
        self.chain = chain
        self.tails: list[int] = []
        self.heads: list[int] = []
        self.cost: list[float] = []
        self.position: list[int] = []
        self.size: list[float] = []
        self.n_nodes = 2

    def arc(self, tail: int, head: int, cost: float, position: int = -1, size: float = 0.0) -> None:
        if tail in (head, SINK) or head == SOURCE:
            return
        self.tails.append(tail)
        self.heads.append(head)
        self.cost.append(cost)
        self.position.append(position)
        self.size.append(size)

    def node(self) -> int:
        self.n_nodes += 1
        return self.n_nodes - 1

    def build(self) -> Relaxation:
        problem, chain, k = self.problem, self.chain, len(self.chain)
        ops, producer, values = problem.ops, problem.producer, problem.values
        reruns, remade, differing = problem.reruns, problem.remade, problem.differing
        end = len(ops)
        # after[w]: the last position w always runs after; by[w]: the first it always runs by.
        after = [*last_before(problem, chain), k]
        by = [*first_after(problem, chain), k + 1]
        for j, v in enumerate(chain, 1):
            by[v] = j
        outputs = set(problem.outputs)
        fixed = np.zeros(k)
        own: list[set[int]] = []
        uncounted = set(problem.inputs)
        for j, v in enumerate(chain):
            made = (x for x in ops[v].outputs if not values[x].lazy)
            held = ({*ops[v].inputs} - uncounted) | {*made}
            own.append(held)
            fixed[j] = problem.own_bytes[v]
        # again[x][j]: the node for "the maker of x runs after position j, before the next read
        # of x that is known to come between two positions".
        again: list[list[int]] = [[] for _ in values]
        wanted: list[list[int]] = [[] for _ in values]
        gap: list[list[int]] = [[] for _ in values]
        last: list[int] = [0] * len(values)
        reread = problem.rerun_consumers
        readers: list[tuple[int, ...]] = []
        for x, consumers in enumerate(problem.consumers):
            readers.append((*consumers, end) if x in outputs else consumers)
        for u, op in enumerate(ops):
            again_outputs = reruns[u].outputs or op.outputs
            main = max(again_outputs, key=lambda x: values[x].nbytes, default=-1)
            for x in sorted(op.outputs, key=lambda x: x != main):
                narrow = sorted({after[w] for w in readers[x] if by[w] == after[w] + 1})
                last[x] = max((after[w] for w in readers[x]), default=0)
                row = [SOURCE] * (k + 2)
                gaps = [k + 1] * (k + 2)
                where = 0
                for j in range(1, k + 1):
                    while where < len(narrow) and narrow[where] < j:
                        where += 1
                    gaps[j] = narrow[where] if where < len(narrow) else k + 1
                    if j <= after[u]:
                        continue
                    if j >= by[u] and not remade[x]:
                        row[j] = SINK
                        continue
                    row[j] = self.node()
                    opens = j == max(by[u], 1) or (j > by[u] and gaps[j] != gaps[j - 1])
                    if not (j == 1 or (opens and j > by[u])) and row[j - 1] != SOURCE:
                        self.arc(row[j], row[j - 1], math.inf)
                    if x == main:
                        if opens and j >= by[u]:
                            self.arc(row[j], SINK, reruns[u].cost)
                    elif j >= by[u] and gaps[j] <= gap[main][j]:
                        self.arc(row[j], again[main][j], math.inf)
                again[x] = row
                gap[x] = gaps
        for x, u in enumerate(producer):
            if u < 0:
                continue
            row = [SINK] * (k + 2)
            size = float(values[x].nbytes)
            for j in range(after[u] + 1, k + 1):
                if j <= last[x]:
                    row[j] = SOURCE
                elif readers[x] or reread[x]:
                    row[j] = self.node()
                    if j > last[x] + 1 and j > after[u] + 1:
                        self.arc(row[j], row[j - 1], math.inf)
                if size and x not in own[j - 1] and row[j] != SINK:
                    self.arc(row[j], again[x][j], 0.0, j - 1, size)
            wanted[x] = row
        for u, op in enumerate(ops):
            reads = both = reruns[u].inputs
            if u in differing:
                both = tuple(x for x in reads if x in op.inputs)
            for y in op.outputs:
                for j in range(1, k + 1):
                    node = again[y][j]
                    if node in (SINK, SOURCE):
                        continue
                    for x in dict.fromkeys(reads if j >= by[u] else both):
                        if producer[x] >= 0 and j > after[producer[x]]:
                            self.arc(node, wanted[x][j], math.inf)
        tails, heads = np.array(self.tails, dtype=np.int64), np.array(self.heads, dtype=np.int64)
        return Relaxation(
            chain=chain,
            fixed_bytes=fixed,
            net=network(self.n_nodes, tails, heads),
            cost=np.array(self.cost, dtype=np.float64),
            position=np.array(self.position, dtype=np.int64),
            size=np.array(self.size, dtype=np.float64),
        )


def evaluate(
    relaxation: Relaxation, prices: Floats, budget_bytes: int, unit: float
) -> tuple[float, Floats]:
    """The dual value at some prices (cost per byte at each position), and a supergradient."""
    priced = relaxation.position >= 0
    weight = relaxation.cost.copy()
    weight[priced] += prices[relaxation.position[priced]] * relaxation.size[priced]
    value, on = minimum_cut(relaxation.net, weight / unit)
    dual = value * unit + float(prices @ (relaxation.fixed_bytes - budget_bytes))
    tail, head = relaxation.net.tail_of_arc, relaxation.net.head_of_arc
    cut = priced & on[tail] & ~on[head]
    used = np.bincount(
        relaxation.position[cut], weights=relaxation.size[cut], minlength=len(prices)
    )
    return dual, used + relaxation.fixed_bytes - budget_bytes


def _extra_cost(
    problem: RematProblem, budget_bytes: int, *, thorough: bool, deadline: float
) -> tuple[float, tuple[int, ...] | None]:
    """What any schedule under the budget costs beyond the baseline, at least; decisive positions.

    Positions are tried one at a time along the chain, coarsely and then around the best; the
    best ones are priced together. The work is bounded by counts, so the answer is deterministic.
    """
    chain = main_chain(problem, budget_bytes)
    effort = sum(len(op.inputs) + len(op.outputs) for op in problem.ops) + len(problem.ops)
    samples = max(4, min(24 if thorough else 8, 60_000 // effort))
    joint = max(1, min(10 if thorough else 4, 40_000 // effort))
    scale = problem.cost_scale / budget_bytes
    tried: dict[int, tuple[float, float]] = {}
    best, best_price = 0.0, 0.2 * scale

    def attempt(place: int) -> None:
        nonlocal best, best_price
        if place in tried or not 0 <= place < len(chain):
            return
        if tried and time.monotonic() > deadline:
            return
        relaxation = relax(problem, (chain[place],))
        start = np.array([best_price])
        value, prices = maximise(relaxation, budget_bytes, scale, start, 10, best)
        tried[place] = value, float(prices[0])
        if value > best:
            best, best_price = value, float(prices[0])

    running = simulate(problem, baseline(problem)).running_bytes
    crowded = [i for i, v in enumerate(chain) if running[v] > budget_bytes]
    if not crowded:
        return 0.0, None
    attempt(max(crowded, key=lambda i: running[chain[i]]))
    spacing = max(1, len(crowded) // samples)
    for start in range(0, len(crowded), spacing):
        window = crowded[start : start + spacing]
        attempt(max(window, key=lambda i: (running[chain[i]], -i)))
    while spacing > 1 and best > 0 and len(tried) < 2 * samples:
        spacing = (spacing + 1) // 2
        middle = max(tried, key=lambda i: tried[i][0])
        attempt(middle - spacing)
        attempt(middle + spacing)
    if best <= 0:
        return 0.0, None
    # An op near a crowded one may leave less of a choice.
    for middle in sorted(tried, key=lambda i: (-tried[i][0], i))[: samples // 3]:
        for step in range(1, 5):
            attempt(middle - step)
            attempt(middle + step)
    top = max(tried, key=lambda i: (tried[i][0], -i))
    decisive = [top]
    if joint > 1 and time.monotonic() <= deadline:
        chosen = _spread(tried, joint)
        relaxation = relax(problem, [chain[i] for i in chosen])
        start = np.array([best_price if i == top else 0.0 for i in chosen])
        value, prices = maximise(relaxation, budget_bytes, scale, start, 25, best)
        best = max(best, value)
        beside = [i for i in range(len(chosen)) if chosen[i] != top and prices[i] > 1e-3 * scale]
        if beside:
            decisive = sorted([top, chosen[max(beside, key=lambda i: prices[i])]])
    if thorough and effort <= _CASES_EFFORT and time.monotonic() <= deadline:

        def of_case(case: RematProblem, positions: Sequence[int], enough: float) -> float:
            if time.monotonic() > deadline:
                return -math.inf
            start = np.full(len(positions), best_price / len(positions))
            relaxation = relax(case, positions)
            return maximise(relaxation, budget_bytes, scale, start, 12, best, enough)[0]

        best = least_of_cases(problem, budget_bytes, of_case, best)
    return best, tuple(decisive)


def _whole_costs(problem: RematProblem, extra: float) -> float:
    """Round up where all costs are whole numbers: what is paid again is a sum of them."""
    unit = problem.cost_unit
    return math.ceil(extra / unit - 1e-4) * unit if unit else extra


def _spread(tried: dict[int, tuple[float, float]], count: int) -> list[int]:
    """The best positions, no two next to each other as long as there are others."""
    ranked = sorted((i for i in tried if tried[i][0] > 0), key=lambda i: (-tried[i][0], i))
    width = max(1, (max(ranked) - min(ranked)) // (2 * count))
    chosen: list[int] = []
    for i in ranked:
        if all(abs(i - other) >= width for other in chosen) and len(chosen) < count:
            chosen.append(i)
    return sorted(chosen)


def maximise(
    relaxation: Relaxation,
    budget_bytes: int,
    scale: float,
    start: Floats,
    evaluations: int,
    known: float,
    enough: float = math.inf,
) -> tuple[float, Floats]:
    """The best dual value found and its prices, by cutting planes within a trust region.

    `scale` is a natural price (baseline cost over budget); gives up once the cutting-plane model
    proves that `known` can't be beaten by more than 1e-5 of the baseline, or has found `enough`.
    """
    k = len(relaxation.chain)
    tolerance = 1e-5 * scale * budget_bytes
    unit = scale * budget_bytes / _UNITS
    center = start / scale
    cuts: list[tuple[float, Floats]] = []
    best, best_point = -math.inf, center
    radius = 4.0 if k == 1 else 0.1
    highest = top_of_lines if k == 1 else top_of_planes
    for turn in range(evaluations):
        if turn == 0:
            point, predicted = center, math.inf
        else:
            low, high = np.maximum(center - radius, 0.0), center + radius
            point, predicted = highest(cuts, low, high)
        if predicted <= best + tolerance or (radius >= 1.0 and predicted <= known + tolerance):
            break
        value, slope = evaluate(relaxation, point * scale, budget_bytes, unit)
        cuts.append((value - float(slope * scale @ point), slope * scale))
        if value > best:
            radius *= 1.5 if value > best + 0.1 * (predicted - best) else 0.7
            best, best_point, center = value, point, point
        else:
            radius *= 0.7
        if best >= enough:
            break
        if k == 1:
            radius = 4.0
    return best, best_point * scale


def top_of_planes(
    cuts: Sequence[tuple[float, Floats]], low: Floats, high: Floats
) -> tuple[Floats, float]:
    """Where the least of some planes is highest between `low` and `high`, and how high.

    A plane: its value at zero and its slopes. Where that can't be told the height is -inf.
    """
    result = _optimize.linprog(
        np.array([0.0] * len(low) + [-1.0]),
        A_ub=np.array([[*(-slope), 1.0] for _, slope in cuts]),
        b_ub=np.array([value for value, _ in cuts]),
        bounds=[*zip(low, high, strict=True), (None, None)],
        method="highs",
    )
    if result.x is None:
        return low, -math.inf
    return result.x[:-1], float(result.x[-1])


def top_of_lines(
    cuts: Sequence[tuple[float, Floats]], low: Floats, high: Floats
) -> tuple[Floats, float]:
    """`top_of_planes` for one slope each, without what a linear program costs."""
    value = np.array([value for value, _ in cuts])
    slope = np.array([slopes[0] for _, slopes in cuts])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # parallel, or nearly so
        meet = (value - value[:, None]) / (slope[:, None] - slope)
    points = np.concatenate((low, high, meet[(meet > low) & (meet < high)]))
    least = (value + slope * points[:, None]).min(axis=1)
    top = int(least.argmax())
    return points[[top]], float(least[top])


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

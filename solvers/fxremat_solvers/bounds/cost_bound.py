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

Prices treat values as divisible, and pay once for a value that is recomputed for several others at
different times. Both is mended on graphs of up to a few thousand ops by an integer program over few
positions (`staged_program`), which also leads to schedules.

What is lost: memory taken in between by recomputed values that are held for other
recomputations, and positions outside the chain.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from fxremat_solvers.bounds.peak_bound import peak_lower_bound
from fxremat_solvers.bounds.prices import maximise
from fxremat_solvers.bounds.relaxation import relax
from fxremat_solvers.bounds.staged_program import Staged, by_stages
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.simulate import baseline, simulate


@dataclass(frozen=True)
class Sampling:
    """How many positions are tried, each alone, and how many of them are priced together."""

    alone: int
    together: int


@dataclass(frozen=True)
class Tuning:
    """Numbers of the bounds on cost.

    `few` takes a quarter of the time of `many` and loses some tenths of a per cent. The two sizes,
    in ops and what they read and make, keep graphs of thousands of ops to seconds. Prices are
    shares of the baseline's cost over the budget: the first one tried, and the least that makes a
    position decisive. `work` is columns times steps of branch and bound spent on programs over
    stages, for every op and at most; `deeper_work` the same where it goes deeper, which ends with a
    program that adds less than `worth` of the baseline's cost. Above `staged` ops there is no
    program: on training graphs, and on others, of which chains see little. How much the rest
    matters has not been measured.
    """

    many: Sampling = Sampling(24, 10)
    few: Sampling = Sampling(8, 4)
    alone_size: int = 60_000
    together_size: int = 40_000
    alone_evaluations: int = 10
    together_evaluations: int = 25
    first_price: float = 0.2
    decisive_price: float = 1e-3
    work: tuple[int, int] = (400, 500_000)
    deeper_work: int = 400_000
    worth: float = 1e-3
    staged: tuple[int, int] = (3_000, 300)


TUNING = Tuning()


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
    """Of the main chain, for `by_program` to go on with."""


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


def by_program(
    problem: RematProblem,
    budget_bytes: int,
    known: Proof,
    *,
    deeper: bool = False,
    deadline: float = math.inf,
) -> Proof:
    """`known`, the proof so far, with what the integer program adds where there is one.

    `deeper` goes on from an earlier program's proof for some seconds, to more positions.
    """
    if known.positions is None or not has_program(problem):
        return known
    per_op, most = TUNING.work
    work = TUNING.deeper_work if deeper else min(per_op * len(problem.ops), most)
    worth = TUNING.worth * problem.baseline_cost if deeper else -math.inf
    chain = main_chain(problem, budget_bytes)
    extra = known.bound - problem.baseline_cost
    found = by_stages(problem, budget_bytes, chain, known.positions, work, extra, worth, deadline)
    return _proof(problem, found)


def has_program(problem: RematProblem) -> bool:
    """Whether the graph is small enough for the integer program."""
    return len(problem.ops) <= TUNING.staged[problem.first_backward_op is None]


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


def _extra_cost(
    problem: RematProblem, budget_bytes: int, *, thorough: bool, deadline: float
) -> tuple[float, tuple[int, ...] | None]:
    """What any schedule under the budget costs beyond the baseline, at least; decisive positions.

    Positions are tried one at a time along the chain, coarsely and then around the best; the
    best ones are priced together. The work is bounded by counts, so the answer is deterministic.
    """
    chain = main_chain(problem, budget_bytes)
    size = sum(len(op.inputs) + len(op.outputs) for op in problem.ops) + len(problem.ops)
    sampling = TUNING.many if thorough else TUNING.few
    samples = max(4, min(sampling.alone, TUNING.alone_size // size))
    joint = max(1, min(sampling.together, TUNING.together_size // size))
    scale = problem.cost_scale / budget_bytes
    tried: dict[int, tuple[float, float]] = {}
    best, best_price = 0.0, TUNING.first_price * scale

    def attempt(place: int) -> None:
        nonlocal best, best_price
        if place in tried or not 0 <= place < len(chain):
            return
        if tried and time.monotonic() > deadline:
            return
        relaxation = relax(problem, (chain[place],))
        start = np.array([best_price])
        evaluations = TUNING.alone_evaluations
        value, prices = maximise(relaxation, budget_bytes, scale, start, evaluations, best)
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
        evaluations = TUNING.together_evaluations
        value, prices = maximise(relaxation, budget_bytes, scale, start, evaluations, best)
        best = max(best, value)
        least = TUNING.decisive_price * scale
        beside = [i for i in range(len(chosen)) if chosen[i] != top and prices[i] > least]
        if beside:
            decisive = sorted([top, chosen[max(beside, key=lambda i: prices[i])]])
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

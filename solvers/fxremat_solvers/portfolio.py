"""The portfolio: closed form, greedy, stages and local search; the best plan wins, bound beside it.

In order: the baseline where it fits; brute force where the graph is tiny; the binomial schedule
where it is a uniform chain; a round or two of annealing from the baseline order and the best of
greedy's walks (on large graphs from that alone; `batched` has another order for unrolled ones), and
beside it the bound; more rounds while they gain, also from the schedules that the bound's integer
program leads to (`staged_program`), until the plan is near the bound; where nothing fits, the
lowest peak found is the start of another round. Where plan and bound are far apart after the first
rounds both get another try, side by side: `cost_bound.deeper`, and more runs from all schedules so
far; then cold runs in waves, each from the best plan yet.

Without the compiled kernel: greedy and priced cuts. (With it cuts are not tried: on joint graphs at
50 budgets they led to a better plan once; another round of annealing, which takes as long, did so
twice.)

Deterministic: effort is counted in edits. Small graphs are solved on a ladder of lower budgets
too: a plan for a lower budget is a plan for this one, so cost does not rise with the budget from
rung to rung. Limit: between rungs, and on larger graphs, nothing enforces that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise

from fxremat_solvers.bounds.cost_bound import Proof, by_cuts, by_program, deeper, has_program
from fxremat_solvers.bounds.peak_bound import peak_lower_bound
from fxremat_solvers.errors import SolverError
from fxremat_solvers.model.incumbent import Candidate, best, candidate, same_cost, solution
from fxremat_solvers.model.orders import reordered
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Solution
from fxremat_solvers.model.simulate import baseline
from fxremat_solvers.reference.binomial import binomial_schedule
from fxremat_solvers.reference.exact import TINY_OPS, exact
from fxremat_solvers.reference.mincut import mincut
from fxremat_solvers.search.batched import batched_order
from fxremat_solvers.search.greedy import compile_walk, greedy_candidates
from fxremat_solvers.search.kernel import kernel
from fxremat_solvers.search.local_search import (
    HOT_SWAPS,
    TIGHT,
    WARM,
    Batch,
    Search,
    annealed,
    cheapest,
    descended,
    scale_of,
)
from fxremat_solvers.search.lowest_peak import lowest_peak
from fxremat_solvers.search.parallel import beside

_RUNGS = 10  # of the ladder of lower budgets, as fractions of the baseline's peak
_LADDER_OPS = 40  # larger graphs are solved at their own budget only
_GREEDY_OPS = 20_000
_BOUND_OPS = 20_000
_EDITS_PER_OP = (2_500, 500)  # of small graphs, of large ones
_EDITS = (800_000, 3_000_000)  # where large ones begin, and the most
# Shares of the baseline's cost (`cost_scale`).
_WORTH_IT = 5e-4  # a round that gains less is the last
_CLOSE = (1e-4, 2e-3)  # a gap below which there is no further round; small, large
_FAR = 0.015  # a gap above this is worth as much again
_RUNS = 4  # one of each recipe; more of them would be too short, on large graphs four are
_SMALL_OPS = 300
_MIDDLE_OPS = 1000
_FREE_ORDER_EDITS_PER_OP = 4_000  # larger graphs without a backward part: one long round
_FREE_ORDER_WORK = 3e9  # edits times ops, at most: an edit's time grows with the schedule
_BIG_OPS, _HUGE_OPS = 750, 3000  # far apart, above these: fewer runs; few and longer ones
_OTHER_SEEDS = 1 << 16
_UNPROVEN = Proof(0.0)  # where no bound is asked for


def auto(
    problem: RematProblem,
    budget_bytes: int,
    *,
    time_limit_s: float,
    seed: int,
    effort: float = 1.0,
    prove: bool = True,
) -> Solution:
    """The best plan of the portfolio. `time_limit_s` is a safety stop; `effort` scales the number
    of edits and cuts tried; below 1 the bound is a quicker one, without `prove` there is none."""
    deadline = time.monotonic() + time_limit_s
    # With time of its own, for a search that is cut off depends on more than sizes.
    lowest = cache(lambda: lowest_peak(problem, deadline=time.monotonic() + time_limit_s))
    plain = candidate(problem, baseline(problem).ops, "baseline")
    if plain.peak_bytes <= budget_bytes:
        return solution(problem, plain, budget_bytes)
    if len(problem.ops) <= TINY_OPS:
        with suppress(SolverError):  # too many values: on with the search
            solved = exact(problem, budget_bytes, time_limit_s=time_limit_s)
            chosen = candidate(problem, solved.schedule.ops, "exact")
            return solution(problem, chosen, budget_bytes, lower_bound=solved.lower_bound)
    chained = binomial_schedule(problem, budget_bytes)
    if chained is not None:
        known = _prover(problem, budget_bytes, effort, deadline).whole()
        found = [candidate(problem, chained.ops, "binomial")]
    else:
        began = time.monotonic()
        compiled = kernel(problem)
        compile_walk()
        deadline += time.monotonic() - began  # compiling, once per machine, is no part
        # The plan gets at least half of the time.
        prover = _Prover(lambda: _UNPROVEN)
        if prove:
            prover = _prover(problem, budget_bytes, effort, deadline - time_limit_s / 2)
        if len(problem.ops) <= _BOUND_OPS and peak_lower_bound(problem) > budget_bytes:
            known, found = Proof(math.inf), [plain]
        elif compiled is None:
            known = prover.whole()
            found = _without_kernel(problem, plain, budget_bytes, deadline, seed)
            found += _led_to(problem, known)
        else:
            search = Search(problem, compiled, scale_of(problem), deadline, effort)
            known, found = _searched(search, plain, budget_bytes, prover, seed, lowest)
    chosen = best(found, budget_bytes)
    if chosen.peak_bytes > budget_bytes:
        # The one that depends on sizes alone, not a lower peak that this search came upon: asked
        # for as a budget, the next search must reach it.
        chosen = lowest()
    return solution(
        problem,
        chosen,
        budget_bytes,
        lower_bound=known.bound,
        cut_off=time.monotonic() > deadline,
    )


@dataclass(frozen=True)
class _Prover:
    """How a bound is found: `first` is quick; `further`, if any, takes what that says and goes on.

    The second step is an integer program, which takes one processor for about as long as a round
    or two of annealing take two.
    """

    first: Callable[[], Proof]
    further: Callable[[Proof], Proof] | None = None

    def after(self, known: Proof) -> Proof:
        return self.further(known) if self.further else known

    def whole(self) -> Proof:
        return self.after(self.first())


def _prover(problem: RematProblem, budget_bytes: int, effort: float, deadline: float) -> _Prover:
    if len(problem.ops) > _BOUND_OPS:
        return _Prover(lambda: Proof(0.0))
    thorough = effort >= 1
    first = partial(by_cuts, problem, budget_bytes, thorough=thorough, deadline=deadline)
    if not thorough or not has_program(problem):
        return _Prover(first)
    return _Prover(first, partial(by_program, problem, budget_bytes, deadline=deadline))


def _searched(
    search: Search,
    plain: Candidate,
    budget_bytes: int,
    prover: _Prover,
    seed: int,
    lowest: Callable[[], Candidate],
) -> tuple[Proof, list[Candidate]]:
    """What is proven and all plans found."""
    if len(search.problem.ops) <= _LADDER_OPS:
        known = prover.whole()
        return known, _on_ladder(search, plain, budget_bytes, known, seed, lowest)
    known, found = _at_budget(search, plain, budget_bytes, prover, seed, lowest)
    if _far_apart(search, best(found, budget_bytes), budget_bytes, known):
        return _deepened(search, found, budget_bytes, known, seed)
    return known, found


def _on_ladder(
    search: Search,
    plain: Candidate,
    budget_bytes: int,
    known: Proof,
    seed: int,
    lowest: Callable[[], Candidate],
) -> list[Candidate]:
    problem = search.problem
    rungs = (plain.peak_bytes * k // _RUNGS for k in reversed(range(1, _RUNGS)))
    found = [plain]
    # Schedules made for one budget would break the order of the rungs.
    bound_only = _Prover(lambda: Proof(known.bound))
    for rung in [budget_bytes, *(rung for rung in rungs if 0 < rung < budget_bytes)]:
        chosen = _at_budget(search, plain, rung, bound_only, seed, lowest)[1][0]
        found.append(chosen)
        if chosen.peak_bytes > rung or chosen.cost - known.bound <= same_cost(problem):
            break
    return found


def _led_to(problem: RematProblem, known: Proof) -> list[Candidate]:
    return [candidate(problem, ops, "stages") for ops in known.schedules]


def _far_apart(search: Search, chosen: Candidate, budget_bytes: int, known: Proof) -> bool:
    """Whether plan and bound are, on a training graph, where more work has been seen to pay."""
    gap = chosen.cost - known.bound
    return (
        known is not _UNPROVEN
        and search.remaining_s() > 0
        and search.problem.first_backward_op is not None
        and len(search.problem.ops) > _LADDER_OPS
        and chosen.peak_bytes <= budget_bytes
        and gap > _FAR * search.problem.cost_scale
    )


def _deepened(
    search: Search, found: list[Candidate], budget_bytes: int, known: Proof, seed: int
) -> tuple[Proof, list[Candidate]]:
    """A deeper proof and, meanwhile, what more runs find."""
    if search.effort < 1:
        return known, _restarted(search, found, budget_bytes, seed)
    known, found = beside(
        lambda: deeper(search.problem, budget_bytes, known, deadline=search.deadline),
        lambda: _restarted(search, found, budget_bytes, seed),
    )
    return known, [*found, *_led_to(search.problem, known)]


def _restarted(
    search: Search, found: list[Candidate], budget_bytes: int, seed: int
) -> list[Candidate]:
    """With what longer runs from all there is end, and then cold ones from the best of all."""
    pace = _last_pace(search)
    seed += _OTHER_SEEDS
    tried = annealed(
        search,
        budget_bytes,
        Batch(found[1:], HOT_SWAPS, pace.hot_edits, pace.hot_runs, 2 * seed),
        Batch(found, TIGHT, pace.edits, pace.runs, seed),
        Batch(found, WARM, pace.warm_edits, pace.warm_runs, 2 * seed),
    )
    found = [*found, *tried]
    chosen = best(found, budget_bytes)
    last = descended(
        search, chosen, budget_bytes, edits=pace.cold_edits, waves=pace.waves, seed=seed
    )
    return [*found, last]


def _at_budget(
    search: Search,
    plain: Candidate,
    budget_bytes: int,
    prover: _Prover,
    seed: int,
    lowest: Callable[[], Candidate],
) -> tuple[Proof, list[Candidate]]:
    """What `prover` says; the best plan found, then those that it was searched for from."""
    problem = search.problem
    pace = _pace(problem, search.effort)
    starts = _starts(problem, plain, budget_bytes)
    history = [best(starts, budget_bytes)]  # the best plan before the rounds and after each
    turns = list(range(pace.rounds))
    if prover.further:
        turns.insert(0, pace.rounds)  # one more, as two go beside it

    def tried(starts: list[Candidate], turn: int) -> None:
        found = cheapest(
            search,
            starts,
            budget_bytes,
            edits=int(search.effort * pace.edits),
            runs=pace.runs,
            seed=seed * pace.rounds + turn,
            # Where a round is too short for all recipes the last one has the others.
            recipe=pace.runs if turn == pace.rounds - 1 else 0,
        )
        history.append(best([history[-1], found], budget_bytes))

    def fits() -> bool:
        return history[-1].peak_bytes <= budget_bytes

    def near(known: Proof) -> bool:
        return fits() and history[-1].cost - known.bound <= pace.close * problem.cost_scale

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(prover.first)
        whole = pool.submit(lambda: prover.after(first.result()))
        tried(starts, turns.pop(0))
        second = prover.further and fits() and not near(first.result())
        if second:
            tried([*starts[:2], history[-1]], turns.pop(0))
        known = whole.result()
    led_to = [best(_led_to(problem, known), budget_bytes)] if known.schedules else []
    others = [*starts, *led_to]
    searched = history[-1]
    history[-1] = best([searched, *led_to], budget_bytes)
    led_further = searched.cost - history[-1].cost >= _WORTH_IT * problem.cost_scale
    if second and not led_further and len(problem.ops) > _SMALL_OPS:
        # Of eight plans that a second round lowered a third lowered one, and that was so far from
        # its bound that restarts follow anyway.
        turns.clear()
    if led_to and not fits():
        tried(others, turns.pop(0))
    if not fits():
        others.append(lowest())
        history[-1] = best([history[-1], others[-1]], budget_bytes)
        if search.effort < 1:
            del turns[1:]  # that search was the dear part: one round from what it found
    for turn in turns:
        if not fits() or near(known):
            break
        if _idle_rounds(problem, history, budget_bytes) >= pace.patience:
            break
        if _far_apart(search, history[-1], budget_bytes, known):
            break  # what then comes is a better use of the time
        rest = [other for other in led_to if other is not history[-1]]
        tried([*starts[:2], history[-1], *rest], turn)
    return known, [history[-1], *others]


def _idle_rounds(problem: RematProblem, history: list[Candidate], budget_bytes: int) -> int:
    """How many of the last rounds gained little. `history`: the best plan before and after each."""
    idle = 0
    for after, before in pairwise(reversed(history)):
        if before.peak_bytes > budget_bytes:
            break
        if before.cost - after.cost >= _WORTH_IT * problem.cost_scale:
            break
        idle += 1
    return idle


def _starts(problem: RematProblem, plain: Candidate, budget_bytes: int) -> list[Candidate]:
    """The schedules to search from at first."""
    if len(problem.ops) > _GREEDY_OPS:
        return [plain]
    starts = [best(greedy_candidates(problem, budget_bytes), budget_bytes)]
    order = batched_order(problem, budget_bytes)
    if order is not None:
        walks = greedy_candidates(reordered(problem, order), budget_bytes)
        ops = best(walks, budget_bytes).ops
        starts.append(candidate(problem, tuple(order[k] for k in ops), "greedy"))
    # From the baseline on large graphs no run gets as far as from greedy's plan.
    if len(problem.ops) <= _MIDDLE_OPS or best(starts, budget_bytes).peak_bytes > budget_bytes:
        starts.insert(0, plain)
    return starts


@dataclass(frozen=True)
class _Pace:
    """How local search goes: `patience` rounds without a gain are the last ones."""

    rounds: int
    patience: int
    runs: int
    edits: int  # of a round
    close: float = _CLOSE[1]


def _pace(problem: RematProblem, effort: float) -> _Pace:
    """What the size leaves time for."""
    n_ops = len(problem.ops)
    if problem.first_backward_op is None and n_ops > _SMALL_OPS:
        # Nothing says which order is a good one, and a change of order takes long to settle.
        return _Pace(1, 1, 2, int(min(_FREE_ORDER_EDITS_PER_OP * n_ops, _FREE_ORDER_WORK / n_ops)))
    small, large = (n_ops * per_op for per_op in _EDITS_PER_OP)
    edits = min(small, max(_EDITS[0], large), _EDITS[1])
    if n_ops <= _SMALL_OPS:
        return _Pace(8, 2, _RUNS, edits, _CLOSE[0])
    if n_ops <= _MIDDLE_OPS:
        # Of short rounds a second one may do what one did not.
        return _Pace(3, 2 if effort < 1 else 1, _RUNS, edits)
    return _Pace(3, 1, 2, edits)


@dataclass(frozen=True)
class _LastPace:
    """How search ends where plan and bound are far apart: `waves` of four cold runs are last."""

    runs: int
    edits: int  # of each run
    waves: int
    cold_edits: int  # of each run of a wave
    warm_runs: int = 0
    warm_edits: int = 800_000
    hot_runs: int = 0  # from what the rounds began with
    hot_edits: int = 2_500_000


def _last_pace(search: Search) -> _LastPace:
    """Many short runs beat few long ones, until they get too short: more effort is more runs."""
    n_ops = len(search.problem.ops)
    if n_ops > _HUGE_OPS:
        pace = _LastPace(runs=2, edits=1_250_000, waves=3, cold_edits=300_000, hot_runs=1)
    elif search.effort < 1:
        pace = _LastPace(runs=8, edits=800_000, waves=6, cold_edits=200_000)
    elif n_ops > _BIG_OPS:
        pace = _LastPace(runs=8, edits=400_000, waves=5, cold_edits=200_000, warm_runs=5)
    else:
        pace = _LastPace(runs=16, edits=400_000, waves=6, cold_edits=200_000)
    less, more = min(search.effort, 1.0), max(search.effort, 1.0)
    return _LastPace(
        runs=round(pace.runs * more),
        edits=max(1, int(pace.edits * less)),
        waves=round(pace.waves * more),
        cold_edits=max(1, int(pace.cold_edits * less)),
        warm_runs=round(pace.warm_runs * more),
        warm_edits=max(1, int(pace.warm_edits * less)),
        hot_runs=round(pace.hot_runs * more),
        hot_edits=max(1, int(pace.hot_edits * less)),
    )


def _without_kernel(
    problem: RematProblem, plain: Candidate, budget_bytes: int, deadline: float, seed: int
) -> list[Candidate]:
    found = [plain, *greedy_candidates(problem, budget_bytes)]
    if problem.first_backward_op is not None:
        left_s = max(0.0, deadline - time.monotonic()) / 2
        cut = mincut(problem, budget_bytes, time_limit_s=left_s, seed=seed, with_bound=False)
        found.append(candidate(problem, cut.schedule.ops, "mincut"))
    if best(found, budget_bytes).peak_bytes > budget_bytes:
        found.append(lowest_peak(problem, deadline=deadline, seed=seed))
    return found

"""The portfolio: strategies by name, each a tuple of steps over one state.

`brief` is for graphs of which many are planned, `fast` is the default of the solvers and of the
compiler. Both begin with brute force where the graph is tiny, then come greedy's walks, and
annealing beside the bound. Where nothing fits the lowest peak found is another start. Where plan
and bound of a training graph are far apart `fast` goes on with restarts, and cold runs from the
best of them. `thorough` is `fast`, then a search from the beginning with five times the edits and
an integer program; the better plan counts.

Limit: a plan for a lower budget may be cheaper than the one found for a higher one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from fxremat_solvers.model.incumbent import candidate, solution
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.model.schedule import Solution
from fxremat_solvers.model.simulate import baseline
from fxremat_solvers.options import SolveOptions
from fxremat_solvers.search.greedy import compile_walk
from fxremat_solvers.search.kernel import kernel
from fxremat_solvers.search.local_search import HOT_SWAPS, MORE_COLD, TIGHT, WARM
from fxremat_solvers.search.lowest_peak import lowest_peak
from fxremat_solvers.search.state import Report, State, Step, follow
from fxremat_solvers.search.steps import (
    Afresh,
    Anneal,
    BruteForce,
    ColdWaves,
    CutBound,
    Edits,
    FromProgram,
    Greedy,
    LowestPeak,
    PeakBound,
    Restarted,
    Restarts,
    StagedProgram,
    Together,
    Unrolled,
    beside_program,
    first_round,
    led_but_too_large,
)

_BIG, _HUGE = 750, 3_000  # ops: above these fewer restarts, and few and longer ones

_BRIEF = Anneal(
    Edits(250, most=80_000, large_per_op=50, cap=300_000),
    free_order=Edits(400, work=3e8),
    rounds=2,
)
_FAST = Anneal(
    Edits(500, most=160_000, large_per_op=100, cap=600_000),
    free_order=Edits(800, work=6e8),
    rounds=3,
    patience=2,  # of short rounds a second one may gain where one did not
)
_THOROUGH = Anneal(
    Edits(2_500, most=800_000, large_per_op=500, cap=3_000_000),
    free_order=Edits(4_000, work=3e9),
    rounds=3,
    spare=True,
)


def _round(rounds: Anneal, when: Callable[[State], bool]) -> Anneal:
    return replace(rounds, most=1, when=when)


_WALKS: tuple[Step, ...] = (Greedy(), Unrolled())
_BEGIN: tuple[Step, ...] = (BruteForce(), PeakBound(), *_WALKS)

BRIEF: tuple[Step, ...] = (
    *_BEGIN,
    Together((CutBound(),), (_round(_BRIEF, first_round),)),
    LowestPeak(),
    _BRIEF,
)

FAST: tuple[Step, ...] = (
    *_BEGIN,
    Together((CutBound(),), (_round(_FAST, first_round),)),
    LowestPeak(),
    _FAST,
    Restarted(
        (
            Restarts(TIGHT, 8, Edits(1_000, most=160_000, per_square=6), below=_HUGE),
            Restarts(TIGHT, 4, Edits(320_000, most=320_000), above=_HUGE),
        )
    ),
    ColdWaves(8, Edits(250, most=40_000, per_square=1.5), below=_HUGE),
    ColdWaves(6, Edits(250, most=40_000), above=_HUGE),
)

THOROUGH: tuple[Step, ...] = (
    *FAST,
    Afresh(),
    *_WALKS,
    Together((CutBound(thorough=True),), (_round(_THOROUGH, first_round),)),
    Together((StagedProgram(),), (_round(_THOROUGH, beside_program),)),
    FromProgram(),
    _round(_THOROUGH, led_but_too_large),
    LowestPeak(),
    _THOROUGH,
    Together(
        (StagedProgram(deeper=True), FromProgram()),
        (
            Restarted(
                (
                    Restarts(
                        HOT_SWAPS,
                        1,
                        Edits(2_500_000, most=2_500_000),
                        2,
                        from_starts=True,
                        above=_HUGE,
                    ),
                    Restarts(TIGHT, 2, Edits(1_250_000, most=1_250_000), above=_HUGE),
                    Restarts(TIGHT, 16, Edits(2_500, most=400_000), below=_BIG),
                    Restarts(TIGHT, 8, Edits(2_500, most=400_000), above=_BIG, below=_HUGE),
                    Restarts(WARM, 5, Edits(5_000, most=800_000), 2, above=_BIG, below=_HUGE),
                )
            ),
            ColdWaves(6, Edits(1_250, most=200_000), MORE_COLD, below=_BIG),
            ColdWaves(5, Edits(1_250, most=200_000), MORE_COLD, above=_BIG, below=_HUGE),
            ColdWaves(3, Edits(1_250, most=300_000), MORE_COLD, above=_HUGE),
        ),
    ),
)

PRESETS: Mapping[str, tuple[Step, ...]] = MappingProxyType(
    {"brief": BRIEF, "fast": FAST, "thorough": THOROUGH}
)


@dataclass(frozen=True)
class Traced:
    """A solution, and what each step of the strategy did."""

    solution: Solution
    reports: tuple[Report, ...]


def portfolio(
    problem: RematProblem,
    budget_bytes: int,
    options: SolveOptions,
    strategy: tuple[Step, ...] | None = None,
) -> Traced:
    """The best plan of a strategy, by default that of the options' preset."""
    plain = candidate(problem, baseline(problem).ops, "baseline")
    if plain.peak_bytes <= budget_bytes:
        return Traced(solution(problem, plain, budget_bytes), ())
    # Both are compiled once per machine, which is no part of the time.
    kernel(problem)
    compile_walk()
    deadline = time.monotonic() + options.time_limit_s
    state = State(problem, budget_bytes, options, deadline, plain, plain, (plain,))
    state, reports = follow(PRESETS[options.preset] if strategy is None else strategy, state)
    chosen = state.plan
    if chosen.peak_bytes > budget_bytes:
        # The one that depends on sizes alone, not a lower peak that this search came upon: asked
        # for as a budget, the next search must reach it.
        until = time.monotonic() + options.time_limit_s
        chosen = state.lowest or lowest_peak(problem, deadline=until)
    cut_off, bound = time.monotonic() > deadline, state.proof.bound
    found = solution(problem, chosen, budget_bytes, lower_bound=bound, cut_off=cut_off)
    return Traced(found, reports)

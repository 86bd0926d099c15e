"""Annealing runs: side by side as alone, the same every time, within the budget they start in."""

from __future__ import annotations

import math
import time

from fxremat_solvers.model.incumbent import best, candidate
from fxremat_solvers.search.greedy import greedy_candidates
from fxremat_solvers.search.local_search import (
    COLD,
    HOT_SWAPS,
    TIGHT,
    Batch,
    Search,
    annealed,
    descended,
)
from fxremat_solvers.testing import layered
from tests.fxremat_solvers.budgets import share_of_peak
from tests.fxremat_solvers.joint_graphs import joint_graph


def test_batches_side_by_side_end_as_each_alone_does():
    problem = layered(100)
    search = Search(problem, deadline=math.inf, threads=2)
    plain = candidate(problem, tuple(range(100)), "baseline")
    budget = share_of_peak(problem, 0.75)
    hot = Batch([plain], HOT_SWAPS, edits=3000, runs=1, seed=1)
    tight = Batch([plain, *annealed(search, budget, hot)], TIGHT, edits=2000, runs=5, seed=2)
    together = annealed(search, budget, hot, tight)
    assert together == annealed(search, budget, hot) + annealed(search, budget, tight)
    assert len(together) == 6
    assert len({found.ops for found in together}) > 1, "runs differ"


def test_cold_runs_go_on_from_a_plan_and_keep_it_within_the_budget():
    problem = joint_graph("two-tower")
    budget = share_of_peak(problem, 0.3)
    start = best(greedy_candidates(problem, budget), budget)
    found: set[tuple[int, ...]] = set()
    for _ in range(2):
        search = Search(problem, time.monotonic() + 300, threads=2)
        plan = descended(search, start, budget, COLD, edits=5_000, waves=2, seed=0)
        assert plan.peak_bytes <= budget
        assert plan.cost < start.cost
        found.add(plan.ops)
    assert len(found) == 1

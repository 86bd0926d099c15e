"""Lookahead eviction as a solver: the best of its rules' walks."""

from __future__ import annotations

import random
from dataclasses import replace

from fxremat_solvers.model.incumbent import best
from fxremat_solvers.search.greedy import greedy_candidates
from fxremat_solvers.testing import chain
from tests.fxremat_solvers.budgets import peak_of


def test_a_long_chain_is_walked_within_a_hundredth_of_its_peak():
    cheap_or_dear = random.Random(0)
    even = chain(600)
    ops = (replace(op, cost=op.cost * cheap_or_dear.uniform(0.5, 1.5)) for op in even.ops)
    problem = replace(even, ops=tuple(ops))
    budget = peak_of(problem) * 9 // 1000
    found = best(greedy_candidates(problem, budget), budget)
    assert found.peak_bytes <= budget
    assert len(found.ops) > 5 * len(problem.ops), "every op runs many times, as it has to"

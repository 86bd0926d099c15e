"""Bounds by cases: which of several ops runs first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import RematProblem, Status, baseline, simulate
from fxremat_solvers.bounds.case_split import in_order, least_of_cases
from fxremat_solvers.bounds.cost_bound import lower_bound, main_chain
from fxremat_solvers.bounds.prices import maximise
from fxremat_solvers.bounds.relaxation import relax
from fxremat_solvers.reference.exact import exact
from tests.fxremat_solvers.budgets import budget_between, share_of_peak
from tests.fxremat_solvers.small_graphs import unrolled
from tests.fxremat_solvers.unhurried import solve


@settings(max_examples=10, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_bounds_by_cases_are_below_the_optimum(seed: int, share: float) -> None:
    problem = unrolled(3, seed)
    budget = budget_between(problem, share)
    best = exact(problem, budget)
    assert best.status is Status.OPTIMAL
    assert lower_bound(problem, budget) <= best.cost + 1e-9


def test_cases_say_more_than_positions_and_plans_stay_above_them() -> None:
    problem = unrolled(16, sums_bytes=(10, 10))
    budget = share_of_peak(problem, 0.6)
    scale = problem.cost_scale / budget

    def bound(case: RematProblem, positions: Sequence[int], enough: float = math.inf) -> float:
        relaxation = relax(case, positions)
        start = np.full(len(positions), 0.2 * scale)
        return maximise(relaxation, budget, scale, start, 12, 0.0, enough)[0]

    chain = main_chain(problem, budget)
    known = max(bound(problem, chain[::6]), *(bound(problem, [op]) for op in chain))
    by_cases = least_of_cases(problem, budget, bound, known)
    assert by_cases > known
    plan = solve(problem, budget)
    assert plan.peak_bytes <= budget
    assert problem.baseline_cost + by_cases <= plan.lower_bound + 1e-9 <= plan.cost + 1e-9


def test_the_least_case_counts_and_only_above_what_is_known() -> None:
    problem = unrolled(6)
    budget = share_of_peak(problem, 0.5)
    asked: list[int] = []

    def bound(case, positions, enough):
        asked.append(len(positions))
        # The case's positions come in its order, and what must wait is behind them.
        assert list(positions) == sorted(positions)
        names = [op.name for op in case.ops]
        assert set(names) == {op.name for op in problem.ops}
        return min(enough, {"sum0_4": 5.0, "sum1_4": 7.0}[names[positions[0]]])

    assert least_of_cases(problem, budget, bound, 0.0) == 5.0
    assert least_of_cases(problem, budget, bound, 6.0) == 6.0
    assert set(asked) == {1, 2}


def test_pairs_put_ops_in_order_or_are_refused() -> None:
    problem = unrolled(4)
    early, late = ([op.name for op in problem.ops].index(name) for name in ("sum0_2", "sum1_2"))
    case, place = in_order(problem, [(late, early)])
    assert place[late] < place[early]
    assert simulate(case, baseline(case)).cost == problem.baseline_cost
    with pytest.raises(ValueError, match="contradict"):
        in_order(problem, [(late, early), (early, late)])

"""Lower bounds: never above the optimum, over hundreds of random graphs, and useful."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import block_stack, random_problem, time_stepping

from fxremat_solvers import Status, baseline, simulate
from fxremat_solvers.bounds import (
    lower_bound,
    peak_lower_bound,
    top_of_lines,
    top_of_planes,
)
from fxremat_solvers.exact import exact
from fxremat_solvers.mincut import mincut


@settings(max_examples=250, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 9), st.floats(0, 1))
def test_bounds_are_below_the_optimum(seed: int, n_ops: int, share: float) -> None:
    problem = random_problem(seed, n_ops)
    top = simulate(problem, baseline(problem)).peak_bytes
    floor = exact(problem, -1).peak_bytes
    assert peak_lower_bound(problem) <= floor
    budget = floor + int(share * (top - floor))
    best = exact(problem, budget)
    assert best.status is Status.OPTIMAL
    bound = lower_bound(problem, budget)
    assert problem.baseline_cost - 1e-9 <= bound <= best.cost + 1e-9
    if best.cost == problem.baseline_cost:
        assert bound == best.cost


def test_budgets_that_nothing_meets_have_an_infinite_bound() -> None:
    problem = time_stepping(5)
    assert lower_bound(problem, 2) == math.inf
    assert exact(problem, 2).status is Status.INFEASIBLE


def test_baseline_bound_where_the_baseline_fits() -> None:
    problem = block_stack(2)
    peak = simulate(problem, baseline(problem)).peak_bytes
    assert lower_bound(problem, peak) == problem.baseline_cost


def test_bound_falls_with_the_budget_and_is_repeatable() -> None:
    problem = block_stack(3)
    peak = simulate(problem, baseline(problem)).peak_bytes
    bounds = [lower_bound(problem, int(peak * f)) for f in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)]
    assert bounds == sorted(bounds, reverse=True)
    assert lower_bound(problem, int(peak * 0.5)) == bounds[1]


def test_bound_is_close_to_a_plan_on_a_stack_of_blocks() -> None:
    problem = block_stack(8)
    peak = simulate(problem, baseline(problem)).peak_bytes
    for fraction in (0.8, 0.6, 0.5):
        plan = mincut(problem, int(peak * fraction))
        assert plan.status is not Status.INFEASIBLE
        assert plan.peak_bytes <= peak * fraction
        assert plan.lower_bound <= plan.cost
        assert plan.cost - plan.lower_bound <= 0.02 * problem.baseline_cost


_SLOPES = st.floats(-9, 9).filter(lambda slope: slope == 0 or abs(slope) > 1e-3)
_LINES = st.lists(st.tuples(st.floats(-50, 50), _SLOPES), min_size=1, max_size=10)


@given(_LINES, st.floats(0, 5), st.floats(0, 4))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_top_of_lines_is_that_of_the_linear_program(
    lines: list[tuple[float, float]], low: float, width: float
) -> None:
    cuts = [(value, np.array([slope])) for value, slope in lines]
    ends = np.array([low]), np.array([low + width])
    (place,), height = top_of_lines(cuts, *ends)
    assert low <= place <= low + width
    assert height == pytest.approx(top_of_planes(cuts, *ends)[1], abs=1e-5)


def test_top_of_nearly_parallel_lines() -> None:
    cuts = [(1.0, np.array([1.0])), (2.0, np.array([0.0])), (3.0, np.array([5e-324]))]
    (place,), height = top_of_lines(cuts, np.array([0.0]), np.array([4.0]))
    assert 1.0 <= place <= 4.0
    assert height == 2.0

"""Lower bounds: never above the optimum, over hundreds of random graphs, and useful."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import RematProblem, Status, simulate
from fxremat_solvers.bounds.cost_bound import main_chain, proof
from fxremat_solvers.bounds.peak_bound import peak_lower_bound
from fxremat_solvers.bounds.prices import top_of_lines, top_of_planes
from fxremat_solvers.bounds.relaxation import evaluate, relax
from fxremat_solvers.reference.exact import exact
from fxremat_solvers.reference.mincut import mincut
from tests.fxremat_solvers.budgets import budget_between, peak_of
from tests.fxremat_solvers.random_problems import random_problem, random_reruns
from tests.fxremat_solvers.small_graphs import block_stack, dropout_chain, time_stepping

Draw = Callable[[int, int], RematProblem]


@settings(max_examples=120, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 8), st.floats(0, 1))
@pytest.mark.parametrize("draw", [random_problem, random_reruns])
def test_bounds_are_below_the_optimum(draw: Draw, seed: int, n_ops: int, share: float) -> None:
    problem = draw(seed, n_ops)
    assert peak_lower_bound(problem) <= exact(problem, -1).peak_bytes
    budget = budget_between(problem, share)
    best = exact(problem, budget).cost
    found = proof(problem, budget)
    assert problem.baseline_cost - 1e-9 <= found.bound <= best + 1e-9
    if best == problem.baseline_cost:
        assert found.bound == best
    for ops in found.schedules:
        simulate(problem, ops)


@settings(max_examples=120, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 7), st.floats(0, 1), st.data())
def test_any_positions_at_any_prices_bound_the_optimum(
    seed: int, n_ops: int, share: float, data: st.DataObject
) -> None:
    problem = random_reruns(seed, n_ops)
    budget = budget_between(problem, share)
    best = exact(problem, budget).cost - problem.baseline_cost
    if budget <= 0 or problem.cost_scale <= 0:
        return
    chain = main_chain(problem, budget)
    places = st.lists(st.integers(0, len(chain) - 1), min_size=1, max_size=4, unique=True)
    positions = sorted(data.draw(places))
    relaxation = relax(problem, [chain[place] for place in positions])
    scale = problem.cost_scale / budget
    dear = st.floats(0, 3).map(lambda price: price * scale)
    prices = np.array(data.draw(st.tuples(*[dear] * len(positions))))
    value, _ = evaluate(relaxation, prices, budget, problem.cost_scale / 1e9)
    assert value <= best + 1e-6


def test_the_bound_meets_a_plan_that_leaves_the_random_op_alone() -> None:
    problem = dropout_chain()
    assert proof(problem, 17).bound == 59.0
    for budget in range(exact(problem, 1).peak_bytes, 23):
        assert proof(problem, budget).bound <= exact(problem, budget).cost


def test_budgets_that_nothing_meets_have_an_infinite_bound() -> None:
    problem = time_stepping(5)
    assert proof(problem, 2).bound == math.inf
    assert exact(problem, 2).status is Status.INFEASIBLE


def test_where_the_baseline_fits_its_cost_is_the_bound() -> None:
    problem = block_stack(2)
    peak = peak_of(problem)
    assert proof(problem, peak).bound == problem.baseline_cost


def test_the_bound_falls_with_the_budget_and_is_the_same_each_time() -> None:
    problem = block_stack(3)
    peak = peak_of(problem)
    bounds = [proof(problem, int(peak * f)).bound for f in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)]
    assert bounds == sorted(bounds, reverse=True)
    assert proof(problem, int(peak * 0.5)).bound == bounds[1]


def test_a_plan_for_a_stack_of_blocks_is_close_to_the_bound() -> None:
    problem = block_stack(8)
    peak = peak_of(problem)
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


def test_nearly_parallel_lines_have_a_top() -> None:
    cuts = [(1.0, np.array([1.0])), (2.0, np.array([0.0])), (3.0, np.array([5e-324]))]
    (place,), height = top_of_lines(cuts, np.array([0.0]), np.array([4.0]))
    assert 1.0 <= place <= 4.0
    assert height == 2.0

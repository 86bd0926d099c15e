"""The exact search, against brute force and on graphs whose optimum is known by hand."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import (
    RematProblem,
    ScheduleError,
    SolverError,
    Status,
    Value,
    baseline,
    plain_op,
    simulate,
)
from fxremat_solvers.reference.exact import MAX_OPS, exact
from tests.fxremat_solvers.brute_force import least_cost
from tests.fxremat_solvers.budgets import budget_between
from tests.fxremat_solvers.random_problems import random_problem, random_reruns
from tests.fxremat_solvers.small_graphs import dropout_chain, time_stepping, with_state_always


def test_the_baseline_is_the_optimum_where_it_fits() -> None:
    problem = time_stepping(4)
    solution = exact(problem, simulate(problem, baseline(problem)).peak_bytes)
    assert solution.status is Status.OPTIMAL
    assert solution.cost == solution.lower_bound == problem.baseline_cost


def test_a_better_order_is_found() -> None:
    """Two big values, each reduced at once: the baseline order makes both before reducing.

    big1, big2, small1(big1), small2(big2), sum(small1, small2)
    """
    values = tuple(Value(f"v{k}", size) for k, size in enumerate([10, 10, 1, 1, 1]))
    ops = (
        plain_op("big1", (), (0,), 1.0, 0, False),
        plain_op("big2", (), (1,), 1.0, 0, False),
        plain_op("small1", (0,), (2,), 1.0),
        plain_op("small2", (1,), (3,), 1.0),
        plain_op("sum", (2, 3), (4,), 1.0),
    )
    problem = RematProblem(ops, values, (), (4,), None)
    assert simulate(problem, baseline(problem)).peak_bytes == 21
    solution = exact(problem, 12)
    assert solution.status is Status.OPTIMAL
    assert solution.cost == problem.baseline_cost


def test_infeasible_budgets_get_the_lowest_peak() -> None:
    problem = time_stepping(4)
    solution = exact(problem, 2)
    assert solution.status is Status.INFEASIBLE
    assert solution.lower_bound == math.inf
    assert exact(problem, solution.peak_bytes).status is Status.OPTIMAL
    assert exact(problem, solution.peak_bytes - 1).status is Status.INFEASIBLE


def test_large_graphs_are_refused() -> None:
    with pytest.raises(SolverError, match="at most"):
        exact(time_stepping(MAX_OPS), 5)


def test_what_nobody_reads_is_not_held() -> None:
    """One op with forty outputs that are freed at once, then one more of their size."""
    values = (*(Value(f"v{k}", 1) for k in range(41)), Value("end", 40))
    ops = (plain_op("many", (), tuple(range(41)), 1.0), plain_op("end", (40,), (41,), 1.0))
    problem = RematProblem(ops, values, (), (41,), None)
    assert exact(problem, 41).status is Status.OPTIMAL
    assert exact(problem, 40).status is Status.INFEASIBLE


def test_the_time_limit_holds() -> None:
    with pytest.raises(SolverError, match="its time"):
        exact(random_problem(3, 14), 1, time_limit_s=0.0)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.just(4), st.floats(0, 1))
def test_the_model_spelled_out_is_that_of_the_oracle(seed: int, n_ops: int, share: float):
    """Every schedule of up to three more runs than ops, by the oracle alone."""
    problem = random_reruns(seed, n_ops)
    n = len(problem.ops)
    budget = budget_between(problem, share)
    least = math.inf
    for length in range(n, min(n + 3, 7) + 1):
        for ops in itertools.product(range(n), repeat=length):
            try:
                replay = simulate(problem, ops)
            except ScheduleError:
                continue
            if replay.peak_bytes <= budget:
                least = min(least, replay.cost)
    best = least_cost(problem, budget)
    assert best <= least
    found = exact(problem, budget).schedule
    if len(found) <= min(n + 3, 7):
        assert best == least


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 6), st.floats(0, 1))
def test_no_schedule_is_cheaper_or_lower(seed: int, n_ops: int, share: float):
    problem = random_reruns(seed, n_ops)
    budget = budget_between(problem, share)
    best = least_cost(problem, budget)
    assert exact(problem, budget).cost == pytest.approx(best)
    below = exact(problem, -1).peak_bytes - 1
    assert least_cost(problem, below) == math.inf


def test_reruns_that_differ_change_the_optimum():
    """Were all runs of its random op alike the chain would have another one."""
    problem = dropout_chain()
    assert exact(problem, 17).cost == least_cost(problem, 17) == 59.0
    assert exact(with_state_always(problem), 17).cost == 109.0
    for budget in range(exact(problem, 1).peak_bytes, 23):
        assert exact(problem, budget).cost == least_cost(problem, budget)

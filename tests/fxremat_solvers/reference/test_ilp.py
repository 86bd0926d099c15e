"""The retention program: equal to brute force where its class holds the optimum."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import ArgumentError, Schedule, Status, simulate
from fxremat_solvers.reference.binomial import extra_advances
from fxremat_solvers.reference.exact import exact
from fxremat_solvers.reference.ilp import ilp
from fxremat_solvers.reference.mincut import mincut
from tests.fxremat_solvers.budgets import budget_between, peak_of, share_of_peak
from tests.fxremat_solvers.random_problems import random_problem
from tests.fxremat_solvers.small_graphs import block_stack, time_stepping


def in_class(schedule: Schedule) -> bool:
    """First runs in baseline order; between two of them, each op once and in baseline order."""
    newest = -1
    stage: list[int] = []
    for op in schedule:
        if op == newest + 1:
            newest, stage = op, []
        elif op > newest or (stage and op <= stage[-1]):
            return False
        else:
            stage.append(op)
    return True


@settings(max_examples=120, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 9), st.floats(0, 1))
def test_where_its_class_holds_the_optimum_it_is_found(seed: int, n_ops: int, share: float) -> None:
    problem = random_problem(seed, n_ops)
    budget = budget_between(problem, share)
    best = exact(problem, budget)
    found = ilp(problem, budget)
    replay = simulate(problem, found.solution.schedule)
    assert (replay.cost, replay.peak_bytes) == (found.solution.cost, found.solution.peak_bytes)
    if found.solution.status is Status.INFEASIBLE:
        assert not in_class(best.schedule)
        return
    assert replay.peak_bytes <= budget
    assert found.solution.lower_bound <= best.cost + 1e-9
    assert found.solution.cost >= best.cost - 1e-9
    if in_class(best.schedule):
        assert found.class_optimal
        assert found.solution.cost == pytest.approx(best.cost)
    if found.solution.status is Status.OPTIMAL:
        assert found.solution.cost == pytest.approx(best.cost)


@pytest.mark.parametrize(("n", "slots"), [(3, 1), (4, 2), (5, 2), (6, 3)])
def test_uniform_chains_get_the_binomial_minimum(n: int, slots: int) -> None:
    problem = time_stepping(n, turn="resident")
    solution = ilp(problem, slots + 3).solution
    assert solution.cost == pytest.approx(extra_advances(n, slots) + 1)


def test_a_warm_start_in_another_order_is_kept_or_improved() -> None:
    problem = block_stack(1)
    budget = share_of_peak(problem, 0.7)
    start = mincut(problem, budget, with_bound=False).schedule
    # Weight gradients may run later: swap the first with the op after it.
    steps = list(start)
    where = next(k for k, op in enumerate(steps) if problem.ops[op].name == "down_w0")
    steps[where], steps[where + 1] = steps[where + 1], steps[where]
    replay = simulate(problem, steps)
    solution = ilp(problem, budget, warm_start=Schedule(tuple(steps)), time_limit_s=2.0).solution
    if replay.peak_bytes <= budget:
        assert solution.cost <= replay.cost
    assert solution.peak_bytes <= budget


def test_a_time_limit_leaves_a_plan_and_an_honest_status() -> None:
    problem = block_stack(3)
    budget = share_of_peak(problem, 0.5)
    found = ilp(problem, budget, time_limit_s=1.0)
    assert found.solution.peak_bytes <= budget
    assert found.solution.status in (Status.TIME_LIMIT, Status.OPTIMAL)
    assert found.solution.lower_bound <= found.solution.cost


def test_a_budget_that_nothing_meets_is_infeasible() -> None:
    problem = time_stepping(4)
    solution = ilp(problem, 2).solution
    assert solution.status is Status.INFEASIBLE
    assert solution.peak_bytes > 2


def test_an_engine_that_is_not_known_is_an_error() -> None:
    problem = block_stack(1)
    for share in (0.7, 1.0):  # one to be searched for, and one that the baseline fits
        with pytest.raises(ArgumentError, match="engine is 'highs': choose one of HiGHS, CBC"):
            ilp(problem, share_of_peak(problem, share), engine="highs")


def test_a_baseline_that_fits_is_optimal() -> None:
    problem = block_stack(1)
    assert ilp(problem, peak_of(problem)).solution.status is Status.OPTIMAL

"""Priced cuts: schedules that replay and fit, the same each time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import Status, simulate
from fxremat_solvers.reference.exact import exact
from fxremat_solvers.reference.mincut import mincut
from tests.fxremat_solvers.budgets import budget_between, share_of_peak
from tests.fxremat_solvers.random_problems import random_problem
from tests.fxremat_solvers.small_graphs import block_stack


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 9), st.floats(0, 1))
def test_schedules_replay_and_are_not_below_the_optimum(
    seed: int, n_ops: int, share: float
) -> None:
    problem = random_problem(seed, n_ops)
    budget = budget_between(problem, share)
    plan = mincut(problem, budget, iterations=25)
    replay = simulate(problem, plan.schedule)
    assert (replay.cost, replay.peak_bytes) == (plan.cost, plan.peak_bytes)
    if plan.status is not Status.INFEASIBLE:
        assert plan.peak_bytes <= budget
        assert plan.cost >= exact(problem, budget).cost - 1e-9
    else:
        assert plan.peak_bytes > budget


def test_the_same_problem_gets_the_same_schedule() -> None:
    problem = block_stack(3)
    budget = share_of_peak(problem, 0.5)
    assert mincut(problem, budget).schedule == mincut(problem, budget).schedule


def test_a_stack_of_blocks_fits_half_the_memory_at_a_few_percent() -> None:
    problem = block_stack(6)
    budget = share_of_peak(problem, 0.5)
    plan = mincut(problem, budget, with_bound=False)
    assert plan.peak_bytes <= budget
    assert plan.cost <= 1.12 * problem.baseline_cost

"""Priced cuts: schedules that replay and fit, the same each time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import block_stack, random_problem

from fxremat_solvers import Status, baseline, simulate
from fxremat_solvers.closure import SINK, SOURCE, minimum_cut, network
from fxremat_solvers.exact import exact
from fxremat_solvers.mincut import mincut


def test_minimum_cut_pays_the_cheaper_side() -> None:
    """a on costs 5, b off costs 3, a on needs b on; a off costs 4."""
    a, b = 2, 3
    tails = np.array([a, SOURCE, a, SOURCE])
    heads = np.array([SINK, b, b, a])
    value, on = minimum_cut(network(4, tails, heads), np.array([5.0, 3.0, np.inf, 4.0]))
    assert value == 4
    assert not on[a]


def test_capacities_are_rounded_down() -> None:
    tails, heads = np.array([SOURCE, 2]), np.array([2, SINK])
    value, _ = minimum_cut(network(3, tails, heads), np.array([2.9, 7.0]))
    assert value == 2


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 200))
def test_what_crosses_the_cut_is_its_value(seed: int, n_nodes: int, n_arcs: int) -> None:
    """Arcs both ways, several beside each other and empty ones included."""
    rng = np.random.default_rng(seed)
    tails, heads = rng.integers(0, n_nodes, (2, n_arcs))
    capacities = rng.integers(0, 9, n_arcs) * 1.0
    value, on = minimum_cut(network(n_nodes, tails, heads), capacities)
    assert on[SOURCE]
    assert not on[SINK]
    assert value == capacities[on[tails] & ~on[heads]].sum()


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 9), st.floats(0, 1))
def test_schedules_replay_and_are_not_below_the_optimum(
    seed: int, n_ops: int, share: float
) -> None:
    problem = random_problem(seed, n_ops)
    top = simulate(problem, baseline(problem)).peak_bytes
    floor = exact(problem, -1).peak_bytes
    budget = floor + int(share * (top - floor))
    plan = mincut(problem, budget, iterations=25)
    replay = simulate(problem, plan.schedule)
    assert (replay.cost, replay.peak_bytes) == (plan.cost, plan.peak_bytes)
    if plan.status is not Status.INFEASIBLE:
        assert plan.peak_bytes <= budget
        assert plan.cost >= exact(problem, budget).cost - 1e-9
    else:
        assert plan.peak_bytes > budget


def test_same_problem_same_schedule() -> None:
    problem = block_stack(3)
    budget = simulate(problem, baseline(problem)).peak_bytes // 2
    assert mincut(problem, budget).schedule == mincut(problem, budget, seed=1).schedule


def test_a_stack_of_blocks_fits_half_the_memory_at_a_few_percent() -> None:
    problem = block_stack(6)
    budget = simulate(problem, baseline(problem)).peak_bytes // 2
    plan = mincut(problem, budget, with_bound=False)
    assert plan.peak_bytes <= budget
    assert plan.cost <= 1.12 * problem.baseline_cost

"""Brute force, on graphs whose optimum is known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_graphs import random_problem, time_stepping

from fxremat_solvers import (
    RematProblem,
    SolverError,
    Status,
    Value,
    baseline,
    plain_op,
    simulate,
)
from fxremat_solvers.exact import MAX_OPS, exact
from fxremat_solvers.profile import profiler


def test_baseline_is_the_optimum_where_it_fits() -> None:
    problem = time_stepping(4)
    solution = exact(problem, simulate(problem, baseline(problem)).peak_bytes)
    assert solution.status is Status.OPTIMAL
    assert solution.cost == solution.lower_bound == problem.baseline_cost


def test_reordering_is_found() -> None:
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


def test_vectorised_replay_agrees_with_the_oracle() -> None:
    for seed in range(150):
        problem = random_problem(seed, 10)
        steps: list[int] = []
        for k in range(len(problem.ops)):
            if (seed + k) % 3 == 0:
                steps += [j for j in range(k) if problem.ops[j].recomputable and (seed + j) % 2]
            steps.append(k)
        figures = profiler(problem).running_bytes(np.array(steps))
        assert tuple(figures.tolist()) == simulate(problem, steps).running_bytes

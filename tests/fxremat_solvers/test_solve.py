"""Every solver by its name: sound plans, true bounds, and what can't be asked for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxremat_solvers import (
    SOLVERS,
    ArgumentError,
    BudgetError,
    RematProblem,
    SolveOptions,
    Status,
    UnknownSolverError,
    plain_op,
)
from fxremat_solvers.reference.exact import exact
from fxremat_solvers.testing import chain
from tests.fxremat_solvers.budgets import budget_between, share_of_peak
from tests.fxremat_solvers.random_problems import problems, random_problem, random_reruns
from tests.fxremat_solvers.small_graphs import dropout_chain
from tests.fxremat_solvers.soundness import assert_sound
from tests.fxremat_solvers.unhurried import solve


@given(problems(24), st.sampled_from([1.0, 0.8, 0.6, 0.4]))
@settings(max_examples=25, deadline=None)
def test_plans_are_sound_at_any_budget(problem: RematProblem, of_peak: float):
    budget = share_of_peak(problem, of_peak)
    for name in ("auto", "greedy"):
        assert_sound(problem, budget, solve(problem, budget, solver=name))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 8), st.floats(0, 1))
@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "exact"])
def test_bounds_and_statuses_are_true_where_reruns_differ(
    solver: str, seed: int, n_ops: int, share: float
):
    problem = random_reruns(seed, n_ops)
    budget = budget_between(problem, share)
    if budget > 0:
        best = exact(problem, budget).cost
        assert_sound(problem, budget, solve(problem, budget, solver=solver), best)


@settings(max_examples=20, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 8), st.floats(0, 1))
@pytest.mark.parametrize("solver", SOLVERS)
def test_what_a_solver_says_of_itself_is_true(solver: str, seed: int, n_ops: int, share: float):
    about, options = SOLVERS[solver], SolveOptions(solver, time_limit_s=300.0)
    problem = random_reruns(seed, n_ops)
    least = budget_between(problem, 0)
    found = about.run(problem, budget_between(problem, share), options)
    assert about.proves or found.lower_bound <= problem.baseline_cost
    assert about.several_runs or max(Counter(found.schedule.ops).values()) <= 2
    if about.complete:
        assert about.run(problem, least - 1, options).peak_bytes == least


@pytest.mark.parametrize("solver", ["auto", "exact", "greedy", "mincut", "ilp"])
def test_the_cheapest_schedule_leaves_the_random_op_alone(solver: str):
    problem = dropout_chain()
    solved = solve(problem, 17, solver=solver)
    assert_sound(problem, 17, solved, optimum=59.0)
    assert solved.cost == 59.0
    assert solved.schedule.ops.count(3) == 1
    if solver in ("auto", "exact"):
        assert solved.status is Status.OPTIMAL


@pytest.mark.parametrize("seed", range(1, 8, 2))
@pytest.mark.parametrize("solver", ["auto", "ilp", "mincut", "greedy"])
def test_one_dear_op_hides_nothing(seed: int, solver: str):
    """An op that costs ten million times the others and runs once: "optimal" still is."""
    problem = random_problem(seed, 11)
    first = replace(problem.ops[0], cost=1e8, reruns=())
    problem = replace(problem, ops=(first, *problem.ops[1:]))
    budget = exact(problem, 1).peak_bytes
    solved, best = solve(problem, budget, solver=solver), exact(problem, budget)
    assert solved.lower_bound <= best.cost
    if solved.status is Status.OPTIMAL:
        assert solved.cost == best.cost
    else:
        assert solver != "auto"


def test_no_proof_is_lost_where_nothing_fits():
    for solver in ("auto", "ilp", "exact"):
        assert solve(chain(5), 1, solver=solver).lower_bound == math.inf


def test_ops_without_values():
    problem = RematProblem(
        (plain_op("a", (), (), 1.0, 5), plain_op("b", (), (), 1.0, 9)), (), (), (), None
    )
    for solver in SOLVERS:
        assert solve(problem, 4, solver=solver).status is Status.INFEASIBLE


@pytest.mark.parametrize("budget", [0, -1, True, 1.5, "1"])
def test_a_budget_is_a_positive_integer(budget: object):
    with pytest.raises(BudgetError, match="positive integer"):
        solve(chain(2), budget)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "argument", [{"time_limit_s": math.nan}, {"preset": "slow"}, {"effort": 0.5}]
)
def test_other_arguments_are_checked(argument: dict[str, object]):
    with pytest.raises(ArgumentError, match=next(iter(argument))):
        solve(chain(4), 4, **argument)


def test_an_unknown_solver_is_told_the_names():
    with pytest.raises(UnknownSolverError, match="greedy"):
        solve(chain(2), 5, solver="magic")
    assert {"auto", "greedy", "mincut", "ilp", "exact"} <= set(SOLVERS)
